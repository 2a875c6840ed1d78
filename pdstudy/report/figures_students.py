"""Figures of students by their size: four strategies (Fig 6), four starts (Fig 5), depth against width, and what reading adds."""

from itertools import cycle

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from pdstudy.analysis import contrasts, evidence, paper, verdicts
from pdstudy.report import charts, style
from pdstudy.report.style import (
    RECIPE_COLOURS,
    RECIPE_MARKERS,
    STRATEGIES,
    WIDTH_MARKERS,
    Drawn,
    beside,
    by_width,
    paper_by_size,
    students,
    title_of_paper,
)
from pdstudy.sizes import Size
from pdstudy.storage import results

STARTS = ["PD", "PD (truncated)", "PD (embeddings)", "Distillation"]  # Fig 5


def strategies(study: str) -> Drawn:
    """Draw Fig 6: four strategies over sizes."""
    metrics, (left, right) = results.load_results(study), beside()
    charts.accuracy_by_size(metrics, left, [r for r in STRATEGIES if r in set(metrics.recipe)])
    charts.paper_sst2(results.load_settings(study)["sizes"], right)
    title_of_paper(right, "The paper, Fig 6: SST-2, all 24 sizes; ringed: sizes we share")
    return Drawn(
        left, students(metrics, STRATEGIES), "Test accuracy over student size for four strategies, the paper's Fig 6 beside it"
    )


def pretraining_gain(study: str) -> Drawn:
    """Draw what reading first adds, by size, to students that are distilled and to those that are fine-tuned."""
    table = verdicts.gains_by_size(study, [("PD", "Distillation"), ("PF", "Basic")])
    ax = charts.gains_by_size(table)
    return Drawn(ax, table, "Gain from pre-training by size, for distilled and for fine-tuned students, with 95 % intervals")


def starts(study: str) -> Drawn:
    """Draw Fig 5: a distilled student's four starts over sizes."""
    metrics, (left, right) = results.load_results(study), beside()
    charts.accuracy_by_size(metrics, left, [r for r in STARTS if r in set(metrics.recipe)])
    paper_by_size(paper.initialisations(), right, "The paper, Fig 5: MNLI")
    return Drawn(
        left,
        students(metrics, STARTS),
        "Test accuracy over student size for four starts of a distilled student, the paper's Fig 5 beside it",
    )


def depth_width(study: str) -> Drawn:
    """Draw accuracy over depth, one line a width, one panel a recipe."""
    metrics = students(results.load_results(study), STRATEGIES)
    metrics[["layers", "hidden"]] = [(Size.parse(s).layers, Size.parse(s).hidden) for s in metrics["size"]]
    recipes = [r for r in STRATEGIES if r in set(metrics.recipe)]
    style.style()
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
    return Drawn(panels[0][0], metrics, "Test accuracy over depth, one line for each width, one panel for each recipe")


def matched(study: str) -> Drawn:
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
    ax = style.new(7.6, 0.34 * max(3, len(table)) + 1.2)
    for y, row in enumerate(table.itertuples()):
        colour = RECIPE_COLOURS[row.recipe]
        ax.plot([row.low, row.high], [y, y], color=colour, lw=2.5, alpha=0.6)
        ax.plot(row.estimate, y, RECIPE_MARKERS[row.recipe], color=colour, ms=7)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(table)), [f"{r.recipe}, {r.pair}, {r[1]}" for r in table.itertuples()], fontsize=8.5)
    ax.invert_yaxis()
    ax.figure.supxlabel("deep minus wide, points of test accuracy (bars: 95 % over seeds and texts)", fontsize=9)
    return Drawn(ax, table, "Deep minus wide students at matched parameters and at matched latency, with 95 % intervals")


def speed(study: str) -> Drawn:
    """Draw PD's accuracy over measured latency, one line a width; the paper's over its TPU's speed beside it."""
    metrics, latency = students(results.load_results(study), ["PD"]), results.load_latency(study)
    metrics = metrics.assign(x=metrics["size"].map(latency)).dropna(subset="x")
    left, right = beside()
    by_width(metrics, left, "viridis")
    left.set(xlabel="milliseconds for one text, median, one thread of this machine", ylabel="test accuracy of PD, %")
    theirs = paper.sst2().query("recipe == 'PD'").merge(paper.sizes(), on="size")
    by_width(theirs.assign(x=1 / theirs.speedup, value=theirs.value / 100), right, "Greys")
    right.set(xlabel="time on the paper's TPU, BERT-Large = 1", ylabel="SST-2 accuracy of PD, % (digitised)")
    title_of_paper(right, "The paper, Fig 6 over Table 2: never plotted there")
    return Drawn(
        left, metrics, "Accuracy of distilled students over their measured latency, one line for each width, the paper's beside it"
    )
