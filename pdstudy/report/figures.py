"""The figures of a study, beside those of the paper, saved as PNG, SVG and CSV in outputs/<study>/figures/.

The title of a figure is the verdicts on its claims, and what its data show. What was not measured is not drawn.
"""

from collections.abc import Callable
from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd

from pdstudy.analysis import claims
from pdstudy.analysis.verdicts import headline
from pdstudy.report import charts, figures_students, figures_texts, style
from pdstudy.report.style import StudyFigure
from pdstudy.storage import paths

TITLED: dict[str, tuple[Callable[[str], StudyFigure], tuple[str, ...]]] = {  # the function, and the claims in the title
    "which_student": (figures_students.which_student, ()),
    "pretraining_gain": (figures_students.pretraining_gain, ("V1", "V2")),
    "strategies": (figures_students.strategies, ("R1a", "R2")),
    "starts": (figures_students.starts, ("R3a", "R4c")),
    "depth_width": (figures_students.depth_width, ("R5a", "R6")),
    "matched": (figures_students.matched, ("R5a", "R5d")),
    "speed": (figures_students.speed, ("R5d", "R15")),
    "compound": (figures_texts.compound, ("R7a", "R7c")),
    "corpora": (figures_texts.corpora, ("R8a", "R8b")),
    "transfer_size": (figures_texts.transfer_size, ("R9", "R10")),
    "labels": (figures_texts.labels, ()),
    "domains": (figures_texts.domains, ("R11a", "R12")),
}
TITLES = {name: ids for name, (_, ids) in TITLED.items()}
EFFECTS = {f"gains_{question}": question for question in claims.QUESTIONS}  # the claims of one question that have an effect
NAMES = (*TITLED, *EFFECTS)
LINE = 0.17  # inches of a title's line


def draw(study: str, name: str, verdicts: pd.DataFrame | None = None) -> StudyFigure:
    """Return a figure of NAMES for a study, with its verdicts as title. Raises KeyError for an unknown name.

    `labels` and `which_student` have no claim as title, and need no verdicts.
    """
    figure = effects(verdicts, EFFECTS[name]) if name in EFFECTS else TITLED[name][0](study)
    findings = [*(headline(verdicts, id) for id in TITLES.get(name, ()) if id in set(verdicts.id)), *figure.findings]
    if findings:
        drawn = figure.axes.figure
        drawn.suptitle("\n".join(findings), fontsize=10, x=0.01, ha="left")
        drawn.set_figheight(drawn.get_figheight() + LINE * max(0, len(findings) - 2))  # the panels keep their height
    return replace(figure, alt=". ".join([figure.alt, *findings]))


def measured(verdicts: pd.DataFrame, question: str) -> pd.DataFrame:
    """Return the rows of one question's claims that have an effect."""
    return verdicts[(verdicts.n_seeds > 0) & (verdicts.question == question)]


def effects(verdicts: pd.DataFrame, question: str) -> StudyFigure:
    """Draw the claims of one question that have an effect, with the paper's values."""
    rows = measured(verdicts, question)
    alt = "Each claim as a paired effect in points with its 95 % interval, beside the paper's value"
    return StudyFigure(charts.gains(rows), rows, alt)


def figure_of_claim() -> dict[str, str]:
    """Return the name of the figure of each claim: the last with the claim in its title, else the effects of its question."""
    effects = {claim.id: f"gains_{claim.question}" for claim in claims.CLAIMS if isinstance(claim, claims.Claim)}
    return effects | {id: name for name, ids in TITLES.items() for id in ids}


def save(figure: StudyFigure, study: str, name: str) -> None:
    """Write a figure as PNG and SVG and its data as CSV."""
    folder = paths.study_folder(study) / "figures"
    style.save(figure.axes.figure, folder, name)
    figure.data.to_csv(folder / f"{name}.csv", index=False)


def show(study: str, name: str, verdicts: pd.DataFrame | None = None) -> None:
    """Draw, save and display a figure. If the study measured nothing of it, print that instead."""
    figure = draw(study, name, verdicts)
    if figure.data.empty:
        plt.close(figure.axes.figure)
        print("This study did not measure what the figure shows.")
        return
    save(figure, study, name)
    style.show(figure.axes, figure.alt, name)
