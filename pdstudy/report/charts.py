"""Charts: a function takes a tidy table and draws it on Axes, with the same colour for a recipe everywhere.

Faint dots are seeds, lines are their means, grey lines are the teacher and the majority class.
"""

from collections.abc import Iterable, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from pdstudy.analysis import paper
from pdstudy.analysis.crossings import Crossing
from pdstudy.recipes import LINEARS
from pdstudy.report import style
from pdstudy.sizes import Size
from pdstudy.storage.results import accuracies

STRATEGIES = ["PD", "PF", "Distillation", "Basic"]  # Fig 6
BESIDE = 1.014  # factor between the places of recipes of one size, so that they do not hide each other
ROOM = 5  # points above and below the students; wider intervals are cut at the edge
APART = 0.13  # share of the x-axis for the name of a size
NAME_HEIGHT = 0.06  # share of the y-axis for the name of a student


def students(metrics: pd.DataFrame, recipes: list[str]) -> pd.DataFrame:
    """Return the test accuracies of some recipes."""
    rows = accuracies(metrics[metrics.recipe.isin(recipes)])
    return rows[["recipe", "size", "seed", "value", "n", "n_params"]].reset_index(drop=True)


def accuracy_by_size(metrics: pd.DataFrame, ax: Axes | None = None, recipes: Iterable[str] = style.RECIPE_COLOURS) -> Axes:
    """Draw test accuracy over parameters, one line per recipe."""
    ax, test, ends = ax or style.new_axes(), accuracies(metrics), []
    for recipe in (r for r in recipes if r in set(test.recipe)):
        colour, marker = style.RECIPE_COLOURS[recipe], style.RECIPE_MARKERS[recipe]
        mean = style.seeds_and_mean(ax, test[test.recipe == recipe], "n_params", colour, marker, marker, 18, lw=2, ms=7)
        ends.append((mean.iloc[-1], recipe, colour, mean.index[-1]))
    floor, ceiling = (test[test.recipe == name].value.mean() * 100 for name in ("majority", "teacher"))
    if np.isfinite(ceiling):
        style.reference_line(ax, ceiling, f"teacher {ceiling:.1f}")
    style.linear_lines(ax, test, ends)
    if np.isfinite(floor):  # a line far below the students would compress the figure
        visible = floor > ax.get_ylim()[0] - 5
        if visible:
            ax.axhline(floor, color=style.GREY, lw=1, ls=":", zorder=0)
        text = f"majority class {floor:.1f}" + ("" if visible else ", below the range of this figure")
        ax.annotate(text, (0.01, 0.02), xycoords="axes fraction", color=style.GREY, fontsize=8)
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.12 * (high - low), high + 0.06 * (high - low))
    style.label_ends(ax, ends)
    sizes = test[test.recipe.isin(style.RECIPE_COLOURS)].drop_duplicates("size").sort_values("n_params")
    style.name_ticks(ax, sizes.n_params, [f"{s}\n{n / 1e6:.1f} M" for s, n in zip(sizes["size"], sizes.n_params, strict=True)])
    ax.margins(x=0.12)
    ax.set(xlabel="student, layers/hidden and parameters", ylabel="test accuracy, %")
    return ax


def gains(table: pd.DataFrame) -> Axes:
    """Draw claims as effects in points with 95 % intervals, one row per claim; the paper's value is a grey diamond."""
    ax = style.new_axes(7.6, 0.42 * len(table) + 1.3)
    names = [f"{i}  {compared}" for i, compared in zip(table.id, table.compared, strict=True)]
    style.intervals(ax, table, names, table.verdict.map(style.VERDICT_COLOURS), cycle("o"), 3, 8)
    for y, row in enumerate(table.itertuples()):
        ax.plot(row.paper, y, "D", color="none", markeredgecolor="#9A9A9A", ms=7)
        text = {"va": "center", "color": style.VERDICT_COLOURS[row.verdict], "fontsize": 9}
        ax.annotate(row.verdict, (1.01, y), xycoords=("axes fraction", "data"), **text)
    label = "gain, points of test accuracy: dot and bar ours, 95 % interval; diamond the paper's, of its own task and scale"
    ax.figure.supxlabel(label, fontsize=9)  # wider than the axis, beside long names
    return ax


