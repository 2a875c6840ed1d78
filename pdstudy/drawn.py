"""A figure as it is drawn, and what figures share: two panels, the paper's lines in grey, the layers of one width joined."""

from dataclasses import dataclass
from itertools import cycle

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from pdstudy import plots
from pdstudy.plots import GREY, RECIPE_MARKERS, WIDTH_MARKERS
from pdstudy.sizes import Size

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
    plots.style()
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
    plots.label_ends(ax, ends)
    if log:
        ax.set_xscale("log")
    ax.set(xlabel=x, ylabel=y)


def paper_by_size(table: pd.DataFrame, ax: Axes, text: str) -> None:
    """Draw the paper's accuracies on MNLI over student size in grey, under a title."""
    table = table.assign(x=[Size.parse(size).n_params() for size in table["size"]])
    paper_lines(table, ax, "student, layers/hidden", "MNLI accuracy, % (digitised)")
    sizes = table.drop_duplicates("size").sort_values("x")
    plots.name_ticks(ax, sizes.x, sizes["size"])
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
