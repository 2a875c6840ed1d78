"""The comparisons behind the paper's claims, as functions of the evidence of a study.

Each returns a contrast, or raises Missing with what the study lacks.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import wraps

import numpy as np

from pdstudy.analysis.evidence import Arm, Contrast, Evidence, Missing, between, mean, minus
from pdstudy.recipes import LINEAR, LINEAR_SIZE, LINEAR_TAUGHT, RANDOM, RECIPES
from pdstudy.sizes import Size

MATCHED = 0.5  # a deep student matches a wide one with more parameters if it has at least this share of them
SAME_LATENCY = 1.25  # latencies match if they differ by at most this factor

ContrastOf = Callable[[Evidence], Contrast]


def of_evidence(compare: Callable[..., Contrast]) -> Callable[..., ContrastOf]:
    """Return a function that takes all arguments of `compare` except the evidence, and returns a function of the evidence."""
    return wraps(compare)(lambda *args, **kwargs: wraps(compare)(lambda e: compare(e, *args, **kwargs)))


@of_evidence
def over(e: Evidence, better: str, worse: str, sizes: list[str] | None = None, corpus: str | None = None) -> Contrast:
    """Return what one recipe gains over another, averaged over all sizes that both have.

    If `corpus` is given, recipes that start from a pre-trained encoder use one pre-trained on it, and sizes without one are left out.
    """

    def arm(recipe: str, size: str) -> Arm:
        return Arm(recipe, size, corpus=None if RECIPES[recipe].start == RANDOM else corpus)

    pairs = [(arm(better, s), arm(worse, s)) for s in (e.sizes_of(better, worse) if sizes is None else sizes)]
    if corpus:
        pairs = [p for p in pairs if all(map(e.has, p))]
    return _mean_gain(f"{better} over {worse}" + (f", {_lm(corpus)}" if corpus else ""), pairs)


@of_evidence
def growth(e: Evidence, recipe: str) -> Contrast:
    """Return what a recipe's largest student gains over its smallest."""
    small, large = _ends(e, recipe)
    return replace(between(Arm(recipe, large), Arm(recipe, small)), compared=f"{recipe}: largest over smallest")


@of_evidence
def gain_grows(e: Evidence, better: str, worse: str) -> Contrast:
    """Return how much larger one recipe's gain over another is at the largest size than at the smallest."""
    small, large = (between(Arm(better, s), Arm(worse, s)) for s in _ends(e, better, worse))
    return minus(f"{better} over {worse}: largest less smallest size", large, small)


def best_over_linear(e: Evidence) -> Contrast:
    """Return what the student that is best on dev gains over the linear model, on test."""
    return between(e.best_on_dev(), _linear(e, LINEAR))


@of_evidence
def over_linear(e: Evidence, recipe: str, linear: str) -> Contrast:
    """Return what a recipe gains over a linear model, averaged over its sizes."""
    arm = _linear(e, linear)
    return _mean_gain(f"{recipe} over {linear}", [(Arm(recipe, size), arm) for size in e.sizes_of(recipe)])


@of_evidence
def at_smallest(e: Evidence, better: str, worse: str) -> Contrast:
    """Return what one recipe gains over another at the smallest size that both have."""
    sizes = e.sizes_of(better, worse)
    if not sizes:
        raise Missing("a size that both recipes have")
    return between(Arm(better, sizes[0]), Arm(worse, sizes[0]))


def truncation_gap_shrinks(e: Evidence) -> Contrast:
    """Return how much more PD gains over truncation for the shallowest student of a width than for the deepest."""
    gaps = []
    for sizes in _by_width(e.sizes_of("PD", "PD (truncated)")):
        if len(sizes) > 1:
            gaps.append(minus("", *(between(Arm("PD", s), Arm("PD (truncated)", s)) for s in (sizes[0], sizes[-1]))))
    return mean("PD over PD (truncated): shallow less deep", gaps)


