"""The students of a study that could be recommended: accuracy, interval on new texts, latency and size, and the choice among them.

Students are chosen on dev. The interval for the accuracy on new texts is also computed from dev, with a correction for choosing the
best of many (`stats.accuracy_after_selection`). Test is not used for the choice, and checks the interval. `recommendation.py` writes
the sentences.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pdstudy.analysis import stats
from pdstudy.analysis.stats import POINTS, Answers, Effect, accuracy_after_selection, interval_on_new_texts, pareto_front
from pdstudy.recipes import LINEAR_SIZE, LINEARS, RECIPES, TEACHER
from pdstudy.storage import results
from pdstudy.study.plan import SEARCH_SEED


class AdviceError(ValueError):
    """Raised when nothing can be recommended; the message says what to change."""


@dataclass(frozen=True)
class Limits:
    """The most that the user allows. None: no limit."""

    latency_ms: float | None = None  # median for one text
    size_mb: float | None = None  # of the weights in fp32

    def allow(self, row) -> bool:
        """Return whether a student is within the limits. A latency that was not measured is within none."""
        fast = self.latency_ms is None or row.p50_ms <= self.latency_ms
        return bool(fast and (self.size_mb is None or row.mb <= self.size_mb))


NONE = Limits()


class Candidates:
    """A study's students: `table` has one row each; `models` are the trained models by recipe, size and seed."""

    def __init__(self, study: str | Path, limits: Limits = NONE):
        self.study, self.limits, self.settings = study, limits, results.load_settings(study)
        metrics = results.load_results(study)
        on_dev = results.accuracies(metrics, "dev")
        self.models = on_dev[~on_dev.recipe.isin(["start", "majority"])].set_index(["recipe", "size", "seed"]).sort_index()
        self.majority = float(on_dev[on_dev.recipe == "majority"].value.iloc[0])  # accuracy of the most frequent class of train
        predictions = results.load_predictions(study)
        right = (predictions.label == predictions.predicted).to_numpy(float)
        groups = predictions.groupby(["digest", "split"], observed=True).indices
        self._right = {key: right[index] for key, index in groups.items()}
        self._measured = metrics[metrics.split == "test"].groupby(["recipe", "size", "metric"]).value.mean()
        tried = results.load_tried(study)
        tried["right"] = (tried.label == tried.predicted).astype(float)
        by_student = tried.groupby(["recipe", "size"], observed=True)
        self._tried = {key: {rate: g.right.to_numpy() for rate, g in rows.groupby("rate")} for key, rows in by_student}
        searches = results.load_searches(study)
        self._diverged = {(r.recipe, r.size, r.rate) for r in searches.itertuples(index=False) if r.diverged}
        self.latency = results.load_speeds(study)
        self.table = self._table()

    def right(self, recipe: str, size: str, split: str = "dev", seeds: list | None = None) -> np.ndarray:
        """Return right (1) and wrong (0) answers, (n_seeds, n_items)."""
        rows = self.models.loc[(recipe, size)]
        return np.stack([self._right[rows.loc[seed].digest, split] for seed in seeds or sorted(rows.index)])

    def answers(self, recipe: str, size: str) -> Answers:
        """Return a student's answers on dev at every rate that was tried and whose answers are saved.

        At the rates that were not chosen, only the seed of the search was trained; it stands for all seeds.
        """
        own, models = self.right(recipe, size), self.models.loc[(recipe, size)]
        tried, rate = self._tried.get((recipe, size), {}), models.rate.iloc[0]
        searched = own[list(models.index).index(SEARCH_SEED)] if SEARCH_SEED in models.index else own.mean(axis=0)
        search, score = {rate: searched} | tried, tried | {rate: own.mean(axis=0)}
        return Answers(*(np.stack([by_rate[r] for r in sorted(by_rate)]) for by_rate in (search, score)))

    def n_unsaved(self, recipe: str, size: str) -> int:
        """Return how many rates were tried for a student without saving the answers: its interval does not allow for that choice.

        The rates of an earlier stage count: a student of two stages is only evaluated at the best rate of the first.
        """
        rate = self.models.loc[(recipe, size)].rate.iloc[0]
        if recipe not in RECIPES and "/" not in size:  # a linear model, whose answers are all saved, or a teacher from a folder
            return 0
        if not math.isfinite(rate):  # nothing was searched
            return 0
        own = self.settings.get("rates_by_size", {}).get(size)
        *earlier, last = (set(own or self.settings[stage]["rates"]) for stage in RECIPES.get(recipe, TEACHER).stages)
        saved = {rate, *self._tried.get((recipe, size), {})}
        unsaved = [r for r in last - saved if (recipe, size, r) not in self._diverged]
        return len(unsaved) + sum(len(rates) - 1 for rates in earlier)

    def difference(self, one: pd.Series, other: pd.Series) -> Effect:
        """Return how many points `one` is above `other` on dev, over the same texts and the seeds that both have.

        With one seed in common the interval is over texts alone. A linear model has no seed, and is compared with every seed. A
        teacher with another number of seeds is compared with the mean of the seeds.
        """
        return stats.effect_in_points(self.differences(one, other))

    def differences(self, one: pd.Series, other: pd.Series) -> np.ndarray:
        """Return the right answers of `one` minus those of `other` on dev, (n_seeds, n_items); see `difference`."""
        a, b = (self.right(row.recipe, row["size"]) for row in (one, other))
        if LINEAR_SIZE not in (one["size"], other["size"]):
            if "teacher" not in (one.recipe, other.recipe):
                seeds = [set(self.models.loc[(row.recipe, row["size"])].index) for row in (one, other)]
                a, b = (self.right(row.recipe, row["size"], seeds=sorted(seeds[0] & seeds[1])) for row in (one, other))
            elif len(a) != len(b):
                a, b = a.mean(0, keepdims=True), b.mean(0, keepdims=True)
        return a - b

    def spread(self) -> float:
        """Return the standard deviation of dev accuracy over seeds, pooled over the students; 0 with one seed of each."""
        seeds = [g.value.to_numpy() for _, g in self.models.groupby(level=["recipe", "size"]) if len(g) > 1]
        df = sum(len(g) - 1 for g in seeds)
        return math.sqrt(sum(((g - g.mean()) ** 2).sum() for g in seeds) / df) if df else 0.0

    def _table(self) -> pd.DataFrame:
        rows = []
        for (recipe, size), models in self.models.groupby(level=["recipe", "size"], sort=False):
            dev, test = self.right(recipe, size), self.right(recipe, size, "test")
            measured = self.latency.get(size, {})
            rows.append(
                {
                    "recipe": recipe, "size": size, "seeds": len(models), "n_params": int(models.n_params.iloc[0]),
                    "dev": dev.mean() * POINTS, "test": test.mean() * POINTS, "n_dev": dev.shape[1], "n_test": test.shape[1],
                    "p50_ms": measured.get("p50", math.nan), "p95_ms": measured.get("p95", math.nan),
                    "texts_a_second": measured.get("throughput", math.nan), "mb": 4e-6 * int(models.n_params.iloc[0]),
                    "best_seed": int(models.value.idxmax()[2]), "unsaved": self.n_unsaved(recipe, size),
                    **{name: float(self._measured[recipe, size, name]) for name in ("f1", "mcc")},
                }
            )  # fmt: skip
        table = pd.DataFrame(rows).sort_values(["n_params", "recipe"], ignore_index=True)
        table["fits"] = [self.limits.allow(row) and row.recipe != "teacher" for row in table.itertuples()]
        for cost in ("p50_ms", "mb"):
            table[f"front_{cost}"] = pareto_front(table[cost].to_numpy(), table.dev.to_numpy())
        return self._with_intervals(table)

    def _with_intervals(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the table with the expected accuracy on new texts and its interval, low to high, in percent.

        The correction for choosing is among the students within the limits, among those outside, and for the teacher alone.
        """
        spread = self.spread()
        for _, rows in table.groupby([table.fits, table.recipe == "teacher"]):
            best_first = rows.sort_values("dev", ascending=False, kind="stable").index
            answers = [self.answers(r.recipe, r.size) for r in rows.itertuples()]
            try:
                table.loc[best_first, "expected"] = accuracy_after_selection(answers) * POINTS
            except ValueError as error:
                raise AdviceError(f"{error}; give more texts with splits.dev, or a dev file") from None
        bounds = [
            interval_on_new_texts(r.dev / POINTS, r.expected / POINTS, r.n_dev, r.n_test, r.seeds, spread)
            for r in table.itertuples(index=False)
        ]
        table[["low", "high"]] = np.array(bounds) * POINTS
        return table


def choose(candidates: Candidates) -> pd.Series:
    """Return the row to recommend: the best on dev within the limits, but the linear model unless a student is significantly better.

    Raises AdviceError if none is within the limits.
    """
    table = candidates.table
    fitting = table[table.fits]
    if fitting.empty:
        students = table[table.recipe != "teacher"]
        raise AdviceError(
            f"no student is within the limits: the fastest takes {students.p50_ms.min():.2f} ms, the smallest "
            f"{students.mb.min():.1f} MB; allow more, or add smaller sizes"
        )
    best = fitting.loc[fitting.dev.idxmax()]
    linear = fitting[fitting.recipe.isin(LINEARS)]
    if linear.empty or best.recipe in LINEARS:
        return best
    best_linear = linear.loc[linear.dev.idxmax()]
    effect = candidates.difference(best, best_linear)
    return best if effect.known and effect.low > 0 else best_linear


def best_student(candidates: Candidates) -> pd.Series:
    """Return the student that is best on dev within the limits, without the linear models. Raises AdviceError if there is none."""
    students = candidates.table[candidates.table.fits & ~candidates.table.recipe.isin(LINEARS)]
    if students.empty:
        raise AdviceError("no student is within the limits")
    return students.loc[students.dev.idxmax()]


@dataclass(frozen=True)
class Curve:
    """A learning curve of one student: its points, the fitted curve, and its forecast for twice the text."""

    kind: str  # transfer or labels
    recipe: str
    size: str
    points: pd.DataFrame  # texts, seed, value
    law: stats.Law
    forecast_error: float  # accuracy at the last point minus its forecast from the others; nan for fewer than four points

    @property
    def twice(self) -> float:
        """Return the points that twice the largest number of texts is forecast to add."""
        most = self.points.texts.max()
        return float(self.law.at(2 * most) - self.law.at(most)) * POINTS


def curves(study: str | Path) -> list[Curve]:
    """Return the study's learning curves, on test accuracy."""
    table, fitted = results.accuracies(results.load_curves(study)), []
    for (kind, recipe, size), rows in table.groupby(["curve", "recipe", "size"], sort=False):
        n, a = rows.texts.to_numpy(), rows.value.to_numpy()
        if len(set(n)) >= 3:
            forecast_error = stats.forecast_error(n, a) if len(set(n)) >= 4 else math.nan
            fitted.append(
                Curve(kind, recipe, size, rows[["texts", "seed", "value"]], stats.fit_learning_curve(n, a), forecast_error)
            )
    return fitted
