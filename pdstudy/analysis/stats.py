"""Paired effects with honest intervals. Numbers in, numbers out; no figure and no file.

One shape rules: differences (n_seeds, n_items), right minus wrong answers of A and B on the same test text
by students of the same seed. Seeds and texts are both samples, crossed with each other, so both kinds of
luck are in the interval (docs/method.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

LEVEL = 0.95  # of every interval
POINTS = 100  # an accuracy of 1 in points


@dataclass(frozen=True)
class Effect:
    """A mean paired difference with its interval. Bounds and p are nan where they cannot be known."""

    estimate: float
    low: float
    high: float
    p: float  # two-sided, of no difference
    n_seeds: int
    n_items: int
    df: float  # degrees of freedom of the interval

    @property
    def known(self) -> bool:
        """Return whether there is an interval at all."""
        return math.isfinite(self.low)

    def scaled(self, factor: float) -> "Effect":
        """Return the effect in other units, such as points of 100."""
        return Effect(self.estimate * factor, self.low * factor, self.high * factor, self.p, self.n_seeds, self.n_items, self.df)


def crossed_effect(differences: np.ndarray, level: float = LEVEL) -> Effect:
    """Return the mean of (n_seeds, n_items) paired differences and its t-interval over both seeds and items.

    A two-way random-effects analysis of variance: the mean's variance is (MS_seeds + MS_items - MS_rest) / n,
    never less than either part alone, with Satterthwaite's degrees of freedom. One seed, one item or no
    variation at all give an estimate without interval: from one draw nobody can tell luck from effect.
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
    error = math.sqrt(total / (n_seeds * n_items))
    reach = stats.t.ppf((1 + level) / 2, df) * error
    p = 2 * stats.t.sf(abs(estimate) / error, df)
    return Effect(estimate, estimate - reach, estimate + reach, float(p), n_seeds, n_items, float(df))


def mean_interval(values: np.ndarray, level: float = LEVEL) -> Effect:
    """Return the mean of one number per seed, (n_seeds,), and its t-interval; nan bounds for one seed or no spread."""
    v = np.asarray(values, dtype=float)
    if len(v) < 2 or v.std(ddof=1) <= 1e-15:
        return Effect(float(v.mean()), math.nan, math.nan, math.nan, len(v), 1, 0.0)
    error = v.std(ddof=1) / math.sqrt(len(v))
    reach = stats.t.ppf((1 + level) / 2, len(v) - 1) * error
    p = 2 * stats.t.sf(abs(v.mean()) / error, len(v) - 1)
    return Effect(float(v.mean()), float(v.mean() - reach), float(v.mean() + reach), float(p), len(v), 1, len(v) - 1.0)


def over_items(differences: np.ndarray, level: float = LEVEL, resamples: int = 5000) -> tuple[float, float]:
    """Return the BCa bootstrap interval of the mean of (n_seeds, n_items) differences over items alone, seeds as they are.

    It answers a narrower question than `crossed_effect`: would these very students do as well on other texts? nan where
    the items do not differ. scipy's bootstrap leaves each item out in turn, n^2 work; of a mean that is known in closed
    form, and as items have few different values, a resample is a draw of how often each value occurs.
    """
    by_item = np.asarray(differences, dtype=float).mean(axis=0)
    values, counts = np.unique(np.round(by_item, 12), return_counts=True)
    if len(values) < 2:
        return math.nan, math.nan
    n, mean = len(by_item), by_item.mean()
    draws = np.sort(np.random.default_rng(0).multinomial(n, counts / n, size=resamples) @ values / n)
    off = values - mean
    skew = (counts * off**3).sum() / (6 * (counts * off**2).sum() ** 1.5)  # the acceleration, from the jackknife of a mean
    below = ((draws < mean).sum() + (draws <= mean).sum()) / (2 * resamples)
    z0, z = stats.norm.ppf(below), stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(draws, stats.norm.cdf(z0 + (z0 + z) / (1 - skew * (z0 + z))))
    return float(low), float(high)


