"""Figures of the text that students read and distil: D_LM = D_T (Fig 10), how much of it (Fig 8), how near to the task (Fig 9)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from pdstudy.analysis import paper, stats
from pdstudy.report import charts, style
from pdstudy.report.style import (
    GREY,
    PAPER_GREY,
    RECIPE_COLOURS,
    RECIPE_MARKERS,
    STRATEGIES,
    Drawn,
    beside,
    paper_by_size,
    paper_lines,
    students,
    title_of_paper,
)
from pdstudy.storage import results

NO_START = "none: Distillation"  # the D_LM of a student that begins at random


def compound(study: str) -> Drawn:
    """Draw Fig 10: students that read and distil the same text."""
    own, other = results.load_results(study), results.load_compound(study)
    read = other[(other.corpus == "transfer") & other.recipe.isin(["PD", "PF"])]
    sizes = set(read["size"])
    table = _both(
        read, own[(own.recipe == "Distillation") & own["size"].isin(sizes)], own[own.recipe.isin(["teacher", "majority"])]
    )
    left, right = beside()
    charts.accuracy_by_size(table, left, [r for r in ("PD", "PF", "Distillation") if r in set(table.recipe)])
    paper_by_size(paper.compound(), right, "The paper, Fig 10: MNLI, D_LM = D_T")
    return Drawn(
        left,
        students(table, STRATEGIES),
        "Test accuracy of students that read and distil the same text, the paper's Fig 10 beside it",
    )


def corpora(study: str) -> Drawn:
    """Draw what students of each recipe are worth by the D_LM that their start has read."""
    own, other = results.load_results(study), results.load_compound(study)
    recipes = [r for r in ("PD", "PF") if r in set(other.recipe)]
    sizes = list(dict.fromkeys(other[other.recipe.isin(recipes)].sort_values("n_params")["size"]))
    mine = own[own.recipe.isin(recipes) & own["size"].isin(sizes)].assign(corpus="the study's own")
    base = own[(own.recipe == "Distillation") & own["size"].isin(sizes)].assign(corpus=NO_START)
    table = _both(base, other[other.recipe.isin(recipes)].replace({"corpus": {"transfer": "D_T itself"}}), mine)
    table = table[(table.split == "test") & (table.metric == "accuracy")]
    ax, order = style.new(7.6, 4.2), list(dict.fromkeys(table.corpus))
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
    return Drawn(ax, table, "Test accuracy by the text that a student's start has read")


def transfer_size(study: str) -> Drawn:
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
    style.label_ends(left, ends)
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
    title_of_paper(right, "The paper, Fig 8: Book Reviews")
    return Drawn(left, table, "Test accuracy over the number of transfer texts with a fitted law, the paper's Fig 8 beside it")


def domains(study: str) -> Drawn:
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
            path_effects=style.HALO,
            fontsize=8,
            color=RECIPE_COLOURS["PF"],
        )
    left.margins(x=0.15, y=0.12)
    low, high = left.get_ylim()
    left.set_ylim(low - 0.15 * (high - low), high)  # room for the corpora's names
    named = table.groupby("domain").S.first().sort_values()
    width = np.diff(left.get_xlim())[0]
    for (corpus, x), place in zip(named.items(), style.apart(named, 0.028 * width), strict=True):
        left.annotate(
            corpus, (x, 0.01), xytext=(place, 0.01), xycoords=("data", "axes fraction"), textcoords=("data", "axes fraction"),
            rotation=90, ha="right", va="bottom", fontsize=8, color=GREY,
        )  # fmt: skip
    style.label_ends(left, ends)
    left.set(xlabel="S: rank correlation of word frequencies of D_T with D_L", ylabel="test accuracy, %")
    theirs = paper.domains()
    paper_lines(theirs.assign(x=theirs.S), right, "S", "Book Reviews accuracy, % (digitised)", log=False)
    title_of_paper(right, "The paper, Fig 9: Book Reviews, 4/256")
    return Drawn(left, table, "Test accuracy over the similarity of the transfer set to the task, the paper's Fig 9 beside it")


def _both(*tables: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([t for t in tables if len(t)], ignore_index=True) if any(map(len, tables)) else tables[0]
