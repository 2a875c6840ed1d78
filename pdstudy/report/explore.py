"""A study looked into by hand: how good its students are, which of them no other beats, and where they differ from their teacher.

`Explorer` reads a study once and answers with tables. What is shown of them is HTML in which the texts of data sets are
escaped, in a notebook's cells and in the widgets of widgets.py alike.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from pandas.io.formats.style import Styler

from pdstudy.analysis import fidelity, stats
from pdstudy.analysis.stats import POINTS
from pdstudy.escape import visible
from pdstudy.report import style
from pdstudy.sizes import Size
from pdstudy.storage import paths, results
from pdstudy.storage.store import Store
from pdstudy.study.plan import make
from pdstudy.study.settings import Study

OWN = "the study's own"  # D_T: not taken from another corpus
COSTS = {"n_params": "parameters", "ms": "milliseconds for one text, median, one thread"}
CHARACTERS = 400  # of a text that are shown
BESIDE = 1.014  # factor of cost between recipes of one size, that none hides another
ROOM = 5  # points above and below the students: a wider interval is cut at the edge
APART = 0.13  # share of the axis that a size's name needs
ROWS = 20  # texts that are shown
COLUMNS = ["recipe", "size", "n_params", "ms", "accuracy", "low", "high", "seeds", "texts", "front"]


def studies() -> list[str]:
    """Return the names of the studies whose answers to every text are there, so that they can be looked into."""
    return sorted(p.parent.name for p in paths.OUTPUTS.glob(f"*/{results.PREDICTIONS}") if (p.parent / results.METRICS).is_file())


class Explorer:
    """What a study measured on test, of its own students and of those that were distilled on other text."""

    def __init__(self, study: str | Path, store: Store | None = None):
        self.study, self.settings, self._store = study, results.load_settings(study), store or Store()
        answers = results.load_predictions(study)
        answers = answers[answers.split == "test"]
        self._answers = dict(iter(answers.groupby("digest", observed=True)))
        students = results.load_students(study)
        students = students[students.curve.isna() & students.corpus.isna() & students.digest.isin(self._answers.keys())]
        self._students = students.assign(domain=students.domain.fillna(OWN))
        self._latency = results.load_latency(study)

    @property
    def recipes(self) -> list[str]:
        """Return the recipes of which there are students, in the order in which figures name them."""
        return [r for r in style.RECIPE_COLOURS if r in set(self._students.recipe)]

    @property
    def sizes(self) -> list[str]:
        """Return the sizes of which there are students, the smallest first."""
        students = self._students[self._students.recipe != "teacher"]
        return sorted(set(students["size"]), key=lambda size: Size.parse(size).n_params())

    @property
    def domains(self) -> list[str]:
        """Return what D_T was taken from: the study's own text, then the other corpora, the nearest first."""
        near = results.load_nearness(self.study).sort_values("S", ascending=False)
        return [OWN, *(c for c in near.corpus if c in set(self._students.domain))]

    @property
    def costs(self) -> list[str]:
        """Return the costs that are known of its students: parameters, and milliseconds where they were measured."""
        return [cost for cost in COSTS if cost != "ms" or set(self.sizes) <= set(self._latency)]

    def accuracy(self, recipes: Sequence[str], sizes: Sequence[str], domain: str = OWN, cost: str = "n_params") -> pd.DataFrame:
        """Return test accuracy in percent, one row a recipe and size, with its 95 % interval; `front` says whom none beats.

        The interval is over seeds and test texts, of one seed over texts alone. Recipes that distil nothing have no students
        on another D_T.
        """
        chosen = self._students[self._students.recipe.isin(recipes) & self._students["size"].isin(sizes)]
        rows = []
        for (recipe, size), models in chosen[chosen.domain == domain].groupby(["recipe", "size"], sort=False):
            right = np.stack([(a.label == a.predicted).to_numpy(float) for a in map(self._answers.get, models.digest)])
            found = stats.crossed_effect(right) if len(right) > 1 else stats.mean_interval(right[0])
            found = found.scaled(POINTS)
            n_params, ms = int(models.n_params.iloc[0]), self._latency.get(size, np.nan)
            rows.append([recipe, size, n_params, ms, found.estimate, found.low, found.high, *right.shape, False])
        table = pd.DataFrame(rows, columns=COLUMNS).sort_values(["n_params", "accuracy"], ignore_index=True)
        table["front"] = stats.front(table[cost].to_numpy(float), table.accuracy.to_numpy(float))
        return table

    def ceiling(self) -> float:
        """Return the teacher's test accuracy in percent, nan where the study holds none of its answers."""
        return np.nan if self.teacher is None else (self.teacher.label == self.teacher.predicted).mean() * POINTS

    @cached_property
    def teacher(self) -> pd.DataFrame | None:
        """Return the teacher's answers to every test text, or None where the study holds none."""
        digests = self._students[self._students.recipe == "teacher"].digest
        return self._answers[digests.iloc[0]] if len(digests) else None

    def disagreements(self, recipe: str, size: str, domain: str = OWN) -> pd.DataFrame:
        """Return the test texts on which a student of any seed differs from the teacher, those where most seeds do first.

        Columns: text, label, teacher and student (class names), p_teacher and p_student (the probability of that class,
        the student's a mean over the seeds that differ), seeds (that differ), right (those of them that are), of (all
        seeds). Raises ValueError where there is no teacher or no such student.
        """
        s = self._students
        digests = s[(s.recipe == recipe) & (s["size"] == size) & (s.domain == domain)].digest
        if self.teacher is None:
            raise ValueError("this study holds no teacher's answers")
        if digests.empty:
            raise ValueError(f"there is no {recipe} {size} with D_T from {domain}")
        teacher = fidelity.probabilities(np.stack(self.teacher.logits.to_numpy()))
        seeds = np.stack([fidelity.probabilities(np.stack(self._answers[d].logits.to_numpy())) for d in digests])
        said, answers = teacher.argmax(axis=1), seeds.argmax(axis=2)
        differ, labels = answers != said, self.teacher.label.to_numpy()
        n_differ = differ.sum(axis=0)
        student = (seeds * differ[:, :, None]).sum(axis=0) / np.maximum(1, n_differ)[:, None]
        student[np.arange(len(said)), said] = 0  # what the teacher says is not what they differ in
        answer = student.argmax(axis=1)
        items = np.flatnonzero(n_differ)
        items = items[np.lexsort((-student[items, answer[items]], -n_differ[items]))]
        names, texts = np.array(results.load_classes(self.study)["labels"]), self.texts
        return pd.DataFrame(
            {
                "text": [texts[i] for i in items],
                "label": names[labels[items]],
                "teacher": names[said[items]],
                "p_teacher": teacher[items, said[items]],
                "student": names[answer[items]],
                "p_student": student[items, answer[items]],
                "seeds": n_differ[items],
                "right": (differ & (answers == labels)).sum(axis=0)[items],
                "of": len(digests),
            }
        )

    @cached_property
    def texts(self) -> list[str]:
        """Return the test texts, the two of a pair with a bar between them. Raises StoreError where they were cleaned away."""
        import pyarrow.parquet as pq

        (step,) = make(Study(**self.settings)).of_stage("texts")
        table = pq.read_table(self._store.open(step.digest) / "test.parquet")
        columns = [table.column(c).to_pylist() for c in ("text", "pair") if c in table.column_names]
        if table.column("label").to_pylist() != next(iter(self._answers.values())).label.tolist():
            raise ValueError("the texts in the store are not those that were answered; run the study again")
        return [" | ".join(parts) for parts in zip(*columns, strict=True)]


