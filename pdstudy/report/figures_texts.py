"""Figures by the text that students are trained on: D_LM = D_T (Fig 10), the size of D_T (Fig 8), of D_L, the similarity of D_T to D_L (Fig 9)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pdstudy.analysis import crossings, paper, stats
from pdstudy.recipes import LINEARS
from pdstudy.report import charts, style
from pdstudy.report.charts import STRATEGIES, students
from pdstudy.report.style import (
    GREY,
    MODEL_COLOURS,
    MODEL_MARKERS,
    PAPER_GREY,
    RECIPE_COLOURS,
    RECIPE_MARKERS,
    StudyFigure,
    two_panels,
)
from pdstudy.storage import results

NO_START = "none: Distillation"  # the D_LM of a student without pre-training
DOTTED = (0, (1, 3))


def compound(study: str) -> StudyFigure:
    """Draw Fig 10: students that are pre-trained and distilled on the same text."""
    own, other = results.load_results(study), results.load_compound(study)
    compound = other[(other.corpus == "transfer") & other.recipe.isin(["PD", "PF"])]
    distilled = own[(own.recipe == "Distillation") & own["size"].isin(set(compound["size"]))]
    table = _concat(compound, distilled, own[own.recipe.isin(["teacher", "majority", *LINEARS])])
    left, right = two_panels()
    charts.accuracy_by_size(table, left, ["PD", "PF", "Distillation"])
    charts.paper_by_size(paper.compound(), right, "The paper, Fig 10: MNLI, D_LM = D_T")
    alt = "Test accuracy of students pre-trained and distilled on the same text, the paper's Fig 10 beside it"
    return StudyFigure(left, students(table, STRATEGIES), alt)


def corpora(study: str) -> StudyFigure:
    """Draw the accuracy of students by the D_LM that they were pre-trained on."""
    own, other = results.load_results(study), results.load_compound(study)
    recipes = [r for r in ("PD", "PF") if r in set(other.recipe)]
    other = other[other.recipe.isin(recipes)].replace({"corpus": {"transfer": "D_T itself"}})
    sizes = list(dict.fromkeys(other.sort_values("n_params")["size"]))
    linear, own = own[own.recipe.isin(LINEARS)], own[own["size"].isin(sizes)]
    base = own[own.recipe == "Distillation"].assign(corpus=NO_START)
    table = results.accuracies(_concat(base, other, own[own.recipe.isin(recipes)].assign(corpus="the study's own")))
    ax, corpora = style.new_axes(7.6, 4.2), list(dict.fromkeys(table.corpus))
    places = {size: (k - (len(sizes) - 1) / 2) * 0.7 / len(sizes) for k, size in enumerate(sizes)}
    for (corpus, recipe, size), rows in table.groupby(["corpus", "recipe", "size"], sort=False):
        beside = recipes.index(recipe) * 0.2 / len(sizes) if recipe in recipes else 0
        rows = rows.assign(x=corpora.index(corpus) + places[size] + beside)
        style.seeds_and_mean(ax, rows, "x", RECIPE_COLOURS[recipe], RECIPE_MARKERS[recipe], ms=8)
    style.linear_lines(ax, linear)
    ax.set_xticks(range(len(corpora)), corpora)
    ax.tick_params("x", length=0, pad=18)
    minor = [i + place for i in range(len(corpora)) for place in places.values()]
    ax.set_xticks(minor, sizes * len(corpora), minor=True, fontsize=8)
    style.recipe_legend(ax, ("Distillation", *recipes))
    ax.margins(0.08)
    ax.set(xlabel="D_LM, the text of pre-training", ylabel="test accuracy, %\n(faint: seeds)")
    return StudyFigure(ax, table, "Test accuracy by the text that a student was pre-trained on")


def transfer_size(study: str) -> StudyFigure:
    """Draw Fig 8: accuracy over the size of D_T, with a fitted curve and its forecast for twice the text."""
    left, right = two_panels()
    table, findings = _curves(left, study, "transfer", "transfer texts (lines: fitted curve, to twice the text)")
    published = paper.transfer_size().assign(recipe=lambda t: t.recipe + " " + t["size"], x=lambda t: t.texts)
    charts.paper_lines(published, right, "transfer texts", "Book Reviews accuracy, % (digitised)")
    style.reference_line(right, paper.BOOKS_BASIC.value, "Basic 4/256", PAPER_GREY, DOTTED, 0.99)
    style.title_panels(right, "The paper, Fig 8: Book Reviews")
    alt = "Test accuracy over the number of transfer texts with a fitted curve, the paper's Fig 8 beside it"
    return StudyFigure(left, table, alt, findings)


def labels(study: str) -> StudyFigure:
    """Draw accuracy over the number of labelled texts; PD and the teacher, which were trained with all labels, are lines."""
    ax = style.new_axes(8.4, 4.2)
    table, findings = _curves(ax, study, "labels", "labelled texts")
    alt = "Test accuracy over the number of labelled texts; PD and its teacher are horizontal lines, with all labels"
    return StudyFigure(ax, table, alt, findings)


def _curves(ax: Axes, study: str, kind: str, xlabel: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Draw the learning curves of one kind, other models as lines, and where curves cross; return the points and the crossings.

    The curves over transfer texts are fitted, up to twice the text; those over labels join the means, and need not rise.
    """
    own, table = results.accuracies(results.load_results(study)), results.accuracies(results.load_curves(study))
    table, fitted = table[table.curve == kind], kind == "transfer"
    if table.empty:
        return table, ()
    students = table[~table.recipe.isin(LINEARS)]
    sizes, ends = list(dict.fromkeys(students.sort_values("n_params")["size"])), []
    for (recipe, size), rows in table.groupby(["recipe", "size"], sort=False):
        n, colour, name = rows.texts.to_numpy(float), MODEL_COLOURS[recipe], f"{recipe} {size}" if size in sizes else recipe
        line = {"color": colour, "ls": ["-", "--", ":", "-."][sizes.index(size) % 4] if size in sizes else "-", "lw": 1.5}
        mean = style.seeds_and_mean(ax, rows, "texts", colour, MODEL_MARKERS[recipe], ls="", ms=7)
        if not fitted:
            ax.plot(mean.index, mean, **line)
            ends.append((mean.iloc[-1], name, colour, mean.index[-1]))
        elif len(mean) > 2:
            law = stats.fit_learning_curve(n, rows.value.to_numpy())
            x = np.geomspace(n.min(), 2 * n.max(), 60)
            ax.plot(x, law.at(x) * 100, **line)
            ends.append((float(law.at(2 * n.max())) * 100, name, colour, 2 * n.max()))
    for recipe in ("Basic", "PF", "teacher") if fitted else ("PD", "teacher"):
        level = own[(own.recipe == recipe) & ((recipe == "teacher") | own["size"].isin(sizes))].value.mean() * 100
        if np.isfinite(level):
            colour, note = RECIPE_COLOURS.get(recipe, GREY), "" if fitted else ", all labels"
            style.reference_line(ax, level, f"{recipe} {level:.1f}{note}", colour, DOTTED, color=colour, path_effects=style.HALO)
    if fitted:
        style.linear_lines(ax, own, ends)
    ticks = [*sorted(table.texts.unique()), *[2 * table.texts.max()] * fitted]
    style.name_ticks(ax, ticks, [f"{t / 1000:g}k" if t >= 1000 else f"{t:g}" for t in ticks], 0)
    ax.margins(x=0.28)
    crossed = crossings.of_study(study, kind)
    charts.crossings(ax, crossed)
    style.label_ends(ax, ends)  # last: the names are set apart by a share of the axis
    ax.set(xlabel=xlabel, ylabel="test accuracy, %")
    return table, tuple(crossing.sentence for crossing in crossed)


