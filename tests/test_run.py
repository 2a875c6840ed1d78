"""A run computes what is missing, once; whatever kills it, the tables are those of an unbroken run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pdstudy import Study, paths, plan, results, run_study
from pdstudy.params import load
from pdstudy.run import RunError, run
from pdstudy.store import Store

TABLES = (results.METRICS, results.PREDICTIONS, results.SEARCHES)


def tables(folder: Path) -> dict[str, bytes]:
    """Return the bytes of a study's tables, seconds apart."""
    return {name: (folder / name).read_bytes() for name in TABLES}


@pytest.fixture(scope="module")
def small(smoke) -> Study:
    """The smoke study with one size: all of its steps are in the smoke study's store."""
    return Study(**load(paths.PARAMS / "smoke.yaml") | {"name": "small", "sizes": ["2/64"], "teacher": {"size": "2/64"}})


@pytest.fixture(scope="module")
def unbroken(small) -> dict[str, bytes]:
    """The small study's tables, from one run in this process."""
    run_study(small, workers=0)
    return tables(paths.study_folder("small"))


def start(study: Study, outputs: Path, workers: int = 2) -> subprocess.Popen:
    """Start a study in its own process group and store."""
    outputs.mkdir(exist_ok=True)
    file = outputs / "study.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json")))
    environment = os.environ | {"PDSTUDY_OUTPUTS": str(outputs)}
    command = [sys.executable, "-m", "pdstudy", "run", str(file), "--workers", str(workers)]
    return subprocess.Popen(command, env=environment, cwd=outputs, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(outputs: Path, artifacts: int, process: subprocess.Popen) -> None:
    """Wait until the store holds so many artifacts."""
    until = time.monotonic() + 200
    while len(list(outputs.glob("store/*/*/manifest.json"))) < artifacts:
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]


def test_the_smoke_study_is_whole(smoke):
    metrics = results.load_results("smoke")
    test = metrics[(metrics.split == "test") & (metrics.metric == "accuracy")]
    students = test[test.recipe.isin(smoke.recipes)]
    assert len(students) == len(smoke.recipes) * len(smoke.sizes) * len(smoke.seeds)
    assert {"teacher", "majority"} <= set(test.recipe)
    assert {
        "study",
        "task",
        "recipe",
        "size",
        "seed",
        "split",
        "metric",
        "value",
        "n",
        "n_params",
        "seconds",
        "tokens",
        "digest",
    } <= set(metrics)
    assert students.n.eq(300).all() and students.seconds.notna().all() and students.value.between(0, 1).all()
    starts = metrics[metrics.recipe == "start"]
    assert {"mlm_loss", "mlm_accuracy", "unigram_loss", "unigram_accuracy"} == set(starts.metric)
    predictions = results.load_predictions("smoke")
    assert set(students.digest) <= set(predictions.digest)
    row = students.iloc[0]
    mine = predictions[(predictions.digest == row.digest) & (predictions.split == "test")]
    assert (mine.label == mine.predicted).mean() == pytest.approx(row.value)


def test_every_step_of_training_leaves_a_log(smoke):
    logs = list((paths.study_folder("smoke") / "logs").glob("pretrain*.jsonl"))
    record = json.loads(logs[0].read_text().splitlines()[-1])
    assert {"step", "loss", "rate", "grad_norm", "tokens", "seconds"} <= set(record)


def test_a_second_run_computes_nothing_and_writes_the_same_bytes(smoke):
    before = tables(paths.study_folder("smoke"))
    summary = run(plan.make(smoke), Store())
    assert (summary.computed, summary.failures) == (0, [])
    run_study(smoke)
    assert tables(paths.study_folder("smoke")) == before
    assert results.load_environment("smoke")["steps"]["computed"] == 0


def test_steps_are_shared_between_studies(small, unbroken):
    steps = results.load_environment("small")["steps"]
    assert steps["distinct"] < steps["asked"]
    assert steps["computed"] < steps["distinct"]  # the smoke study had made the texts, the starts and Basic


def test_killed_at_three_moments_and_once_in_a_worker_the_tables_are_those_of_an_unbroken_run(small, unbroken, tmp_path):
    total = len(plan.make(small).steps)
    for artifacts in (2, total // 3, 2 * total // 3):
        process = start(small, tmp_path)
        wait_for(tmp_path, artifacts, process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    process = start(small, tmp_path)
    wait_for(tmp_path, total - 6, process)
    workers = [c for c in children(process.pid) if "spawn_main" in Path(f"/proc/{c}/cmdline").read_text()]
    os.kill(workers[0], signal.SIGKILL)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert tables(tmp_path / "small") == unbroken
    assert not list(tmp_path.glob("store/work/*/0*")), "checkpoints of finished steps are dropped"


def test_sigterm_ends_cleanly_and_leaves_no_process(small, tmp_path):
    process = start(small, tmp_path)
    wait_for(tmp_path, 3, process)
    workers = children(process.pid)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "the same command goes on" in said and "Traceback" not in said
    assert not any(
        Path(f"/proc/{pid}/cmdline").is_file() and "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text() for pid in workers
    )


def test_a_failing_step_stops_only_those_that_need_it(smoke):
    greedy = Study(**smoke.model_dump() | {"name": "greedy", "sizes": ["2/64"], "transfer": {"texts": 10**6}})
    with pytest.raises(RunError, match=r"D_T has [\d,]+ after cleaning; ask for fewer") as caught:
        run_study(greedy, workers=0)
    assert caught.value.bad_input
    found = results.load_results("greedy")
    assert {"Basic", "PF"} <= set(found.recipe) and not {"PD", "Distillation"} & set(found.recipe)


def test_more_labelled_texts_than_there_are_is_an_error_with_both_counts(smoke):
    greedy = Study(**smoke.model_dump() | {"name": "greedy", "splits": {"train": 10**5, "dev": 200, "test": 300}})
    with pytest.raises(RunError, match=r"asks for 100,000 texts, but dev and test leave 8,028"):
        run_study(greedy, workers=0)


def test_a_damaged_artifact_is_made_again(small, unbroken):
    store = Store()
    search = next(s for s in plan.make(small).of_stage("search") if "Basic" in s.label)
    weights = store.open(search.digest) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    run_study(small, workers=0)
    assert tables(paths.study_folder("small")) == unbroken


def test_a_search_whose_rates_all_collapse_looks_below(smoke):
    wild = {"epochs": 1, "batch": 32, "rates": [0.9, 1.0], "warmup": 0.0, "weight_decay": 0.01}
    study = Study(**smoke.model_dump() | {"name": "wild", "sizes": ["2/64"], "recipes": ["Basic"], "seeds": [0], "finetune": wild})
    run_study(study, workers=0)
    tried = results.load_searches("wild")
    basic = tried[tried.recipe == "Basic"]
    assert len(basic) == 4 and basic.rate.min() == pytest.approx(0.1)
    assert basic.chosen.sum() == 1
