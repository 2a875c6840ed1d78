"""The comparisons that the paper's claims are about, as functions of the evidence, which says what sizes, texts and corpora there are.

Each returns a contrast, or raises Missing naming what the study was not asked for.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pdstudy.analysis.evidence import Arm, Contrast, Evidence, Missing, between, mean, minus
from pdstudy.recipes import RECIPES
from pdstudy.sizes import Size

MATCHED = 0.5  # a deep student with at least this share of a wide one's parameters, and fewer, is its match

Ask = Callable[[Evidence], Contrast]


def over(better: str, worse: str, sizes: list[str] | None = None, **where) -> Ask:
    """Return the question how far one recipe is above another, over all sizes that both have.

    `where` (corpus=...) holds for the recipes that begin from something read.
    """

    def ask(e: Evidence) -> Contrast:
        both = e.sizes_of(better, worse) if sizes is None else sizes
        pairs = [between(_placed(Arm(better, s), where), _placed(Arm(worse, s), where)) for s in both]
        if where:  # of all sizes those that were asked for there
            pairs = [c for c in pairs if all(e.has(arm) for _, arm in c.terms)]
        return mean(f"{better} over {worse}" + _note(where), pairs)

    return ask


def _placed(arm: Arm, where: dict) -> Arm:
    return arm if RECIPES[arm.recipe].start == "random" else replace(arm, **where)


def _note(where: dict) -> str:
    names = {"corpus": "D_LM", "domain": "D_T"}
    return "".join(f", {names[k]} = {'D_T' if v == 'transfer' and k == 'corpus' else v}" for k, v in where.items())


def growth(recipe: str) -> Ask:
    """Return the question how far a recipe's largest student is above its smallest."""

    def ask(e: Evidence) -> Contrast:
        sizes = e.sizes_of(recipe)
        if len(sizes) < 2:
            raise Missing("a second size")
        return replace(between(Arm(recipe, sizes[-1]), Arm(recipe, sizes[0])), compared=f"{recipe}: largest over smallest")

    return ask


def gain_grows(better: str, worse: str) -> Ask:
    """Return the question how much more one recipe gains over another at the largest size than at the smallest."""

    def ask(e: Evidence) -> Contrast:
        sizes = e.sizes_of(better, worse)
        if len(sizes) < 2:
            raise Missing("a second size")
        ends = [between(Arm(better, s), Arm(worse, s)) for s in (sizes[-1], sizes[0])]
        return minus(f"{better} over {worse}: largest less smallest size", *ends)

    return ask


def at_smallest(better: str, worse: str) -> Ask:
    """Return the question how far one recipe is above another at the smallest size that both have."""

    def ask(e: Evidence) -> Contrast:
        sizes = e.sizes_of(better, worse)
        if not sizes:
            raise Missing("a size that both recipes have")
        return between(Arm(better, sizes[0]), Arm(worse, sizes[0]))

    return ask


def truncation_gap_shrinks(e: Evidence) -> Contrast:
    """Return how much more full pre-training gains over truncation at a width's shallowest student than at its deepest."""
    by_width = _depths(e, e.sizes_of("PD", "PD (truncated)"))
    gaps = [
        minus("", *(between(Arm("PD", s), Arm("PD (truncated)", s)) for s in (sizes[0], sizes[-1])))
        for sizes in by_width.values()
        if len(sizes) > 1
    ]
    return mean("PD over PD (truncated): shallow less deep", gaps)


def pairs_matched_in_parameters(e: Evidence) -> list[tuple[str, str]]:
    """Return (deep, wide) pairs: the deeper and narrower one has fewer parameters, but not less than half."""
    pairs = []
    for wide in map(Size.parse, e.sizes):
        deep = [s for s in map(Size.parse, e.sizes) if s.layers > wide.layers and s.hidden < wide.hidden]
        deep = [s for s in deep if MATCHED <= e.n_params.get(str(s), 0) / e.n_params.get(str(wide), 1) < 1]
        if deep:
            pairs.append((str(max(deep, key=lambda s: (s.hidden, s.layers))), str(wide)))
    return pairs


def pairs_matched_in_latency(e: Evidence, within: float = 0.25) -> list[tuple[str, str]]:
    """Return (deep, wide) pairs whose measured latencies differ by at most a quarter, the closest wide one for each deep one."""
    if not e.latency:
        raise Missing("measured latency")
    pairs = []
    for deep in map(Size.parse, e.sizes):
        wide = [s for s in map(Size.parse, e.sizes) if s.layers < deep.layers and s.hidden > deep.hidden and str(s) in e.latency]
        if wide and str(deep) in e.latency:
            ratio = {s: abs(np.log(e.latency[str(s)] / e.latency[str(deep)])) for s in wide}
            best = min(ratio, key=ratio.get)
            if ratio[best] <= np.log(1 + within):
                pairs.append((str(deep), str(best)))
    return pairs


def deep_over_wide(recipe: str, matched: Callable = pairs_matched_in_parameters, how: str = "parameters") -> Ask:
    """Return the question how far deep students of a recipe are above wide ones that match them."""

    def ask(e: Evidence) -> Contrast:
        sizes = e.sizes_of(recipe)
        pairs = [(deep, wide) for deep, wide in matched(e) if deep in sizes and wide in sizes]
        if not pairs:
            raise Missing(f"a deep and a wide size that match in {how}")
        shown = ", ".join(f"{deep} over {wide}" for deep, wide in pairs)
        return mean(f"{recipe}: {shown}", [between(Arm(recipe, deep), Arm(recipe, wide)) for deep, wide in pairs])

    return ask


