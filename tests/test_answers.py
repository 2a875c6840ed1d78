"""The answer to each question: exact sentences for each shape of outcome, made from hand-made result tables."""

import json
import math

import pandas as pd
import pytest
from handmade import both, complete_study, write

from pdstudy.analysis import answers, crossings, stats, verdicts
from pdstudy.analysis.claims import CLAIMS, COMPOUND, DEPTH, QUESTIONS, ROBUST, VALUE
from pdstudy.analysis.evidence import Arm
from pdstudy.recipes import LINEAR
from pdstudy.storage import results

SCORES = "Test accuracy: the linear model 65.5 %, the best student (PD 2/128) 76.3 % and the teacher 87.5 %."


@pytest.fixture
def study(tmp_path):
    """A study of PD and PF, the linear model and a teacher."""
    others = {Arm(LINEAR, "linear"): 0.7, Arm("teacher", "6/128"): 0.9}
    return write(tmp_path, both("PD", 0.8) | both("PF", 0.75) | others, transfer={"texts": 90_000})


def judged(**effects) -> pd.DataFrame:
    """Return verdicts as `judge` makes them: of each claim in `effects` (verdict, estimate, low, high), the others not measured."""
    rows = []
    for claim in CLAIMS:
        verdict, estimate, low, high = effects.get(claim.id, ("not measured", math.nan, math.nan, math.nan))
        row = {"id": claim.id, "question": claim.question, "verdict": verdict, "estimate": estimate, "low": low, "high": high}
        seeds, items = (3, 400) if claim.id in effects else (0, 0)
        row |= {"n_seeds": seeds, "n_items": items, "missing": "" if seeds else f"what {claim.id} needs"}
        rows.append(row | {"compared": "PD 2/64 over Linear" if claim.id == "L1" else ""})
    return pd.DataFrame(rows)


GAIN, LOSS, OPEN = ("supported", 5.0, 4.0, 6.0), ("refuted", -5.0, -6.0, -4.0), ("undecided", 1.0, -1.0, 3.0)
UP, DOWN, EITHER = "+5.0 points (95 % +4.0 to +6.0)", "-5.0 points (95 % -6.0 to -4.0)", "+1.0 points (95 % -1.0 to +3.0)"