def sign_flip(differences: np.ndarray) -> float:
    """Return the two-sided p of no difference by flipping the signs of the seeds' mean differences, exact up to 2^12 flips.

    With n seeds p is at least 2 / 2^n: three seeds can never be certain by this test. nan for one seed or no variation.
    """
    by_seed = np.asarray(differences, dtype=float).mean(axis=1)
    if len(by_seed) < 2 or np.abs(by_seed).max() <= 1e-12:
        return math.nan
    return float(
        stats.permutation_test(
            (by_seed,), np.mean, permutation_type="samples", n_resamples=4096, alternative="two-sided", rng=np.random.default_rng(0)
        ).pvalue
    )


def not_below(effect: Effect, margin: float) -> float:
    """Return the one-sided p that an effect is below -margin: small where "not worse by more than the margin" holds."""
    return _one_sided(effect, effect.estimate + margin)


def equivalence(effect: Effect, margin: float) -> float:
    """Return the p of two one-sided tests that an effect lies outside +-margin: small where it is as good as zero."""
    return max(_one_sided(effect, effect.estimate + margin), _one_sided(effect, margin - effect.estimate))


def _one_sided(effect: Effect, distance: float) -> float:
    if not effect.known:
        return math.nan
    error = (effect.high - effect.estimate) / stats.t.ppf((1 + LEVEL) / 2, effect.df)
    return float(stats.t.sf(distance / error, effect.df))


def holm(p_values: list[float]) -> list[float]:
    """Return Holm's adjusted p-values of a family of tests, in the given order; nan stays nan and counts for none."""
    known = sorted((p, i) for i, p in enumerate(p_values) if math.isfinite(p))
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[i] = highest
    return adjusted


@dataclass(frozen=True)
class Law:
    """A saturating learning curve: accuracy = ceiling - gap x texts ** -decay."""

    ceiling: float
    gap: float
    decay: float

    def at(self, texts: np.ndarray | float) -> np.ndarray | float:
        """Return the accuracy that the law gives for so many texts."""
        return self.ceiling - self.gap * np.asarray(texts, dtype=float) ** -self.decay


def saturating(texts: np.ndarray, accuracy: np.ndarray) -> Law:
    """Return the law that fits points of a learning curve best, several seeds a point or one.

    Accuracy, 0 to 1, may rise towards a ceiling of at most 1 and never falls; where the points fall, the law is flat.
    Raises ValueError for fewer than three different numbers of texts: two points lie on any curve.
    """
    n, a = np.asarray(texts, dtype=float), np.asarray(accuracy, dtype=float)
    if len(np.unique(n)) < 3:
        raise ValueError(f"a learning curve needs at least three numbers of texts, got {len(np.unique(n))}")
    scale = n.max()  # texts are measured in the largest number, so that the gap is one of accuracies

    def misses(law):
        ceiling, gap, decay = law
        return ceiling - gap * (n / scale) ** -decay - a

    start = [min(0.999, a.max() + 0.01), 0.02, 0.5]
    bounds = ([max(0.0, a.min() - 0.05), 0.0, 0.05], [1.0, 1.0, 2.0])
    ceiling, gap, decay = optimize.least_squares(misses, start, bounds=bounds, xtol=1e-12, ftol=1e-12, gtol=1e-12).x
    return Law(float(ceiling), float(gap * scale**decay), float(decay))


def held_back(texts: np.ndarray, accuracy: np.ndarray) -> float:
    """Return how far the law of all but the largest number of texts misses that one: truth minus forecast.

    Raises ValueError for fewer than four different numbers of texts.
    """
    n, a = np.asarray(texts, dtype=float), np.asarray(accuracy, dtype=float)
    last = n == n.max()
    return float(a[last].mean() - saturating(n[~last], a[~last]).at(n.max()))


RESAMPLES = 1000
BLOCK = 4_000_000  # draws that are held at once


