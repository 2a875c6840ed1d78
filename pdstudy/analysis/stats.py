"""Paired effects and their intervals, tests of families of claims, learning curves, and the accuracy of a selected student.

Differences are arrays (n_seeds, n_items): the answer of A minus that of B (1 right, 0 wrong) to the same test text by students
of the same seed. Seeds and texts are crossed random samples, so the interval includes the variation of both (docs/method.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy  # its parts are imported where they are first used: scipy.stats takes most of a second

LEVEL = 0.95  # of every interval
POINTS = 100  # per 1 of accuracy


@dataclass(frozen=True)
class Effect:
    """A mean paired difference with its interval. low, high and p are nan if they cannot be estimated."""

    estimate: float
    low: float
    high: float
    p: float  # two-sided, for no difference
    n_seeds: int
    n_items: int
    df: float  # degrees of freedom of the interval

    @property
    def known(self) -> bool:
        """Return whether there is an interval."""
        return math.isfinite(self.low)

    def scaled(self, factor: float) -> "Effect":
        """Return the effect multiplied by a positive factor, such as POINTS."""
        return replace(self, estimate=self.estimate * factor, low=self.low * factor, high=self.high * factor)


def crossed_effect(differences: np.ndarray) -> Effect:
    """Return the mean of (n_seeds, n_items) paired differences and its t-interval over both seeds and items.

    Two-way random-effects analysis of variance: the variance of the mean is (MS_seeds + MS_items - MS_rest) / n, but not less
    than either part alone, with Satterthwaite's degrees of freedom. There is no interval for one seed, one item or no variation.
    """
    d = np.asarray(differences, dtype=float)
    n_seeds, n_items = d.shape
    estimate = float(d.mean())
    unknown = Effect(estimate, math.nan, math.nan, math.nan, n_seeds, n_items, 0.0)
    if n_seeds < 2 or n_items < 2:
        return unknown
    by_seed, by_item = d.mean(axis=1), d.mean(axis=0)
    ms_seeds = n_items * ((by_seed - estimate) ** 2).sum() / (n_seeds - 1)
    ms_items = n_seeds * ((by_item - estimate) ** 2).sum() / (n_items - 1)
    rest = d - by_seed[:, None] - by_item[None, :] + estimate
    ms_rest = (rest**2).sum() / ((n_seeds - 1) * (n_items - 1))
    total = max(ms_seeds + ms_items - ms_rest, ms_seeds, ms_items)
    if total <= 1e-15:
        return unknown
    parts = ms_seeds**2 / (n_seeds - 1) + ms_items**2 / (n_items - 1) + ms_rest**2 / ((n_seeds - 1) * (n_items - 1))
    df = max(n_seeds - 1.0, total**2 / parts)
    return _t_interval(estimate, math.sqrt(total / (n_seeds * n_items)), df, n_seeds, n_items)


def mean_interval(values: np.ndarray) -> Effect:
    """Return the mean of numbers such as one per seed, (n,), and its t-interval; nan bounds for one number or no variation."""
    v = np.asarray(values, dtype=float)
    if len(v) < 2 or v.std(ddof=1) <= 1e-15:
        return Effect(float(v.mean()), math.nan, math.nan, math.nan, len(v), 1, 0.0)
    return _t_interval(float(v.mean()), math.sqrt(v.var(ddof=1) / len(v)), len(v) - 1.0, len(v), 1)


def over_folds(differences: np.ndarray) -> Effect:
    """Return the mean of k differences, one for each fold of a cross-validation, with an interval; nan bounds if all are the same.

    Any two models of the folds have learned from nearly the same texts, so the k differences are not independent. The variance of
    their mean is corrected as Nadeau and Bengio (2003, "Inference for the Generalization Error") do: v (1 / k + 1 / (k - 1)) in
    the place of v / k. n_seeds is k.
    """
    k, effect = len(differences), mean_interval(differences)
    if not effect.known:
        return effect
    error = np.std(differences, ddof=1) * math.sqrt(1 / k + 1 / (k - 1))
    return _t_interval(effect.estimate, float(error), k - 1.0, k, 1)


def _t_interval(estimate: float, error: float, df: float, n_seeds: int, n_items: int) -> Effect:
    reach = float(scipy.special.stdtrit(df, (1 + LEVEL) / 2)) * error
    p = float(2 * scipy.special.stdtr(df, -abs(estimate) / error))
    return Effect(estimate, estimate - reach, estimate + reach, p, n_seeds, n_items, float(df))


def effect_in_points(differences: np.ndarray) -> Effect:
    """Return the mean of (n_seeds, n_items) differences in points, with its interval over seeds and items; for one seed over items."""
    return (crossed_effect(differences) if len(differences) > 1 else mean_interval(differences[0])).scaled(POINTS)


def over_items(differences: np.ndarray, resamples: int = 5000) -> tuple[float, float]:
    """Return the BCa bootstrap interval of the mean of (n_seeds, n_items) differences over items, for these students.

    nan if the items do not differ. scipy's bootstrap takes time in n_items^2 for its jackknife. Here the jackknife of a mean has
    a closed form, and a resample only draws how often each of the few different values occurs.
    """
    by_item = np.asarray(differences, dtype=float).mean(axis=0)
    values, counts = np.unique(np.round(by_item, 12), return_counts=True)
    if len(values) < 2:
        return math.nan, math.nan
    n, mean = len(by_item), by_item.mean()
    draws = np.sort(np.random.default_rng(0).multinomial(n, counts / n, size=resamples) @ values / n)
    off = values - mean
    skew = (counts * off**3).sum() / (6 * (counts * off**2).sum() ** 1.5)  # acceleration, from the jackknife of a mean
    below = ((draws < mean).sum() + (draws <= mean).sum()) / (2 * resamples)
    z0, z = scipy.special.ndtri(below), scipy.special.ndtri([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = np.quantile(draws, scipy.special.ndtr(z0 + (z0 + z) / (1 - skew * (z0 + z))))
    return float(low), float(high)


def sign_flip(differences: np.ndarray) -> float:
    """Return the two-sided p of no difference from flipping the signs of the seeds' mean differences, exact up to 12 seeds.

    With n seeds p is at least 2 / 2^n, so three seeds cannot be significant. nan for one seed or no difference.
    """
    by_seed = np.asarray(differences, dtype=float).mean(axis=1)
    if len(by_seed) < 2 or np.abs(by_seed).max() <= 1e-12:
        return math.nan
    flip, rng = scipy.stats.permutation_test, np.random.default_rng(0)
    return float(flip((by_seed,), np.mean, permutation_type="samples", n_resamples=4096, rng=rng).pvalue)


def not_below(effect: Effect, margin: float) -> float:
    """Return the one-sided p of an effect below -margin. If it is small, the effect is not worse by more than the margin."""
    return _one_sided(effect, effect.estimate + margin)


def equivalence(effect: Effect, margin: float) -> float:
    """Return the p of two one-sided tests of an effect outside +-margin. If it is small, the effect is equivalent to zero."""
    return max(_one_sided(effect, effect.estimate + margin), _one_sided(effect, margin - effect.estimate))


def _one_sided(effect: Effect, distance: float) -> float:
    if not effect.known:
        return math.nan
    error = (effect.high - effect.estimate) / scipy.special.stdtrit(effect.df, (1 + LEVEL) / 2)
    return float(scipy.special.stdtr(effect.df, -distance / error))


def holm(p_values: list[float]) -> list[float]:
    """Return Holm's adjusted p-values for a family of tests, in the same order; nan stays nan and does not count as a test."""
    known = sorted((p, i) for i, p in enumerate(p_values) if math.isfinite(p))
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[i] = highest
    return adjusted