def pairs_matched_in_parameters(e: Evidence) -> list[tuple[str, str]]:
    """Return (deep, wide) pairs in which the deeper, narrower student has fewer parameters, but at least half as many."""
    sizes, pairs = [Size.parse(s) for s in e.sizes], []
    for wide in sizes:
        deep = [s for s in sizes if s.layers > wide.layers and s.hidden < wide.hidden]
        deep = [s for s in deep if MATCHED <= e.n_params.get(str(s), 0) / e.n_params.get(str(wide), 1) < 1]
        if deep:
            pairs.append((str(max(deep, key=lambda s: (s.hidden, s.layers))), str(wide)))
    return pairs


def pairs_matched_in_latency(e: Evidence) -> list[tuple[str, str]]:
    """Return (deep, wide) pairs: for each deep student the wide one with the closest latency, if it differs by at most a quarter.

    Raises Missing if no latency was measured.
    """
    if not e.latency:
        raise Missing("measured latency")
    sizes, pairs = [Size.parse(s) for s in e.sizes if s in e.latency], []
    for deep in sizes:
        apart = {
            str(s): abs(np.log(e.latency[str(s)] / e.latency[str(deep)]))
            for s in sizes
            if s.layers < deep.layers and s.hidden > deep.hidden
        }
        closest = min(apart, key=apart.get, default=None)
        if closest and apart[closest] <= np.log(SAME_LATENCY):
            pairs.append((str(deep), closest))
    return pairs


@of_evidence
def deep_over_wide(e: Evidence, recipe: str, matched: Callable = pairs_matched_in_parameters, how: str = "parameters") -> Contrast:
    """Return what deep students of a recipe gain over wide ones that match them."""
    sizes = e.sizes_of(recipe)
    pairs = [(deep, wide) for deep, wide in matched(e) if deep in sizes and wide in sizes]
    if not pairs:
        raise Missing(f"a deep and a wide size that match in {how}")
    names = ", ".join(f"{deep} over {wide}" for deep, wide in pairs)
    return _mean_gain(f"{recipe}: {names}", [(Arm(recipe, deep), Arm(recipe, wide)) for deep, wide in pairs])


@of_evidence
def depth_pays_more(e: Evidence, recipe: str, than: str) -> Contrast:
    """Return how much more one recipe gains from depth at matched parameters than another."""
    return minus(f"deep over wide: {recipe} less {than}", deep_over_wide(recipe)(e), deep_over_wide(than)(e))


