"""The answer to each question in one to three sentences that a reader can act on, from verdicts, learning curves and scores."""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pdstudy.analysis import class_shares, crossings
from pdstudy.analysis.claims import COMPOUND, DEPTH, ROBUST, VALUE
from pdstudy.analysis.evidence import Missing, best_on_dev
from pdstudy.analysis.stats import POINTS
from pdstudy.analysis.verdicts import NOT_MEASURED, REFUTED, SUPPORTED, UNDECIDED
from pdstudy.escape import Prose
from pdstudy.recipes import LINEAR
from pdstudy.storage import results

HOPELESS = 20  # times as many seeds and texts, beyond which more of them are not advised
POWER = 2.0  # times the texts and seeds at which an interval just excludes zero, for about four chances in five of doing so


@dataclass(frozen=True)
class Advice:
    """A decision, and what to do by the verdicts on its claims."""

    supported: str
    refuted: str
    decision: str  # continues "undecided:" and "not measured:"
    claims: tuple[tuple[str, str], ...]  # (claim, what its effect is of)
    undecided: str = ""  # what speaks for one side where nothing is decided
    below: str = ""  # instead of `refuted`, where the effect is below zero


PRETRAIN = Advice(
    "Pre-train the student", "Do not pre-train the student", "whether to pre-train the student",
    (("V1", "if it is fine-tuned"), ("V2", "if it is distilled")),
)  # fmt: skip
DISTIL = Advice(
    "Then distil it", "Then fine-tune it", "whether to distil or to fine-tune it then",
    (("R1a", "for distilled over fine-tuned students"),), "fine-tuning needs no teacher",
)  # fmt: skip
ADVICE = {  # of each question the first two that were measured are shown
    VALUE: (PRETRAIN, DISTIL),
    DEPTH: (
        Advice(
            "At equal parameters take the deeper student", "At equal parameters take the wider student",
            "whether to take deep or wide students at equal parameters",
            (("R5a", "for the deeper if distilled"), ("R5b", "for the deeper if fine-tuned")),
        ),
        Advice(
            "At equal latency take either", "At equal latency take the deeper student",
            "whether to take deep or wide students at equal latency", (("R5d", "for the deeper"),),
            below="At equal latency take the wider student",
        ),
    ),
    COMPOUND: (
        Advice(
            "Without other text, pre-train on the transfer text itself", "Do not pre-train on the transfer text itself",
            "whether to pre-train on the transfer text itself", (("R7c", "for a student that is then distilled on it"),),
        ),
        Advice(
            "With more and broader text, pre-train on that", "Pre-train on the transfer text rather than on more and broader text",
            "whether more and broader text than the transfer text makes a better start",
            (("R8a", "over pre-training on the transfer text"),),
        ),
        Advice(
            "After pre-training on the transfer text, distil on it too", "After pre-training on the transfer text, fine-tune",
            "whether to distil after pre-training on the transfer text", (("R7a", "for distilled over fine-tuned students"),),
        ),
    ),
    ROBUST: (
        Advice(
            "With little transfer text, train on the labels instead of distilling from a random start",
            "Even with little transfer text, distil rather than train on the labels",
            "whether to distil from a random start on little transfer text", (("R10", "for labels over little transfer text"),),
        ),
        Advice(
            "If the transfer text is of another domain, pre-train first",
            "If the transfer text is of another domain, pre-training makes the loss larger",
            "whether pre-training helps if the transfer text is of another domain",
            (("R11a", "less is lost than from a random start"),),
        ),
        Advice(
            "If the transfer text is of another domain, fine-tune after distilling", "After distilling, do not fine-tune",
            "whether to fine-tune after distilling on text of another domain", (("R12", "more than where the text is near"),),
        ),
    ),
}  # fmt: skip


def answer(study: str | Path, table: pd.DataFrame, question: str = VALUE, with_scores: bool = True) -> Prose:
    """Return the answer to a question from a study's verdicts and results.

    One to three sentences: what to do, or that nothing was decided or measured, then the scores of the linear model, the best
    student and the teacher. If no student is known to beat the linear model, that comes first.
    """
    rows, scores, advice = table.set_index("id"), Scores(study), ADVICE[question]
    transfer, labels = (crossings.of_study(study, kind)[:1] for kind in ("transfer", "labels"))
    ends = [scores.sentence()] * with_scores
    if question == VALUE:
        lead = _linear_first(rows, scores)  # it has the scores
        sentences = [lead, *_decisions(rows, advice, transfer), class_shares.sentence(study)]
        ends = [] if lead else ends
    elif question == ROBUST and (transfer or labels):  # they say more than R10, which is about one point of the curve
        crossed = f"{'; '.join(crossing.sentence for crossing in transfer + labels)}."
        sentences = [crossed, *_decisions(rows, advice[1:])[:1]]
    else:
        sentences = _decisions(rows, advice, transfer)
    return Prose(" ".join(filter(None, [*sentences, *ends])))


def _decisions(rows: pd.DataFrame, advice: tuple[Advice, ...], crossed: list[crossings.Crossing] = ()) -> list[str]:
    """Return a sentence for each of the first two decisions that were measured, or one if none is decided or measured."""
    measured = [a for a in advice if any(rows.verdict.get(i, NOT_MEASURED) != NOT_MEASURED for i, _ in a.claims)][:2]
    if not measured:
        return [_not_measured(rows, advice[:2])]
    if not {rows.verdict.get(i) for a in measured for i, _ in a.claims} & {SUPPORTED, REFUTED}:
        return [_undecided(rows, measured)]
    return [_sentence(rows, a, crossed if a is DISTIL else []) for a in measured]


