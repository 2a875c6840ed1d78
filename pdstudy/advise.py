"""Which student, trained how: the front of accuracy, latency and size, and a recommendation in words.

Students are chosen on dev. What the chosen one will score is promised from dev too; test, which chose nothing,
then says whether the promise was kept.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats as distributions

from pdstudy import results, stats
from pdstudy.claims import Prose
from pdstudy.stats import LEVEL, Effect

POINTS = 100


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
        self.study, self.limits = study, limits
        metrics = results.load_results(study)
        told = metrics[(metrics.metric == "accuracy") & ~metrics.recipe.isin(["start", "majority"])]
        self.models = told[told.split == "dev"].set_index(["recipe", "size", "seed"]).sort_index()
        predictions = results.load_predictions(study)
        right = (predictions.label == predictions.predicted).to_numpy(float)
        groups = predictions.groupby(["digest", "split"], observed=True).indices
        self._right = {key: right[index] for key, index in groups.items()}
        self.majority = {
            s: float(metrics[(metrics.recipe == "majority") & (metrics.split == s)].value.iloc[0]) for s in ("dev", "test")
        }
        self.latency = load_latency(study)
        self.table = self._table()

    def right(self, recipe: str, size: str, split: str = "dev", seeds: list | None = None) -> np.ndarray:
        """Return right (1) and wrong (0) answers, (n_seeds, n_items)."""
        rows = self.models.loc[(recipe, size)]
        return np.stack([self._right[rows.loc[seed].digest, split] for seed in seeds or sorted(rows.index)])

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
        rows, spread = [], self._spread()
        for (recipe, size), models in self.models.groupby(level=["recipe", "size"], sort=False):
            dev, test = self.right(recipe, size), self.right(recipe, size, "test")
            low, high = promise(dev, test.shape[1], spread)
            measured = self.latency.get("sizes", {}).get(size, {})
            rows.append(
                {
                    "recipe": recipe, "size": size, "seeds": len(models), "n_params": int(models.n_params.iloc[0]),
                    "dev": dev.mean() * POINTS, "low": low * POINTS, "high": high * POINTS, "test": test.mean() * POINTS,
                    "p50_ms": measured.get("p50", math.nan), "p95_ms": measured.get("p95", math.nan),
                    "texts_a_second": measured.get("throughput", math.nan), "mb": 4e-6 * int(models.n_params.iloc[0]),
                    "best_seed": int(models.value.idxmax()[2]),
                }
            )  # fmt: skip
        table = pd.DataFrame(rows)
        table["fits"] = [self.limits.hold(row) and row.recipe != "teacher" for row in table.itertuples()]
        for cost in ("p50_ms", "mb"):
            table[f"front_{cost}"] = front(table[cost].to_numpy(), table.dev.to_numpy())
        return table.sort_values(["n_params", "recipe"], ignore_index=True)

    def _spread(self) -> float:
        """Return the standard deviation of dev accuracy over seeds, pooled over all students that have several."""
        groups = [g.value.to_numpy() for _, g in self.models.groupby(level=["recipe", "size"]) if len(g) > 1]
        df = sum(len(g) - 1 for g in groups)
        return math.sqrt(sum(((g - g.mean()) ** 2).sum() for g in groups) / df) if df else 0.0


def load_latency(study: str | Path) -> dict:
    """Return what was measured of the study's sizes on this machine, or nothing where nothing was."""
    path = results.folder_of(study) / results.LATENCY
    return json.loads(path.read_text()) if path.is_file() else {}


