"""A run computes what is missing, once. Killed runs are in tests/faults."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from first_question import FIRST_QUESTION
from safetensors.torch import save_file

from pdstudy import Study, run_study
from pdstudy.models import weights as modelfiles
from pdstudy.models.train import Watch
from pdstudy.run import execute, model_steps, result_tables
from pdstudy.run.inputs import Inputs
from pdstudy.run.scheduler import RunError, run
from pdstudy.storage import paths, results
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.yaml_file import load

TABLES = (results.METRICS, results.PREDICTIONS, results.SEARCHES)


def tables(folder: Path) -> dict[str, bytes]:
    """Return the bytes of a study's tables, seconds apart."""
    return {name: (folder / name).read_bytes() for name in TABLES}


@pytest.fixture(scope="module")
def small(smoke) -> Study:
    """The smoke study with one size: all of its steps are in the smoke study's store."""
    return Study(
        **load(paths.PARAMS / "smoke.yaml")
        | FIRST_QUESTION
        | {"name": "small", "sizes": ["2/64"], "teacher": {"size": "2/64", "margin": -1}}
    )


@pytest.fixture(scope="module")
def unbroken(small) -> dict[str, bytes]:
    """The small study's tables, from one run in this process."""
    run_study(small, workers=0)
    return tables(paths.study_folder("small"))


def test_the_smoke_study_has_all_its_results(smoke):
    metrics = results.load_results("smoke")
    test = metrics[(metrics.split == "test") & (metrics.metric == "accuracy")]
    students = test[test.recipe.isin(smoke.recipes)]
    assert len(students) == sum(len(smoke.sizes_of(recipe)) for recipe in smoke.recipes) * len(smoke.seeds)
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
    before, made_by = tables(paths.study_folder("smoke")), results.load_environment("smoke")
    written = (paths.study_folder("smoke") / results.METRICS).stat().st_mtime_ns
    summary = run(plan.make(smoke), Store())
    assert (summary.computed, summary.failures) == (0, [])
    run_study(smoke)
    assert tables(paths.study_folder("smoke")) == before
    unchanged = "its date says when its content last changed, so the verdicts hold"
    assert (paths.study_folder("smoke") / results.METRICS).stat().st_mtime_ns == written, unchanged
    assert results.load_environment("smoke") == made_by, "the record stays that of the run that made the numbers"


def test_results_name_the_gpu_that_computed_their_steps(smoke, tmp_path, monkeypatch):
    shutil.copytree(paths.STORE, tmp_path / "store", copy_function=os.link)
    shutil.copytree(paths.study_folder("smoke"), tmp_path / "smoke")
    store = Store(tmp_path / "store")
    manifest = store.open(plan.make(smoke).students[0].evaluation) / "manifest.json"
    record = json.loads(manifest.read_text())
    manifest.unlink()  # it is a link to the one of the other tests
    manifest.write_text(json.dumps(record | {"device": "NVIDIA H200"}))
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    result_tables.write(plan.make(smoke), store, results.load_environment("smoke"))
    assert results.load_environment("smoke")["devices"] == ["NVIDIA H200"]
    assert "· NVIDIA H200, reported on " in results.provenance("smoke")


def test_steps_computed_by_another_run_meanwhile_are_counted_as_reused(smoke):
    from pdstudy.run.engine_local import LocalEngine
    from pdstudy.run.scheduler import Summary, _run_steps

    todo, summary, n_done = dict(plan.make(smoke).steps), Summary(), []
    with LocalEngine(Store(), 0, None, None) as engine:  # as if they had come after this run had looked
        _run_steps(todo, engine, summary, lambda progress: n_done.append(progress.done), set(todo))
    assert (summary.computed, summary.reused, n_done[-1]) == (0, len(todo), len(todo))


def test_steps_are_shared_between_studies(small, unbroken):
    steps = results.load_environment("small")["steps"]
    assert steps["distinct"] < steps["asked"]
    assert steps["computed"] < steps["distinct"]  # the smoke study had made the texts, the starts and Basic


def test_a_failing_step_stops_only_those_that_need_it(smoke):
    greedy = Study(**smoke.model_dump() | FIRST_QUESTION | {"name": "greedy", "sizes": ["2/64"], "transfer": {"texts": 10**6}})
    with pytest.raises(RunError, match=r"D_T has [\d,]+ after cleaning; ask for fewer") as caught:
        run_study(greedy, workers=0)
    assert caught.value.bad_input
    metrics = results.load_results("greedy")
    assert {"Basic", "PF"} <= set(metrics.recipe) and not {"PD", "Distillation"} & set(metrics.recipe)


