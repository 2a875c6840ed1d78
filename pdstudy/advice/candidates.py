"""The students of a study that could be recommended: accuracy, interval on new texts, latency and size.

Students are chosen on dev (choice.py). The interval for the accuracy on new texts is also computed from dev, with a correction for
choosing the best of many (`stats.accuracy_after_selection`). Test is not used for the choice, and checks the interval.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pdstudy.advice import cross_validation
from pdstudy.analysis import averaged, stats
from pdstudy.analysis.stats import POINTS, Answers, Effect, accuracy_after_selection, interval_on_new_texts, pareto_front
from pdstudy.models import evaluate
from pdstudy.recipes import LINEAR, LINEAR_SIZE, LINEAR_TAUGHT, LINEARS, RECIPES, TEACHER, WITH_LINEAR, is_averaged, without_linear
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


def in_words(row: pd.Series) -> str:
    """Return a candidate's name for sentences."""
    if row.recipe in LINEARS:
        return "the linear model" + (" trained on the teacher's soft labels" if row.recipe == LINEAR_TAUGHT else "")
    return f"{row['size']} by {without_linear(row.recipe)}" + (" averaged with the linear model" if is_averaged(row.recipe) else "")


class Candidates:
    """A study's students: `table` has one row each; `models` are the trained models by recipe, size and seed."""

    def __init__(self, study: str | Path, limits: Limits = NONE):
        self.study, self.limits, self.settings = study, limits, results.load_settings(study)
        metrics = results.load_results(study)
        on_dev = results.accuracies(metrics, "dev")
        self.majority = float(on_dev[on_dev.recipe == "majority"].value.iloc[0])  # accuracy of the most frequent class of train
        answers = dict(iter(results.load_predictions(study).groupby("digest", observed=True)))
        models = on_dev[~on_dev.recipe.isin(["start", "majority"])]
        models, self.by_digest = averaged.with_averages(models, answers, "dev")
        self.models = models.set_index(["recipe", "size", "seed"]).sort_index()
        self._right = {
            (digest, split): (rows.label == rows.predicted).to_numpy(float)
            for digest, table in self.by_digest.items()
            for split, rows in table.groupby("split", observed=True)
        }
        self._measured = metrics[metrics.split == "test"].groupby(["recipe", "size", "metric"]).value.mean()
        self._tried = self._right_when_tried()
        searches = results.load_searches(study)
        self._diverged = {(r.recipe, r.size, r.rate) for r in searches.itertuples(index=False) if r.diverged}
        self.latency = results.load_speeds(study)
        self.cross_validation = cross_validation.load(study)
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
        rate, tried = self.models.loc[(recipe, size)].rate.iloc[0], self._tried.get((recipe, size), {})
        recipe = without_linear(recipe)
        if recipe not in RECIPES and "/" not in size:  # a linear model, whose answers are all saved, or a teacher from a folder
            return 0
        if not math.isfinite(rate):  # nothing was searched
            return 0
        own = self.settings.get("rates_by_size", {}).get(size)
        *earlier, last = (set(own or self.settings[stage]["rates"]) for stage in RECIPES.get(recipe, TEACHER).stages)
        saved = {rate, *tried}
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
        """Return the standard deviation of dev accuracy over seeds, pooled over the students alone; 0 with one seed of each."""
        groups = self.models.groupby(level=["recipe", "size"])
        seeds = [g.value.to_numpy() for (recipe, _), g in groups if len(g) > 1 and not is_averaged(recipe)]
        df = sum(len(g) - 1 for g in seeds)
        return math.sqrt(sum(((g - g.mean()) ** 2).sum() for g in seeds) / df) if df else 0.0

    def _right_when_tried(self) -> dict[tuple[str, str], dict[float, np.ndarray]]:
        """Return right (1) and wrong (0) answers on dev by student, by the rate that was tried; averaged with the linear model too."""
        right: dict[tuple[str, str], dict[float, np.ndarray]] = {}
        for (recipe, size, rate), rows in results.load_tried(self.study).groupby(["recipe", "size", "rate"], observed=True):
            right.setdefault((recipe, size), {})[rate] = (rows.label == rows.predicted).to_numpy(float)
            if (recipe + WITH_LINEAR, size) in self.models.index and "logits" in rows:
                linear = self.by_digest[self.models.loc[(LINEAR, LINEAR_SIZE)].digest.iloc[0]]
                rows = averaged.average(rows, linear[linear.split == "dev"])
                right.setdefault((recipe + WITH_LINEAR, size), {})[rate] = (rows.label == rows.predicted).to_numpy(float)
        return right

    def _scores(self, recipe: str, size: str) -> dict[str, float]:
        """Return F1 and Matthews' r on test, the means over seeds."""
        names = ("f1", "mcc")
        if not is_averaged(recipe):
            return {name: float(self._measured[recipe, size, name]) for name in names}
        tables = [self.by_digest[digest].query("split == 'test'") for digest in self.models.loc[(recipe, size)].digest]
        scores = [evaluate.metrics(np.stack(t.logits.to_numpy()), t.label.to_numpy()) for t in tables]
        return {name: float(np.mean([score[name] for score in scores])) for name in names}

    def _speed(self, recipe: str, size: str) -> dict[str, float]:
        """Return a model's latency in milliseconds, p50 and p95, and its throughput; with the linear model, of one after the other."""
        own, linear = self.latency.get(size), self.latency.get(LINEAR_SIZE)
        if own is None or not is_averaged(recipe):
            return own or {}
        if linear is None:
            return {}
        together = {name: own[name] + linear[name] for name in ("p50", "p95")}
        return together | {"throughput": 1 / (1 / own["throughput"] + 1 / linear["throughput"])}

    def _table(self) -> pd.DataFrame:
        rows = []
        for (recipe, size), models in self.models.groupby(level=["recipe", "size"], sort=False):
            dev, test = self.right(recipe, size), self.right(recipe, size, "test")
            measured = self._speed(recipe, size)
            rows.append(
                {
                    "recipe": recipe, "size": size, "seeds": len(models), "n_params": int(models.n_params.iloc[0]),
                    "dev": dev.mean() * POINTS, "test": test.mean() * POINTS, "n_dev": dev.shape[1], "n_test": test.shape[1],
                    "p50_ms": measured.get("p50", math.nan), "p95_ms": measured.get("p95", math.nan),
                    "texts_a_second": measured.get("throughput", math.nan), "mb": 4e-6 * int(models.n_params.iloc[0]),
                    "best_seed": int(models.value.idxmax()[2]), "unsaved": self.n_unsaved(recipe, size),
                    **self._scores(recipe, size),
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