def promise(dev: np.ndarray, n_test: int, spread: float) -> tuple[float, float]:
    """Return the interval in which the accuracy of one such model on `n_test` new texts is expected, 95 %.

    `dev` (n_seeds, n_items) is right or wrong; `spread` is the standard deviation over seeds. Three kinds of luck: of
    the seed, of dev's texts and of the new ones.
    """
    p, (n_seeds, n_dev) = dev.mean(), dev.shape
    bounded = min(max(p, 1 / (n_dev + 1)), n_dev / (n_dev + 1))  # all right on dev does not mean never wrong
    error = math.sqrt(bounded * (1 - bounded) * (1 / n_dev + 1 / n_test) + spread**2 * (1 + 1 / n_seeds))
    reach = distributions.norm.ppf((1 + LEVEL) / 2) * error
    return max(0.0, p - reach), min(1.0, p + reach)


def front(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return which points no other beats: none is as cheap and better, or cheaper and as good. nan is on no front."""
    on = np.zeros(len(cost), dtype=bool)
    for i in range(len(cost)):
        beats = ((cost <= cost[i]) & (value > value[i])) | ((cost < cost[i]) & (value >= value[i]))
        on[i] = np.isfinite(cost[i]) and not beats.any()
    return on


@dataclass(frozen=True)
class Advice:
    """The recommended student, and the sentences that defend it."""

    chosen: pd.Series
    reasons: list[str]
    table: pd.DataFrame

    @property
    def student(self) -> str:
        """Return the name by which `export` knows the student."""
        return f"{self.chosen['size']}-{self.chosen.recipe}-s{self.chosen.best_seed}"

    def prose(self) -> Prose:
        """Return the advice as one paragraph."""
        return Prose(" ".join(self.reasons))


def recommend(found: Candidates) -> Advice:
    """Return the student that is best on dev within the limits, and why. Raises AdviceError where none fits."""
    table = found.table
    fitting = table[table.fits]
    if fitting.empty:
        students = table[table.recipe != "teacher"]
        raise AdviceError(
            f"no student keeps the limits: the fastest takes {students.p50_ms.min():.2f} ms, the smallest "
            f"{students.mb.min():.1f} MB; allow more, or add smaller sizes"
        )
    chosen = fitting.loc[fitting.dev.idxmax()]
    reasons = [_chosen(found, chosen), *_cheaper(found, chosen), *_dearer(found, chosen), *_curves(found, chosen)]
    return Advice(chosen, [*reasons, _kept(found, chosen)], table)


def _name(row) -> str:
    return f"{row['size']} by {row.recipe}"


def _interval(effect: Effect) -> str:
    return f"95 % {effect.low:+.1f} to {effect.high:+.1f}" if effect.known else "no interval from one seed"


def _chosen(found: Candidates, row) -> str:
    cost = f"{row.mb:.0f} MB" + (f", {row.p50_ms:.1f} ms a text" if math.isfinite(row.p50_ms) else ", latency not measured")
    words = f"Take {_name(row)} ({cost}): {row.low:.1f} to {row.high:.1f} % right on new texts is promised (95 %)"
    teachers = found.table[found.table.recipe == "teacher"]
    if len(teachers):
        teacher = teachers.iloc[0]
        effect = found.difference(row, teacher)
        side = "above" if effect.estimate > 0 else "below"
        words += f"; {abs(effect.estimate):.1f} points {side} the teacher ({_interval(effect)})"
        if math.isfinite(ratio := teacher.p50_ms / row.p50_ms) and teacher["size"] != row["size"]:
            words += f", {ratio:.1f} times as fast"
    return words + "."


def _cheaper(found: Candidates, chosen) -> list[str]:
    """Return a sentence for each cheaper student that cannot be told from the chosen one, or none can."""
    others = found.table[found.table.fits & (found.table.n_params < chosen.n_params)]
    others = others.loc[others.groupby("size", sort=False).dev.idxmax()]
    said = []
    for _, row in others.iterrows():
        effect = found.difference(row, chosen)
        if not effect.known or effect.high >= 0:
            said.append(
                f"{_name(row)}, {row.mb:.0f} MB, is not distinguishable from it ({effect.estimate:+.1f}, {_interval(effect)})."
            )
    if len(others) and not said:
        said = ["Every smaller student is worse beyond luck."]
    return said


def _dearer(found: Candidates, chosen) -> list[str]:
    """Return a sentence for the best student outside the limits, if it is better beyond luck."""
    outside = found.table[~found.table.fits & (found.table.recipe != "teacher")]
    better = [(found.difference(row, chosen), row) for _, row in outside.iterrows()]
    better = [(effect, row) for effect, row in better if effect.known and effect.low > 0]
    if not better:
        return []
    effect, row = max(better, key=lambda pair: pair[0].estimate)
    more = []
    if row.mb > chosen.mb:
        more.append(f"{row.mb - chosen.mb:.0f} MB more")
    if math.isfinite(row.p50_ms - chosen.p50_ms) and row.p50_ms > chosen.p50_ms:
        more.append(f"{row.p50_ms - chosen.p50_ms:.1f} ms more")
    return [f"Take {_name(row)} if {' and '.join(more)} are free: {effect.estimate:+.1f} points ({_interval(effect)})."]


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


def _curves(found: Candidates, chosen) -> list[str]:
    words = {"transfer": "Twice the transfer text", "labels": "Twice the labelled text"}
    said = []
    for c in curves(found.study):
        if c.size == chosen["size"] and (c.recipe == chosen.recipe or c.kind == "labels"):
            missed = f"; the curve missed its own last point by {c.missed * POINTS:+.1f}" if math.isfinite(c.missed) else ""
            said.append(
                f"{words[c.kind]} ({2 * c.points.texts.max():,.0f}) would buy {c.recipe} about {c.twice:+.1f} points{missed}."
            )
    return said


def _kept(found: Candidates, row) -> str:
    test = found.right(row.recipe, row["size"], "test", [row.best_seed])
    score, n = test.mean() * POINTS, test.shape[1]
    held = "within" if row.low <= score <= row.high else "outside"
    return f"On the {n:,} texts of test, which chose nothing, it is right on {score:.1f} %: {held} the promise."


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return the candidates as people read them, the smallest first."""
    number = lambda form: lambda v: form.format(v) if math.isfinite(v) else "not measured"  # noqa: E731
    return pd.DataFrame(
        {
            "student": [f"{r.size} {r.recipe}" for r in table.assign(size=table["size"]).itertuples()],
            "dev, %": table.dev.map("{:.1f}".format),
            "promised on new texts, %": [f"{r.low:.1f} to {r.high:.1f}" for r in table.itertuples()],
            "test, %": table.test.map("{:.1f}".format),
            "seeds": table.seeds,
            "ms a text (p95)": [
                f"{r.p50_ms:.2f} ({r.p95_ms:.2f})" if math.isfinite(r.p50_ms) else "not measured" for r in table.itertuples()
            ],
            "texts a second": table.texts_a_second.map(number("{:,.0f}")),
            "MB": table.mb.map("{:.1f}".format),
            "within the limits": table.fits.map({True: "yes", False: ""}),
        }
    ).set_index("student").rename_axis(None)  # fmt: skip


def forecasts(study: str | Path) -> pd.DataFrame:
    """Return what twice the text is forecast to add to each student that has a learning curve, in points."""
    rows = [
        {
            "student": f"{c.size} {c.recipe}",
            "text": {"transfer": "transfer texts", "labels": "labelled texts"}[c.kind],
            "most tried": f"{c.points.texts.max():,.0f}",
            "twice would add": f"{c.twice:+.1f}",
            "the law missed its last point by": f"{c.missed * POINTS:+.1f}" if math.isfinite(c.missed) else "n/a",
            "seeds": c.points.seed.nunique(),
        }
        for c in curves(study)
    ]
    columns = ["student", "text", "most tried", "twice would add", "the law missed its last point by", "seeds"]
    return pd.DataFrame(rows, columns=columns).set_index("student").rename_axis(None)
