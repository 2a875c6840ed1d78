"""What all figures share: colours and marks by recipe and width, axes, labels, and the paper's numbers beside ours in grey."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator
from scipy.optimize import isotonic_regression

from pdstudy.sizes import Size

RECIPE_COLOURS = {  # Okabe and Ito's palette: told apart by colour-blind eyes, and by lightness in greyscale
    "PD": "#0072B2",
    "PF": "#D55E00",
    "Distillation": "#56B4E9",
    "Basic": "#E69F00",
    "PD-F": "#003A5D",
    "PD (embeddings)": "#CC79A7",
    "PD (truncated)": "#009E73",
}
RECIPE_MARKERS = {
    "PD": "o",
    "PF": "s",
    "Distillation": "^",
    "Basic": "D",
    "PD-F": "P",
    "PD (embeddings)": "v",
    "PD (truncated)": "X",
}
WIDTH_MARKERS = ["o", "s", "^", "D", "v"]  # of the widths in rising order, with their colours
VERDICT_COLOURS = {"supported": "#0072B2", "refuted": "#B22222", "undecided": "#777777", "not measured": "#BBBBBB"}
GREY = "#6E6E6E"
HALO = [withStroke(linewidth=2.5, foreground="white")]  # around words that lie on lines


def style() -> None:
    """Set the look of every figure."""
    sns.set_theme(context="notebook", style="ticks", font_scale=0.9)
    plt.rcParams.update(
        {"figure.dpi": 110, "savefig.dpi": 150, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}
    )


def new(width: float = 7.2, height: float = 4.2) -> Axes:
    """Return the Axes of a new figure of this size in inches."""
    style()
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def show(ax: Axes, alt: str, name: str = "") -> None:
    """Display a figure once, with its text for those who cannot see it, and close it.

    By its name a page links it to its claims and its data, by its width it keeps its letters one size.
    """
    from IPython.display import display

    display(ax.figure, metadata={"image/png": {"alt": alt, "figure": name, "inches": ax.figure.get_figwidth()}})
    plt.close(ax.figure)


def label_ends(ax: Axes, ends: list[tuple[float, str, str, float]]) -> None:
    """Write the lines' names beside the last point, pushed apart where they would overlap: (y, text, colour, x).

    A line that ends before the others is led to its name, which would lie on theirs.
    """
    if not ends:
        return
    low, high = ax.get_ylim()
    ends = sorted(ends)
    places = apart([y for y, *_ in ends], 0.055 * (high - low))
    right = max(x for *_, x in ends)
    for (y, text, colour, x), place in zip(ends, places, strict=True):
        if x < right:
            ax.plot([x, right], [y, place], color=colour, lw=0.8, ls=":", zorder=0)
        ax.annotate(
            text, (right, place), xytext=(9, 0), textcoords="offset points", va="center", color=colour, fontsize=9, weight="bold",
            path_effects=HALO, annotation_clip=False,
        )  # fmt: skip


def apart(places: Iterable[float], step: float) -> np.ndarray:
    """Return places in rising order moved as little as can be (least squares) so that each is at least `step` from the next."""
    places = np.asarray(list(places), dtype=float)
    steps = np.arange(len(places)) * step
    return isotonic_regression(places - steps).x + steps


def name_ticks(ax: Axes, places: Iterable[float], names: Iterable[str], apart: float = 0.15) -> None:
    """Name places of a logarithmic axis, in rising order; a name that would touch another stands lower."""
    places, names = np.log(list(places)), list(names)
    span = (places.max() - places.min() or 1) if len(places) else 1
    rows, labels = [], []  # where the last name of each row stands
    for place, name in zip(places, names, strict=True):
        row = next((i for i, last in enumerate(rows) if place - last > apart * span), len(rows))
        rows[row:] = [place, *rows[row + 1 :]]
        labels.append("\n" * row * (1 + name.count("\n")) + name)
    ax.set_xticks(np.exp(places), labels)
    ax.set_xticks([], minor=True)


def save(figure: Figure, folder, name: str, kinds: tuple[str, ...] = ("png", "svg")) -> None:
    """Write a figure in every kind."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        figure.savefig(folder / f"{name}.{kind}")