def domains(study: str) -> StudyFigure:
    """Draw Fig 9: accuracy over the similarity S of D_T to D_L, at one size of D_T."""
    own, table = results.accuracies(results.load_results(study)), results.accuracies(results.load_domains(study))
    (left, right), ends = two_panels(), []
    for recipe, rows in table.groupby("recipe", sort=False):
        colour = RECIPE_COLOURS[recipe]
        mean = style.seeds_and_mean(left, rows, "S", colour, RECIPE_MARKERS[recipe], lw=1.8, ms=7)
        ends.append((mean.iloc[-1], recipe, colour, mean.index[-1]))
    finetuned, colour = own[(own.recipe == "PF") & own["size"].isin(set(table["size"]))], RECIPE_COLOURS["PF"]
    if len(finetuned):
        text = {"path_effects": style.HALO, "color": colour}
        style.reference_line(left, finetuned.value.mean() * 100, "PF, no transfer text", colour, **text)
    if len(table):
        style.linear_lines(left, own, ends)
    left.margins(x=0.15, y=0.12)
    low, high = left.get_ylim()
    left.set_ylim(low - 0.15 * (high - low), high)  # space for the names of the corpora
    similarity = table.groupby("domain").S.first().sort_values()
    places = style.spread(similarity, 0.028 * np.diff(left.get_xlim())[0])
    for (corpus, x), place in zip(similarity.items(), places, strict=True):
        left.annotate(
            corpus, (x, 0.01), xytext=(place, 0.01), xycoords=("data", "axes fraction"), textcoords=("data", "axes fraction"),
            rotation=90, ha="right", va="bottom", fontsize=8, color=GREY,
        )  # fmt: skip
    style.label_ends(left, ends)
    left.set(xlabel="S: rank correlation of word frequencies of D_T with D_L", ylabel="test accuracy, %")
    published = paper.domains().assign(x=lambda t: t.S)
    charts.paper_lines(published, right, "S", "Book Reviews accuracy, % (digitised)", log=False)
    style.title_panels(right, "The paper, Fig 9: Book Reviews, 4/256")
    alt = "Test accuracy over the similarity of the transfer set to the task, the paper's Fig 9 beside it"
    return StudyFigure(left, table, alt)


def _concat(*tables: pd.DataFrame) -> pd.DataFrame:
    """Return tables in one; empty ones, whose columns have no type, are left out."""
    return pd.concat([t for t in tables if len(t)], ignore_index=True) if any(map(len, tables)) else tables[0]
