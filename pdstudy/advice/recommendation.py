"""The advice in words: which student to take and why, what is cheaper and as good, what more text would buy.

Every sentence is made from the numbers of `advise`.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from pdstudy.advice.candidates import Candidates, Limits, choose, curves
from pdstudy.analysis.stats import POINTS, Effect
from pdstudy.escape import Prose
from pdstudy.storage import paths, results
from pdstudy.storage.files import whole

ADVICE = "advice.json"


@dataclass(frozen=True)
class Advice:
    """The recommended student, and the sentences that defend it."""

    chosen: pd.Series
    reasons: list[str]
    table: pd.DataFrame

    @property
    def student(self) -> str:
        """Return the name by which `export` knows the student."""
        return f"{self.chosen['size']}-{self.chosen.recipe}-s{self.chosen.best_seed}"

    def prose(self) -> Prose:
        """Return the advice as one paragraph."""
        return Prose(" ".join(self.reasons))


def recommend(found: Candidates) -> Advice:
    """Return the student that is best on dev within the limits, and why. Raises AdviceError where none fits."""
    chosen = choose(found)
    said = [
        _chosen(found, chosen),
        *_unlearned(found, chosen),
        *_luck(found, chosen),
        *_cheaper(found, chosen),
        *_dearer(found, chosen),
        *_curves(found, chosen),
        *_untaught(found, chosen),
    ]
    advice = Advice(chosen, said, found.table)
    return replace(advice, reasons=[*said, _kept(found, chosen, advice.student)])


def keep(advice: Advice, study: str, limits: Limits) -> Path:
    """Return the path of the advice as JSON beside the study's results: the student, the sentences, every candidate's numbers."""
    path = paths.study_folder(study) / ADVICE
    table = json.loads(advice.table.to_json(orient="records"))  # what is not known is null
    said = {"student": advice.student, "limits": vars(limits), "reasons": advice.reasons, "candidates": table}
    with whole(path) as new:
        new.write_text(json.dumps(said | {"provenance": results.provenance(study)}, indent=1) + "\n")
    return path


def _name(row) -> str:
    return f"{row['size']} by {row.recipe}"


def _interval(effect: Effect) -> str:
    return f"95 % {effect.low:+.1f} to {effect.high:+.1f}" if effect.known else "no interval from one seed"


def _chosen(found: Candidates, row) -> str:
    cost = f"{row.mb:.0f} MB" + (f", {row.p50_ms:.1f} ms a text" if math.isfinite(row.p50_ms) else ", latency not measured")
    words = f"Take {_name(row)} ({cost}): {row.low:.1f} to {row.high:.1f} % right on new texts is promised (95 %)"
    teachers = found.table[found.table.recipe == "teacher"]
    if len(teachers):
        teacher = teachers.iloc[0]
        effect = found.difference(row, teacher)
        side = "above" if effect.estimate > 0 else "below"
        words += f"; on dev {abs(effect.estimate):.1f} points {side} the teacher ({_interval(effect)})"
        if math.isfinite(ratio := teacher.p50_ms / row.p50_ms) and teacher["size"] != row["size"]:
            words += f", {ratio:.1f} times as fast"
    return words + "."


def _unlearned(found: Candidates, chosen) -> list[str]:
    """Return a warning where the promise does not rule out that the student is no better than always answering one class."""
    if chosen.low > (majority := found.majority * POINTS):
        return []
    return [
        f"Do not ship it: always answering the commonest class is right on {majority:.1f} % of dev, and the promise does not "
        "exclude that this student is no better; it needs more labels, a better teacher or longer texts."
    ]


def _luck(found: Candidates, chosen) -> list[str]:
    """Return what of the chosen student's score on dev is the luck of having been chosen, and what the promise does not pay for."""
    rivals, said = found.table[found.table.fits], []
    n_tried = sum(len(found.answers(r.recipe, r.size).judged) for r in rivals.itertuples())
    if n_tried > 1:
        luck = max(0.0, chosen.dev - chosen.expected)
        said.append(
            f"Of {n_tried} students and rates it is the best on dev, {chosen.dev:.1f} %; about {luck:.1f} points of that are the "
            "luck of the best, and the low end of the promise pays for them."
        )
    if unpaid := int(rivals.unpaid.sum()):
        said.append(
            f"Of {unpaid} more rates that were tried no answers are kept: the promise does not pay for having chosen among them "
            "and may be too high."
        )
    return said


def _cheaper(found: Candidates, chosen) -> list[str]:
    """Return a sentence for each cheaper student that cannot be told from the chosen one, or none can."""
    others = found.table[found.table.fits & (found.table.n_params < chosen.n_params)]
    others = others.loc[others.groupby("size", sort=False).dev.idxmax()]
    said = []
    for _, row in others.iterrows():
        effect = found.difference(row, chosen)
        if not effect.known or effect.high >= 0:
            said.append(
                f"{_name(row)}, {row.mb:.0f} MB, is not distinguishable from it ({effect.estimate:+.1f}, {_interval(effect)})."
            )
    if len(others) and not said:
        said = ["Every smaller student is worse beyond luck."]
    return said