def shown(table: pd.DataFrame) -> HTML:
    """Return students as people read them; a mark stands at those that none beats."""
    has = np.isfinite(table.low)
    interval = [f"{r.low:.1f} to {r.high:.1f}" if ok else "not known" for r, ok in zip(table.itertuples(), has, strict=True)]
    columns = {
        "recipe": table.recipe,
        "size": table["size"],
        "million parameters": (table.n_params / 1e6).map("{:.2f}".format),
        "ms a text": table.ms.map(lambda ms: f"{ms:.2f}" if np.isfinite(ms) else "not measured"),
        "test accuracy, %": table.accuracy.map("{:.1f}".format),
        "95 % interval": interval,
        "seeds": table.seeds,
        "none beats it": table.front.map({True: "\u25cf", False: ""}),
    }
    return HTML(_in_html(pd.DataFrame(columns)))


def draw(table: pd.DataFrame, cost: str, ceiling: float) -> Axes:
    """Draw test accuracy over a cost, each student with its 95 % interval; those that none beats are joined."""
    ax = style.new(8.4, 4.2)
    students = table[np.isfinite(table[cost])]
    recipes = [r for r in style.RECIPE_COLOURS if r in set(students.recipe)]
    beside = {recipe: BESIDE ** (i - (len(recipes) - 1) / 2) for i, recipe in enumerate(recipes)}
    students = students.assign(x=students[cost] * students.recipe.map(beside))
    for recipe in recipes:
        rows, colour = students[students.recipe == recipe], style.RECIPE_COLOURS[recipe]
        ax.vlines(rows.x, rows.low, rows.high, color=colour, lw=1.4, alpha=0.5)
        ax.plot(rows.x, rows.accuracy, style.RECIPE_MARKERS[recipe], color=colour, ms=7, ls="", label=recipe)
    line = students[students.front].sort_values("x")
    ax.plot(line.x, line.accuracy, color=style.GREY, lw=1, zorder=0)
    if np.isfinite(ceiling):
        ax.axhline(ceiling, color=style.GREY, lw=1, ls="--", zorder=0, label=f"teacher {ceiling:.1f}")
    drawn = students.accuracy.tolist() + [ceiling] * bool(np.isfinite(ceiling))
    ax.set_ylim(np.fmax(students.low.min(), min(drawn) - ROOM), np.fmin(students.high.max(), max(drawn) + ROOM))
    ax.set_xscale("log")
    _name_sizes(ax, students.drop_duplicates("size").sort_values(cost), cost)
    ax.margins(x=0.12)
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.set(xlabel=COSTS[cost], ylabel="test accuracy, %\n(bars: 95 % over seeds and texts)")
    return ax