def depth_pays_more(recipe: str, than: str) -> Ask:
    """Return the question how much more depth at matched parameters gives one recipe than another."""
    return lambda e: minus(f"deep over wide: {recipe} less {than}", deep_over_wide(recipe)(e), deep_over_wide(than)(e))


def depth_saturates(recipe: str) -> Ask:
    """Return the question how much more the first half of the layers adds than the second, at each width with three depths."""

    def ask(e: Evidence) -> Contrast:
        found = []
        for sizes in _depths(e, e.sizes_of(recipe)).values():
            if len(sizes) > 2:
                low, middle, high = (Arm(recipe, sizes[i]) for i in (0, len(sizes) // 2, -1))
                found.append(Contrast("", ((2.0, middle), (-1.0, low), (-1.0, high))))
        if not found:
            raise Missing("a width with three depths")
        return mean(f"{recipe}: first layers less last layers", found)

    return ask


def _depths(e: Evidence, sizes: list[str]) -> dict[int, list[str]]:
    """Return the sizes of each width, the shallowest first."""
    found: dict[int, list[str]] = {}
    for size in sorted(map(Size.parse, sizes)):
        found.setdefault(size.hidden, []).append(str(size))
    return found


def own_corpus_over(corpus: Callable[[Evidence], str], recipe: str = "PD") -> Ask:
    """Return the question how far students begun from the study's own D_LM are above those begun from another."""

    def ask(e: Evidence) -> Contrast:
        other = corpus(e)
        arms = [(Arm(recipe, s), Arm(recipe, s, corpus=other)) for s in e.sizes_of(recipe)]
        return mean(f"{recipe}: the study's D_LM over {_lm(other)}", [between(a, b) for a, b in arms if e.has(b)])

    return ask


def corpus_over(one: Callable[[Evidence], str], other: Callable[[Evidence], str], recipe: str = "PD") -> Ask:
    """Return the question how far students begun from one other D_LM are above those begun from another."""

    def ask(e: Evidence) -> Contrast:
        a, b = one(e), other(e)
        arms = [(Arm(recipe, s, corpus=a), Arm(recipe, s, corpus=b)) for s in e.sizes_of(recipe)]
        return mean(f"{recipe}: D_LM {a} over {_lm(b)}", [between(x, y) for x, y in arms if e.has(x) and e.has(y)])

    return ask


def _lm(corpus: str) -> str:
    return "D_LM = D_T" if corpus == "transfer" else f"D_LM {corpus}"


def transfer_itself(e: Evidence) -> str:
    """Return the name of D_T as a D_LM. Raises Missing where no encoder reads it."""
    if "transfer" not in e.corpora:
        raise Missing("an encoder that has read D_T alone")
    return "transfer"


def general(e: Evidence) -> str:
    """Return the first D_LM that is neither D_T nor of D_L's kind. Raises Missing."""
    found = [c for c in e.corpora if not set(c.split("+")) & {"transfer", "held-back"}]
    if not found:
        raise Missing("an encoder that has read text of other domains")
    return found[0]


def small_with_less_over_large(e: Evidence) -> Contrast:
    """Return the smallest PD student on the curve's last point but the whole, over the largest distilled one on all of D_T."""
    sizes = [s for s in e.sizes_of("PD") if e.curve and e.has(Arm("PD", s, e.curve[-1]))]
    if not sizes:
        raise Missing("a learning curve of PD over D_T")
    large = e.sizes_of("Distillation")[-1]
    if large == sizes[0]:
        raise Missing("a second size")
    return between(Arm("PD", sizes[0], e.curve[-1]), Arm("Distillation", large))


def little_text(better: str, worse: str) -> Ask:
    """Return the question how far a recipe without D_T is above one on the curve's smallest D_T."""

    def ask(e: Evidence) -> Contrast:
        if not e.curve:
            raise Missing("a learning curve over D_T")
        arms = [(Arm(better, s), Arm(worse, s, e.curve[0])) for s in e.sizes_of(better, worse)]
        return mean(f"{better} over {worse} on {e.curve[0]:,} texts", [between(a, b) for a, b in arms if e.has(b)])

    return ask


def drop_smaller(recipe: str, than: str, far: int) -> Ask:
    """Return the question how much less one recipe loses than another from the nearest transfer set to the `far`-th (-1: last)."""

    def ask(e: Evidence) -> Contrast:
        near, distant = _near_and_far(e, far)
        drops = [_drop(e, r, near, distant) for r in (than, recipe)]
        return minus(f"lost from {near} to {distant}: {than} less {recipe}", *drops)

    return ask


def finetuning_pays_far(e: Evidence) -> Contrast:
    """Return how much more the optional fine-tuning adds on the farthest transfer set than on the nearest."""
    near, far = _near_and_far(e, -1)
    added = [
        mean(
            "",
            [
                between(Arm("PD-F", s, domain=d), Arm("PD", s, domain=d))
                for s in e.sizes_of("PD", "PD-F")
                if e.has(Arm("PD-F", s, domain=d))
            ],
        )
        for d in (far, near)
    ]
    return minus(f"PD-F over PD: on {far} less on {near}", *added)


def _near_and_far(e: Evidence, far: int) -> tuple[str, str]:
    if len(e.domains) < (2 if far == -1 else 3):
        raise Missing("transfer sets of other domains")
    return e.domains[0], e.domains[far]


def _drop(e: Evidence, recipe: str, near: str, far: str) -> Contrast:
    sizes = [s for s in e.sizes_of(recipe) if e.has(Arm(recipe, s, domain=near))]
    return mean(f"{recipe} on {near} over {far}", [between(Arm(recipe, s, domain=near), Arm(recipe, s, domain=far)) for s in sizes])