@pytest.mark.parametrize(
    ("effects", "question", "sentences"),
    [
        pytest.param(
            {"V1": GAIN, "V2": GAIN, "R1a": GAIN}, VALUE,
            f"Pre-train the student: {UP} if it is fine-tuned, {UP} if it is distilled. "
            f"Then distil it: {UP} for distilled over fine-tuned students.",
            id="the paper is right",
        ),
        pytest.param(
            {"V1": LOSS, "V2": LOSS, "R1a": LOSS}, VALUE,
            f"Do not pre-train the student: {DOWN} if it is fine-tuned, {DOWN} if it is distilled. "
            f"Then fine-tune it: {DOWN} for distilled over fine-tuned students.",
            id="reversed",
        ),
        pytest.param(
            {"V1": GAIN, "V2": LOSS, "R1a": OPEN}, VALUE,
            f"Pre-train the student: {UP} if it is fine-tuned; the opposite if it is distilled: {DOWN}. Whether to distil or to "
            f"fine-tune it then is undecided: {EITHER} for distilled over fine-tuned students; fine-tuning needs no teacher.",
            id="mixed",
        ),
        pytest.param(
            {"V1": OPEN, "V2": GAIN}, VALUE,
            f"Pre-train the student: {UP} if it is distilled; undecided if it is fine-tuned: {EITHER}.",
            id="one decision was not measured",
        ),
        pytest.param(
            {"V1": OPEN, "R1a": ("undecided", -2.0, -5.0, 1.0)}, VALUE,
            f"Undecided with 3 seeds and 400 test texts: whether to pre-train the student, {EITHER} if it is fine-tuned; whether to "
            "distil or to fine-tune it then, -2.0 points (95 % -5.0 to +1.0) for distilled over fine-tuned students. About 5 times "
            "as many seeds and test texts would probably decide the clearest of these.",
            id="all undecided: (3 / 2)^2 times the texts, doubled for a good chance",
        ),
        pytest.param(
            {"R1a": ("undecided", 2.0, -0.1, 4.1)}, VALUE,
            "Undecided with 3 seeds and 400 test texts: whether to distil or to fine-tune it then, +2.0 points (95 % -0.1 to +4.1) "
            "for distilled over fine-tuned students. About 3 times as many seeds and test texts would probably decide the clearest "
            "of these.",
            id="nearly decided",
        ),
        pytest.param(
            {"R5a": ("undecided", 0.1, -0.9, 1.1)}, DEPTH,
            "Undecided with 3 seeds and 400 test texts: whether to take deep or wide students at equal parameters, +0.1 points "
            "(95 % -0.9 to +1.1) for the deeper if distilled. A difference above 1.1 points is unlikely, so take what is cheaper.",
            id="too small to matter",
        ),
        pytest.param(
            {"V1": ("undecided", 5.0, math.nan, math.nan)}, VALUE,
            "Undecided with 3 seeds and 400 test texts: whether to pre-train the student, +5.0 points (no interval) if it is "
            "fine-tuned. No answer differs, so there is no interval.",
            id="no interval",
        ),
        pytest.param(
            {}, VALUE,
            "Not measured: whether to pre-train the student, whether to distil or to fine-tune it then. The study lacks: what V1 "
            "needs, what V2 needs, what R1a needs.",
            id="nothing measured",
        ),
        pytest.param(
            {"R5a": GAIN, "R5d": ("supported", 0.2, -0.5, 0.9)}, DEPTH,
            f"At equal parameters take the deeper student: {UP} for the deeper if distilled. At equal latency take either: "
            "+0.2 points (95 % -0.5 to +0.9) for the deeper.",
            id="deeper",
        ),
        pytest.param(
            {"R5b": LOSS, "R5d": LOSS}, DEPTH,
            f"At equal parameters take the wider student: {DOWN} for the deeper if fine-tuned. At equal latency take the wider "
            f"student: {DOWN} for the deeper.",
            id="wider",
        ),
        pytest.param(
            {"R5d": ("refuted", 5.0, 4.0, 6.0)}, DEPTH, f"At equal latency take the deeper student: {UP} for the deeper.",
            id="not equal",
        ),
        pytest.param(
            {"R7a": GAIN, "R7c": GAIN, "R8a": LOSS}, COMPOUND,
            f"Without other text, pre-train on the transfer text itself: {UP} for a student that is then distilled on it. Pre-train "
            f"on the transfer text rather than on more and broader text: {DOWN} over pre-training on the transfer text.",
            id="one text for both",
        ),
        pytest.param(
            {"R10": GAIN, "R11a": GAIN, "R12": GAIN}, ROBUST,
            f"With little transfer text, train on the labels instead of distilling from a random start: {UP} for labels over little "
            f"transfer text. If the transfer text is of another domain, pre-train first: {UP} less is lost than from a random start.",
            id="transfer text",
        ),
    ],
)  # fmt: skip
def test_an_answer_says_what_to_do_and_how_sure_it_is_then_the_scores(study, effects, question, sentences):
    assert answers.answer(study, judged(**effects), question) == f"{sentences} {SCORES}"


@pytest.mark.parametrize(
    ("verdict", "lead"), [("refuted", "Take the linear model"), ("undecided", "No student is known to beat the linear model")]
)
def test_where_no_student_is_known_to_beat_the_linear_model_that_comes_first(study, verdict, lead):
    table = judged(L1=(verdict, -1.5, -4.0, 1.0), V1=GAIN, R1a=GAIN)
    assert answers.answer(study, table) == (
        f"{lead}: it scores 65.5 % on test, the student that is best on dev, PD 2/64, 76.3 %, which is -1.5 points (95 % -4.0 to "
        f"+1.0), and the teacher 87.5 %. Pre-train the student: {UP} if it is fine-tuned. Then distil it: {UP} for distilled over "
        "fine-tuned students."
    )
    assert answers.answer(study, judged(L1=GAIN, V1=GAIN)).startswith("Pre-train the student")


