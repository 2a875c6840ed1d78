"""Explore a study: the accuracy of its students, the Pareto front, and the texts on which a student and the teacher differ.

`Explorer` reads a study once and returns tables. For notebooks and widgets.py they are converted to HTML with escaped texts.
"""

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from pandas.io.formats.style import Styler
from scipy.special import softmax

from pdstudy.analysis import averaged, stats
from pdstudy.analysis.stats import POINTS
from pdstudy.escape import escape_control
from pdstudy.recipes import LINEAR, LINEARS, export_name
from pdstudy.report import charts, style
from pdstudy.sizes import Size
from pdstudy.storage import paths, results
from pdstudy.storage.store import Store
from pdstudy.study.plan import make
from pdstudy.study.settings import Study

OWN = "the study's own"  # D_T
COSTS = {"n_params": "parameters", "ms": "milliseconds for one text, median, one thread"}
CHARACTERS, ROWS = 400, 20  # the most characters of a text, and texts, in a table
COLUMNS = ["recipe", "size", "n_params", "ms", "accuracy", "low", "high", "seeds", "texts", "front"]


def studies() -> list[str]:
    """Return the names of the studies whose answers to every text are saved."""
    return sorted(p.parent.name for p in paths.OUTPUTS.glob(f"*/{results.PREDICTIONS}") if (p.parent / results.METRICS).is_file())


def is_computed(study: Study) -> bool:
    """Return whether the answers of a study with these settings are saved."""
    return study.name in studies() and results.load_settings(study.name) == study.model_dump(mode="json")