@of_evidence
def depth_saturates(e: Evidence, recipe: str) -> Contrast:
    """Return how much more accuracy rises from the shallowest to the middle depth than from there to the deepest, at widths with three."""
    contrasts = []
    for sizes in _by_width(e.sizes_of(recipe)):
        if len(sizes) > 2:
            low, middle, high = (Arm(recipe, sizes[i]) for i in (0, len(sizes) // 2, -1))
            contrasts.append(Contrast("", ((2.0, middle), (-1.0, low), (-1.0, high))))
    if not contrasts:
        raise Missing("a width with three depths")
    return mean(f"{recipe}: first layers less last layers", contrasts)


@of_evidence
def own_corpus_over(e: Evidence, corpus: Callable[[Evidence], str]) -> Contrast:
    """Return what PD gains if it is pre-trained on the study's own D_LM instead of another."""
    other = corpus(e)
    pairs = [(Arm("PD", s), Arm("PD", s, corpus=other)) for s in e.sizes_of("PD")]
    return _mean_gain(f"PD: the study's D_LM over {_lm(other)}", [p for p in pairs if e.has(p[1])])


@of_evidence
def corpus_over(e: Evidence, one: Callable[[Evidence], str], other: Callable[[Evidence], str]) -> Contrast:
    """Return what PD gains if it is pre-trained on one D_LM instead of another; neither is the study's own."""
    a, b = one(e), other(e)
    pairs = [(Arm("PD", s, corpus=a), Arm("PD", s, corpus=b)) for s in e.sizes_of("PD")]
    return _mean_gain(f"PD: D_LM {a} over {_lm(b)}", [p for p in pairs if all(map(e.has, p))])


def transfer_corpus(e: Evidence) -> str:
    """Return the name of D_T as a D_LM. Raises Missing if no encoder is pre-trained on it."""
    if "transfer" not in e.corpora:
        raise Missing("an encoder pre-trained on D_T alone")
    return "transfer"


def other_domain_corpus(e: Evidence) -> str:
    """Return the first D_LM that contains neither D_T nor text of the domain of D_L. Raises Missing."""
    corpora = [c for c in e.corpora if not set(c.split("+")) & {"transfer", "held-back"}]
    if not corpora:
        raise Missing("an encoder pre-trained on text of other domains")
    return corpora[0]


def small_with_less_over_large(e: Evidence) -> Contrast:
    """Return what the smallest PD student, on the most texts below all of D_T, gains over the largest distilled one on all of D_T."""
    sizes = [s for s in e.sizes_of("PD") if e.curve and e.has(Arm("PD", s, e.curve[-1]))]
    if not sizes:
        raise Missing("a learning curve of PD over D_T")
    large = e.sizes_of("Distillation")[-1]
    if large == sizes[0]:
        raise Missing("a second size")
    return between(Arm("PD", sizes[0], e.curve[-1]), Arm("Distillation", large))


@of_evidence
def little_text(e: Evidence, better: str, worse: str) -> Contrast:
    """Return what a recipe without D_T gains over one with the smallest D_T of the learning curve."""
    if not e.curve:
        raise Missing("a learning curve over D_T")
    pairs = [(Arm(better, s), Arm(worse, s, e.curve[0])) for s in e.sizes_of(better, worse)]
    return _mean_gain(f"{better} over {worse} on {e.curve[0]:,} texts", [p for p in pairs if e.has(p[1])])


@of_evidence
def drop_smaller(e: Evidence, recipe: str, than: str, far: int) -> Contrast:
    """Return how much less one recipe loses than another, from the nearest D_T to the `far`-th (-1: farthest)."""
    near, distant = _near_and_far(e, far)

    def drop(recipe: str) -> Contrast:
        sizes = [s for s in e.sizes_of(recipe) if e.has(Arm(recipe, s, domain=near))]
        pairs = [(Arm(recipe, s, domain=near), Arm(recipe, s, domain=distant)) for s in sizes]
        return _mean_gain(f"{recipe} on {near} over {distant}", pairs)

    return minus(f"lost from {near} to {distant}: {than} less {recipe}", drop(than), drop(recipe))


def finetuning_pays_far(e: Evidence) -> Contrast:
    """Return how much more the fine-tuning of PD-F adds with the farthest D_T than with the nearest."""
    near, far = _near_and_far(e, -1)

    def added(domain: str) -> Contrast:
        pairs = [(Arm("PD-F", s, domain=domain), Arm("PD", s, domain=domain)) for s in e.sizes_of("PD", "PD-F")]
        return _mean_gain("", [pair for pair in pairs if e.has(pair[0])])

    return minus(f"PD-F over PD: on {far} less on {near}", added(far), added(near))


def _mean_gain(compared: str, pairs: Iterable[tuple[Arm, Arm]]) -> Contrast:
    return mean(compared, [between(better, worse) for better, worse in pairs])


def _linear(e: Evidence, recipe: str) -> Arm:
    """Return the arm of a linear model. Raises Missing if it was not measured."""
    arm = Arm(recipe, LINEAR_SIZE)
    if not e.has(arm):
        raise Missing("the linear model trained on soft labels" if recipe == LINEAR_TAUGHT else "the linear model")
    return arm


def _ends(e: Evidence, *recipes: str) -> tuple[str, str]:
    """Return the smallest and the largest size that all recipes have. Raises Missing if there is only one."""
    sizes = e.sizes_of(*recipes)
    if len(sizes) < 2:
        raise Missing("a second size")
    return sizes[0], sizes[-1]


def _by_width(sizes: list[str]) -> list[list[str]]:
    """Return the sizes of each width, the shallowest first."""
    widths: dict[int, list[str]] = {}
    for size in sorted(map(Size.parse, sizes)):
        widths.setdefault(size.hidden, []).append(str(size))
    return list(widths.values())


def _near_and_far(e: Evidence, far: int) -> tuple[str, str]:
    if len(e.domains) < (2 if far == -1 else 3):
        raise Missing("transfer sets of other domains")
    return e.domains[0], e.domains[far]


def _lm(corpus: str) -> str:
    return "D_LM = D_T" if corpus == "transfer" else f"D_LM {corpus}"
