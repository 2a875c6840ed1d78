"""Verdicts on hand-made studies: supported, refuted, undecided and not measured."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handmade import LATENCY, N_ITEMS, both, complete_study, write

from pdstudy import escape
from pdstudy.analysis import answers, contrasts, evidence
from pdstudy.analysis import verdicts as claims
from pdstudy.analysis.claims import CLAIMS, EQUAL, QUESTIONS, VALUE, Claim
from pdstudy.analysis.verdicts import REFUTED, SUPPORTED
from pdstudy.storage import results


@pytest.fixture
def study(tmp_path):
    """Return a function that writes a study; see handmade.write."""
    return lambda shares, **more: write(tmp_path, shares, **more)


@pytest.fixture
def whole_study(tmp_path):
    """Return a function that writes a study in which everything was measured; see handmade.complete_study."""
    return lambda *turn: complete_study(tmp_path, *turn)


def test_where_the_paper_is_right_every_claim_is_supported(whole_study):
    verdicts = claims.judge(whole_study()).set_index("id").verdict
    assert verdicts.drop("R13").to_dict() == dict.fromkeys(verdicts.index.drop("R13"), SUPPORTED)
    assert verdicts["R13"] == "not measured"  # no student of 6/768


def test_where_the_paper_is_wrong_every_claim_about_a_gain_is_refuted(whole_study):
    table = claims.judge(whole_study(lambda share: 1.35 - share))
    wrong = table[(table.should_be != EQUAL) & (table.n_seeds > 0)].set_index("id").verdict
    assert wrong.to_dict() == dict.fromkeys(wrong.index, REFUTED)
    assert claims.refuted_required(table) == ["V1", "V2"]


def test_every_answer_changes_with_the_numbers(whole_study):
    def every_answer(*turn) -> set[str]:
        folder = whole_study(*turn)
        table = claims.judge(folder)
        return {answers.answer(folder, table, question, with_scores=False) for question in QUESTIONS}

    before, after = every_answer(), every_answer(lambda share: 1.35 - share)
    assert len(before) == len(after) == len(QUESTIONS) and not before & after


def test_contrasts_have_the_values_of_their_definitions(whole_study):
    e = evidence.Evidence(whole_study())
    estimates = {c.id: e.effect(c.contrast(e)).estimate for c in CLAIMS if isinstance(c, Claim) and c.id != "R13"}
    wanted = {"V1": 13.7 + 0.5, "R3a": 4, "R3b": 4, "R4b": 4, "R5a": 5, "R5c": 6, "R6": 4, "R8a": 5, "R8b": 2, "R9": 11, "R10": 4.5}
    wanted |= {"R11a": 3, "R11b": 0, "R12": 6, "V2": 18.7 - 0.03}
    assert {k: estimates[k] for k in wanted} == pytest.approx(wanted, abs=0.9)


def test_sizes_are_matched_by_parameters_and_latency(whole_study):
    e = evidence.Evidence(whole_study())
    assert contrasts.pairs_matched_in_parameters(e) == [("6/64", "2/128")]
    assert contrasts.pairs_matched_in_latency(e) == [("6/64", "4/128")]


def test_a_claim_that_the_study_cannot_answer_is_not_measured_with_the_reason(study):
    table = claims.judge(study(both("PD", 0.8) | both("Distillation", 0.7))).set_index("id")
    lacking = {"V1": "the recipe PF", "R3a": "the recipe PD (truncated)", "R6": "a width with three depths", "R7a": "the recipe PF"}
    lacking |= {
        "R8a": "an encoder pre-trained on D_T alone",
        "R10": "a learning curve over D_T",
        "R11a": "transfer sets of other domains",
    }
    assert table.missing[list(lacking)].to_dict() == lacking
    assert "; R3a, R3b: the recipe PD (truncated); " in claims.missing(table.reset_index())
    assert claims.tally(table[table.question == "compound_effect"]) == "5 claims: 5 not measured"


def test_holms_family_is_the_claims_of_one_question(whole_study):
    table = claims.judge(whole_study())
    for _, rows in table[table.p.notna()].groupby("question"):
        smallest = rows.loc[rows.p.idxmin()]
        assert smallest.p_holm == pytest.approx(min(1, smallest.p * len(rows)))


def test_gains_by_size_use_the_requested_corpus(whole_study):
    folder = whole_study()
    own = claims.gains_by_size(folder, [("PD", "Distillation")]).set_index("size").estimate
    other = claims.gains_by_size(folder, [("PD", "Distillation")], corpus="transfer").set_index("size").estimate
    assert (own - other).to_dict() == pytest.approx(dict.fromkeys(LATENCY, 5), abs=1)


PD_OVER_PF = (
    Claim("R1a", "Pre-trained distillation beats pre-training with fine-tuning", VALUE, contrasts.over("PD", "PF"), None),
)
FLAT = (Claim("R2", "Basic training is flat over size", VALUE, contrasts.growth("Basic"), None, EQUAL),)


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


def test_a_missing_student_is_named_and_not_averaged_over(study):
    folder = study(both("PD", 0.8) | both("PF", 0.7), missing={("PD", "2/128", 1)})
    row = claims.judge(folder, PD_OVER_PF).iloc[0]
    assert row.verdict == "not measured" and "PD 2/128 seed 1" in row.sentence
    assert claims.display_table(claims.judge(folder, PD_OVER_PF)).points.iloc[0] == "missing"


def test_a_study_without_the_recipe_gets_no_verdict(study):
    assert claims.judge(study(both("PD", 0.8)), PD_OVER_PF).iloc[0].verdict == "not measured"


def test_flat_needs_the_whole_interval_within_the_margin(study):
    grows = {("Basic", "2/64"): 0.6, ("Basic", "2/128"): 0.8}
    assert claims.judge(study(grows), FLAT).iloc[0].verdict == "refuted"
    assert claims.judge(study(both("Basic", 0.75)), FLAT).iloc[0].verdict in ("undecided", "supported")


def test_identical_answers_give_no_interval_and_no_verdict(study):
    row = claims.judge(study(both("Basic", 2.0)), FLAT).iloc[0]  # every text right, at both sizes
    assert row.verdict == "undecided" and np.isnan(row.low)
    assert "no answer differs" in row.sentence


def test_prose_is_escaped():
    assert escape.Prose("<script>")._repr_html_() == '<p class="answer">&lt;script&gt;</p>'
    assert escape.Note("a & b").__html__() == '<p class="note">a &amp; b</p>'


def test_claims_are_saved_as_json_without_nan(study):
    folder = study(both("PD", 0.8))
    rows = json.loads(claims.save(claims.judge(folder), folder).read_text())
    assert [r["id"] for r in rows] == [c.id for c in CLAIMS]
    assert all(r["estimate"] is None for r in rows)
    assert claims.load(folder).equals(claims.judge(folder))


@pytest.mark.parametrize("share, code", [(0.8, 0), (0.5, 1)])
def test_the_command_fails_where_a_required_claim_is_refuted(study, share, code):
    from typer.testing import CliRunner

    from pdstudy.__main__ import app

    folder = study(both("PF", share) | both("Basic", 0.65))
    result = CliRunner().invoke(app, ["claims", folder])
    assert result.exit_code == code and ("required, and refuted: V1" in result.output) == bool(code), result.output


def test_results_without_predictions_are_refused_with_the_command_to_run(study):
    folder = Path(study(both("PD", 0.8)))
    (folder / results.PREDICTIONS).unlink()
    with pytest.raises(FileNotFoundError, match=r"predictions for every text .* run: python -m pdstudy run"):
        claims.judge(folder)


def test_verdicts_are_judged_once_and_again_where_a_table_is_newer(smoke, tmp_path, monkeypatch):
    folder = shutil.copytree(results.folder_of("smoke"), tmp_path / "smoke")
    (folder / results.CLAIMS).unlink(missing_ok=True)
    judged, calls, judge = claims.of_study(folder), [], claims.judge
    monkeypatch.setattr(claims, "judge", lambda study: calls.append(study) or judge(study))
    again = claims.of_study(folder)
    pd.testing.assert_frame_equal(judged, again)
    assert not calls, "read from claims.json"
    later = (folder / results.CLAIMS).stat().st_mtime_ns + 1_000_000
    os.utime(folder / results.METRICS, ns=(later, later))
    claims.of_study(folder)
    assert calls == [folder]


def test_published_verdicts_are_read_though_no_answers_are_there_to_judge_again(whole_study):
    folder = Path(whole_study())
    first = claims.of_study(folder)
    (folder / results.PREDICTIONS).unlink()
    os.utime(folder / results.METRICS)
    assert claims.of_study(folder).equals(first)


def test_saved_verdicts_keep_their_numbers_and_take_the_claims_present_wording(study):
    folder = Path(study(both("PD", 0.8) | both("PF", 0.7)))
    judged = claims.judge(folder)
    rows = json.loads(claims.save(judged.assign(claim="an older wording", reading="and its sentence"), folder).read_text())
    (folder / results.CLAIMS).write_text(json.dumps([{k: v for k, v in row.items() if k != "sentence"} for row in rows]))
    pd.testing.assert_frame_equal(claims.load(folder), judged)