def gains_by_size(table: pd.DataFrame) -> Axes:
    """Draw the gain of each pair of recipes at each size, with 95 % intervals."""
    ax = style.new_axes()
    pairs, sizes = list(dict.fromkeys(table.pair)), sorted(set(table["size"]), key=lambda size: Size.parse(size).n_params())
    for i, pair in enumerate(pairs):
        rows, better = table[table.pair == pair].set_index("size").reindex(sizes), pair.split(" over ")[0]
        x = np.arange(len(sizes)) + (i - (len(pairs) - 1) / 2) * 0.12
        bars = [rows.estimate - rows.low, rows.high - rows.estimate]
        marks = {"fmt": style.RECIPE_MARKERS[better], "color": style.RECIPE_COLOURS[better], "capsize": 3, "lw": 2}
        ax.errorbar(x, rows.estimate, yerr=bars, label=pair, **marks)
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(range(len(sizes)), sizes)
    ax.margins(x=0.2)
    ax.set(xlabel="student, layers/hidden", ylabel="gain, points\n(bars: 95 % over seeds and texts)")
    if pairs:
        ax.legend(frameon=False, fontsize=9)
    return ax


def mlm_losses(metrics: pd.DataFrame) -> Axes:
    """Draw the held-out MLM loss of each pre-trained encoder, beside the unigram loss that needs no context."""
    ax = style.new_axes(7.2, 3.2)
    starts = metrics[metrics.recipe == "start"].pivot_table(index=["n_params", "size", "seed"], columns="metric", values="value")
    starts = starts.sort_index().reset_index()
    y, unigram = np.arange(len(starts)), starts.unigram_loss.mean()
    ax.barh(y, starts.mlm_loss, color="#8FB8D0", height=0.6)
    for i, row in enumerate(starts.itertuples()):
        ax.annotate(f"{row.mlm_loss:.2f} nats, {row.mlm_accuracy:.0%} right", (0.05, i), va="center", fontsize=8.5)
    ax.axvline(unigram, color=style.GREY, ls="--", lw=1)
    top = {"xycoords": ("data", "axes fraction"), "ha": "center"}
    ax.annotate(f"unigram {unigram:.2f}", (unigram, 1.01), **top, color=style.GREY, fontsize=8.5)
    n_seeds = starts["size"].value_counts()
    names = [size if n_seeds[size] == 1 else f"{size} #{seed}" for size, seed in zip(starts["size"], starts.seed, strict=True)]
    ax.set_yticks(y, names)
    ax.set(xlabel="held-out MLM loss, nats (lower is better)", ylabel="start")
    return ax


