"""The mean of several classifiers' probabilities, as logits."""

from collections.abc import Sequence

import numpy as np

SMALLEST = 1e-6  # a probability of 0 becomes this, so that its logarithm is finite


def log_mean(logits: Sequence[np.ndarray]) -> np.ndarray:
    """Return the logarithm of the mean of several classifiers' probabilities, (n_texts, n_classes) float32.

    `logits` has an array (n_texts, n_classes) for each classifier; all have the same weight.
    """
    from scipy.special import softmax  # here: it takes a while to load

    p = np.mean([softmax(np.asarray(x, dtype=np.float64), axis=1) for x in logits], axis=0)
    return np.log(np.maximum(p, SMALLEST)).astype(np.float32)
