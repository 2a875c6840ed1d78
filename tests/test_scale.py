"""Scores as labels, STS-B's: read as steps of a scale, measured by correlation."""

import math

import numpy as np
import pandas as pd
import pytest

from pdstudy import Study, run_study
from pdstudy.data import sources
from pdstudy.data.batches import Ids, Labelled
from pdstudy.data.formats import TextError
from pdstudy.data.tasks import SCALE, TASKS
from pdstudy.models import evaluate
from pdstudy.release import export
from pdstudy.run import student_steps
from pdstudy.storage import paths
from pdstudy.storage.store import Store

TASK = TASKS["stsb"]


def mirror(folder, train: int = 400, validation: int = 120) -> None:
    """Write pairs whose score is half the number of times that the second says "alike"."""
    rng = np.random.default_rng(0)
    for split, n in (("train", train), ("validation", validation)):
        alike = rng.integers(0, 11, n)
        seconds = [" ".join(rng.permutation(["alike"] * k + ["other"] * (10 - k))) for k in alike]
        firsts = [" ".join(rng.choice(["a", "b", "c", "d"], 6)) + f" {i}" for i in range(n)]
        (folder / "stsb").mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame({"sentence1": firsts, "sentence2": seconds, "label": (alike / 2).astype(np.float32)})
        table.to_parquet(folder / "stsb" / f"{split}.parquet")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    return tmp_path / "data"


def test_a_score_is_the_class_of_the_nearest_fifth(place):
    mirror(place)
    table = pd.read_parquet(place / "stsb" / "train.parquet")
    table.loc[:3, "label"] = np.float32([0.0, 3.8, 2.917, 5.0])
    table.to_parquet(place / "stsb" / "train.parquet")
    raw = sources.read(TASK)
    assert [SCALE[y] for _, y in raw.labelled["train"][:4]] == ["0.0", "3.8", "3.0", "5.0"]
    assert raw.labels == SCALE and len(SCALE) == 26


@pytest.mark.parametrize("label", [-1.0, 5.2, float("nan")])
def test_a_score_off_the_scale_is_refused_by_its_row(place, label):
    mirror(place)
    table = pd.read_parquet(place / "stsb" / "train.parquet")
    table.loc[2, "label"] = label
    table.to_parquet(place / "stsb" / "train.parquet")
    with pytest.raises(TextError, match=r"stsb/train.parquet, row 3: the label is .*, not a score from 0 to 5"):
        sources.read(TASK)


def test_the_correlations_are_those_of_the_expected_step():
    logits = np.log(np.array([[0.5, 0.5, 1e-30], [1e-30, 0.5, 0.5], [0.2, 0.2, 0.6]]))  # expected: 0.5, 1.5, 1.4
    scores = evaluate.metrics(logits, np.array([0, 1, 2]), scale=True)
    x, y = np.array([0.5, 1.5, 1.4]) - 3.4 / 3, np.array([-1.0, 0.0, 1.0])
    assert scores["pearson"] == pytest.approx((x @ y) / math.sqrt((x @ x) * (y @ y)), abs=1e-9)
    assert scores["spearman"] == pytest.approx(0.5)  # ranks 1, 3, 2 against 1, 2, 3
    assert "pearson" not in evaluate.metrics(logits, np.array([0, 1, 2]))


def test_one_answer_to_all_correlates_with_nothing_and_has_learned_nothing():
    scores = evaluate.metrics(np.zeros((4, 3)), np.array([0, 1, 2, 0]), scale=True)
    assert scores["pearson"] == scores["spearman"] == 0.0
    dev = Labelled(Ids(np.zeros(4, np.uint16), np.arange(5)), np.array([0, 1, 2, 0]), scale=True)
    assert dev.above_baseline(scores) == 0.0
    assert Labelled(dev.ids, dev.labels).above_baseline({"accuracy": 0.75}) == pytest.approx(0.25)


def test_a_study_of_scores_runs_and_measures_them(place, settings, tmp_path, monkeypatch):
    mirror(place)
    train = {"epochs": 8, "batch": 16, "rates": [0.001], "warmup": 0.1, "weight_decay": 0.01}
    settings |= {
        "name": "scores", "task": "stsb", "sizes": ["2/64"], "recipes": ["Basic", "Distillation"], "seeds": [0],
        "splits": {"train": 0, "dev": 100, "test": 1, "seed": 0}, "tokenizer": {"vocabulary": 64, "folder": None},
        "teacher": {"size": "2/64", "folder": None, "margin": 0.3}, "transfer": {"texts": 250},
        "finetune": train, "distill": train | {"temperature": 1.0}, "corpus": {"documents": None, "heldout": 0.3},
    }  # fmt: skip
    settings["pretrain"] = {"tokens": 2000, "row": 16, "batch": 8}
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    store = Store(tmp_path / "outputs" / "store", families=())
    monkeypatch.setattr(export, "Store", lambda: store)
    metrics = run_study(Study(**settings), workers=0, store=store)
    scores = metrics[(metrics.split == "test")].set_index(["recipe", "metric"]).value
    for recipe in ("Basic", "Distillation"):
        assert scores[recipe, "pearson"] > 0.5 and scores[recipe, "spearman"] > 0.5, scores
    facts = export.export("scores", "2/64-Basic-s0", tmp_path / "model", onnx=False)
    assert facts["test"]["pearson"] == pytest.approx(scores["Basic", "pearson"], abs=1e-3)
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"| Pearson's r of the expected score | {facts['test']['pearson']:.3f} | |" in card and "type: pearsonr" in card
    settings["teacher"]["margin"] = 0.999
    with pytest.raises(Exception, match=r"the teacher's scores on dev have Pearson's r = 0\.\d\d with the right ones"):
        run_study(Study(**settings), workers=0, store=store)


def test_of_several_rates_the_one_with_the_better_correlation_is_taken():
    tried = [{"dev": {"accuracy": 0.2, "pearson": 0.5}, "rate": 1e-3}, {"dev": {"accuracy": 0.1, "pearson": 0.7}, "rate": 1e-4}]
    assert student_steps.better(tried)["rate"] == 1e-4
    assert (
        student_steps.better([{"dev": {"accuracy": 0.9}, "rate": 2e-3}, {"dev": {"accuracy": 0.9}, "rate": 1e-3}])["rate"] == 1e-3
    )