def test_a_transfer_set_smaller_than_asked_for_ends_the_run_before_anything_is_trained(smoke):
    short = {"domains": {"corpora": ["news"], "texts": 10**6, "sizes": ["2/64"], "recipes": ["PD"]}, "seeds": [5]}
    study = Study(**smoke.model_dump() | FIRST_QUESTION | short | {"name": "short"})
    before = Store().digests()
    with pytest.raises(
        RunError, match=r"domains\.texts asks for 1,000,000 texts of news, which has [\d,]+; ask for fewer"
    ) as caught:
        run_study(study, workers=1)
    assert caught.value.bad_input
    made = [s.stage for s in plan.make(study).steps.values() if s.digest in Store().digests() - before]
    assert set(made) <= {"texts", "tokenizer", "ids"}, "no model was trained for it"


def test_more_labelled_texts_than_there_are_is_an_error_with_both_counts(smoke):
    greedy = Study(**smoke.model_dump() | FIRST_QUESTION | {"name": "greedy", "splits": {"train": 10**5, "dev": 200, "test": 300}})
    with pytest.raises(RunError, match=r"asks for 100,000 texts, but dev and test leave 8,028"):
        run_study(greedy, workers=0)


def test_a_damaged_artifact_is_computed_again(small, unbroken):
    store = Store()
    search = next(s for s in plan.make(small).of_stage("search") if "Basic" in s.label)
    weights = store.open(search.digest) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    run_study(small, workers=0)
    assert tables(paths.study_folder("small")) == unbroken
    for left in store.root.glob("*/.damaged-*"):  # other tests look at this store
        shutil.rmtree(left)


def test_a_search_whose_rates_all_collapse_tries_lower_rates(smoke):
    wild = {"epochs": 1, "batch": 32, "rates": [0.9, 1.0], "warmup": 0.0, "weight_decay": 0.01}
    more = {"sizes": ["2/64"], "recipes": ["Basic"], "seeds": [0], "distill": wild}
    study = Study(**smoke.model_dump() | FIRST_QUESTION | more | {"name": "wild", "finetune": wild})
    run_study(study, workers=0)
    tried = results.load_searches("wild")
    basic = tried[tried.recipe == "Basic"]
    assert len(basic) == 4 and basic.rate.min() == pytest.approx(0.1)
    assert basic.chosen.sum() == 1


# Given folders, trackers