def test_scores_that_were_not_measured_are_not_invented(tmp_path):
    alone = answers.Scores(write(tmp_path, both("PD", 0.8))).sentence()
    assert alone == "Test accuracy: the best student (PD 2/128) 76.3 %; the linear model was not measured."
    missing = answers.Scores(write(tmp_path, {("teacher", "2/128"): 0.9})).sentence()
    assert missing == "Test accuracy: the teacher 87.8 %; the linear model was not measured."


def test_answers_come_from_the_results_of_a_complete_study(tmp_path):
    folder = complete_study(tmp_path)
    table = verdicts.judge(folder)
    texts = {question: answers.answer(folder, table, question) for question in QUESTIONS}
    starts = (
        "Pre-train the student: ",
        "At equal parameters take the deeper student: ",
        "Without other text, pre-train on ",
        "PD 2/64 is above ",
    )
    assert [text.startswith(start) for text, start in zip(texts.values(), starts, strict=True)] == [True] * 4
    assert len({text.rpartition("Test accuracy: ")[2] for text in texts.values()}) == 1
    assert all(len(text.split()) < 110 for text in texts.values())


# Where curves cross


def test_a_curve_overtakes_where_its_difference_is_zero_over_the_logarithm_of_texts():
    n = [100, 1000, 10_000]
    assert stats.overtakes_at(n, [-1, 1, 2]) == pytest.approx(10**2.5)
    assert stats.overtakes_at(n, [-1, -1, 3]) == pytest.approx(10**3.25)
    assert stats.overtakes_at(n, [1, -1, 1]) == pytest.approx(10**3.5), "for good"
    assert stats.overtakes_at(n, [1, 2, 3]) == 0 and stats.overtakes_at(n, [1, 2, -3]) == math.inf
    assert math.isnan(stats.overtakes_at(n, [1, math.nan, 1]))


def over_texts(folder, shares: dict[int, float], kind: str) -> str:
    """Return a study of a curve: PF over labels against the linear model, or PD over transfer texts against PF, which is at 0.7."""
    better, worse, size = {"labels": ("PF", LINEAR, "linear"), "transfer": ("PD", "PF", "2/64")}[kind]
    *fewer, most = shares
    arms = {Arm(better, "2/64", n): shares[n] for n in fewer} | {Arm(better, "2/64"): shares[most], Arm(worse, size): 0.7}
    arms |= {Arm(worse, size, n): 0.7 for n in fewer} if kind == "labels" else {}
    settings = {"transfer": {"texts": most}, "splits": {"train": most}, "curves": {"transfer": fewer}}
    write(folder, arms, ("2/64",), n_items=4000, noise=0.02, **settings)
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "shares", "sentence"),
    [
        ("transfer", {1000: 0.6, 10_000: 0.8}, r"PD 2/64 overtakes PF at about 3,[012]00 transfer texts \(95 % [23],\d00 to 3,\d00\)"),
        ("transfer", {1000: 0.7, 10_000: 0.8}, r"PD 2/64 .* about 1,\d00 transfer texts \(95 % under 1,000 to 1,\d00\)|.*fewest.*"),
        ("transfer", {1000: 0.8, 10_000: 0.9}, r"PD 2/64 is above PF from the fewest transfer texts measured on \(1,000\)"),
        ("transfer", {1000: 0.5, 10_000: 0.6}, r"PD 2/64 does not overtake PF with up to 10,000 transfer texts"),
        ("labels", {100: 0.6, 300: 0.65, 1000: 0.8}, r"PF 2/64 overtakes the linear model at about 4[3-9]0 labels \(95 % 4\d0 to [45]\d0\)"),
    ],
)  # fmt: skip
def test_a_crossing_is_a_number_of_texts_with_an_interval(tmp_path, kind, shares, sentence):
    (crossing,) = crossings.of_study(over_texts(tmp_path, shares, kind), kind)
    assert pd.Series([crossing.sentence]).str.fullmatch(sentence).all(), crossing.sentence


