"""From how many texts on one model is better than another: the points where learning curves cross, with intervals.

At each number of texts the difference of the two models has an interval. The interval of a crossing has the numbers of texts at
which that interval includes zero.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pdstudy.analysis import evidence, stats
from pdstudy.analysis.evidence import Arm
from pdstudy.analysis.stats import POINTS
from pdstudy.recipes import LINEAR, LINEAR_SIZE, LINEARS
from pdstudy.storage import results

PAIRS = {"transfer": (("PD", "PF"), ("PD", LINEAR)), "labels": (("PF", LINEAR), ("PF", "PD"))}  # (better, worse) by curve
TEXTS = {"transfer": "transfer texts", "labels": "labels"}


@dataclass(frozen=True)
class Crossing:
    """The number of texts from which on one model is better than another, and the interval of that number.

    0 is below the smallest number measured, inf above the largest; nan: not known.
    """

    kind: str  # of the curve: transfer or labels
    better: Arm
    worse: Arm
    at: float
    low: float
    high: float
    gains: pd.DataFrame  # better minus worse in points: texts, estimate, low, high
    over: str  # what the intervals are over, if not seeds and texts

    @property
    def sentence(self) -> str:
        """Return the crossing as a sentence without a full stop."""
        least, most = self.gains.texts.min(), self.gains.texts.max()
        certain = self.low == self.high == self.at  # at every number of texts the interval of the difference has the same sign
        more = "" if certain else f"; {self._interval}"
        if self.at == 0:
            return f"{self.better} is above {_named(self.worse)} from the fewest {TEXTS[self.kind]} measured on ({least:,}{more})"
        if self.at == math.inf:
            return f"{self.better} does not overtake {_named(self.worse)} with up to {most:,} {TEXTS[self.kind]}{more and f' ({self._interval})'}"
        return f"{self.better} overtakes {_named(self.worse)} at {self.number}"

    @property
    def number(self) -> str:
        """Return the number of texts in words, with its interval: "about 8,000 transfer texts (95 % 5,000 to 12,000)"."""
        return f"about {rounded(self.at)} {TEXTS[self.kind]} ({self._interval})"

    @property
    def _interval(self) -> str:
        if math.isnan(self.low + self.high):
            return "no interval from one seed"
        least, most = f"under {self.gains.texts.min():,}", f"over {self.gains.texts.max():,}"
        bounds = [least if not n else most if n == math.inf else rounded(n) for n in (self.low, self.high)]
        return f"95 %{self.over} {' to '.join(bounds)}"


def rounded(n: float) -> str:
    """Return a number of texts with two significant digits."""
    return f"{round(n, 1 - math.floor(math.log10(n))):,.0f}"


def of_study(study: str | Path, kind: str) -> list[Crossing]:
    """Return the crossings of one kind of learning curve, one for each pair of PAIRS and size that was measured.

    The intervals of the differences are over seeds and texts; where the answers to every text are missing, as in published
    evidence, over seeds alone.
    """
    curves = results.accuracies(results.load_curves(study))
    curves = curves[curves.curve == kind]
    if curves.empty:
        return []
    own = results.accuracies(results.load_results(study))
    (effect, over), crossings = _effects(study), []
    for better, worse in PAIRS[kind]:
        for size, points in curves[curves.recipe == better].groupby("size", sort=False):
            ends, numbers = LINEAR_SIZE if worse in LINEARS else size, sorted(map(int, points.texts.unique()))
            if len(numbers) < 2 or own[(own.recipe == worse) & (own["size"] == ends)].empty:
                continue
            also_curve = ((curves.recipe == worse) & (curves["size"] == ends)).any()
            rows = []
            for n in numbers:
                texts = n if n < numbers[-1] else None  # the study's own models have all texts
                one, other = Arm(better, size, texts), Arm(worse, ends, texts if also_curve else None)
                if difference := effect(one, other):
                    rows.append({"texts": n} | {k: getattr(difference, k) for k in ("estimate", "low", "high")})
            if len(rows) < 2:
                continue
            gains = pd.DataFrame(rows)
            at, low, high = (stats.overtakes_at(gains.texts, gains[column]) for column in ("estimate", "high", "low"))
            crossings.append(Crossing(kind, Arm(better, size), Arm(worse, ends), at, low, high, gains, over))
    return crossings


def _effects(study: str | Path):
    """Return a function of two arms, and what its intervals are over.

    It returns their difference in points over the seeds that both have, None if there are none.
    """
    try:
        e = evidence.of_study(study)
    except FileNotFoundError:
        return _over_seeds(study), " over seeds"

    def effect(one: Arm, other: Arm) -> stats.Effect | None:
        seeds = e.seeds_of(one, other)
        return stats.crossed_effect(e.right(one, seeds) - e.right(other, seeds)).scaled(POINTS) if seeds else None

    return effect, ""


def _over_seeds(study: str | Path):
    """Return the same function with intervals over seeds alone, from the table of metrics."""
    students = results.load_students(study)
    students = students[students.domain.isna() & students.corpus.isna()]

    def accuracy(arm: Arm) -> pd.Series:
        at = students.texts.isna() if arm.texts is None else students.texts == arm.texts
        return students[at & (students.recipe == arm.recipe) & (students["size"] == arm.size)].set_index("seed").value

    def effect(one: Arm, other: Arm) -> stats.Effect | None:
        a, b = accuracy(one), accuracy(other)
        differences = (a - (b.mean() if other.size == LINEAR_SIZE else b)).dropna().to_numpy()
        return stats.mean_interval(differences).scaled(POINTS) if len(differences) else None

    return effect


def _named(arm: Arm) -> str:
    return "the linear model" if arm.recipe == LINEAR else str(arm.recipe)
