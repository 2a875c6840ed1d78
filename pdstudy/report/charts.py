"""Figures in one visual language: a tidy table and Axes in, Axes out.

Each recipe has one colour in every notebook; every seed is a faint dot behind the mean; teacher and majority
class are grey lines; intervals are named in the figure.
"""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from pdstudy.analysis import paper
from pdstudy.report.style import GREY, RECIPE_COLOURS, RECIPE_MARKERS, VERDICT_COLOURS, label_ends, name_ticks, new, style
from pdstudy.sizes import Size


def accuracy_by_size(metrics: pd.DataFrame, ax: Axes | None = None, recipes: Iterable[str] | None = None) -> Axes:
    """Draw test accuracy over parameters, one line a recipe: mean of the seeds, each seed a faint dot."""
    ax = ax or new()
    test = metrics[(metrics.split == "test") & (metrics.metric == "accuracy")]
    ends = []
    for recipe in recipes or [r for r in RECIPE_COLOURS if r in set(test.recipe)]:
        rows = test[test.recipe == recipe]
        mean = rows.groupby("n_params").value.mean() * 100
        colour, marker = RECIPE_COLOURS[recipe], RECIPE_MARKERS[recipe]
        ax.scatter(rows.n_params, rows.value * 100, color=colour, alpha=0.3, s=18, linewidth=0, marker=marker)
        ax.plot(mean.index, mean, color=colour, marker=marker, lw=2, ms=7)
        ends.append((mean.iloc[-1], recipe, colour, mean.index[-1]))
    floor, ceiling = (test[test.recipe == name].value.mean() * 100 for name in ("majority", "teacher"))
    if np.isfinite(ceiling):
        ax.axhline(ceiling, color=GREY, lw=1, ls="--", zorder=0)
        ax.annotate(
            f"teacher {ceiling:.1f}", (0.01, ceiling), xycoords=("axes fraction", "data"), va="bottom", color=GREY, fontsize=8
        )
    if np.isfinite(floor):  # far below everything, it would flatten what is to be seen: said, not drawn
        drawn = floor > ax.get_ylim()[0] - 5
        if drawn:
            ax.axhline(floor, color=GREY, lw=1, ls=":", zorder=0)
        note = f"majority class {floor:.1f}" + ("" if drawn else ", below this figure")
        ax.annotate(note, (0.01, 0.02), xycoords="axes fraction", color=GREY, fontsize=8)
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.12 * (high - low), high + 0.06 * (high - low))
    label_ends(ax, ends)
    sizes = test[test.recipe.isin(RECIPE_COLOURS)].drop_duplicates("size").sort_values("n_params")
    ax.set_xscale("log")
    name_ticks(ax, sizes.n_params, [f"{s}\n{n / 1e6:.1f} M" for s, n in zip(sizes["size"], sizes.n_params, strict=True)])
    ax.margins(x=0.12)
    ax.set(xlabel="student, layers/hidden and parameters", ylabel="test accuracy, %")
    return ax


def gains(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw claims as effects in points with 95 % intervals, one row a claim; the paper's value a grey diamond."""
    ax = ax or new(7.6, 0.42 * len(table) + 1.3)
    for y, row in enumerate(table.itertuples()):
        colour = VERDICT_COLOURS[row.verdict]
        if np.isfinite(row.low):
            ax.plot([row.low, row.high], [y, y], color=colour, lw=3, alpha=0.6, solid_capstyle="butt")
        if np.isfinite(row.estimate):
            ax.plot(row.estimate, y, "o", color=colour, ms=8)
        ax.plot(row.paper, y, "D", color="none", markeredgecolor="#9A9A9A", ms=7)
        ax.annotate(row.verdict, (1.01, y), xycoords=("axes fraction", "data"), va="center", color=colour, fontsize=9)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(table)), [f"{i}  {what}" for i, what in zip(table.id, table.compared, strict=True)])
    ax.invert_yaxis()
    words = "gain, points of test accuracy: dot and bar ours, 95 % interval; diamond the paper's, of its own task and scale"
    ax.figure.supxlabel(words, fontsize=9)  # wider than the axis, beside names so long
    return ax


