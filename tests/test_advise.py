"""The recommendation on hand-made evidence: who is chosen, what is said of the others, and that promises are kept."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pdstudy import advise, results
from pdstudy.advise import AdviceError, Candidates, Limits, front, promise, recommend

PARAMS = {"2/128": 1_000_000, "4/128": 1_500_000, "4/256": 5_000_000, "4/512": 20_000_000}
LATENCY = {"2/128": 1.0, "4/128": 2.0, "4/256": 4.0, "4/512": 12.0}
N = {"dev": 600, "test": 800}


@pytest.fixture
def study(tmp_path):
    """Return a function that writes a study whose students are right with these chances; hard texts are hard for all."""

    def write(chances: dict[tuple[str, str], float], seeds=(0, 1, 2), seed: int = 0, latency: bool = True) -> str:
        rng = np.random.default_rng(seed)
        difficulty = {split: rng.random(n) for split, n in N.items()}
        metrics, parts = [], []
        for (recipe, size), chance in chances.items():
            for s in (0,) if recipe == "teacher" else seeds:
                digest = f"{recipe}-{size}-{s}"
                luck = rng.normal(0, 0.005)
                for split, hard in difficulty.items():
                    right = hard + rng.normal(0, 0.05, len(hard)) < chance + luck
                    row = {"recipe": recipe, "size": size, "seed": s, "split": split, "metric": "accuracy", "value": right.mean()}
                    metrics.append(row | {"n": len(hard), "n_params": PARAMS[size], "digest": digest})
                    columns = {"digest": [digest] * len(hard), "split": [split] * len(hard), "label": np.zeros(len(hard), int)}
                    parts.append(pa.table(columns | {"predicted": (~right).astype(int)}))
        metrics += [{"recipe": "majority", "split": split, "metric": "accuracy", "value": 0.5} for split in N]
        pq.write_table(pa.Table.from_pylist(metrics, schema=results.COLUMNS), tmp_path / results.METRICS)
        pq.write_table(pa.concat_tables(parts), tmp_path / results.PREDICTIONS)
        (tmp_path / results.PARAMS).write_text(json.dumps({"transfer": {"texts": 4000}, "splits": {"train": 1000}}))
        (tmp_path / results.TEXTS).write_text(json.dumps({"train": {"kept": 1000}}))
        if latency:
            sizes = {size: {"p50": ms, "p95": 2 * ms, "throughput": 1000 / ms} for size, ms in LATENCY.items()}
            (tmp_path / advise.LATENCY).write_text(json.dumps({"sizes": sizes}))
        return str(tmp_path)

    return write


CHANCES = {
    ("teacher", "4/512"): 0.85, ("PD", "2/128"): 0.75, ("PD", "4/128"): 0.79, ("PF", "4/128"): 0.72, ("PD", "4/256"): 0.83,
    ("Basic", "4/256"): 0.70,
}  # fmt: skip


def said(study: str, limits: Limits = advise.NONE) -> str:
    return recommend(Candidates(study, limits)).prose()


def test_the_best_on_dev_within_the_limits_is_chosen(study):
    written = study(CHANCES)
    assert recommend(Candidates(written)).student.startswith("4/256-PD-s")
    assert recommend(Candidates(written, Limits(latency_ms=3))).student.startswith("4/128-PD-s")
    assert recommend(Candidates(written, Limits(size_mb=4.5))).student.startswith("2/128-PD-s")


def test_what_a_dearer_student_would_add_is_said_with_its_price(study):
    words = said(study(CHANCES), Limits(latency_ms=3))
    assert "Take 4/128 by PD (6 MB, 2.0 ms a text)" in words
    assert "Take 4/256 by PD if 14 MB more and 2.0 ms more are free: +" in words
    assert "points below the teacher (95 %" in words and "6.0 times as fast" in words


def test_a_smaller_student_that_cannot_be_told_apart_is_named_and_one_that_can_is_not(study):
    words = said(study(CHANCES | {("PD", "4/256"): 0.792}))
    assert "4/128 by PD, 6 MB, is not distinguishable from it" in words or "Take 4/128 by PD" in words
    assert "2/128 by PD, 4 MB" not in words
    assert "Every smaller student is worse beyond luck" in said(study(CHANCES))


def test_limits_that_no_student_keeps_are_refused_with_what_would_have_to_give(study):
    with pytest.raises(AdviceError, match=r"the fastest takes 1.00 ms, the smallest 4.0 MB"):
        recommend(Candidates(study(CHANCES), Limits(latency_ms=0.5)))


def test_a_latency_that_was_not_measured_keeps_no_limit_and_is_said(study):
    written = study(CHANCES, latency=False)
    assert "latency not measured" in said(written)
    with pytest.raises(AdviceError):
        recommend(Candidates(written, Limits(latency_ms=100)))


def test_one_seed_gives_an_interval_over_texts_alone_and_no_warning(study):
    found = Candidates(study(CHANCES, seeds=(0,)))
    rows = found.table.set_index(["recipe", "size"], drop=False)
    effect = found.difference(rows.loc[("PD", "4/256")], rows.loc[("PD", "2/128")])
    assert effect.known and effect.low > 0 and effect.n_seeds in (1, N["dev"])


def test_promises_are_kept_as_often_as_they_say(study):
    kept = []
    for seed in range(60):
        found = Candidates(study({("PD", "2/128"): 0.7, ("PD", "4/128"): 0.72, ("PF", "4/128"): 0.71}, seed=seed))
        row = recommend(found).chosen
        test = 100 * found.right(row.recipe, row["size"], "test", [row.best_seed]).mean()
        kept.append(row.low <= test <= row.high)
    assert np.mean(kept) > 0.85, "95 % less the luck of having been chosen"


def test_a_promise_is_wider_for_fewer_texts_and_never_certain():
    right = np.ones((2, 100))
    low, high = promise(right, 1000, 0.0)
    assert low < 0.99 and high == 1.0
    widths = [np.diff(promise(np.tile([1.0, 0.0], (3, n // 2)), n, 0.01))[0] for n in (100, 400, 1600)]
    assert widths[0] > widths[1] > widths[2] > 0.04


def test_a_front_holds_what_nothing_beats():
    cost, value = np.array([1, 2, 2, 3, math.nan, 4]), np.array([70, 75, 74, 75, 99, 80])
    assert front(cost, value).tolist() == [True, True, False, False, False, True]