@pytest.fixture
def one_thread():
    """Compute as a worker does: the order of sums is part of every bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def saved_teacher(small, unbroken, tmp_path) -> Path:
    """A fine-tuned classifier of the small study with its tokenizer, as somebody would have saved it."""
    store, made = Store(), plan.make(small)
    teacher = next(s for s in made.students if s.recipe == "teacher")
    folder = tmp_path / "my teacher"
    shutil.copytree(store.open(teacher.model), folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(store.open(made.of_stage("tokenizer")[0].digest) / name, folder / name)
    return folder


def with_teacher(small: Study, folder: Path) -> Study:
    return Study(
        **small.model_dump() | {"name": "given", "recipes": ["PD"], "teacher": {"size": None, "folder": str(folder), "margin": -1}}
    )


def test_a_teacher_from_a_folder_labels_as_it_did_where_it_was_trained(small, saved_teacher):
    run_study(with_teacher(small, saved_teacher), workers=0)
    metrics, before = results.load_results("given"), results.load_results("small")

    def teacher(table):
        return table[(table.recipe == "teacher") & (table.split == "test")].set_index("metric").value

    assert teacher(metrics).to_dict() == pytest.approx(teacher(before).to_dict())
    store, made = Store(), plan.make(with_teacher(small, saved_teacher))
    logits = [
        np.load(store.open(p.of_stage("label")[0].digest) / "logits.npy") for p in (made, plan.make(small))
    ]  # its own word pieces are the same ones here, so the soft labels are too
    np.testing.assert_array_equal(*logits)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({"0": "positive", "1": "negative"}, "set id2label in its config.json"),
        ({"0": "a", "1": "b", "2": "c"}, "3 classes, the task 2"),
    ],
)
def test_a_teacher_whose_labels_do_not_match_by_name_is_refused(small, saved_teacher, names, sentence):
    config = json.loads((saved_teacher / "config.json").read_text())
    config |= {"id2label": names, "label2id": {v: int(k) for k, v in names.items()}}
    (saved_teacher / "config.json").write_text(json.dumps(config))
    if len(names) == 3:
        weights = modelfiles.load_weights(saved_teacher)
        for name in ("classifier.weight", "classifier.bias"):
            weights[name] = torch.cat([weights[name], weights[name][:1]])
        save_file(weights, saved_teacher / "model.safetensors")
    with pytest.raises(RunError, match=sentence) as caught:
        run_study(with_teacher(small, saved_teacher), workers=0)
    assert caught.value.bad_input
    assert "PD" not in set(results.load_results("given").recipe)


def test_a_tokenizer_from_a_folder_gives_the_same_pieces(small, saved_teacher):
    study = Study(**small.model_dump() | {"name": "folder", "tokenizer": {"vocabulary": 2048, "folder": str(saved_teacher)}})
    store, mine, theirs = Store(), plan.make(small), plan.make(study)
    steps = [s for s in theirs.steps.values() if s.stage in ("texts", "tokenizer", "ids")]
    for step in steps:
        if store.find(step.digest) is None:
            execute.execute(step, store, Watch())
    for a, b in zip(mine.of_stage("ids"), theirs.of_stage("ids"), strict=True):
        assert a.digest != b.digest and a.settings == b.settings
        for name in {p.name for p in store.open(a.digest).glob("*.npy")}:
            np.testing.assert_array_equal(np.load(store.open(a.digest) / name), np.load(store.open(b.digest) / name))


def test_training_is_mirrored_to_tensorboard_without_changing_it(small, unbroken, tmp_path, one_thread):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    step = next(s for s in plan.make(small).of_stage("finetune") if "Basic" in s.label and "rate" in s.settings)
    store = Store(tmp_path / "store", families=())
    shutil.copytree(Store().open(step.parents["ids"]), store.root / "ids" / step.parents["ids"])
    execute.execute(step, store, Watch(tracker="tensorboard", tracker_folder=tmp_path / "logs", label=step.label, log_every=5))
    (events,) = (tmp_path / "logs").rglob("events.out.tfevents*")
    events_read = EventAccumulator(str(events.parent)).Reload()
    assert {"loss", "rate", "grad_norm"} <= set(events_read.Tags()["scalars"])
    weights = [s.open(step.digest) / "model.safetensors" for s in (store, Store())]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_the_counts_of_the_texts_are_reported(smoke):
    counts = results.load_counts("smoke")
    assert {"D_L", "D_T", "D_LM", "train", "dev", "test"} <= set(counts.index)
    row = counts.loc["D_L"]
    assert row["read"] == 8530 and row["read"] == row[["empty", "exact", "normalised", "leaks", "kept"]].sum()
    assert counts.loc["test", "kept"] == 300 and counts.loc["D_T", "pieces"] > 0


def test_domains_of_earlier_settings_are_removed(smoke):
    study = Study.read("smoke", {"name": "no-domains", "domains": {"corpora": []}})
    folder = paths.study_folder("no-domains")
    folder.mkdir()
    (folder / results.DOMAINS).write_text("[]")
    result_tables.write(plan.make(study), Store(), results.load_environment("smoke"))
    assert not (folder / results.DOMAINS).exists() and (paths.study_folder("smoke") / results.DOMAINS).exists()


def test_too_little_held_out_text_is_said_before_pre_training(monkeypatch, tmp_path):
    monkeypatch.setattr(model_steps, "train_encoder", lambda *_: pytest.fail("trained"))
    inputs = SimpleNamespace(ids=lambda name: SimpleNamespace(flat=np.zeros(34)))
    with pytest.raises(
        ValueError, match=r"34 word pieces are held out of D_LM, fewer than two rows of 64 .*: raise corpus\.heldout"
    ):
        model_steps.pretrain(None, inputs, tmp_path, Watch())


def test_more_labels_than_there_are_are_not_given(tmp_path):
    pq.write_table(pa.table({"label": [0, 1, 1]}), tmp_path / "train.parquet")
    inputs = SimpleNamespace(takes_word_pieces=False, folder=lambda role: tmp_path, labels=["a", "b"])
    assert Inputs.labelled(inputs, "train", 2).labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"4 labels are asked for \(curves.labels\), and train has 3; ask for fewer"):
        Inputs.labelled(inputs, "train", 4)
