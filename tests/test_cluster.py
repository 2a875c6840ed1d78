"""Sharing work among machines: which rank or shard does what, and one sentence for an error."""

import sys

import numpy as np
import pytest
import torch
from test_cli import SMOKE, pdstudy, written

from pdstudy import Study
from pdstudy.data.batches import Vocabulary, stream
from pdstudy.data.masking import mask_rows, own_rows
from pdstudy.models import encoder
from pdstudy.run import engine_ray
from pdstudy.run.scheduler import RunError, steps_of_shard
from pdstudy.sizes import Size
from pdstudy.storage import paths
from pdstudy.study import plan, steps
from pdstudy.study.steps import Step


def masked(rows: int = 5):
    vocabulary = Vocabulary(64)
    ids = np.random.default_rng(0).integers(5, 64, size=(rows, 16))
    return mask_rows(ids, 0.3, vocabulary, stream(0, 0, 0))


def test_the_ranks_mean_gradient_is_the_whole_batchs():
    batch_of_all = masked()
    reader = encoder.new_masked_lm(encoder.bert_config(Size(2, 64), 64, 0.05, dropout=0.0), seed=0)

    def gradient(part, weight: float) -> torch.Tensor:
        reader.zero_grad()
        ids, positions, pieces = map(torch.from_numpy, part)
        (reader(ids, positions, pieces) * weight).backward()
        return torch.cat([p.grad.flatten() for p in reader.parameters()])

    parts = [own_rows(*batch_of_all, rank, 3) for rank in range(3)]
    assert np.array_equal(np.concatenate([ids for ids, _, _ in parts]), batch_of_all[0])
    assert len({len(pieces) for _, _, pieces in parts}) > 1, "equal parts would hide a wrong weight"
    mean = sum(gradient(part, 3 * len(part[2]) / len(batch_of_all[2])) for part in parts) / 3
    torch.testing.assert_close(mean, gradient(batch_of_all, 1.0), rtol=1e-4, atol=1e-7)


def test_one_rank_reads_the_batch_itself():
    for a, b in zip(own_rows(*masked(), 0, 1), masked(), strict=True):
        assert np.array_equal(a, b)


def test_more_ranks_than_rows_is_an_error():
    with pytest.raises(ValueError, match="2 rows cannot be shared by 3 ranks"):
        own_rows(*masked(2), 0, 3)


def test_shards_part_every_stage_evenly():
    made = plan.make(Study.read("quick"))
    parts = [steps_of_shard(made, (i, 4)) for i in range(4)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(made.steps)
    for stage in made.counts():
        sizes = [len(part & {s.digest for s in made.of_stage(stage)}) for part in parts]
        assert max(sizes) - min(sizes) <= 1
    assert steps_of_shard(made, None) == set(made.steps)


def test_small_students_share_a_gpu_and_bert_base_has_its_own():
    def share(stage: str, size: str) -> float:
        return engine_ray.gpu_share(Step(stage, {"size": size}, {}, ""))

    assert [share("distill", s) for s in ("2/128", "4/256", "4/512", "8/512", "12/768")] == [1 / 8, 1 / 8, 1 / 4, 1 / 2, 1]
    assert share("search", "12/768") == share("tokenizer", "2/128") == 0
    assert engine_ray.gpu_share(Step("label", {"texts": 9}, {}, "")) == 1 / 8


def test_a_node_with_other_code_or_without_the_store_computes_nothing(tmp_path, monkeypatch):
    step = Step("texts", {"task": "movies"}, {}, "texts")
    assert step.digest and engine_ray.code_problem(step) is None
    assert "does not see" in engine_ray.work(step, None, tmp_path / "store" / "work" / "progress", None, None).reason
    monkeypatch.setitem(steps.VERSION, "texts", 99)
    assert "another version of pdstudy" in engine_ray.code_problem(step)


def test_a_file_system_without_locks_is_named(tmp_path):
    shares = tmp_path / "store" / "work" / "progress"
    shares.mkdir(parents=True)
    assert "does not hold locks between nodes" in engine_ray.store_problem(shares), (
        "the lock is free, as a node would see without locks"
    )


def test_without_ray_one_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with pytest.raises(RunError, match=r"Ray is not installed; get it with: pip install -e '\.\[cluster\]'") as caught:
        engine_ray.connect(None, 1)
    assert caught.value.bad_input


BAD = {
    "no Ray there": (["--engine", "ray", "--address", "127.0.0.1:1"], "no Ray answers at 127.0.0.1:1; start one there"),
    "no port": (["--engine", "ray", "--address", "nowhere"], "no Ray answers at nowhere"),
    "address without ray": (["--address", "auto"], "add --engine ray"),
    "shard and ray": (["--engine", "ray", "--shard", "0/2"], "one run uses every node"),
    "shard too large": (["--shard", "4/4"], "--shard 4/4: expected i/N with i from 0 to N-1"),
    "shard of words": (["--shard", "first"], "--shard first: expected i/N"),
}


@pytest.mark.parametrize(("words", "sentence"), BAD.values(), ids=BAD)
def test_an_impossible_request_is_one_sentence_and_exit_2(tmp_path, words, sentence):
    done = pdstudy("run", written(tmp_path, SMOKE), *words, outputs=tmp_path / "outputs")
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("outputs/store/*/*"))


def test_the_sbatch_example_names_options_that_exist(tmp_path):
    text = (paths.ROOT / "docs" / "slurm.sbatch").read_text()
    usage = pdstudy("run", "--help", outputs=tmp_path).stdout
    assert all(word in text and word in usage for word in ("--shard", "--workers"))
