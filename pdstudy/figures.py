"""The figures of the study, the paper's own beside ours: each is drawn from a study's results, shown once, and kept.

Kept is the picture (PNG, SVG) and its data (CSV) in outputs/<study>/figures/. A figure's title is its finding, taken from
the verdicts; what was not measured is not drawn, and the figure says so.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from pdstudy import claims, contrasts, evidence, paper, paths, plots, results, stats
from pdstudy.plots import GREY, RECIPE_COLOURS, RECIPE_MARKERS, WIDTH_MARKERS
from pdstudy.sizes import Size

PAPER_GREY = "#A0A0A0"
STARTS = ["PD", "PD (truncated)", "PD (embeddings)", "Distillation"]  # Fig 5
STRATEGIES = ["PD", "PF", "Distillation", "Basic"]  # Fig 6
NO_START = "none: Distillation"  # the D_LM of a student that begins at random
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


@dataclass(frozen=True)
class Drawn:
    """A figure: what is seen, its data, and its text for those who cannot see it."""

    axes: Axes
    data: pd.DataFrame
    alt: str


def draw(study: str, name: str, verdicts: pd.DataFrame) -> Drawn:
    """Return one of FIGURES for a study, titled by its verdicts. Raises KeyError for a name that there is not."""
    drawn = FIGURES[name](study, verdicts)
    findings = drawn.axes.figure.get_suptitle().replace("\n", ". ")
    return replace(drawn, alt=f"{drawn.alt}. {findings}" if findings else drawn.alt)


def of_claims() -> dict[str, str]:
    """Return the figure of each claim that has one: the last one titled by it, else the effects of its question."""
    titled = {id: name for name, ids in TITLES.items() for id in ids}
    effects = {claim.id: f"gains_{claim.question}" for claim in claims.CLAIMS if isinstance(claim, claims.Claim)}
    return effects | titled


def keep(drawn: Drawn, study: str, name: str) -> None:
    """Write a figure as PNG and SVG and its data as CSV."""
    folder = paths.study_folder(study) / "figures"
    plots.save(drawn.axes.figure, folder, name)
    drawn.data.to_csv(folder / f"{name}.csv", index=False)


def show(study: str, name: str, verdicts: pd.DataFrame) -> None:
    """Draw a figure, keep it, and display it once."""
    drawn = draw(study, name, verdicts)
    keep(drawn, study, name)
    plots.show(drawn.axes, drawn.alt, name)


# -- Fig 6 and what it says


def strategies(study: str, verdicts: pd.DataFrame) -> Drawn:
    """Draw Fig 6: four strategies over sizes."""
    metrics, (left, right) = results.load_results(study), beside()
    plots.accuracy_by_size(metrics, left, [r for r in STRATEGIES if r in set(metrics.recipe)])
    plots.paper_sst2(results.load_settings(study)["sizes"], right)
    title(left, verdicts, "strategies")
    title_of_paper(right, "The paper, Fig 6: SST-2, all 24 sizes; ringed: sizes we share")
    return Drawn(
        left, _students(metrics, STRATEGIES), "Test accuracy over student size for four strategies, the paper's Fig 6 beside it"
    )


def gains(study: str, verdicts: pd.DataFrame, question: str) -> Drawn:
    """Draw the claims of one question that have an effect, the paper's values beside them."""
    shown = verdicts[(verdicts.n_seeds > 0) & (verdicts.question == question)]
    return Drawn(
        plots.gains(shown), shown, "Each claim as a paired effect in points with its 95 % interval, beside the paper's value"
    )


def pretraining_gain(study: str, verdicts: pd.DataFrame) -> Drawn:
    """Draw what reading first adds, by size, to students that are distilled and to those that are fine-tuned."""
    table = claims.gains_by_size(study, [("PD", "Distillation"), ("PF", "Basic")])
    ax = plots.gains_by_size(table)
    title(ax, verdicts, "pretraining_gain")
    return Drawn(ax, table, "Gain from pre-training by size, for distilled and for fine-tuned students, with 95 % intervals")


# -- Fig 5


