"""Figures by the size of students: which to take, strategies (Fig 6), initialisations (Fig 5), depth and width, the gain from pre-training."""

from contextlib import suppress
from itertools import cycle

import pandas as pd

from pdstudy.analysis import contrasts, evidence, paper, stats, summary, verdicts
from pdstudy.analysis.evidence import Arm, Missing, between
from pdstudy.recipes import LINEAR, LINEARS
from pdstudy.report import charts, style
from pdstudy.report.charts import STRATEGIES, students
from pdstudy.report.style import StudyFigure, two_panels
from pdstudy.sizes import Size
from pdstudy.storage import results

STARTS = ["PD", "PD (truncated)", "PD (embeddings)", "Distillation"]  # Fig 5


COSTS = {"ms": "milliseconds for one text, median, one thread", "mb": "megabytes of weights, fp32"}


def which_student(study: str) -> StudyFigure:
    """Draw accuracy over latency for every student and the linear model, with the Pareto front; over megabytes without latencies."""
    every = summary.students_table(study)
    table, teacher = every[every.recipe != "teacher"], every[every.recipe == "teacher"]
    cost = "ms" if len(table) and table.ms.notna().all() else "mb"
    table = table.assign(front=stats.pareto_front(table[cost].to_numpy(), table.accuracy.to_numpy()))
    ylabel = "test accuracy, %\n(bars: 95 % over seeds and texts)"
    linear = table[table.recipe == LINEAR].accuracy.mean()
    ax = charts.front(table.assign(x=table[cost]), cost, COSTS[cost], ylabel, teacher.accuracy.mean(), linear)
    names = table.recipe.where(table.recipe.isin(LINEARS), table.recipe + " " + table["size"])
    front = ", ".join(
        f"{r.model} {r.accuracy:.1f} %" for r in table.assign(model=names)[table.front].sort_values(cost).itertuples()
    )
    alt = f"Test accuracy of {len(table)} models over {'latency' if cost == 'ms' else 'size'}"
    return StudyFigure(ax, every.assign(front=table.front), alt, (f"On the Pareto front: {front}",))


def strategies(study: str) -> StudyFigure:
    """Draw Fig 6: four strategies by size."""
    metrics, (left, right) = results.load_results(study), two_panels()
    charts.accuracy_by_size(metrics, left, STRATEGIES)
    charts.paper_sst2(results.load_settings(study)["sizes"], right)
    style.title_panels(right, "The paper, Fig 6: SST-2, all 24 sizes; ringed: sizes we share")
    alt = "Test accuracy over student size for four strategies, the paper's Fig 6 beside it"
    return StudyFigure(left, students(metrics, STRATEGIES), alt)


def pretraining_gain(study: str) -> StudyFigure:
    """Draw what pre-training adds, by size, to students that are distilled and to those that are fine-tuned."""
    table = verdicts.gains_by_size(study, [("PD", "Distillation"), ("PF", "Basic")])
    alt = "Gain from pre-training by size, for distilled and for fine-tuned students, with 95 % intervals"
    return StudyFigure(charts.gains_by_size(table), table, alt)


def starts(study: str) -> StudyFigure:
    """Draw Fig 5: four initialisations of a distilled student by size."""
    metrics, (left, right) = results.load_results(study), two_panels()
    charts.accuracy_by_size(metrics, left, STARTS)
    charts.paper_by_size(paper.initialisations(), right, "The paper, Fig 5: MNLI")
    alt = "Test accuracy over student size for four starts of a distilled student, the paper's Fig 5 beside it"
    return StudyFigure(left, students(metrics, STARTS), alt)