@dataclass(frozen=True)
class Law:
    """A learning curve with an upper limit: accuracy = ceiling - gap x texts ** -decay."""

    ceiling: float
    gap: float
    decay: float

    def at(self, texts: np.ndarray | float) -> np.ndarray | float:
        """Return the accuracy for a number of texts."""
        return self.ceiling - self.gap * np.asarray(texts, dtype=float) ** -self.decay


def fit_learning_curve(texts: np.ndarray, accuracy: np.ndarray) -> Law:
    """Return the least-squares fit to points of a learning curve, with one or more seeds for each number of texts.

    Accuracy is between 0 and 1. The curve rises to a ceiling of at most 1 and does not fall: for falling points it is flat. Raises
    ValueError for fewer than three different numbers of texts.
    """
    n, a = np.asarray(texts, dtype=float), np.asarray(accuracy, dtype=float)
    if len(np.unique(n)) < 3:
        raise ValueError(f"a learning curve needs at least three numbers of texts, got {len(np.unique(n))}")
    scale = n.max()  # texts as a share of the largest number, so that the gap is a difference of accuracies

    def residuals(parameters):
        ceiling, gap, decay = parameters
        return ceiling - gap * (n / scale) ** -decay - a

    start = [min(0.999, a.max() + 0.01), 0.02, 0.5]
    bounds = ([max(0.0, a.min() - 0.05), 0.0, 0.05], [1.0, 1.0, 2.0])
    ceiling, gap, decay = scipy.optimize.least_squares(residuals, start, bounds=bounds, xtol=1e-12, ftol=1e-12, gtol=1e-12).x
    return Law(float(ceiling), float(gap * scale**decay), float(decay))


def forecast_error(texts: np.ndarray, accuracy: np.ndarray) -> float:
    """Return the accuracy at the largest number of texts minus its forecast from the others.

    Raises ValueError for fewer than four different numbers of texts.
    """
    n, a = np.asarray(texts, dtype=float), np.asarray(accuracy, dtype=float)
    last = n == n.max()
    return float(a[last].mean() - fit_learning_curve(n[~last], a[~last]).at(n.max()))


def overtakes_at(texts: np.ndarray, differences: np.ndarray) -> float:
    """Return from which number of texts on a difference is positive, interpolated over log(texts).

    `texts` (n,) rise. 0: it is positive at every number. inf: it is not positive at the largest. nan: a difference is not known.
    """
    n, d = np.asarray(texts, dtype=float), np.asarray(differences, dtype=float)
    not_above = np.flatnonzero(d <= 0)
    if np.isnan(d).any():
        return math.nan
    if not len(not_above):
        return 0.0
    i = not_above[-1]
    if i == len(n) - 1:
        return math.inf
    return float(n[i] * (n[i + 1] / n[i]) ** (-d[i] / (d[i + 1] - d[i])))