def starts(study: str, verdicts: pd.DataFrame) -> Drawn:
    """Draw Fig 5: a distilled student's four starts over sizes."""
    metrics, (left, right) = results.load_results(study), beside()
    plots.accuracy_by_size(metrics, left, [r for r in STARTS if r in set(metrics.recipe)])
    theirs = paper.initialisations()
    theirs["x"] = [Size.parse(s).n_params() for s in theirs["size"]]
    paper_lines(theirs, right, "student, layers/hidden", "MNLI accuracy, % (digitised)")
    name_sizes(right, theirs)
    title(left, verdicts, "starts")
    title_of_paper(right, "The paper, Fig 5: MNLI")
    return Drawn(
        left,
        _students(metrics, STARTS),
        "Test accuracy over student size for four starts of a distilled student, the paper's Fig 5 beside it",
    )


# -- depth and width


def depth_width(study: str, verdicts: pd.DataFrame) -> Drawn:
    """Draw accuracy over depth, one line a width, one panel a recipe."""
    metrics = _students(results.load_results(study), STRATEGIES)
    metrics[["layers", "hidden"]] = [(Size.parse(s).layers, Size.parse(s).hidden) for s in metrics["size"]]
    recipes = [r for r in STRATEGIES if r in set(metrics.recipe)]
    plots.style()
    _, panels = plt.subplots(
        1, len(recipes), figsize=(2.7 * len(recipes) + 1, 3.8), sharey=True, layout="constrained", squeeze=False
    )
    widths = sorted(metrics.hidden.unique())
    colours = dict(zip(widths, sns.color_palette("viridis", len(widths) + 1), strict=False))
    for ax, recipe in zip(panels[0], recipes, strict=True):
        rows = metrics[metrics.recipe == recipe]
        for width, marker in zip(widths, cycle(WIDTH_MARKERS), strict=False):
            mine = rows[rows.hidden == width]
            mean = mine.groupby("layers").value.mean() * 100
            ax.scatter(mine.layers, mine.value * 100, color=colours[width], alpha=0.35, s=16, linewidth=0, marker=marker)
            ax.plot(mean.index, mean, color=colours[width], marker=marker, lw=1.8, ms=6, label=f"{width} wide")
        ax.set_xticks(sorted(metrics.layers.unique()))
        ax.set_title(recipe, fontsize=10, color=RECIPE_COLOURS[recipe], weight="bold")
        ax.set(xlabel="layers")
    panels[0][0].set_ylabel("test accuracy, %\n(dots: seeds, line: their mean)")
    panels[0][-1].legend(frameon=False, fontsize=8.5)
    title(panels[0][0], verdicts, "depth_width")
    return Drawn(panels[0][0], metrics, "Test accuracy over depth, one line for each width, one panel for each recipe")


def matched(study: str, verdicts: pd.DataFrame) -> Drawn:
    """Draw deep over wide students at matched parameters and at matched latency, one row a recipe and pair."""
    e, rows = evidence.Evidence(study), []
    for how, pairs_of in (("parameters", contrasts.pairs_matched_in_parameters), ("latency", contrasts.pairs_matched_in_latency)):
        try:
            pairs = pairs_of(e)
        except evidence.Missing:
            continue
        for recipe in (r for r in STRATEGIES if r in e.recipes):
            for deep, wide in pairs:
                try:
                    found = e.effect(evidence.between(evidence.Arm(recipe, deep), evidence.Arm(recipe, wide)))
                except evidence.Missing:
                    continue
                kept = {k: getattr(found, k) for k in ("estimate", "low", "high", "n_seeds", "n_items")}
                rows.append({"matched in": how, "recipe": recipe, "pair": f"{deep} over {wide}"} | kept)
    table = pd.DataFrame(rows, columns=["matched in", "recipe", "pair", "estimate", "low", "high", "n_seeds", "n_items"])
    ax = plots.new(7.6, 0.34 * max(3, len(table)) + 1.2)
    for y, row in enumerate(table.itertuples()):
        colour = RECIPE_COLOURS[row.recipe]
        ax.plot([row.low, row.high], [y, y], color=colour, lw=2.5, alpha=0.6)
        ax.plot(row.estimate, y, RECIPE_MARKERS[row.recipe], color=colour, ms=7)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(table)), [f"{r.recipe}, {r.pair}, {r[1]}" for r in table.itertuples()], fontsize=8.5)
    ax.invert_yaxis()
    ax.figure.supxlabel("deep minus wide, points of test accuracy (bars: 95 % over seeds and texts)", fontsize=9)
    title(ax, verdicts, "matched")
    return Drawn(ax, table, "Deep minus wide students at matched parameters and at matched latency, with 95 % intervals")


