"""Which student was right on which test text of a study, and contrasts of students.

The answers of one arm are an array (n_seeds, n_items) of 1 (right) and 0 (wrong), with the seeds in the study's order. A contrast
is a weighted sum of arms with the same texts and seeds; its weights sum to zero.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from pdstudy.analysis import stats
from pdstudy.analysis.stats import POINTS, Effect
from pdstudy.recipes import LINEAR_SIZE
from pdstudy.sizes import Size
from pdstudy.storage import results


class Missing(KeyError):
    """Raised when a study lacks something that a comparison needs; its argument names it."""


@dataclass(frozen=True)
class Arm:
    """Students that differ only in the seed: a recipe and a size, with the study's own texts unless another field is set."""

    recipe: str
    size: str
    texts: int | None = None  # number of texts, on a learning curve over D_T or D_L
    domain: str | None = None  # the corpus of D_T
    corpus: str | None = None  # the D_LM that the encoder was pre-trained on

    def __str__(self) -> str:
        notes = [f"{self.texts:,} texts" if self.texts else "", f"D_T {self.domain}" if self.domain else ""]
        notes = [n for n in (*notes, f"D_LM {self.corpus}" if self.corpus else "") if n]
        name = self.recipe if self.size == LINEAR_SIZE else f"{self.recipe} {self.size}"
        return name + (f" ({', '.join(notes)})" if notes else "")


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of arms: its description, and (weight, arm) pairs."""

    compared: str
    terms: tuple[tuple[float, Arm], ...]

    @property
    def sizes(self) -> list[str]:
        """Return the different sizes of its students; the linear model has none."""
        return list(dict.fromkeys(arm.size for _, arm in self.terms if arm.size != LINEAR_SIZE))


def mean(compared: str, contrasts: Iterable[Contrast]) -> Contrast:
    """Return the mean of several contrasts. Raises Missing if there are none."""
    parts = list(contrasts)
    if not parts:
        raise Missing(compared)
    return Contrast(compared, tuple((w / len(parts), arm) for c in parts for w, arm in c.terms))


def minus(compared: str, one: Contrast, other: Contrast) -> Contrast:
    """Return the difference of two contrasts, an interaction."""
    return Contrast(compared, one.terms + tuple((-w, arm) for w, arm in other.terms))


def between(better: Arm, worse: Arm) -> Contrast:
    """Return the difference of two arms."""
    return Contrast(f"{better} over {worse}", ((1.0, better), (-1.0, worse)))


def best_on_dev(metrics, recipes: Iterable[str], seeds: Sequence[int]) -> Arm:
    """Return the student with the best mean accuracy on dev, of those with every seed; of equal ones the smallest. Raises Missing."""
    dev = results.accuracies(metrics, "dev")
    dev = dev[dev.recipe.isin(recipes) & dev.seed.isin(seeds)]
    table = dev.groupby(["recipe", "size"], sort=False).agg(
        value=("value", "mean"), n=("seed", "nunique"), params=("n_params", "first")
    )
    table = table[table.n == len(seeds)].sort_values(["value", "params"], ascending=[False, True], kind="stable")
    if table.empty:
        raise Missing("a student measured on dev")
    return Arm(*table.index[0])


class Evidence:
    """The test results of a study, and the settings that comparisons need."""

    def __init__(self, study: str | Path):
        predictions = results.load_predictions(study)
        test = predictions[predictions.split == "test"]
        right = (test.label == test.predicted).astype(float)
        self._right = {digest: of.to_numpy() for digest, of in right.groupby(test.digest, observed=True)}
        settings = results.load_settings(study)
        self._metrics = results.load_results(study)
        self.seeds, self.recipes = list(settings["seeds"]), list(settings["recipes"])
        self.n_params, self._digests = {}, {}  # parameters by size; digests by arm and seed
        for row in results.load_students(study).itertuples(index=False):
            own = {k: getattr(row, k) for k in ("domain", "corpus") if isinstance(getattr(row, k), str)}
            arm = Arm(row.recipe, row.size, int(row.texts) if row.texts == row.texts and row.texts else None, **own)
            self._digests.setdefault(arm, {})[int(row.seed)] = row.digest
            self.n_params[row.size] = int(row.n_params)
        self.sizes = sorted(settings["sizes"], key=lambda s: (self.n_params.get(s, Size.parse(s).n_params()), s))
        self._recipe_sizes = settings.get("recipe_sizes", {})
        self.curve = list(settings["curves"]["transfer"])  # numbers of texts, the smallest first
        self.corpora = list(settings.get("compound", {}).get("corpora", []))
        self.domains = list(results.load_nearness(study).sort_values("S", ascending=False).corpus)  # the nearest first
        self.latency = results.load_latency(study)  # milliseconds by size

    def sizes_of(self, *recipes: str) -> list[str]:
        """Return the sizes that the study has for all these recipes, the smallest first. Raises Missing."""
        for recipe in recipes:
            if recipe not in self.recipes:
                raise Missing(f"the recipe {recipe}")
        return [s for s in self.sizes if all(s in self._recipe_sizes.get(r, self.sizes) for r in recipes)]

    def seeds_of(self, *arms: Arm) -> list[int]:
        """Return the study's seeds for which all these students were measured: advice may stop before it trains them all."""
        students = [self._digests.get(arm, {}) for arm in arms if arm.size != LINEAR_SIZE]
        return [seed for seed in self.seeds if all(seed in digests for digests in students)]

    def right(self, arm: Arm, seeds: list[int] | None = None) -> np.ndarray:
        """Return right (1) and wrong (0) answers of `seeds`, by default all, (n_seeds, n_items). Raises Missing for the first missing."""
        digests, seeds = self._digests.get(arm, {}), self.seeds if seeds is None else seeds
        if arm.size == LINEAR_SIZE and digests:  # it has no seed: the same answers are paired with every seed of a student
            return np.stack([self._right[next(iter(digests.values()))]] * len(seeds))
        for seed in seeds:
            if seed not in digests:
                raise Missing(f"{arm} seed {seed}")
        return np.stack([self._right[digests[seed]] for seed in seeds])

    def differences(self, contrast: Contrast) -> np.ndarray:
        """Return the value of a contrast for every seed and test text, (n_seeds, n_items)."""
        return sum(weight * self.right(arm) for weight, arm in contrast.terms)

    def effect(self, contrast: Contrast) -> Effect:
        """Return a contrast in points, with its interval over seeds and texts."""
        return stats.crossed_effect(self.differences(contrast)).scaled(POINTS)

    def row(self, contrast: Contrast) -> dict[str, float]:
        """Return the effect of a contrast as a row of a table: estimate, low, high, n_seeds, n_items."""
        effect = self.effect(contrast)
        return {k: getattr(effect, k) for k in ("estimate", "low", "high", "n_seeds", "n_items")}

    def best_on_dev(self) -> Arm:
        """Return the student with the best mean accuracy on dev over seeds, see the function `best_on_dev`."""
        return best_on_dev(self._metrics, self.recipes, self.seeds)

    def has(self, arm: Arm) -> bool:
        """Return whether an arm was measured with any seed."""
        return arm in self._digests


def of_study(study: str | Path) -> Evidence:
    """Return a study's evidence, read once until its files change. Raises FileNotFoundError without results or answers to every text."""
    return _read(results.folder_of(study), results.dates(study))


@lru_cache(maxsize=2)
def _read(folder: Path, dates: tuple[int, ...]) -> Evidence:
    return Evidence(folder)