@pytest.mark.parametrize(
    ("at", "low", "high", "sentence"),
    [
        (0, 0, 18_400, "PD 2/64 is above PF from the fewest transfer texts measured on (1,000; 95 % under 1,000 to 18,000)"),
        (math.inf, 13_000, math.inf, "PD 2/64 does not overtake PF with up to 20,000 transfer texts (95 % 13,000 to over 20,000)"),
        (math.inf, 0, math.inf, "PD 2/64 does not overtake PF with up to 20,000 transfer texts (95 % under 1,000 to over 20,000)"),
        (math.inf, math.inf, math.inf, "PD 2/64 does not overtake PF with up to 20,000 transfer texts"),
        (0, math.nan, math.nan, "PD 2/64 is above PF from the fewest transfer texts measured on (1,000; no interval from one seed)"),
    ],
)  # fmt: skip
def test_a_crossing_outside_what_was_measured_is_told_with_its_interval_unless_it_is_certain(at, low, high, sentence):
    gains = pd.DataFrame({"texts": [1000, 20_000]})
    arms = crossings.Arm("PD", "2/64"), crossings.Arm("PF", "2/64")
    assert crossings.Crossing("transfer", *arms, at, low, high, gains, "").sentence == sentence


def test_without_the_answers_to_every_text_a_crossing_has_an_interval_over_seeds_and_says_so(tmp_path):
    folder = over_texts(tmp_path, {1000: 0.6, 10_000: 0.8}, "transfer")
    (pooled,) = crossings.of_study(folder, "transfer")
    (results.folder_of(folder) / results.PREDICTIONS).unlink()
    (crossing,) = crossings.of_study(folder, "transfer")
    assert crossing.at == pytest.approx(pooled.at) and pooled.low < crossing.low < crossing.high < pooled.high
    assert "(95 % over seeds 3,000 to 3,300)" in crossing.sentence


def test_one_seed_has_a_crossing_without_an_interval(tmp_path):
    folder = over_texts(tmp_path, {1000: 0.6, 10_000: 0.8}, "transfer")
    settings = json.loads((tmp_path / results.PARAMS).read_text())
    (tmp_path / results.PARAMS).write_text(json.dumps(settings | {"seeds": [0]}))
    (crossing,) = crossings.of_study(folder, "transfer")
    assert "no interval from one seed" in crossing.sentence


def test_a_point_of_fewer_seeds_than_the_study_is_compared_on_those_it_has(tmp_path):
    """Advice may stop before it trains the points of every seed."""
    folder = over_texts(tmp_path, {1000: 0.6, 10_000: 0.8}, "transfer")
    (whole,) = crossings.of_study(folder, "transfer")
    table = pd.read_parquet(tmp_path / results.METRICS)
    table[(table.seed == 0) | table.texts.isna()].to_parquet(tmp_path / results.METRICS)
    (crossing,) = crossings.of_study(folder, "transfer")
    assert crossing.at == pytest.approx(whole.at, rel=0.1) and "no interval from one seed" in crossing.sentence
    table[table.texts.isna()].to_parquet(tmp_path / results.METRICS)
    assert crossings.of_study(folder, "transfer") == []


def test_the_answer_about_transfer_text_says_where_curves_cross(tmp_path):
    folder = over_texts(tmp_path, {1000: 0.6, 10_000: 0.8}, "transfer")
    text = answers.answer(folder, judged(R10=GAIN, R11a=GAIN), ROBUST)
    assert (
        text.startswith("PD 2/64 overtakes PF at about 3,")
        and f"). If the transfer text is of another domain, pre-train first: {UP}" in text
    )
    assert "; PD 2/64 overtakes PF at about 3," in answers.answer(folder, judged(R1a=GAIN), VALUE)