def speed(study: str, verdicts: pd.DataFrame) -> Drawn:
    """Draw PD's accuracy over measured latency, one line a width; the paper's over its TPU's speed beside it."""
    metrics, latency = _students(results.load_results(study), ["PD"]), results.load_latency(study)
    metrics = metrics.assign(x=metrics["size"].map(latency)).dropna(subset="x")
    left, right = beside()
    by_width(metrics, left, "viridis")
    left.set(xlabel="milliseconds for one text, median, one thread of this machine", ylabel="test accuracy of PD, %")
    theirs = paper.sst2().query("recipe == 'PD'").merge(paper.sizes(), on="size")
    by_width(theirs.assign(x=1 / theirs.speedup, value=theirs.value / 100), right, "Greys")
    right.set(xlabel="time on the paper's TPU, BERT-Large = 1", ylabel="SST-2 accuracy of PD, % (digitised)")
    title(left, verdicts, "speed")
    title_of_paper(right, "The paper, Fig 6 over Table 2: never plotted there")
    return Drawn(
        left, metrics, "Accuracy of distilled students over their measured latency, one line for each width, the paper's beside it"
    )


# -- Fig 10


def compound(study: str, verdicts: pd.DataFrame) -> Drawn:
    """Draw Fig 10: students that read and distil the same text."""
    own, other = results.load_results(study), results.load_compound(study)
    read = other[(other.corpus == "transfer") & other.recipe.isin(["PD", "PF"])]
    sizes = set(read["size"])
    table = _both(
        read, own[(own.recipe == "Distillation") & own["size"].isin(sizes)], own[own.recipe.isin(["teacher", "majority"])]
    )
    left, right = beside()
    plots.accuracy_by_size(table, left, [r for r in ("PD", "PF", "Distillation") if r in set(table.recipe)])
    theirs = paper.compound()
    theirs["x"] = [Size.parse(s).n_params() for s in theirs["size"]]
    paper_lines(theirs, right, "student, layers/hidden", "MNLI accuracy, % (digitised)")
    name_sizes(right, theirs)
    title(left, verdicts, "compound")
    title_of_paper(right, "The paper, Fig 10: MNLI, D_LM = D_T")
    return Drawn(
        left,
        _students(table, STRATEGIES),
        "Test accuracy of students that read and distil the same text, the paper's Fig 10 beside it",
    )


def corpora(study: str, verdicts: pd.DataFrame) -> Drawn:
    """Draw what students of each recipe are worth by the D_LM that their start has read."""
    own, other = results.load_results(study), results.load_compound(study)
    recipes = [r for r in ("PD", "PF") if r in set(other.recipe)]
    sizes = list(dict.fromkeys(other[other.recipe.isin(recipes)].sort_values("n_params")["size"]))
    mine = own[own.recipe.isin(recipes) & own["size"].isin(sizes)].assign(corpus="the study's own")
    base = own[(own.recipe == "Distillation") & own["size"].isin(sizes)].assign(corpus=NO_START)
    table = _both(base, other[other.recipe.isin(recipes)].replace({"corpus": {"transfer": "D_T itself"}}), mine)
    table = table[(table.split == "test") & (table.metric == "accuracy")]
    ax, order = plots.new(7.6, 4.2), list(dict.fromkeys(table.corpus))
    places = [(k - (len(sizes) - 1) / 2) * 0.7 / len(sizes) for k in range(len(sizes))]
    for i, corpus in enumerate(order):
        for j, recipe in enumerate(["Distillation"] if corpus == NO_START else recipes):
            for size, place in zip(sizes, places, strict=True):
                rows = table[(table.corpus == corpus) & (table.recipe == recipe) & (table["size"] == size)]
                if rows.empty:
                    continue
                x = i + place + j * 0.2 / len(sizes)
                ax.scatter([x] * len(rows), rows.value * 100, color=RECIPE_COLOURS[recipe], alpha=0.3, s=16, linewidth=0)
                ax.plot(x, rows.value.mean() * 100, RECIPE_MARKERS[recipe], color=RECIPE_COLOURS[recipe], ms=8)
    ax.set_xticks(range(len(order)), order)
    ax.tick_params("x", length=0, pad=18)
    ax.set_xticks([i + place for i in range(len(order)) for place in places], sizes * len(order), minor=True, fontsize=8)
    handles = [
        plt.Line2D([], [], color=RECIPE_COLOURS[r], marker=RECIPE_MARKERS[r], ls="", label=r) for r in ("Distillation", *recipes)
    ]
    ax.legend(handles=handles, frameon=False, fontsize=9)
    ax.margins(0.08)
    ax.set(xlabel="D_LM, what the start has read", ylabel="test accuracy, %\n(faint: seeds)")
    title(ax, verdicts, "corpora")
    return Drawn(ax, table, "Test accuracy by the text that a student's start has read")