def depth_width(study: str) -> StudyFigure:
    """Draw accuracy over depth, one line per hidden width, one panel per recipe."""
    every = results.load_results(study)
    metrics = students(every, STRATEGIES)
    metrics[["layers", "hidden"]] = [(Size.parse(s).layers, Size.parse(s).hidden) for s in metrics["size"]]
    recipes = [r for r in STRATEGIES if r in set(metrics.recipe)]
    panels = style.panels(len(recipes), 2.7 * len(recipes) + 1, 3.8, sharey=True)
    for ax, recipe in zip(panels, recipes, strict=True):
        for (width, colour), marker in zip(style.shades(sorted(metrics.hidden.unique())).items(), cycle(style.WIDTH_MARKERS)):
            rows = metrics[(metrics.recipe == recipe) & (metrics.hidden == width)]
            style.seeds_and_mean(ax, rows, "layers", colour, marker, marker, lw=1.8, ms=6, label=f"{width} wide")
        style.linear_lines(ax, every, named=ax is panels[-1])  # names once, where the students' lines are lowest
        ax.set_xticks(sorted(metrics.layers.unique()))
        ax.set_title(recipe, fontsize=10, color=style.RECIPE_COLOURS[recipe], weight="bold")
        ax.set(xlabel="layers")
    panels[0].set_ylabel("test accuracy, %\n(dots: seeds, line: their mean)")
    panels[-1].legend(frameon=False, fontsize=8.5)
    return StudyFigure(panels[0], metrics, "Test accuracy over depth, one line for each width, one panel for each recipe")


def matched(study: str) -> StudyFigure:
    """Draw the gain of deep over wide students at matched parameters and at matched latency, one row per recipe and pair."""
    e, rows = evidence.of_study(study), []
    for how, pairs_of in (("parameters", contrasts.pairs_matched_in_parameters), ("latency", contrasts.pairs_matched_in_latency)):
        with suppress(Missing):
            pairs = pairs_of(e)
            for recipe, (deep, wide) in ((r, pair) for r in STRATEGIES if r in e.recipes for pair in pairs):
                with suppress(Missing):
                    row = {"matched in": how, "recipe": recipe, "pair": f"{deep} over {wide}"}
                    rows.append(row | e.row(between(Arm(recipe, deep), Arm(recipe, wide))))
    table = pd.DataFrame(rows, columns=["matched in", "recipe", "pair", "estimate", "low", "high", "n_seeds", "n_items"])
    ax = style.new_axes(7.6, 0.34 * max(3, len(table)) + 1.2)
    names = [f"{r.recipe}, {r.pair}, {r[1]}" for r in table.itertuples()]
    colours, markers = table.recipe.map(style.RECIPE_COLOURS), table.recipe.map(style.RECIPE_MARKERS)
    style.intervals(ax, table, names, colours, markers, 2.5, 7, fontsize=8.5)
    ax.figure.supxlabel("deep minus wide, points of test accuracy (bars: 95 % over seeds and texts)", fontsize=9)
    return StudyFigure(ax, table, "Deep minus wide students at matched parameters and at matched latency, with 95 % intervals")


def speed(study: str) -> StudyFigure:
    """Draw PD's accuracy over measured latency, one line per width, beside the paper's accuracy over the speed of its TPU."""
    every, latency = results.load_results(study), results.load_latency(study)
    metrics = students(every, ["PD"])
    metrics = metrics.assign(x=metrics["size"].map(latency)).dropna(subset="x")
    left, right = two_panels()
    charts.by_width(metrics, left, "viridis")
    if len(metrics):
        style.linear_lines(left, every)
    left.set(xlabel="milliseconds for one text, median, one thread of this machine", ylabel="test accuracy of PD, %")
    table = paper.sst2().query("recipe == 'PD'").merge(paper.sizes(), on="size")
    charts.by_width(table.assign(x=1 / table.speedup, value=table.value / 100), right, "Greys")
    right.set(xlabel="time on the paper's TPU, BERT-Large = 1", ylabel="SST-2 accuracy of PD, % (digitised)")
    style.title_panels(right, "The paper, Fig 6 over Table 2: never plotted there")
    alt = "Accuracy of distilled students over their measured latency, one line for each width, the paper's beside it"
    return StudyFigure(left, metrics, alt)