class Explorer:
    """The test results of a study, for its own students and those distilled on another D_T.

    `recipes`, `sizes`, `domains` (transfer sets) and `costs` are the names that its methods accept.
    """

    def __init__(self, study: str | Path, store: Store | None = None):
        self.study, self.settings, self._store = study, results.load_settings(study), store or Store()
        answers = results.load_predictions(study)
        answers = answers[answers.split == "test"]
        self._answers = dict(iter(answers.groupby("digest", observed=True)))
        students = results.load_students(study)
        students = students[students.curve.isna() & students.corpus.isna() & students.digest.isin(self._answers.keys())]
        self._students = students.assign(domain=students.domain.fillna(OWN))
        self._latency, self._domain = results.load_latency(study), OWN
        self.recipes = [r for r in style.RECIPE_COLOURS if r in set(students.recipe)]
        self.sizes = sorted(
            set(students[~students.recipe.isin(["teacher", *LINEARS])]["size"]), key=lambda size: Size.parse(size).n_params()
        )
        corpora = results.load_nearness(study).sort_values("S", ascending=False).corpus  # the most similar to D_L first
        self.domains = [OWN, *(c for c in corpora if c in set(self._students.domain))]
        self.costs = [cost for cost in COSTS if cost != "ms" or set(self.sizes) <= set(self._latency)]

    def accuracy(self, recipes: Sequence[str], sizes: Sequence[str], domain: str = OWN, cost: str = "n_params") -> pd.DataFrame:
        """Return test accuracy in percent with its 95 % interval, one row per recipe and size; `front`: on the Pareto front of `cost`.

        The interval is over seeds and test texts, or over texts for one seed. Recipes without distillation have no students on
        another D_T.
        """
        if cost not in self.costs:
            missing = "; latency is measured by `report`" if cost == "ms" else ""
            raise ValueError(f"cost {cost!r}: choose from {', '.join(map(repr, self.costs))}{missing}")
        chosen = self._students[self._students.recipe.isin(recipes) & self._students["size"].isin(sizes)]
        rows = []
        for (recipe, size), models in chosen[chosen.domain == domain].groupby(["recipe", "size"], sort=False):
            right = np.stack([(a.label == a.predicted).to_numpy(float) for a in map(self._answers.get, models.digest)])
            effect = stats.effect_in_points(right)
            costs = (int(models.n_params.iloc[0]), self._latency.get(size, np.nan))
            rows.append([recipe, size, *costs, effect.estimate, effect.low, effect.high, *right.shape, False])
        table = pd.DataFrame(rows, columns=COLUMNS).sort_values(["n_params", "accuracy"], ignore_index=True)
        table["front"] = stats.pareto_front(table[cost].to_numpy(float), table.accuracy.to_numpy(float))
        return table

    def chosen(self, recipes: Sequence[str], sizes: Sequence[str], domain: str, cost: str) -> pd.DataFrame:
        """Return `accuracy` of the named recipes and sizes, all of them if none is named. Raises ValueError if there is no such student."""
        named = (("recipes", recipes, self.recipes), ("sizes", sizes, self.sizes), ("domain", [domain], self.domains))
        for key, names, known in named:
            if isinstance(names, str):
                raise ValueError(f"{key}: give a list, such as [{names!r}]")
            if unknown := [name for name in names if name not in known]:
                raise ValueError(f"{key}: the study has no {unknown[0]!r}; choose from {', '.join(map(repr, known))}")
        table = self.accuracy(recipes or self.recipes, sizes or self.sizes, domain, cost)
        if table.empty:
            raise ValueError(f"no such student was distilled on {domain}; choose other recipes or sizes")
        return table

    def ceiling(self) -> float:
        """Return the teacher's test accuracy in percent, or nan without a teacher."""
        return self._accuracy_of("teacher")

    def linear(self) -> float:
        """Return the linear model's test accuracy in percent, or nan without one."""
        return self._accuracy_of(LINEAR)

    @cached_property
    def labels(self) -> list[str]:
        """Return the names of the classes."""
        return results.load_classes(self.study)["labels"]

    def on(self, domain: str) -> "Explorer":
        """Return the explorer whose `models` are the students that were distilled on another text."""
        other = copy.copy(self)
        other.__dict__.pop("models", None)
        other._domain = domain
        return other

    @cached_property
    def models(self) -> dict[str, pd.DataFrame]:
        """Return the answers to every test text by the model's name for `export`, of models with the study's own D_T; see `on`.

        Students averaged with the linear model are among them.
        """
        s = self._students
        chosen = s[(s.domain == self._domain) | s.recipe.isin(["teacher", *LINEARS])]
        own, answers = averaged.with_averages(chosen, self._answers, "test")
        return {
            "teacher" if m.recipe == "teacher" else export_name(m.recipe, m.size, int(m.seed)): answers[m.digest]
            for m in own.itertuples(index=False)
        }

    @cached_property
    def teacher(self) -> pd.DataFrame | None:
        """Return the teacher's answers to every test text, or None without a teacher."""
        return self._answers_of("teacher")

    def _answers_of(self, recipe: str) -> pd.DataFrame | None:
        digests = self._students[self._students.recipe == recipe].digest
        return self._answers[digests.iloc[0]] if len(digests) else None

    def _accuracy_of(self, recipe: str) -> float:
        answers = self._answers_of(recipe)
        return np.nan if answers is None else (answers.label == answers.predicted).mean() * POINTS

    def disagreements(self, recipe: str, size: str, domain: str = OWN) -> pd.DataFrame:
        """Return the test texts on which a student of any seed differs from the teacher, those with most such seeds first.

        Columns: text, label, teacher and student (names of classes), p_teacher and p_student (probability of that class; for the
        student the mean over the seeds that differ), seeds (that differ), right (how many of these are right), of (all seeds).
        Raises ValueError without a teacher or such a student.
        """
        s = self._students
        digests = s[(s.recipe == recipe) & (s["size"] == size) & (s.domain == domain)].digest
        if self.teacher is None:
            raise ValueError("this study has no teacher's answers")
        if digests.empty:
            raise ValueError(f"there is no {recipe} {size} with D_T from {domain}")
        teacher = softmax(np.stack(self.teacher.logits.to_numpy()), axis=1)
        seeds = softmax(np.stack([np.stack(self._answers[d].logits.to_numpy()) for d in digests]), axis=2)
        teacher_class, answers = teacher.argmax(axis=1), seeds.argmax(axis=2)
        differ, labels = answers != teacher_class, self.teacher.label.to_numpy()
        n_differ = differ.sum(axis=0)
        student = (seeds * differ[:, :, None]).sum(axis=0) / np.maximum(1, n_differ)[:, None]
        student[np.arange(len(labels)), teacher_class] = (
            0  # seeds that differ may still give the teacher's class a large probability
        )
        answer = student.argmax(axis=1)
        items = np.flatnonzero(n_differ)
        items = items[np.lexsort((-student[items, answer[items]], -n_differ[items]))]
        names, texts = np.array(self.labels), self.texts
        return pd.DataFrame(
            {
                "text": [texts[i] for i in items],
                "label": names[labels[items]],
                "teacher": names[teacher_class[items]],
                "p_teacher": teacher[items, teacher_class[items]],
                "student": names[answer[items]],
                "p_student": student[items, answer[items]],
                "seeds": n_differ[items],
                "right": (differ & (answers == labels)).sum(axis=0)[items],
                "of": len(digests),
            }
        )

    @cached_property
    def texts(self) -> list[str]:
        """Return the test texts, with a bar between the two of a pair. Raises StoreError if they are not in the store."""
        import pyarrow.parquet as pq

        (step,) = make(Study(**self.settings)).of_stage("texts")
        table = pq.read_table(self._store.open(step.digest) / "test.parquet")
        columns = [table.column(c).to_pylist() for c in ("text", "pair") if c in table.column_names]
        if table.column("label").to_pylist() != next(iter(self._answers.values())).label.tolist():
            raise ValueError("the labels of the texts in the store differ from those of the results; run the study again")
        return [" | ".join(parts) for parts in zip(*columns, strict=True)]