def accuracy_interval(accuracies: np.ndarray, n_items: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean accuracy of students of several seeds, (n_seeds,), on n_items texts, without their answers.

    The variances of the seeds and of the texts are added as if the seeds made their errors on the same texts, so the interval is
    at most slightly too wide.
    """
    a = np.asarray(accuracies, dtype=float)
    p = min(max(a.mean(), 1 / (n_items + 1)), n_items / (n_items + 1))
    seeds = a.var(ddof=1) / len(a) if len(a) > 1 else 0.0
    reach = float(scipy.special.ndtri((1 + LEVEL) / 2)) * math.sqrt(seeds + p * (1 - p) / n_items)
    return max(0.0, float(a.mean()) - reach), min(1.0, float(a.mean()) + reach)


RESAMPLES = 1000
BLOCK = 4_000_000  # draws in memory at once


@dataclass(frozen=True)
class Answers:
    """A student's answers on dev at each learning rate, the smallest first, as two arrays (n_rates, n_items) of 1 right, 0 wrong."""

    search: np.ndarray  # of the seed that searched, by which the rate is chosen
    score: np.ndarray  # by which the student is scored: for the chosen rate the mean over its seeds


def accuracy_after_selection(students: Sequence[Answers], n_resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Return the expected accuracy of the best, the second best, ... student on dev, on texts not used to select it, (n_students,).

    Each bootstrap resample of dev selects every student's rate (of equals the smallest) and ranks the students (of equals the
    first). The student at a rank is scored on the texts outside the resample, about 37 %, and the scores are averaged. Raises
    ValueError if dev is a single text.
    """
    search, score = (np.concatenate([getattr(s, name) for s in students]).astype(float).T for name in ("search", "score"))
    ends = np.cumsum([len(s.search) for s in students])
    spans = list(zip([0, *ends[:-1]], ends, strict=True))  # the columns of each student
    rng, n_items = np.random.default_rng(seed), len(search)
    total, counted = np.zeros(len(students)), 0
    for begin in range(0, n_resamples, rows := max(1, BLOCK // n_items)):
        drawn = _resamples(rng, min(rows, n_resamples - begin), n_items)
        drawn = drawn[(drawn == 0).any(axis=1)]  # very few texts can all be in a resample
        left = (drawn == 0).astype(float)
        rates = drawn @ search
        chosen = np.stack([first + rates[:, first:end].argmax(axis=1) for first, end in spans], axis=1)
        seen = np.take_along_axis(drawn @ score, chosen, axis=1).round(9)  # equal whatever the order of summation
        unseen = np.take_along_axis(left @ score, chosen, axis=1) / left.sum(axis=1, keepdims=True)
        total += np.take_along_axis(unseen, np.argsort(-seen, axis=1, kind="stable"), axis=1).sum(axis=0)
        counted += len(drawn)
    if not counted:
        raise ValueError(f"dev holds {n_items} text; a student selected on one text cannot be scored on another")
    return total / counted


def _resamples(rng: np.random.Generator, n: int, n_items: int) -> np.ndarray:
    """Return how often each item is in each of `n` bootstrap resamples, (n, n_items)."""
    items = rng.integers(0, n_items, (n, n_items)) + n_items * np.arange(n)[:, None]
    return np.bincount(items.ravel(), minlength=n * n_items).reshape(n, n_items).astype(float)


def interval_on_new_texts(dev: float, expected: float, n_dev: int, n_test: int, n_seeds: int, spread: float) -> tuple[float, float]:
    """Return the 95 % interval for the accuracy of one model of a student on `n_test` new texts.

    `dev` is the accuracy on dev, `expected` that from `accuracy_after_selection`, `spread` the standard deviation over seeds.
    Dev cannot show how much of the best student's lead is due to selection: the interval extends from both `dev` (none of it)
    and `expected`, by the variation of the seed, of the dev texts and of the new texts.
    """

    def reach(p: float) -> float:
        p = min(max(p, 1 / (n_dev + 1)), n_dev / (n_dev + 1))  # 100 % on dev does not mean that no error is possible
        error = math.sqrt(p * (1 - p) * (1 / n_dev + 1 / n_test) + spread**2 * (1 + 1 / n_seeds))
        return float(scipy.special.ndtri((1 + LEVEL) / 2)) * error

    low, high = sorted((dev, expected))
    return max(0.0, low - reach(low)), min(1.0, high + reach(high))


def pareto_front(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return which points are on the Pareto front: no other is as cheap and better, or cheaper and as good; never if the cost is nan."""
    on = np.zeros(len(cost), dtype=bool)
    for i in range(len(cost)):
        beats = ((cost <= cost[i]) & (value > value[i])) | ((cost < cost[i]) & (value >= value[i]))
        on[i] = np.isfinite(cost[i]) and not beats.any()
    return on