def _dearer(found: Candidates, chosen) -> list[str]:
    """Return a sentence for the best student outside the limits, if it is better beyond luck."""
    outside = found.table[~found.table.fits & (found.table.recipe != "teacher")]
    better = [(found.difference(row, chosen), row) for _, row in outside.iterrows()]
    better = [(effect, row) for effect, row in better if effect.known and effect.low > 0]
    if not better:
        return []
    effect, row = max(better, key=lambda pair: pair[0].estimate)
    more = []
    if row.mb > chosen.mb:
        more.append(f"{row.mb - chosen.mb:.0f} MB more")
    if math.isfinite(row.p50_ms - chosen.p50_ms) and row.p50_ms > chosen.p50_ms:
        more.append(f"{row.p50_ms - chosen.p50_ms:.1f} ms more")
    return [f"Take {_name(row)} if {' and '.join(more)} are free: {effect.estimate:+.1f} points ({_interval(effect)})."]


def _curves(found: Candidates, chosen) -> list[str]:
    words = {"transfer": "Twice the transfer text", "labels": "Twice the labelled text"}
    said = []
    for c in curves(found.study):
        if c.size == chosen["size"] and (c.recipe == chosen.recipe or c.kind == "labels"):
            missed = f"; the curve missed its own last point by {c.missed * POINTS:+.1f}" if math.isfinite(c.missed) else ""
            said.append(
                f"{words[c.kind]} ({2 * c.points.texts.max():,.0f}) would buy {c.recipe} about {c.twice:+.1f} points{missed}."
            )
    return said


def _untaught(found: Candidates, chosen) -> list[str]:
    """Return what distilling gave where there was no transfer text to distil on: the price of having none."""
    if results.load_counts(found.study).get("of train", pd.Series(dtype=float)).fillna(0).get("D_T", 0) == 0:
        return []
    arms = {r["recipe"]: r for _, r in found.table[found.table["size"] == chosen["size"]].iterrows()}
    if not {"PD", "PF"} <= set(arms):
        return ["What distilling on the texts of train gives was not measured at this size: PD and PF were not both trained."]
    effect = found.difference(arms["PD"], arms["PF"])
    return [
        f"There was no transfer text: on the texts of train, {chosen['size']} by PD is {effect.estimate:+.1f} points "
        f"({_interval(effect)}) from PF, which asks no teacher; that is all that distilling gives here."
    ]


def _kept(found: Candidates, row, name: str) -> str:
    test = found.right(row.recipe, row["size"], "test", [row.best_seed])
    score, n = test.mean() * POINTS, test.shape[1]
    held = "within" if row.low <= score <= row.high else "outside"
    return (
        f"Its best seed is {name} to `export`: on the {n:,} texts of test, which chose nothing, that is right on {score:.1f} %, "
        f"{held} the promise."
    )


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return the candidates as people read them, the smallest first; rates whose answers are not kept have a column where there are any."""
    number = lambda form: lambda v: form.format(v) if math.isfinite(v) else "not measured"  # noqa: E731
    columns = {
        "student": [f"{r.size} {r.recipe}" for r in table.itertuples()],
        "dev, %": table.dev.map("{:.1f}".format),
        "expected on other texts, %": table.expected.map("{:.1f}".format),
        "promised on new texts, %": [f"{r.low:.1f} to {r.high:.1f}" for r in table.itertuples()],
        "rates the promise does not pay for": table.unpaid,
        "test, %": table.test.map("{:.1f}".format),
        "its F1": table.f1.map("{:.3f}".format),
        "Matthews' r": table.mcc.map("{:.3f}".format),
        "seeds": table.seeds,
        "ms a text (p95)": [
            f"{r.p50_ms:.2f} ({r.p95_ms:.2f})" if math.isfinite(r.p50_ms) else "not measured" for r in table.itertuples()
        ],
        "texts a second": table.texts_a_second.map(number("{:,.0f}")),
        "MB": table.mb.map("{:.1f}".format),
        "within the limits": table.fits.map({True: "yes", False: ""}),
    }
    if not table.unpaid.any():
        del columns["rates the promise does not pay for"]
    return pd.DataFrame(columns).set_index("student").rename_axis(None)


def forecasts(study: str | Path) -> pd.DataFrame:
    """Return what twice the text is forecast to add to each student that has a learning curve, in points."""
    rows = [
        {
            "student": f"{c.size} {c.recipe}",
            "text": {"transfer": "transfer texts", "labels": "labelled texts"}[c.kind],
            "most tried": f"{c.points.texts.max():,.0f}",
            "twice would add": f"{c.twice:+.1f}",
            "the law missed its last point by": f"{c.missed * POINTS:+.1f}" if math.isfinite(c.missed) else "n/a",
            "seeds": c.points.seed.nunique(),
        }
        for c in curves(study)
    ]
    columns = ["student", "text", "most tried", "twice would add", "the law missed its last point by", "seeds"]
    return pd.DataFrame(rows, columns=columns).set_index("student").rename_axis(None)