def students_html(table: pd.DataFrame) -> HTML:
    """Return students as an HTML table for readers, with a mark for those on the Pareto front."""
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
        "on the front": table.front.map({True: "\u25cf", False: ""}),
    }
    return _html(pd.DataFrame(columns))


def draw(table: pd.DataFrame, cost: str, ceiling: float, linear: float = np.nan) -> Axes:
    """Draw test accuracy over a cost, each student with its 95 % interval; those on the Pareto front are joined.

    `ceiling` is the accuracy of the teacher and `linear` that of the linear model, both in percent, nan if there is none.
    """
    ylabel = "test accuracy, %\n(bars: 95 % over seeds and texts)"
    return charts.front(table.assign(x=table[cost]), cost, COSTS[cost], ylabel, ceiling, linear)


def alt_text(table: pd.DataFrame, cost: str) -> str:
    """Return the alternative text of the figure: its content, and the students on the Pareto front."""
    front = [f"{r.size} {r.recipe} {r.accuracy:.1f} %" for r in table[table.front].itertuples()]
    return f"Test accuracy of {len(table)} students over {COSTS[cost]}; on the Pareto front: {', '.join(front)}"


def disagreement_summary(differing: pd.DataFrame, n_texts: int) -> str:
    """Return on how many texts a student and the teacher differ, and which of them is right there, as means over seeds."""
    if differing.empty:
        return f"They give the same answers to all {n_texts:,} test texts."
    n = differing.seeds.sum()
    teacher, student = differing.seeds[differing.teacher == differing.label].sum() / n, differing.right.sum() / n
    return (
        f"A student of one seed differs from its teacher on {n / differing.of.iloc[0] / n_texts:.1%} of {n_texts:,} test texts;\n"
        f"there the teacher is right in {teacher:.0%}, the student in {student:.0%} of cases."
    )


def disagreements_html(differing: pd.DataFrame, most: int = ROWS) -> HTML:
    """Return the first texts on which student and teacher differ as an HTML table, escaped; long texts are cut."""
    rows = list(differing.head(most).itertuples())
    columns = {
        "text": [r.text if len(r.text) <= CHARACTERS else f"{r.text[:CHARACTERS]} \u2026" for r in rows],
        "label": [r.label for r in rows],
        "teacher": [f"{r.teacher} {r.p_teacher:.0%}" for r in rows],
        "student": [f"{r.student} {r.p_student:.0%}" for r in rows],
        "seeds that differ": [f"{r.seeds} of {r.of}" for r in rows],
    }
    return _html(pd.DataFrame(columns))


def _html(table: pd.DataFrame) -> HTML:
    """Return a table as HTML with every cell escaped, without control characters and mathematics."""
    left = [{"selector": "th, td", "props": "text-align: left; vertical-align: top; padding-right: 1em"}]
    styled = Styler(table, cell_ids=False, escape="html").hide(axis="index").format(escape="html").set_table_styles(left)
    return HTML(escape_control(styled.set_table_attributes('class="tex2jax_ignore mathjax_ignore"').to_html()))