@dataclass(frozen=True)
class Answers:
    """One student's answers on dev at each rate that was tried, the smallest first: 1 right, 0 wrong, (n_rates, n_items) both."""

    judged: np.ndarray  # by which the rate is chosen: those of the seed that searched
    kept: np.ndarray  # by which the student is then judged: of the rate taken, the mean over its seeds


def chosen_anew(students: Sequence[Answers], n_resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Return what the best, the second best, ... of `students` on dev score on texts that did not choose them, (n_students,).

    Each resample of dev chooses every student's rate (of equals the smallest) and ranks the students (of equals the
    first); who stands at a rank is scored on the texts left out, about 37 %; that is averaged over resamples. Raises
    ValueError where dev is a single text.
    """
    judged, kept = (np.concatenate([getattr(s, name) for s in students]).astype(float).T for name in ("judged", "kept"))
    ends = np.cumsum([len(s.judged) for s in students])
    spans = list(zip([0, *ends[:-1]], ends, strict=True))  # each student's rates among all
    rng, n_items = np.random.default_rng(seed), len(judged)
    total, counted = np.zeros(len(students)), 0
    for begin in range(0, n_resamples, rows := max(1, BLOCK // n_items)):
        drawn = _resamples(rng, min(rows, n_resamples - begin), n_items)
        drawn = drawn[(drawn == 0).any(axis=1)]  # where all of a handful of texts are drawn, none is left to ask
        left = (drawn == 0).astype(float)
        rates = drawn @ judged
        taken = np.stack([first + rates[:, first:end].argmax(axis=1) for first, end in spans], axis=1)
        seen = np.take_along_axis(drawn @ kept, taken, axis=1).round(9)  # equals stay equal, in whichever order they are summed
        unseen = np.take_along_axis(left @ kept, taken, axis=1) / left.sum(axis=1, keepdims=True)
        total += np.take_along_axis(unseen, np.argsort(-seen, axis=1, kind="stable"), axis=1).sum(axis=0)
        counted += len(drawn)
    if not counted:
        raise ValueError(f"dev holds {n_items} text; a choice made on one text cannot be asked another")
    return total / counted


def _resamples(rng: np.random.Generator, n: int, n_items: int) -> np.ndarray:
    """Return how often each item is drawn in each of `n` resamples, (n, n_items)."""
    drawn = rng.integers(0, n_items, (n, n_items)) + n_items * np.arange(n)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * n_items).reshape(n, n_items).astype(float)


def promise(dev: float, expected: float, n_dev: int, n_test: int, n_seeds: int, spread: float) -> tuple[float, float]:
    """Return the interval in which the accuracy of one such model on `n_test` new texts is expected, 95 %.

    `dev` is its accuracy there, `expected` what `chosen_anew` leaves of it, `spread` the standard deviation over seeds.
    Dev cannot say whether the best of several is better or luckier: one end takes the luck of the choice for what it
    seems, the other for none. Beyond both lie three more kinds of luck: of the seed, of dev's texts and of the new ones.
    """

    def reach(p: float) -> float:
        p = min(max(p, 1 / (n_dev + 1)), n_dev / (n_dev + 1))  # all right on dev does not mean never wrong
        error = math.sqrt(p * (1 - p) * (1 / n_dev + 1 / n_test) + spread**2 * (1 + 1 / n_seeds))
        return float(stats.norm.ppf((1 + LEVEL) / 2)) * error

    low, high = sorted((dev, expected))
    return max(0.0, low - reach(low)), min(1.0, high + reach(high))


def front(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return which points no other beats: none is as cheap and better, or cheaper and as good. nan is on no front."""
    on = np.zeros(len(cost), dtype=bool)
    for i in range(len(cost)):
        beats = ((cost <= cost[i]) & (value > value[i])) | ((cost < cost[i]) & (value >= value[i]))
        on[i] = np.isfinite(cost[i]) and not beats.any()
    return on