# -- Fig 8 and Fig 9


def transfer_size(study: str, verdicts: pd.DataFrame) -> Drawn:
    """Draw Fig 8: accuracy over the size of D_T, the law through each curve and its forecast for twice the text."""
    own, table = results.load_results(study), results.load_curves(study)
    table = table[(table.curve == "transfer") & (table.split == "test") & (table.metric == "accuracy")]
    left, right = beside()
    dashes, ends = ["-", "--", ":", "-."], []
    sizes = list(dict.fromkeys(table.sort_values("n_params")["size"]))
    for (recipe, size), rows in table.groupby(["recipe", "size"], sort=False):
        n, colour, dash = rows.texts.to_numpy(float), RECIPE_COLOURS[recipe], dashes[sizes.index(size) % 4]
        left.scatter(n, rows.value * 100, color=colour, alpha=0.3, s=16, linewidth=0)
        mean = rows.groupby("texts").value.mean() * 100
        left.plot(mean.index, mean, ls="", marker=RECIPE_MARKERS[recipe], color=colour, ms=7)
        if len(mean) > 2:
            law = stats.saturating(n, rows.value.to_numpy())
            x = np.geomspace(n.min(), 2 * n.max(), 60)
            left.plot(x, law.at(x) * 100, color=colour, ls=dash, lw=1.5)
            ends.append((float(law.at(2 * n.max())) * 100, f"{recipe} {size}", colour, 2 * n.max()))
    for recipe in ("Basic", "teacher"):
        level = own[(own.recipe == recipe) & (own.split == "test") & (own.metric == "accuracy")]
        level = level[level["size"].isin(sizes)] if recipe == "Basic" else level
        if len(level) and len(table):
            left.axhline(level.value.mean() * 100, color=RECIPE_COLOURS.get(recipe, GREY), lw=1, ls=(0, (1, 3)))
            left.annotate(
                recipe, (0.01, level.value.mean() * 100), xycoords=("axes fraction", "data"), va="bottom", fontsize=8, color=GREY
            )
    if len(table):
        left.set_xscale("log")
        ticks = [*sorted(table.texts.unique()), 2 * table.texts.max()]
        left.set_xticks(ticks, [f"{t / 1000:g}k" for t in ticks])
        left.set_xticks([], minor=True)
    plots.label_ends(left, ends)
    left.margins(x=0.2)
    left.set(xlabel="transfer texts (lines: fitted law, to twice the text)", ylabel="test accuracy, %")
    theirs = paper.transfer_size()
    theirs["recipe"], theirs["x"] = theirs.recipe + " " + theirs["size"], theirs.texts
    paper_lines(theirs, right, "transfer texts", "Book Reviews accuracy, % (digitised)")
    right.axhline(paper.BOOKS_BASIC.value, color=PAPER_GREY, lw=1, ls=(0, (1, 3)))
    right.annotate(
        "Basic 4/256",
        (0.99, paper.BOOKS_BASIC.value),
        xycoords=("axes fraction", "data"),
        va="bottom",
        ha="right",
        fontsize=8,
        color=GREY,
    )
    title(left, verdicts, "transfer_size")
    title_of_paper(right, "The paper, Fig 8: Book Reviews")
    return Drawn(left, table, "Test accuracy over the number of transfer texts with a fitted law, the paper's Fig 8 beside it")