def family_pretraining(curves: dict[str, list[dict]], records: dict[str, dict]) -> Axes:
    """Draw how a family was pre-trained: training loss over word pieces, held-out loss over parameters and over minutes."""
    left, middle, right = style.panels(3, 11, 3.6, width_ratios=(2, 1, 1))
    sizes = sorted(records, key=lambda size: records[size]["n_params"])
    colours = style.shades(sizes)
    order = sorted(sizes, key=lambda size: records[size]["reading"]["mlm_loss"])
    for size in sizes:
        table, level = pd.DataFrame(curves[size]), records[size]["reading"]
        smooth = table.loss.rolling(max(1, len(table) // 40), min_periods=1).mean()
        left.plot(table.tokens / 1e6, smooth, color=colours[size], lw=1.6, label=size)
        offset = (5, (5, -12)[order.index(size) % 2])  # alternately above and below, so that names of close points do not overlap
        for ax, x in ((middle, records[size]["n_params"] / 1e6), (right, records[size]["seconds"] / 60)):
            ax.plot(x, level["mlm_loss"], "o", color=colours[size], ms=8)
            place = (x, level["mlm_loss"])
            ax.annotate(size, place, xytext=offset, textcoords="offset points", fontsize=8.5, color=style.GREY)
    style.reference_line(left, level["unigram_loss"], "unigram, held out", x=1, fontsize=8.5)
    left.legend(frameon=False, fontsize=8.5, title="layers/hidden")
    left.set(xlabel="word pieces, millions", ylabel="training loss, nats")
    middle.set(xlabel="parameters, millions", ylabel="held-out MLM loss, nats")
    right.set(xlabel="minutes on one thread")
    for ax in (middle, right):
        ax.margins(0.25)
    return left


def front(table: pd.DataFrame, cost: str, xlabel: str, ylabel: str, teacher: float, linear: float = np.nan) -> Axes:
    """Draw accuracy over a cost, each student with its interval; those on the Pareto front are named and joined by a line.

    `table` has the columns recipe, size, x (the cost), accuracy, low, high and front. `teacher` and `linear` are accuracies in percent,
    nan if there is none.
    """
    ax, table = style.new_axes(8.4, 4.6), table[np.isfinite(table.x)]
    recipes = [r for r in style.MODEL_COLOURS if r in set(table.recipe)]
    beside = {recipe: BESIDE ** (i - (len(recipes) - 1) / 2) for i, recipe in enumerate(recipes)}
    sizes = table.drop_duplicates("size").sort_values("x")
    table = table.assign(x=table.x * table.recipe.map(beside))
    for row in table.itertuples():
        ax.plot([row.x, row.x], [row.low, row.high], color=style.MODEL_COLOURS[row.recipe], lw=1.2, alpha=0.5)
        ax.plot(row.x, row.accuracy, ls="", ms=8, gid=f"{row.size} {row.recipe}", **style.model_marker(row.recipe))
    line = table[table.front].sort_values("x")
    ax.plot(line.x, line.accuracy, color=style.GREY, lw=1, zorder=0)
    line = line.sort_values("accuracy")  # a name is below its point where the one above it is too near
    near = np.abs(np.log(line.x.shift(-1) / line.x)) < 1.5 * APART * np.ptp(np.log(table.x))
    below = near & (line.accuracy.diff().shift(-1) < NAME_HEIGHT * np.ptp(table.accuracy))
    for row, under in zip(line.itertuples(), below, strict=True):
        name = row.recipe if row.recipe in LINEARS else f"{row.size} {row.recipe}"
        look = {"fontsize": 8.5, "weight": "bold", "color": style.MODEL_COLOURS[row.recipe], "path_effects": style.HALO}
        at = {"xytext": (-6, -4 if under else 4), "ha": "right", "va": "top" if under else "bottom"}
        ax.annotate(name, (row.x, row.accuracy), textcoords="offset points", **look, **at)
    if np.isfinite(teacher):
        style.reference_line(ax, teacher, f"teacher\n{teacher:.1f}", x=1.01, ha="left", va="center")
    if np.isfinite(linear):
        style.reference_line(ax, linear, f"linear {linear:.1f}", style.LINEAR_COLOUR, "-.")
    low, high = np.fmax(table.low.min(), table.accuracy.min() - ROOM), np.fmin(table.high.max(), table.accuracy.max() + ROOM)
    ax.set_ylim(np.fmin(low, np.fmin(teacher, linear) - 1), np.fmax(high, np.fmax(teacher, linear) + 1))
    costs = [f"{x / 1e6:.2f} M" if cost == "n_params" else f"{x:.3g}" for x in sizes.x]
    style.name_ticks(ax, sizes.x, map("{}\n{}".format, sizes["size"], costs), APART, fontsize=8.5)
    ax.margins(x=0.2)
    style.recipe_legend(ax, recipes, loc="lower left", bbox_to_anchor=(1, 0))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return ax


def front_on_dev(table: pd.DataFrame, cost: str, label: str, chosen: str, limit: float | None = None) -> Axes:
    """Draw dev accuracy over a cost, each student with its 95 % interval on new texts, and mark the recommended student.

    `table` is that of `advice.candidates.Candidates`, `chosen` the "size recipe" of the recommended student, `limit` the largest
    cost allowed.
    """
    students = table[table.recipe != "teacher"].assign(x=table[cost], accuracy=table.dev, front=table[f"front_{cost}"])
    ylabel = "dev accuracy, % (bars: 95 % interval\nfor new texts)"
    ax = front(students, cost, label, ylabel, table[table.recipe == "teacher"].dev.mean())
    for line in (line for line in ax.get_lines() if line.get_gid() == chosen):
        ax.plot(*line.get_data(), "o", mfc="none", mec="black", ms=17, mew=1.6)
        place = (line.get_xdata()[0], line.get_ydata()[0])
        ax.annotate("recommended", place, xytext=(12, -12), textcoords="offset points", fontsize=9, weight="bold")
    if limit is not None:
        ax.axvline(limit, color="black", lw=1, ls=":")
        ax.annotate("limit", (limit, 0.02), xycoords=("data", "axes fraction"), ha="right", fontsize=8.5)
    return ax


def learning_curve(curve) -> Axes:
    """Draw a `candidates.Curve`: seeds, their means, the fitted curve and its forecast for twice the text."""
    ax, points, most = style.new_axes(6.4, 3.6), curve.points, curve.points.texts.max()
    colour = style.MODEL_COLOURS[curve.recipe]
    mean = style.seeds_and_mean(ax, points, "texts", colour, style.MODEL_MARKERS[curve.recipe], s=18, ls="", ms=8)
    for low, high, n, ls in ((points.texts.min(), most, 60, "-"), (most, 2 * most, 20, ":")):
        x = np.geomspace(low, high, n)
        ax.plot(x, curve.law.at(x) * 100, color=colour, lw=1.5, ls=ls)
    end = (2 * most, curve.law.at(2 * most) * 100)
    ax.annotate(f"{curve.twice:+.1f} forecast", end, ha="right", va="bottom", color=colour, fontsize=9)
    ticks = [*mean.index, 2 * most]
    style.name_ticks(ax, ticks, [f"{n:,.0f}" for n in ticks], 0, fontsize=8.5)
    kind = {"transfer": "transfer texts, labelled by the teacher", "labels": "labelled texts"}[curve.kind]
    ax.set(xlabel=kind, ylabel=f"{curve.size} by {curve.recipe}:\ntest accuracy, %")
    return ax


def crossings(ax: Axes, crossed: Sequence[Crossing]) -> None:
    """Mark at the foot of a panel from how many texts on one model is above another: a dot with its interval, one row each."""
    ends = ax.get_xlim()
    low, high = ax.get_ylim()
    inside = [c for c in crossed if 0 < c.at < np.inf]
    ax.set_ylim(low - 0.09 * len(inside) * (high - low), high)
    where = ax.get_xaxis_transform()  # y as a share of the axis
    for row, crossing in enumerate(inside):
        y, colour = 0.04 + 0.075 * row, style.MODEL_COLOURS[crossing.better.recipe]
        bounds = np.clip([crossing.low, crossing.high], *ends)
        ax.plot(bounds, [y, y], color=colour, lw=2.5, alpha=0.5, transform=where, solid_capstyle="butt")
        ax.plot(crossing.at, y, "|", color=colour, ms=9, mew=2, transform=where)
        text = f"{crossing.better} overtakes {crossing.worse.recipe}"
        ax.annotate(text, (ends[1], y), xycoords=where, ha="right", va="center", color=colour, fontsize=8, path_effects=style.HALO)


def rate_searches(table: pd.DataFrame) -> Axes:
    """Draw dev accuracy over the learning rate, one panel per recipe and one line per size; the chosen rate is filled.

    Where batch sizes or epochs are searched too, each point is the best of its rate.
    """
    table = table[table.recipe.isin(style.RECIPE_COLOURS) & table.corpus.isna()]
    recipes, sizes, rates = (list(dict.fromkeys(table[column])) for column in ("recipe", "size", "rate"))
    table = table.sort_values(["chosen", "dev_accuracy"], ascending=False).drop_duplicates(["recipe", "size", "rate"])
    axes, colours = style.panels(max(1, len(recipes)), 1.75 * len(recipes) + 1.6, 3.2, sharey=True), style.shades(sizes)
    for ax, recipe in zip(axes, recipes, strict=False):
        for size, rows in table[table.recipe == recipe].sort_values("rate").groupby("size", sort=False):
            ax.plot(rows.rate, rows.dev_accuracy * 100, "o-", color=colours[size], mfc="white", lw=1.3, ms=6)
            ax.plot(rows[rows.chosen].rate, rows[rows.chosen].dev_accuracy * 100, "o", color=colours[size], ms=7, zorder=3)
        style.name_ticks(ax, sorted(rates), [f"{r:g}" for r in sorted(rates)], 0, fontsize=8, rotation=45)
        ax.margins(x=0.15)
        ax.set_title(recipe, fontsize=9.5, color=style.RECIPE_COLOURS[recipe], weight="bold")
    axes[0].set_ylabel("dev accuracy, %")
    handles = [axes[0].plot([], [], color=colour, marker="o", label=size)[0] for size, colour in colours.items()]
    axes[0].figure.legend(handles=handles, frameon=False, fontsize=8.5, loc="outside right center")
    axes[0].figure.supxlabel("peak learning rate (filled: chosen)", fontsize=9)
    return axes[0]


def by_width(table: pd.DataFrame, ax: Axes, palette: str) -> None:
    """Draw accuracy over `x`, one line per hidden width, with the names of the sizes."""
    table = table.assign(hidden=[Size.parse(s).hidden for s in table["size"]])
    means = table.groupby(["hidden", "size"], sort=False).agg(x=("x", "first"), value=("value", "mean")).reset_index()
    widths = sorted(means.hidden.unique())
    for (width, colour), marker in zip(style.shades(widths, palette, 1).items(), cycle(style.WIDTH_MARKERS), strict=False):
        rows = means[means.hidden == width].sort_values("x")
        ax.plot(rows.x, rows.value * 100, color=colour, marker=marker, lw=1.6, ms=6, label=f"{width} wide")
        for _, row in (rows if len(rows) < 5 else rows.iloc[[0, -1]]).iterrows():  # the ends of a long line
            place = (row.x, row.value * 100)
            ax.annotate(row["size"], place, xytext=(4, -11), textcoords="offset points", fontsize=7.5, color=style.GREY)
    if len(means):
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("{x:g}")
        ax.legend(frameon=False, fontsize=8.5)
    ax.margins(0.12)


def paper_sst2(ours: Iterable[str], ax: Axes) -> None:
    """Draw the paper's Fig 6 for SST-2 in grey, with rings around the sizes in `ours`."""
    table = paper.sst2().assign(x=lambda t: [Size.parse(s).n_params() for s in t["size"]])
    paper_lines(table, ax, "parameters", "SST-2 accuracy, % (digitised, +-0.1)")
    for recipe, rows in table[table["size"].isin(set(ours))].groupby("recipe"):
        ax.plot(rows.x, rows.value, ls="", marker="o", mfc="none", mec=style.RECIPE_COLOURS[recipe], ms=11, mew=1.5)


def paper_lines(table: pd.DataFrame, ax: Axes, x: str, y: str, log: bool = True) -> None:
    """Draw the paper's values in grey, one line per recipe; `x` and `y` are the labels of the axes."""
    ends = []
    for recipe, rows in table.groupby("recipe", sort=False):
        rows = rows.sort_values("x")
        marker = next((m for r, m in style.RECIPE_MARKERS.items() if recipe == r or recipe.startswith(r + " ")), "o")
        ax.plot(rows.x, rows.value, color=style.PAPER_GREY, marker=marker, ms=5, lw=1)
        ends.append((rows.value.iloc[-1], recipe, style.RECIPE_COLOURS.get(recipe, style.GREY), rows.x.iloc[-1]))
    ax.margins(x=0.2, y=0.1)
    style.label_ends(ax, ends)
    if log:
        ax.set_xscale("log")
    ax.set(xlabel=x, ylabel=y)


def paper_by_size(table: pd.DataFrame, ax: Axes, title: str) -> None:
    """Draw the paper's accuracies on MNLI over the size of the student in grey, with a title."""
    table = table.assign(x=[Size.parse(size).n_params() for size in table["size"]])
    paper_lines(table, ax, "student, layers/hidden", "MNLI accuracy, % (digitised)")
    sizes = table.drop_duplicates("size").sort_values("x")
    style.name_ticks(ax, sizes.x, sizes["size"])
    style.title_panels(ax, title)
