"""Which student, trained how: every student's accuracy, latency, size and promise, the front, and the one to take.

Students are chosen on dev. What the chosen one will score is promised from dev too, less what the choice itself was
worth there (`promise`); test, which chose nothing, then says whether the promise was kept. `reasons` puts it in words.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pdstudy.analysis import stats
from pdstudy.analysis.stats import POINTS, Answers, Effect, chosen_anew, front, promise
from pdstudy.recipes import RECIPES, TEACHER
from pdstudy.storage import results
from pdstudy.study.plan import SEARCH_SEED


class AdviceError(ValueError):
    """Raised when nothing can be recommended; the message says what would have to give."""


@dataclass(frozen=True)
class Limits:
    """What the user can afford. None: no limit."""

    latency_ms: float | None = None  # median for one text
    size_mb: float | None = None  # of the weights in fp32

    def hold(self, row) -> bool:
        """Return whether a student lies within the limits. A latency that was not measured keeps no limit."""
        fast = self.latency_ms is None or row.p50_ms <= self.latency_ms
        return bool(fast and (self.size_mb is None or row.mb <= self.size_mb))


NONE = Limits()


class Candidates:
    """A study's students beside each other: who was right on which text of dev and test, how fast, how large."""

    def __init__(self, study: str | Path, limits: Limits = NONE):
        self.study, self.limits, self.settings = study, limits, results.load_settings(study)
        metrics = results.load_results(study)
        told = metrics[(metrics.metric == "accuracy") & ~metrics.recipe.isin(["start", "majority"])]
        self.models = told[told.split == "dev"].set_index(["recipe", "size", "seed"]).sort_index()
        floor = metrics[(metrics.recipe == "majority") & (metrics.split == "dev") & (metrics.metric == "accuracy")].value
        self.majority = float(floor.iloc[0])  # share of dev that the commonest class of train is right on
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
        """Return a student's answers on dev at every rate that was tried and of which they are kept.

        At rates that were not taken only the seed that searched was trained, and stands for all.
        """
        own, models = self.right(recipe, size), self.models.loc[(recipe, size)]
        tried, rate = self._tried.get((recipe, size), {}), models.rate.iloc[0]
        searched = own[list(models.index).index(SEARCH_SEED)] if SEARCH_SEED in models.index else own.mean(axis=0)
        judged, kept = {rate: searched} | tried, tried | {rate: own.mean(axis=0)}
        return Answers(*(np.stack([by_rate[r] for r in sorted(by_rate)]) for by_rate in (judged, kept)))

    def unpaid(self, recipe: str, size: str) -> int:
        """Return how many rates were tried for a student of whose answers nothing is kept: its promise does not pay for them.

        The rates of an earlier stage count: a student of two stages is only ever seen at the best of the first.
        """
        rate = self.models.loc[(recipe, size)].rate.iloc[0]
        if not math.isfinite(rate):  # a given teacher: nothing was searched
            return 0
        *earlier, last = (set(self.settings[stage]["rates"]) for stage in RECIPES.get(recipe, TEACHER).stages)
        gone = {r for r in last - {rate} - set(self._tried.get((recipe, size), {})) if (recipe, size, r) not in self._diverged}
        return len(gone) + sum(len(rates) - 1 for rates in earlier)

    def difference(self, one: pd.Series, other: pd.Series, split: str = "dev") -> Effect:
        """Return how many points `one` is above `other`, over the seeds that both have and the same texts.

        With one seed in common the interval is over texts alone. A teacher, trained once, is compared with every seed.
        """
        seeds = [set(self.models.loc[(row.recipe, row["size"])].index) for row in (one, other)]
        if "teacher" in (one.recipe, other.recipe):
            a, b = (self.right(row.recipe, row["size"], split) for row in (one, other))
            d = a - b if len(a) == len(b) else a.mean(0, keepdims=True) - b.mean(0, keepdims=True)
        else:
            both = sorted(seeds[0] & seeds[1])
            d = self.right(one.recipe, one["size"], split, both) - self.right(other.recipe, other["size"], split, both)
        effect = stats.crossed_effect(d) if len(d) > 1 else stats.mean_interval(d[0])
        return effect.scaled(POINTS)

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
                    "best_seed": int(models.value.idxmax()[2]), "unpaid": self.unpaid(recipe, size),
                    **{name: float(self._measured[recipe, size, name]) for name in ("f1", "mcc")},
                }
            )  # fmt: skip
        table = pd.DataFrame(rows).sort_values(["n_params", "recipe"], ignore_index=True)
        table["fits"] = [self.limits.hold(row) and row.recipe != "teacher" for row in table.itertuples()]
        for cost in ("p50_ms", "mb"):
            table[f"front_{cost}"] = front(table[cost].to_numpy(), table.dev.to_numpy())
        return self._promised(table)

    def _promised(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the table with what each student is expected and promised to score, in percent.

        Students compete with those that the limits allow as they do; those outside with each other, and the teacher alone.
        """
        spread = self._spread()
        for _, rows in table.groupby([table.fits, table.recipe == "teacher"]):
            best_first = rows.sort_values("dev", ascending=False, kind="stable").index
            answers = [self.answers(r.recipe, r.size) for r in rows.itertuples()]
            try:
                table.loc[best_first, "expected"] = chosen_anew(answers) * POINTS
            except ValueError as error:
                raise AdviceError(f"{error}; give more with splits.dev, or a dev file") from None
        bounds = [
            promise(r.dev / POINTS, r.expected / POINTS, r.n_dev, r.n_test, r.seeds, spread) for r in table.itertuples(index=False)
        ]
        table[["low", "high"]] = np.array(bounds) * POINTS
        return table

    def _spread(self) -> float:
        """Return the standard deviation of dev accuracy over seeds, pooled over all students that have several."""
        groups = [g.value.to_numpy() for _, g in self.models.groupby(level=["recipe", "size"]) if len(g) > 1]
        df = sum(len(g) - 1 for g in groups)
        return math.sqrt(sum(((g - g.mean()) ** 2).sum() for g in groups) / df) if df else 0.0


def choose(found: Candidates) -> pd.Series:
    """Return the student that is best on dev within the limits. Raises AdviceError where none fits."""
    table = found.table
    fitting = table[table.fits]
    if fitting.empty:
        students = table[table.recipe != "teacher"]
        raise AdviceError(
            f"no student keeps the limits: the fastest takes {students.p50_ms.min():.2f} ms, the smallest "
            f"{students.mb.min():.1f} MB; allow more, or add smaller sizes"
        )
    return fitting.loc[fitting.dev.idxmax()]


@dataclass(frozen=True)
class Curve:
    """A learning curve of one student: its points, the law through them, what twice the text is forecast to give."""

    kind: str  # transfer or labels
    recipe: str
    size: str
    points: pd.DataFrame  # texts, seed, value
    law: stats.Law
    missed: float  # of the largest point by the law of the others, truth minus forecast; nan where it cannot be known

    @property
    def twice(self) -> float:
        """Return the points that twice the largest number of texts is forecast to add."""
        most = self.points.texts.max()
        return float(self.law.at(2 * most) - self.law.at(most)) * POINTS


def curves(study: str | Path) -> list[Curve]:
    """Return the study's learning curves, on test accuracy."""
    table = results.load_curves(study)
    table, found = table[(table.split == "test") & (table.metric == "accuracy")], []
    for (kind, recipe, size), rows in table.groupby(["curve", "recipe", "size"], sort=False):
        n, a = rows.texts.to_numpy(), rows.value.to_numpy()
        if len(set(n)) >= 3:
            missed = stats.held_back(n, a) if len(set(n)) >= 4 else math.nan
            found.append(Curve(kind, recipe, size, rows[["texts", "seed", "value"]], stats.saturating(n, a), missed))
    return found