def _name_sizes(ax: Axes, sizes: pd.DataFrame, cost: str) -> None:
    """Write each size and what it costs under the axis, one row lower where it would touch its neighbour."""
    where, lower = np.log(sizes[cost].to_numpy(float)), False
    names = []
    for i, (size, x) in enumerate(zip(sizes["size"], sizes[cost], strict=True)):
        lower = i > 0 and not lower and where[i] - where[i - 1] < APART * (where[-1] - where[0])
        names.append(("\n\n" if lower else "") + (f"{size}\n{x / 1e6:.2f} M" if cost == "n_params" else f"{size}\n{x:.2g}"))
    ax.set_xticks(sizes[cost], names, fontsize=8.5)
    ax.set_xticks([], minor=True)


def alternative(table: pd.DataFrame, cost: str) -> str:
    """Return the figure's text for those who cannot see it: what it holds, and the students that none beats."""
    front = [f"{r.size} {r.recipe} {r.accuracy:.1f} %" for r in table[table.front].itertuples()]
    return f"Test accuracy of {len(table)} students over {COSTS[cost]}; none beats {', '.join(front)}"


def told(differing: pd.DataFrame, n_texts: int) -> str:
    """Return in words on how many texts a student and its teacher differ, and who is right there; means over seeds."""
    if differing.empty:
        return f"They give the same answers to all {n_texts:,} test texts."
    n = differing.seeds.sum()
    teacher, student = differing.seeds[differing.teacher == differing.label].sum() / n, differing.right.sum() / n
    return (
        f"A student of one seed differs from its teacher on {n / differing.of.iloc[0] / n_texts:.1%} of {n_texts:,} test texts;\n"
        f"there the teacher is right in {teacher:.0%}, the student in {student:.0%} of cases."
    )


def texts_shown(differing: pd.DataFrame, most: int = ROWS) -> HTML:
    """Return the first texts on which student and teacher differ, escaped, long ones cut."""
    table = differing.head(most)
    return HTML(
        _in_html(
            pd.DataFrame(
                {
                    "text": [t if len(t) <= CHARACTERS else f"{t[:CHARACTERS]} \u2026" for t in table.text],
                    "label": table.label,
                    "teacher": [f"{r.teacher} {r.p_teacher:.0%}" for r in table.itertuples()],
                    "student": [f"{r.student} {r.p_student:.0%}" for r in table.itertuples()],
                    "seeds that differ": [f"{r.seeds} of {r.of}" for r in table.itertuples()],
                }
            )
        )
    )


def _in_html(table: pd.DataFrame) -> str:
    """Return a table as HTML: every cell escaped, nothing in it acting on the reader or read as mathematics."""
    left = [{"selector": "th, td", "props": "text-align: left; vertical-align: top; padding-right: 1em"}]
    styled = Styler(table, cell_ids=False, escape="html").hide(axis="index").format(escape="html").set_table_styles(left)
    return visible(styled.set_table_attributes('class="tex2jax_ignore mathjax_ignore"').to_html())