def domains(study: str, verdicts: pd.DataFrame) -> Drawn:
    """Draw Fig 9: accuracy over the similarity S of D_T to D_L, at one size of D_T."""
    own, table = results.load_results(study), results.load_domains(study)
    table = table[(table.split == "test") & (table.metric == "accuracy")]
    left, right = beside()
    ends = []
    for recipe, rows in table.groupby("recipe", sort=False):
        colour, mean = RECIPE_COLOURS[recipe], rows.groupby("S").value.mean() * 100
        left.scatter(rows.S, rows.value * 100, color=colour, alpha=0.3, s=16, linewidth=0)
        left.plot(mean.index, mean, marker=RECIPE_MARKERS[recipe], color=colour, lw=1.8, ms=7)
        ends.append((mean.iloc[-1], recipe, colour, mean.index[-1]))
    level = own[(own.recipe == "PF") & own["size"].isin(set(table["size"])) & (own.split == "test") & (own.metric == "accuracy")]
    if len(level):
        left.axhline(level.value.mean() * 100, color=RECIPE_COLOURS["PF"], lw=1, ls="--")
        left.annotate(
            "PF, no transfer text",
            (0.01, level.value.mean() * 100),
            xycoords=("axes fraction", "data"),
            va="bottom",
            path_effects=plots.HALO,
            fontsize=8,
            color=RECIPE_COLOURS["PF"],
        )
    left.margins(x=0.15, y=0.12)
    low, high = left.get_ylim()
    left.set_ylim(low - 0.15 * (high - low), high)  # room for the corpora's names
    named = table.groupby("domain").S.first().sort_values()
    width = np.diff(left.get_xlim())[0]
    for (corpus, x), place in zip(named.items(), plots.apart(named, 0.028 * width), strict=True):
        left.annotate(
            corpus, (x, 0.01), xytext=(place, 0.01), xycoords=("data", "axes fraction"), textcoords=("data", "axes fraction"),
            rotation=90, ha="right", va="bottom", fontsize=8, color=GREY,
        )  # fmt: skip
    plots.label_ends(left, ends)
    left.set(xlabel="S: rank correlation of word frequencies of D_T with D_L", ylabel="test accuracy, %")
    theirs = paper.domains()
    paper_lines(theirs.assign(x=theirs.S), right, "S", "Book Reviews accuracy, % (digitised)", log=False)
    title(left, verdicts, "domains")
    title_of_paper(right, "The paper, Fig 9: Book Reviews, 4/256")
    return Drawn(left, table, "Test accuracy over the similarity of the transfer set to the task, the paper's Fig 9 beside it")


FIGURES: dict[str, Callable[[str, pd.DataFrame], Drawn]] = {
    "strategies": strategies,
    **{f"gains_{question}": partial(gains, question=question) for question in claims.QUESTIONS},
    "pretraining_gain": pretraining_gain,
    "starts": starts,
    "depth_width": depth_width,
    "matched": matched,
    "speed": speed,
    "compound": compound,
    "corpora": corpora,
    "transfer_size": transfer_size,
    "domains": domains,
}


# -- what they share


def beside() -> tuple[Axes, Axes]:
    """Return the Axes of a figure of two panels: ours, and the paper's in grey."""
    plots.style()
    return tuple(plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", width_ratios=(1.25, 1))[1])


def title(ax: Axes, verdicts: pd.DataFrame, name: str) -> None:
    """Title a figure with what was found, one claim a line, over all its panels."""
    found = [claims.headline(verdicts, id) for id in TITLES[name] if id in set(verdicts.id)]
    ax.figure.suptitle("\n".join(found), fontsize=10, x=0.01, ha="left")


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


def name_sizes(ax: Axes, table: pd.DataFrame) -> None:
    """Write sizes instead of numbers of parameters on the axis."""
    sizes = table.drop_duplicates("size").sort_values("x")
    plots.name_ticks(ax, sizes.x, sizes["size"])


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


def _students(metrics: pd.DataFrame, recipes: list[str]) -> pd.DataFrame:
    """Return the test accuracies of some recipes."""
    found = metrics[metrics.recipe.isin(recipes) & (metrics.split == "test") & (metrics.metric == "accuracy")]
    return found[["recipe", "size", "seed", "value", "n", "n_params"]].reset_index(drop=True)


def _both(*tables: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([t for t in tables if len(t)], ignore_index=True) if any(map(len, tables)) else tables[0]