class Scores:
    """The mean accuracies on test, in percent, of a study's linear model, its best student on dev and its teacher; nan if missing."""

    def __init__(self, study: str | Path):
        metrics, settings = results.load_results(study), results.load_settings(study)
        test = results.accuracies(metrics)
        self._means = test.groupby(["recipe", "size"]).value.mean() * POINTS
        self.linear, self.teacher = (test[test.recipe == name].value.mean() * POINTS for name in (LINEAR, "teacher"))
        try:
            best = best_on_dev(metrics, settings["recipes"], settings["seeds"])
            self.best, self.student = str(best), self._means.get((best.recipe, best.size), math.nan)
        except Missing:
            self.best, self.student = "", math.nan

    def sentence(self) -> str:
        """Return the scores in a sentence; it says if the linear model was not measured."""
        named = {"the linear model": self.linear, f"the best student ({self.best})": self.student, "the teacher": self.teacher}
        known = [f"{name} {score:.1f} %" for name, score in named.items() if math.isfinite(score)]
        if not known:
            return "No score was measured."
        listed = ", ".join(known[:-1]) + (" and " if len(known) > 1 else "") + known[-1]
        missing = "" if math.isfinite(self.linear) else "; the linear model was not measured"
        return f"Test accuracy: {listed}{missing}."


def _linear_first(rows: pd.DataFrame, scores: Scores) -> str:
    """Return the sentence that precedes an answer if no student is known to beat the linear model, otherwise nothing."""
    if rows.verdict.get("L1") not in (REFUTED, UNDECIDED):
        return ""
    lead = "Take the linear model" if rows.verdict["L1"] == REFUTED else "No student is known to beat the linear model"
    student = rows.compared["L1"].partition(" over ")[0]
    teacher = f", and the teacher {scores.teacher:.1f} %" if math.isfinite(scores.teacher) else ""
    return (
        f"{lead}: it scores {scores.linear:.1f} % on test, the student that is best on dev, {student}, {scores.student:.1f} %, "
        f"which is {points(rows.loc['L1'])}{teacher}."
    )


def _sentence(rows: pd.DataFrame, advice: Advice, crossed: list[crossings.Crossing]) -> str:
    """Return a decision in a sentence: the supported claims lead, then the refuted, then those that are undecided."""
    by_verdict = {v: [(i, of) for i, of in advice.claims if rows.verdict.get(i) == v] for v in (SUPPORTED, REFUTED, UNDECIDED)}
    first, *others = [v for v, claims in by_verdict.items() if claims]
    below = advice.below and rows.estimate[by_verdict[first][0][0]] < 0
    leads = {SUPPORTED: advice.supported, REFUTED: advice.below if below else advice.refuted}
    leads[UNDECIDED] = f"{_capital(advice.decision)} is undecided"
    parts = [f"{leads[first]}: {_effects(rows, by_verdict[first])}"]
    words = {REFUTED: "the opposite", UNDECIDED: "undecided"}
    parts += [f"{words[v]} {of}: {points(rows.loc[i])}" for v in others for i, of in by_verdict[v]]
    parts += [advice.undecided] if first == UNDECIDED and advice.undecided else []
    return "; ".join([*parts, *(c.sentence for c in crossed)]) + "."


def _undecided(rows: pd.DataFrame, measured: list[Advice]) -> str:
    """Return what is undecided, with how many seeds and texts, and what would decide it."""
    measured_claims = [[(i, of) for i, of in a.claims if rows.verdict.get(i) == UNDECIDED] for a in measured]
    open_rows = rows.loc[[i for claims in measured_claims for i, _ in claims]]
    n_seeds, n_items = int(open_rows.n_seeds.max()), int(open_rows.n_items.max())
    decisions = [f"{a.decision}, {_effects(rows, claims)}" for a, claims in zip(measured, measured_claims, strict=True)]
    with_what = f"{n_seeds} seed{'s' * (n_seeds != 1)} and {n_items:,} test texts"
    return f"Undecided with {with_what}: {'; '.join(decisions)}. {_what_would_decide(open_rows)}"


def _what_would_decide(rows: pd.DataFrame) -> str:
    """Return how many times as many seeds and texts would decide the clearest of some undecided effects."""
    known = rows[rows.low.map(math.isfinite)]
    if known.empty:
        one_seed = rows.n_seeds.max() < 2
        return (
            "There is no interval from one seed: run at least three." if one_seed else "No answer differs, so there is no interval."
        )
    reach = (known.high - known.low) / 2
    times = max(2, math.ceil(POWER * ((reach / known.estimate.abs().clip(lower=1e-9)) ** 2).min()))
    if times > HOPELESS:
        largest = known[["low", "high"]].abs().max().max()
        return f"A difference above {largest:.1f} points is unlikely, so take what is cheaper."
    times = "Twice" if times == 2 else f"About {times} times"
    return f"{times} as many seeds and test texts would probably decide the clearest of these."


def _not_measured(rows: pd.DataFrame, advice: tuple[Advice, ...]) -> str:
    """Return which decisions a study did not measure, and what it lacks for them."""
    decisions = ", ".join(a.decision for a in advice)
    missing = dict.fromkeys(rows.missing.get(i, "") for a in advice for i, _ in a.claims)
    return f"Not measured: {decisions}. The study lacks: {', '.join(filter(None, missing)) or 'these claims'}."


def points(row: pd.Series) -> str:
    """Return a claim's effect with its interval, in words."""
    interval = f"95 % {row.low:+.1f} to {row.high:+.1f}" if math.isfinite(row.low) else "no interval"
    return f"{row.estimate:+.1f} points ({interval})"


def _effects(rows: pd.DataFrame, claims: list[tuple[str, str]]) -> str:
    return ", ".join(f"{points(rows.loc[i])} {of}" for i, of in claims)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
