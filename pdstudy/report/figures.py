"""The figures of the study, the paper's own beside ours: each is drawn from a study's results, shown once, and kept.

Kept is the picture (PNG, SVG) and its data (CSV) in outputs/<study>/figures/. A figure's title is its finding, taken from
the verdicts; what was not measured is not drawn, and the figure says so.
"""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from pdstudy.analysis import claims
from pdstudy.analysis.verdicts import headline
from pdstudy.report import charts, figures_students, figures_texts, style
from pdstudy.report.style import Drawn
from pdstudy.storage import paths

FIGURES: dict[str, Callable[[str], Drawn]] = {
    "strategies": figures_students.strategies,
    "pretraining_gain": figures_students.pretraining_gain,
    "starts": figures_students.starts,
    "depth_width": figures_students.depth_width,
    "matched": figures_students.matched,
    "speed": figures_students.speed,
    "compound": figures_texts.compound,
    "corpora": figures_texts.corpora,
    "transfer_size": figures_texts.transfer_size,
    "domains": figures_texts.domains,
}
EFFECTS = {f"gains_{question}": question for question in claims.QUESTIONS}  # the claims of a question that have an effect
NAMES = (*FIGURES, *EFFECTS)
TITLES = {  # whose findings are a figure's title
    "pretraining_gain": ("V1", "V2"),
    "strategies": ("R1a", "R2"),
    "starts": ("R3a", "R4c"),
    "depth_width": ("R5a", "R6"),
    "matched": ("R5a", "R5d"),
    "speed": ("R5d", "R15"),
    "compound": ("R7a", "R7c"),
    "corpora": ("R8a", "R8b"),
    "transfer_size": ("R9", "R10"),
    "domains": ("R11a", "R12"),
}


def draw(study: str, name: str, verdicts: pd.DataFrame) -> Drawn:
    """Return the figure of one of NAMES for a study, titled by its verdicts. Raises KeyError for a name that there is not."""
    drawn = effects(verdicts, EFFECTS[name]) if name in EFFECTS else FIGURES[name](study)
    findings = [headline(verdicts, id) for id in TITLES.get(name, ()) if id in set(verdicts.id)]
    if findings:
        drawn.axes.figure.suptitle("\n".join(findings), fontsize=10, x=0.01, ha="left")
    return replace(drawn, alt=". ".join([drawn.alt, *findings]))


def effects(verdicts: pd.DataFrame, question: str) -> Drawn:
    """Draw the claims of one question that have an effect, the paper's values beside them."""
    shown = verdicts[(verdicts.n_seeds > 0) & (verdicts.question == question)]
    return Drawn(
        charts.gains(shown), shown, "Each claim as a paired effect in points with its 95 % interval, beside the paper's value"
    )


def of_claims() -> dict[str, str]:
    """Return the figure of each claim that has one: the last one titled by it, else the effects of its question."""
    titled = {id: name for name, ids in TITLES.items() for id in ids}
    asked = {claim.id: f"gains_{claim.question}" for claim in claims.CLAIMS if isinstance(claim, claims.Claim)}
    return asked | titled


def keep(drawn: Drawn, study: str, name: str) -> None:
    """Write a figure as PNG and SVG and its data as CSV."""
    folder = paths.study_folder(study) / "figures"
    style.save(drawn.axes.figure, folder, name)
    drawn.data.to_csv(folder / f"{name}.csv", index=False)


def show(study: str, name: str, verdicts: pd.DataFrame) -> None:
    """Draw a figure, keep it, and display it once."""
    drawn = draw(study, name, verdicts)
    keep(drawn, study, name)
    style.show(drawn.axes, drawn.alt, name)
