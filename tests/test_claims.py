"""Verdicts on hand-made evidence: what is seen is supported, its opposite refuted, the rest undecided or missing."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pdstudy import claims, results
from pdstudy.claims import CLAIMS, Claim, FlatClaim

N_ITEMS = 400
SEEDS = [0, 1, 2]


@pytest.fixture
def study(tmp_path):
    """Return a function that writes a study in which each (recipe, size) is right on a given share of the texts."""

    def write(shares: dict[tuple[str, str], float], sizes=("2/64", "2/128"), missing=()) -> str:
        rng = np.random.default_rng(0)
        difficulty = rng.random(N_ITEMS)  # shared: hard texts are hard for every student
        metrics, parts = [], []
        for (recipe, size), share in shares.items():
            for seed in SEEDS:
                if (recipe, size, seed) in missing:
                    continue
                right = difficulty + rng.normal(0, 0.05, N_ITEMS) < share
                digest = f"{recipe}-{size}-{seed}"
                row = {"study": "x", "task": "movies", "recipe": recipe, "size": size, "seed": seed, "split": "test"}
                row |= {"metric": "accuracy", "value": right.mean(), "n": N_ITEMS, "n_params": 1000 * int(size.split("/")[1])}
                metrics.append(row | {"rate": 1e-3, "collapsed": False, "tokens": 1, "digest": digest})
                label = np.zeros(N_ITEMS, dtype=np.int16)
                columns = {"digest": [digest] * N_ITEMS, "split": ["test"] * N_ITEMS, "item": np.arange(N_ITEMS), "label": label}
                parts.append(pa.table(columns | {"predicted": (~right).astype(np.int16)}))
        pq.write_table(pa.Table.from_pylist(metrics, schema=results.COLUMNS), tmp_path / results.METRICS)
        pq.write_table(pa.concat_tables(parts), tmp_path / results.PREDICTIONS)
        (tmp_path / results.PARAMS).write_text(json.dumps({"sizes": list(sizes), "seeds": SEEDS}))
        return str(tmp_path)

    return write


def both(recipe, share):
    return {(recipe, size): share for size in ("2/64", "2/128")}


PD_OVER_PF = (Claim("R1a", "Pre-trained distillation beats pre-training with fine-tuning", "PD", "PF"),)
FLAT = (FlatClaim("R2", "Basic training is flat over size", "Basic"),)


def test_a_clear_gain_is_supported_and_measured_in_points(study):
    row = claims.judge(study(both("PD", 0.8) | both("PF", 0.7)), PD_OVER_PF).iloc[0]
    assert row.verdict == "supported"
    assert row.low < row.estimate < row.high and row.estimate == pytest.approx(10, abs=2)
    assert (row.n_seeds, row.n_items, row.n_sizes) == (3, N_ITEMS, 2)


def test_a_clear_loss_is_refuted(study):
    assert claims.judge(study(both("PD", 0.7) | both("PF", 0.8)), PD_OVER_PF).iloc[0].verdict == "refuted"


def test_no_difference_is_undecided(study):
    row = claims.judge(study(both("PD", 0.75) | both("PF", 0.75)), PD_OVER_PF).iloc[0]
    assert row.verdict == "undecided" and row.low < 0 < row.high


def test_a_missing_student_is_named_and_never_averaged_over(study):
    folder = study(both("PD", 0.8) | both("PF", 0.7), missing={("PD", "2/128", 1)})
    row = claims.judge(folder, PD_OVER_PF).iloc[0]
    assert row.verdict == "not measured" and "PD 2/128 seed 1" in row.reading
    assert claims.shown(claims.judge(folder, PD_OVER_PF)).points.iloc[0] == "missing"


def test_a_study_without_the_recipe_gets_no_verdict(study):
    assert claims.judge(study(both("PD", 0.8)), PD_OVER_PF).iloc[0].verdict == "not measured"


def test_flat_needs_the_whole_interval_within_the_margin(study):
    grows = {("Basic", "2/64"): 0.6, ("Basic", "2/128"): 0.8}
    assert claims.judge(study(grows), FLAT).iloc[0].verdict == "refuted"
    assert claims.judge(study(both("Basic", 0.75)), FLAT).iloc[0].verdict in ("undecided", "supported")


def test_identical_answers_give_no_interval_and_no_verdict(study):
    row = claims.judge(study(both("Basic", 2.0)), FLAT).iloc[0]  # every text right, at both sizes
    assert row.verdict == "undecided" and np.isnan(row.low)
    assert "no answer differs" in row.reading


def test_the_answer_is_made_from_the_numbers(study):
    shares = both("PD", 0.8) | both("PF", 0.75) | both("Distillation", 0.7) | both("Basic", 0.6)
    before = claims.answer(claims.judge(study(shares)))
    after = claims.answer(claims.judge(study(shares | both("PD", 0.6))))
    assert before.startswith(f"Of {len(CLAIMS)} claims")
    assert "Pre-trained distillation beats pre-training with fine-tuning: supported" in before
    assert "Pre-trained distillation beats pre-training with fine-tuning: refuted" in after


def test_prose_is_escaped():
    assert claims.Prose("<script>")._repr_html_() == '<p class="answer">&lt;script&gt;</p>'


def test_holm_corrects_over_the_family(study):
    shares = both("PD", 0.8) | both("PF", 0.75) | both("Distillation", 0.7) | both("Basic", 0.6)
    table = claims.judge(study(shares))
    assert (table.p_holm >= table.p).all() and (table.p_holm > table.p).any()


def test_claims_are_saved_as_json_without_nan(study):
    folder = study(both("PD", 0.8))
    rows = json.loads(claims.save(claims.judge(folder), folder).read_text())
    assert [r["id"] for r in rows] == [c.id for c in CLAIMS]
    assert all(r["estimate"] is None for r in rows)
