"""Whether a copy of a classifier predicts like the original: by its predicted classes, and by a quantile of its logits.

A single logit may differ much where a sum of 16-bit numbers is rounded the other way, and a predicted class may change where
two classes were nearly equal: the classifier is still the same. Wrong weights change most logits.
"""

import numpy as np

TOLERANCE = {"fp32": 1e-4, "bf16": 0.02}  # relative to the largest logit, or to 1 if that is larger; bf16 has 8 bits
QUANTILE = 0.99  # share of the logits that must be within the tolerance
TIE = 4  # tolerances between the two best classes; below that the predicted class may change


class Unfaithful(RuntimeError):
    """Raised when an exported model does not predict as it did in the study; nothing that was written is left."""


def unfaithful(copy: np.ndarray, original: np.ndarray, precision: str) -> str | None:
    """Return how the logits of a copy differ from the original's, both (n_texts, n_classes); None if they are close enough."""
    limit = TOLERANCE[precision] * max(1.0, float(np.abs(original).max(initial=0.0)))
    difference = float(np.quantile(np.abs(copy - original), QUANTILE))
    if not difference <= limit:  # also catches NaN
        return f"by {difference:.2g}, more than {limit:.2g} ({precision}, all but 1 % of the logits)"
    best = np.sort(original, axis=1)
    clear = best[:, -1] - best[:, -2] > TIE * limit
    if changed := int((clear & (copy.argmax(1) != original.argmax(1))).sum()):
        return f"in {changed:,} clear answers of {len(original):,}"
    return None