PAPER_GREY = "#A0A0A0"
STRATEGIES = ["PD", "PF", "Distillation", "Basic"]  # Fig 6


@dataclass(frozen=True)
class Drawn:
    """A figure: what is seen, its data, and its text for those who cannot see it."""

    axes: Axes
    data: pd.DataFrame
    alt: str


def beside() -> tuple[Axes, Axes]:
    """Return the Axes of a figure of two panels: ours, and the paper's in grey."""
    style()
    return tuple(plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", width_ratios=(1.25, 1))[1])


def title_of_paper(ax: Axes, text: str) -> None:
    """Title the paper's panel, and ours beside it."""
    ax.figure.axes[0].set_title("This study", fontsize=9.5)
    ax.set_title(text, fontsize=9.5, color=GREY)


def paper_lines(table: pd.DataFrame, ax: Axes, x: str, y: str, log: bool = True) -> None:
    """Draw the paper's values over `x` in grey, one line a recipe, named at its end."""
    ends = []
    for recipe, rows in table.groupby("recipe", sort=False):
        rows = rows.sort_values("x")
        marker = next((m for r, m in RECIPE_MARKERS.items() if recipe.startswith(r + " ") or recipe == r), "o")
        ax.plot(rows.x, rows.value, color=PAPER_GREY, marker=marker, ms=5, lw=1)
        ends.append((rows.value.iloc[-1], recipe, GREY, rows.x.iloc[-1]))
    ax.margins(x=0.25, y=0.1)
    label_ends(ax, ends)
    if log:
        ax.set_xscale("log")
    ax.set(xlabel=x, ylabel=y)


def paper_by_size(table: pd.DataFrame, ax: Axes, text: str) -> None:
    """Draw the paper's accuracies on MNLI over student size in grey, under a title."""
    table = table.assign(x=[Size.parse(size).n_params() for size in table["size"]])
    paper_lines(table, ax, "student, layers/hidden", "MNLI accuracy, % (digitised)")
    sizes = table.drop_duplicates("size").sort_values("x")
    name_ticks(ax, sizes.x, sizes["size"])
    title_of_paper(ax, text)


def by_width(table: pd.DataFrame, ax: Axes, palette: str) -> None:
    """Draw accuracy over `x`, the layers of one width joined and each point named by its size."""
    table = table.assign(hidden=[Size.parse(s).hidden for s in table["size"]])
    means = table.groupby(["hidden", "size"], sort=False).agg(x=("x", "first"), value=("value", "mean")).reset_index()
    widths = sorted(means.hidden.unique())
    colours = dict(zip(widths, sns.color_palette(palette, len(widths) + 2)[1:], strict=False))
    for width, marker in zip(widths, cycle(WIDTH_MARKERS), strict=False):
        rows = means[means.hidden == width].sort_values("x")
        ax.plot(rows.x, rows.value * 100, color=colours[width], marker=marker, lw=1.6, ms=6, label=f"{width} wide")
        named = rows if len(rows) < 5 else rows.iloc[[0, -1]]  # of a crowd its ends
        for row in named.assign(name=named["size"]).itertuples():
            ax.annotate(row.name, (row.x, row.value * 100), xytext=(4, -11), textcoords="offset points", fontsize=7.5, color=GREY)
    if len(means):
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("{x:g}")
        ax.legend(frameon=False, fontsize=8.5)
    ax.margins(0.12)


def students(metrics: pd.DataFrame, recipes: list[str]) -> pd.DataFrame:
    """Return the test accuracies of some recipes."""
    found = metrics[metrics.recipe.isin(recipes) & (metrics.split == "test") & (metrics.metric == "accuracy")]
    return found[["recipe", "size", "seed", "value", "n", "n_params"]].reset_index(drop=True)
