"""What all figures share: colours and markers, axes, labels, and the elements that several figures draw."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy.optimize import isotonic_regression

from pdstudy.recipes import LINEAR, LINEAR_TAUGHT, LINEARS, WITH_LINEAR, is_averaged
from pdstudy.storage.results import accuracies

RECIPE_COLOURS = {  # Okabe and Ito's palette for colour-blind readers; the lightness differs in greyscale too
    "PD": "#0072B2",
    "PF": "#D55E00",
    "Distillation": "#56B4E9",
    "Basic": "#E69F00",
    "PD-F": "#003A5D",
    "PD (embeddings)": "#CC79A7",
    "PD (truncated)": "#009E73",
}
RECIPE_MARKERS = dict(zip(RECIPE_COLOURS, "os^DPvX", strict=True))
LINEAR_COLOUR = "#7A5195"
LINEAR_COLOURS, LINEAR_MARKERS = dict.fromkeys(LINEARS, LINEAR_COLOUR), dict(zip(LINEARS, "*h", strict=True))
MODEL_COLOURS = RECIPE_COLOURS | {r + WITH_LINEAR: colour for r, colour in RECIPE_COLOURS.items()} | LINEAR_COLOURS
MODEL_MARKERS = RECIPE_MARKERS | {r + WITH_LINEAR: marker for r, marker in RECIPE_MARKERS.items()} | LINEAR_MARKERS
WIDTH_MARKERS = "os^Dv"  # of the hidden widths in rising order
VERDICT_COLOURS = {"supported": "#0072B2", "refuted": "#B22222", "undecided": "#777777", "not measured": "#BBBBBB"}
GREY = "#6E6E6E"
PAPER_GREY = "#A0A0A0"
HALO = [withStroke(linewidth=2.5, foreground="white")]  # around text that is on lines


@dataclass(frozen=True)
class StudyFigure:
    """A figure with its data and its alternative text."""

    axes: Axes
    data: pd.DataFrame
    alt: str
    findings: tuple[str, ...] = ()  # what the data show, as further lines of the title


def set_style() -> None:
    """Set the style of every figure."""
    sns.set_theme(context="notebook", style="ticks", font_scale=0.9)
    plt.rcParams.update(
        {"figure.dpi": 110, "savefig.dpi": 150, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}
    )


def new_axes(width: float = 7.2, height: float = 4.2) -> Axes:
    """Return the Axes of a new figure of this size in inches."""
    return panels(1, width, height)[0]


def panels(n: int, width: float, height: float, **layout) -> np.ndarray:
    """Return the Axes of a new figure with `n` panels side by side, (n,)."""
    set_style()
    return plt.subplots(1, n, figsize=(width, height), layout="constrained", squeeze=False, **layout)[1][0]


def two_panels() -> tuple[Axes, Axes]:
    """Return the Axes of a figure with two panels: this study, and the paper."""
    return tuple(panels(2, 11, 4.2, width_ratios=(1.25, 1)))


def title_panels(ax: Axes, text: str) -> None:
    """Set the title of the paper's panel, and that of the study's panel beside it."""
    ax.figure.axes[0].set_title("This study", fontsize=9.5)
    ax.set_title(text, fontsize=9.5, color=GREY)


def show(ax: Axes, alt: str, name: str = "") -> None:
    """Display a figure with its alternative text, and close it.

    A report uses `name` to link the figure to its claims and data, and the width to keep the font size.
    """
    from IPython.display import display

    display(ax.figure, metadata={"image/png": {"alt": alt, "figure": name, "inches": ax.figure.get_figwidth()}})
    plt.close(ax.figure)


def save(figure: Figure, folder, name: str, kinds: tuple[str, ...] = ("png", "svg")) -> None:
    """Write a figure to `folder` in each format."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        figure.savefig(folder / f"{name}.{kind}")


def shades(keys: Sequence, palette: str = "viridis", skip: int = 0) -> dict:
    """Return a colour for each key in the order of a palette, without its first `skip` and its last colour."""
    return dict(zip(keys, sns.color_palette(palette, len(keys) + 1 + skip)[skip:], strict=False))


def reference_line(ax: Axes, y: float, text: str, colour: str = GREY, ls="--", x: float = 0.01, **style) -> None:
    """Draw a horizontal line behind the data, with a grey note on it at `x` of the axis's width."""
    ax.axhline(y, color=colour, lw=1, ls=ls, zorder=0)
    style = {"ha": "right" if x > 0.5 else "left", "va": "bottom", "color": GREY, "fontsize": 8} | style
    ax.annotate(text, (x, y), xycoords=("axes fraction", "data"), **style)


