"""What a student that was chosen on dev will score on new texts: an interval that pays for the choice. Numbers in, numbers out.

The rate of every student, and the student among its peers, are the best on the same dev texts, and the best of many
is lucky there. How lucky is found by choosing again and again on dev texts drawn anew with replacement, and asking
the texts that were not drawn, which chose nothing: bootstrap bias corrected cross-validation (Tsamardinos, Greasidou
and Borboudakis, Machine Learning 107, 2018), here for every rank and not the first alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pdstudy.stats import LEVEL

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