def gains_by_size(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the gain of each pair of recipes at each size, with 95 % intervals."""
    ax = ax or new()
    pairs, sizes = list(dict.fromkeys(table.pair)), list(dict.fromkeys(table["size"]))
    for i, pair in enumerate(pairs):
        rows = table[table.pair == pair].set_index("size").reindex(sizes)
        x = np.arange(len(sizes)) + (i - (len(pairs) - 1) / 2) * 0.12
        colour = RECIPE_COLOURS[pair.split(" over ")[0]]
        ax.errorbar(
            x,
            rows.estimate,
            yerr=[rows.estimate - rows.low, rows.high - rows.estimate],
            fmt=RECIPE_MARKERS[pair.split(" over ")[0]],
            color=colour,
            capsize=3,
            lw=2,
            label=pair,
        )
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(range(len(sizes)), sizes)
    ax.margins(x=0.2)
    ax.set(xlabel="student, layers/hidden", ylabel="gain, points\n(bars: 95 % over seeds and texts)")
    if pairs:
        ax.legend(frameon=False, fontsize=9)
    return ax


def reading(metrics: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how well each pre-trained start reads: held-out MLM loss, beside the unigram loss that needs no context."""
    ax = ax or new(7.2, 3.2)
    starts = metrics[metrics.recipe == "start"].pivot_table(index=["n_params", "size", "seed"], columns="metric", values="value")
    starts = starts.sort_index().reset_index()
    y = np.arange(len(starts))
    ax.barh(y, starts.mlm_loss, color="#8FB8D0", height=0.6)
    for i, row in enumerate(starts.itertuples()):
        ax.annotate(f"{row.mlm_loss:.2f} nats, {row.mlm_accuracy:.0%} right", (0.05, i), va="center", fontsize=8.5)
    ax.axvline(starts.unigram_loss.mean(), color=GREY, ls="--", lw=1)
    ax.annotate(
        f"unigram {starts.unigram_loss.mean():.2f}",
        (starts.unigram_loss.mean(), 1.01),
        xycoords=("data", "axes fraction"),
        ha="center",
        color=GREY,
        fontsize=8.5,
    )
    labels = [s if starts["size"].value_counts()[s] == 1 else f"{s} #{n}" for s, n in zip(starts["size"], starts.seed, strict=True)]
    ax.set_yticks(y, labels)
    ax.set(xlabel="held-out MLM loss, nats (lower reads better)", ylabel="start")
    return ax


def family(curves: dict[str, list[dict]], records: dict[str, dict]) -> Axes:
    """Draw how a family read: training loss against pieces, held-out loss against parameters and against seconds."""
    style()
    _, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", width_ratios=(2, 1, 1))
    sizes = sorted(records, key=lambda size: records[size]["n_params"])
    colours = dict(zip(sizes, sns.color_palette("viridis", len(sizes) + 1), strict=False))
    order = sorted(sizes, key=lambda size: records[size]["reading"]["mlm_loss"])
    for size in sizes:
        table = pd.DataFrame(curves[size])
        smooth = table.loss.rolling(max(1, len(table) // 40), min_periods=1).mean()
        left.plot(table.tokens / 1e6, smooth, color=colours[size], lw=1.6, label=size)
        level, minutes = records[size]["reading"], records[size]["seconds"] / 60
        for ax, x in ((middle, records[size]["n_params"] / 1e6), (right, minutes)):
            ax.plot(x, level["mlm_loss"], "o", color=colours[size], ms=8)
            above = order.index(size) % 2 == 0  # by turns, or names of equal readers lie on each other
            ax.annotate(
                size, (x, level["mlm_loss"]), xytext=(5, 5 if above else -12), textcoords="offset points", fontsize=8.5, color=GREY
            )
    left.axhline(level["unigram_loss"], color=GREY, ls="--", lw=1)
    left.annotate(
        "unigram, held out",
        (1, level["unigram_loss"]),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        color=GREY,
        fontsize=8.5,
    )
    left.legend(frameon=False, fontsize=8.5, title="layers/hidden")
    left.set(xlabel="pieces read, millions", ylabel="training loss, nats")
    middle.set(xlabel="parameters, millions", ylabel="held-out MLM loss, nats")
    right.set(xlabel="minutes on one thread")
    for ax in (middle, right):
        ax.margins(0.25)
    return left


def front(table: pd.DataFrame, cost: str, label: str, chosen: str, limit: float | None = None, ax: Axes | None = None) -> Axes:
    """Draw dev accuracy over a cost, each student with the interval promised for new texts; those that none beats are joined.

    `table` is advise.Candidates' table, `chosen` "size recipe" of the student that is recommended, `limit` the most
    that the cost may be.
    """
    ax = ax or new(7.2, 4.0)
    students = table[(table.recipe != "teacher") & np.isfinite(table[cost])]
    for row in students.itertuples():
        colour, x = RECIPE_COLOURS[row.recipe], getattr(row, cost)
        ax.plot([x, x], [row.low, row.high], color=colour, lw=1.2, alpha=0.5)
        ax.plot(x, row.dev, RECIPE_MARKERS[row.recipe], color=colour, ms=8)
        if f"{row.size} {row.recipe}" == chosen:
            ax.plot(x, row.dev, "o", mfc="none", mec="black", ms=17, mew=1.6)
            ax.annotate("recommended", (x, row.dev), xytext=(12, -12), textcoords="offset points", fontsize=9, weight="bold")
    line = students[students[f"front_{cost}"]].sort_values(cost)
    ax.plot(line[cost], line.dev, color=GREY, lw=1, zorder=0)
    teacher = table[table.recipe == "teacher"]
    if len(teacher):
        ax.axhline(teacher.dev.iloc[0], color=GREY, lw=1, ls="--", zorder=0)
        note = f"teacher {teacher.dev.iloc[0]:.1f}"
        ax.annotate(note, (0.01, teacher.dev.iloc[0]), xycoords=("axes fraction", "data"), va="bottom", color=GREY, fontsize=8)
    if limit is not None:
        ax.axvline(limit, color="black", lw=1, ls=":")
        ax.annotate("limit", (limit, 0.02), xycoords=("data", "axes fraction"), ha="right", fontsize=8.5)
    handles = [
        plt.Line2D([], [], color=RECIPE_COLOURS[r], marker=RECIPE_MARKERS[r], ls="", label=r)
        for r in dict.fromkeys(students.recipe)
    ]
    ax.legend(handles=handles, frameon=False, fontsize=9)
    ax.set_xscale("log")
    ticks = sorted(students.drop_duplicates("size")[cost])
    names = students.drop_duplicates("size").set_index(cost)["size"]
    ax.set_xticks(ticks, [f"{x:.3g}\n{names[x]}" for x in ticks], fontsize=8.5)
    ax.set_xticks([], minor=True)
    ax.margins(x=0.12)
    ax.set(xlabel=label, ylabel="dev accuracy, % (bars: promised for\nnew texts, 95 %)")
    return ax


def curve(found, ax: Axes | None = None) -> Axes:
    """Draw a learning curve (advise.Curve): seeds as faint dots, their means, the law through them, its forecast for twice the text."""
    ax = ax or new(6.4, 3.6)
    points, most = found.points, found.points.texts.max()
    colour = RECIPE_COLOURS[found.recipe]
    ax.scatter(points.texts, points.value * 100, color=colour, alpha=0.3, s=18, linewidth=0)
    mean = points.groupby("texts").value.mean() * 100
    ax.plot(mean.index, mean, RECIPE_MARKERS[found.recipe], color=colour, ms=8)
    x = np.geomspace(points.texts.min(), most, 60)
    ax.plot(x, found.law.at(x) * 100, color=colour, lw=1.5)
    x = np.geomspace(most, 2 * most, 20)
    ax.plot(x, found.law.at(x) * 100, color=colour, lw=1.5, ls=":")
    ax.annotate(
        f"{found.twice:+.1f} forecast", (2 * most, found.law.at(2 * most) * 100), ha="right", va="bottom", color=colour, fontsize=9
    )
    ax.set_xscale("log")
    ticks = [*mean.index, 2 * most]
    ax.set_xticks(ticks, [f"{n:,.0f}" for n in ticks], fontsize=8.5)
    ax.set_xticks([], minor=True)
    kind = {"transfer": "transfer texts, labelled by the teacher", "labels": "labelled texts"}[found.kind]
    ax.set(xlabel=kind, ylabel=f"{found.size} by {found.recipe}:\ntest accuracy, %")
    return ax


def searches(table: pd.DataFrame) -> Axes:
    """Draw dev accuracy over the learning rate, one panel a recipe and one line a size; the chosen rate is filled."""
    table = table[table.recipe.isin(RECIPE_COLOURS)].drop_duplicates(["recipe", "size", "rate"])
    recipes, sizes, rates = (list(dict.fromkeys(table[column])) for column in ("recipe", "size", "rate"))
    style()
    _, panels = plt.subplots(
        1, max(1, len(recipes)), figsize=(1.75 * len(recipes) + 1.6, 3.2), sharey=True, layout="constrained", squeeze=False
    )
    colours = dict(zip(sizes, sns.color_palette("viridis", len(sizes) + 1), strict=False))
    for ax, recipe in zip(panels[0], recipes, strict=False):
        for size, rows in table[table.recipe == recipe].sort_values("rate").groupby("size", sort=False):
            ax.plot(rows.rate, rows.dev_accuracy * 100, "o-", color=colours[size], mfc="white", lw=1.3, ms=6)
            ax.plot(rows[rows.chosen].rate, rows[rows.chosen].dev_accuracy * 100, "o", color=colours[size], ms=7, zorder=3)
        ax.set_xscale("log")
        ax.set_xticks(sorted(rates), [f"{r:g}" for r in sorted(rates)], fontsize=8, rotation=45)
        ax.set_xticks([], minor=True)
        ax.margins(x=0.15)
        ax.set_title(recipe, fontsize=9.5, color=RECIPE_COLOURS[recipe], weight="bold")
    panels[0][0].set_ylabel("dev accuracy, %")
    handles = [plt.Line2D([], [], color=colour, marker="o", label=size) for size, colour in colours.items()]
    panels[0][0].figure.legend(handles=handles, frameon=False, fontsize=8.5, loc="outside right center")
    panels[0][0].figure.supxlabel("peak learning rate (filled: chosen)", fontsize=9)
    return panels[0][0]


def paper_sst2(ours: Iterable[str], ax: Axes | None = None) -> Axes:
    """Draw the paper's own figure for SST-2 in grey, all 24 sizes; the sizes that we share are ringed."""
    ax = ax or new()
    table = paper.sst2()
    table["n_params"] = [Size.parse(s).n_params() for s in table["size"]]
    ends = []
    for recipe, rows in table.groupby("recipe"):
        rows = rows.sort_values("n_params")
        ax.plot(rows.n_params, rows.value, color="#B0B0B0", marker=RECIPE_MARKERS[recipe], ms=4, lw=1)
        shared = rows[rows["size"].isin(set(ours))]
        ax.plot(shared.n_params, shared.value, ls="", marker="o", mfc="none", mec=RECIPE_COLOURS[recipe], ms=11, mew=1.5)
        ends.append((rows.value.iloc[-1], recipe, RECIPE_COLOURS[recipe], rows.n_params.iloc[-1]))
    label_ends(ax, ends)
    ax.set_xscale("log")
    ax.margins(x=0.14)
    ax.set(xlabel="parameters", ylabel="SST-2 accuracy, % (digitised, +-0.1)")
    return ax