def seeds_and_mean(ax: Axes, rows: pd.DataFrame, x: str, colour, marker: str, dots: str = "o", s: float = 16, **line) -> pd.Series:
    """Draw the accuracy of each seed as a faint dot and their mean at each `x` as a line; return the means in percent."""
    ax.scatter(rows[x], rows.value * 100, color=colour, alpha=0.3, s=s, linewidth=0, marker=dots)
    mean = rows.groupby(x).value.mean() * 100
    ax.plot(mean.index, mean, color=colour, marker=marker, **line)
    return mean


def intervals(
    ax: Axes, rows: pd.DataFrame, names: list[str], colours: Iterable, markers: Iterable[str], lw: float, ms: float, **ticks
) -> None:
    """Draw effects with their intervals, one row each from top to bottom, and a line at zero."""
    for y, (row, colour, marker) in enumerate(zip(rows.itertuples(), colours, markers, strict=False)):
        ax.plot([row.low, row.high], [y, y], color=colour, lw=lw, alpha=0.6, solid_capstyle="butt")
        ax.plot(row.estimate, y, marker, color=colour, ms=ms)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(rows)), names, **ticks)
    ax.invert_yaxis()


def model_marker(recipe: str) -> dict[str, str]:
    """Return the colour and marker of a recipe or linear model; hollow where a student is averaged with the linear model."""
    look = {"color": MODEL_COLOURS[recipe], "marker": MODEL_MARKERS[recipe]}
    return look | ({"mfc": "white"} if is_averaged(recipe) else {})


def recipe_legend(ax: Axes, recipes: Iterable[str], **style) -> None:
    """Add a legend of the colours and markers of recipes and linear models."""
    handles = [plt.Line2D([], [], ls="", label=r, **model_marker(r)) for r in recipes]
    ax.legend(handles=handles, frameon=False, fontsize=9, **style)


def label_ends(ax: Axes, ends: list[tuple[float, str, str, float]]) -> None:
    """Write the names of lines beside their last points, moved apart where they would overlap: (y, text, colour, x).

    A dotted line leads from a line that ends before the others to its name.
    """
    if not ends:
        return
    low, high = ax.get_ylim()
    ends = sorted(ends)
    places = spread([y for y, *_ in ends], 0.055 * (high - low))
    right = max(x for *_, x in ends)
    for (y, text, colour, x), place in zip(ends, places, strict=True):
        if x < right:
            ax.plot([x, right], [y, place], color=colour, lw=0.8, ls=":", zorder=0)
        ax.annotate(
            text, (right, place), xytext=(9, 0), textcoords="offset points", va="center", color=colour, fontsize=9, weight="bold",
            path_effects=HALO, annotation_clip=False,
        )  # fmt: skip


def linear_lines(ax: Axes, metrics: pd.DataFrame, ends: list | None = None, named: bool = True) -> None:
    """Draw a horizontal line at the test accuracy of each linear model that was measured.

    Their names are added to `ends`, for `label_ends`, where other lines have theirs there; else they are on the lines, if `named`.
    """
    rows = accuracies(metrics)
    for recipe, ls, x in ((LINEAR, "-.", 0.99), (LINEAR_TAUGHT, (0, (1, 1)), 0.7)):
        level = rows[rows.recipe == recipe].value.mean() * 100
        if not np.isfinite(level):
            continue
        name = f"{recipe.lower()} {level:.1f}"
        if ends or not named:
            ax.axhline(level, color=LINEAR_COLOUR, lw=1, ls=ls, zorder=0)
            if ends:
                ends.append((level, name, LINEAR_COLOUR, max(right for *_, right in ends)))
        else:
            reference_line(ax, level, name, LINEAR_COLOUR, ls, x, color=LINEAR_COLOUR, path_effects=HALO)


def spread(places: Iterable[float], step: float) -> np.ndarray:
    """Return rising places, moved by least squares so that each is at least `step` from the next."""
    places = np.asarray(list(places), dtype=float)
    steps = np.arange(len(places)) * step
    return isotonic_regression(places - steps).x + steps


def name_ticks(ax: Axes, places: Iterable[float], names: Iterable[str], apart: float = 0.15, **style) -> None:
    """Make the x-axis logarithmic with names at rising places. A name less than `apart` of the range from another is lower."""
    logs, names = np.log(list(places)), list(names)
    span = (logs.max() - logs.min() or 1) if len(logs) else 1
    rows, labels = [], []  # rows: the place of the last name in each row
    for place, name in zip(logs, names, strict=True):
        row = next((i for i, last in enumerate(rows) if place - last > apart * span), len(rows)) if apart else 0
        rows[row:] = [place, *rows[row + 1 :]]
        labels.append("\n" * row * (1 + name.count("\n")) + name)
    ax.set_xscale("log")
    ax.set_xticks(np.exp(logs), labels, **style)
    ax.set_xticks([], minor=True)
