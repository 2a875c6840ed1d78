"""Whether a copy of a classifier answers as the original: by its answers, and by a quantile of its logits.

One logit of many may lie far off where a sum of 16-bit numbers falls on the other side of a rounding; an answer may turn where two
classes were as good as equal. Neither makes another classifier. Wrong weights move most logits.
"""

import numpy as np

TOLERANCE = {"fp32": 1e-4, "bf16": 0.02}  # of the largest logit, at least of 1: bf16 keeps 8 bits
QUANTILE = 0.99  # of the logits, that keep the tolerance
TIE = 4  # tolerances between the two best classes, below which an answer may turn


def reach(logits: np.ndarray, precision: str) -> float:
    """Return how far a copy's logits may lie from `logits`, (n_texts, n_classes), in a precision."""
    return TOLERANCE[precision] * max(1.0, float(np.abs(logits).max(initial=0.0)))


def unfaithful(copy: np.ndarray, original: np.ndarray, precision: str) -> str | None:
    """Return what differs between the logits of a copy and of the original, both (n_texts, n_classes); None where it answers alike."""
    limit = reach(original, precision)
    off = float(np.quantile(np.abs(copy - original), QUANTILE))
    if not off <= limit:  # nan too
        return f"by {off:.2g}, more than {limit:.2g} ({precision}, all but 1 % of the logits)"
    best = np.sort(original, axis=1)
    clear = best[:, -1] - best[:, -2] > TIE * limit
    if turned := int((clear & (copy.argmax(1) != original.argmax(1))).sum()):
        return f"in {turned:,} clear answers of {len(original):,}"
    return None
