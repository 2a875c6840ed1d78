"""A study's answers, ready to be compared: which student was right on which test text, and contrasts of such students.

One shape rules: right (1) and wrong (0) answers of one arm, (n_seeds, n_items), seeds in the study's order. A contrast
is a weighted sum of arms that answered the same texts with the same seeds; its weights sum to zero.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pdstudy.analysis import stats
from pdstudy.analysis.stats import POINTS, Effect
from pdstudy.sizes import Size
from pdstudy.storage import results


class Missing(KeyError):
    """Raised when a study lacks what a comparison needs; its one argument says what."""


@dataclass(frozen=True)
class Arm:
    """Students alike but for the seed: a recipe at a size, on the study's own texts unless something else is said."""

    recipe: str
    size: str
    texts: int | None = None  # of a learning curve over D_T or D_L
    domain: str | None = None  # the corpus that D_T was taken from
    corpus: str | None = None  # the D_LM that the start has read

    def __str__(self) -> str:
        notes = [f"{self.texts:,} texts" if self.texts else "", f"D_T {self.domain}" if self.domain else ""]
        notes = [n for n in (*notes, f"D_LM {self.corpus}" if self.corpus else "") if n]
        return f"{self.recipe} {self.size}" + (f" ({', '.join(notes)})" if notes else "")


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of arms, in words and in numbers."""

    compared: str
    terms: tuple[tuple[float, Arm], ...]

    @property
    def sizes(self) -> list[str]:
        """Return the sizes that take part, each once."""
        return list(dict.fromkeys(arm.size for _, arm in self.terms))


def mean(compared: str, contrasts: Iterable[Contrast]) -> Contrast:
    """Return the mean of several contrasts. Raises Missing where there is none."""
    found = list(contrasts)
    if not found:
        raise Missing(compared)
    return Contrast(compared, tuple((w / len(found), arm) for c in found for w, arm in c.terms))


def minus(compared: str, one: Contrast, other: Contrast) -> Contrast:
    """Return the difference of two contrasts: an interaction."""
    return Contrast(compared, one.terms + tuple((-w, arm) for w, arm in other.terms))


def between(better: Arm, worse: Arm) -> Contrast:
    """Return the contrast of two arms."""
    return Contrast(f"{better} over {worse}", ((1.0, better), (-1.0, worse)))


class Evidence:
    """What a study measured on test, and what it was asked to measure."""

    def __init__(self, study: str | Path):
        predictions = results.load_predictions(study)
        test = predictions[predictions.split == "test"]
        right = (test.label == test.predicted).astype(float)
        self._right = {d: right[index].to_numpy() for d, index in test.groupby("digest", observed=True).groups.items()}
        settings = results.load_settings(study)
        self.seeds, self.recipes = list(settings["seeds"]), list(settings["recipes"])
        self.n_params = {}
        self._digests = self._students(study)
        self.sizes = sorted(settings["sizes"], key=self._order)
        self._recipe_sizes = settings.get("recipe_sizes", {})
        self.curve = list(settings["curves"]["transfer"])  # numbers of texts, the smallest first
        self.corpora = list(settings.get("compound", {}).get("corpora", []))
        near = results.load_nearness(study).sort_values("S", ascending=False)
        self.domains = list(near.corpus)  # the nearest first
        self.latency = results.load_latency(study)  # size -> milliseconds

    def _students(self, study: str | Path) -> dict[Arm, dict[int, str]]:
        table = results.load_students(study)
        found: dict[Arm, dict[int, str]] = {}
        for row in table.itertuples(index=False):
            own = {k: getattr(row, k) for k in ("domain", "corpus") if isinstance(getattr(row, k), str)}
            arm = Arm(row.recipe, row.size, int(row.texts) if row.texts == row.texts and row.texts else None, **own)
            found.setdefault(arm, {})[int(row.seed)] = row.digest
            self.n_params[row.size] = int(row.n_params)
        return found

    def _order(self, size: str) -> tuple:
        return self.n_params.get(size, Size.parse(size).n_params()), size

    def sizes_of(self, *recipes: str) -> list[str]:
        """Return the sizes at which all these recipes were asked for, the smallest first. Raises Missing."""
        for recipe in recipes:
            if recipe not in self.recipes:
                raise Missing(f"the recipe {recipe}")
        return [s for s in self.sizes if all(s in self._recipe_sizes.get(r, self.sizes) for r in recipes)]

    def right(self, arm: Arm) -> np.ndarray:
        """Return right (1) and wrong (0) answers, (n_seeds, n_items). Raises Missing naming the first absent student."""
        found = self._digests.get(arm, {})
        for seed in self.seeds:
            if seed not in found:
                raise Missing(f"{arm} seed {seed}")
        return np.stack([self._right[found[seed]] for seed in self.seeds])

    def differences(self, contrast: Contrast) -> np.ndarray:
        """Return a contrast's value for every seed and test text, (n_seeds, n_items)."""
        return sum(weight * self.right(arm) for weight, arm in contrast.terms)

    def effect(self, contrast: Contrast) -> Effect:
        """Return a contrast in points with its interval over seeds and texts."""
        return stats.crossed_effect(self.differences(contrast)).scaled(POINTS)

    def has(self, arm: Arm) -> bool:
        """Return whether any seed of an arm was measured."""
        return arm in self._digests
