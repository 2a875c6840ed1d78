"""Word vectors from the counts of word pieces that occur near each other in D_LM, without any gradient step.

Pre-training that starts its word embeddings from them begins below the plateau of the loss on which a random start spends most of
a small budget (docs/pretraining_budget.md).
"""

import numpy as np
import scipy.sparse as sp

from pdstudy.data.batches import Ids

SMOOTHING = 0.75  # of the context's counts (Levy, Goldberg and Dagan, 2015)
POWER_STEPS = 6  # of the randomised SVD, with as many extra directions as are kept, because the singular values fall slowly
AT_ONCE = 4_000_000  # pieces whose pairs are in memory


def word_vectors(ids: Ids, vocabulary: int, width: int, window: int) -> np.ndarray:
    """Return (vocabulary, width) float32 vectors of mean 0 and standard deviation 1 over all entries.

    Two pieces at distance d <= `window` in one document count as a pair with weight 1/d. The matrix of positive pointwise
    mutual information is reduced to its `width` largest singular directions, each weighted by the root of its singular value
    (Levy, Goldberg and Dagan, 2015). The same ids give the same vectors. Raises ValueError if the text has too few different
    pieces for the width.
    """
    from sklearn.utils.extmath import randomized_svd  # here: only this stage needs it

    matrix = positive_mutual_information(pairs(ids, vocabulary, window))
    n_pieces = int((np.diff(matrix.indptr) > 0).sum())
    if n_pieces <= width:
        raise ValueError(
            f"D_LM has {n_pieces:,} different pieces that occur near others, too few for word vectors of width {width}; give more text"
        )

    left, values, _ = randomized_svd(matrix, width, n_oversamples=width, n_iter=POWER_STEPS, random_state=0)
    vectors = left * np.sqrt(values)
    vectors -= vectors.mean(axis=0)
    return (vectors / vectors.std()).astype(np.float32)


def pairs(ids: Ids, vocabulary: int, window: int) -> sp.csr_array:
    """Return the symmetric (vocabulary, vocabulary) sums of 1/d over all pairs at distance d <= `window` in one text."""
    sums = sp.csr_array((vocabulary, vocabulary), dtype=np.float64)
    for first in range(0, len(ids.flat), AT_ONCE):
        part = np.asarray(ids.flat[first : first + AT_ONCE + window], dtype=np.int32)
        text = np.searchsorted(ids.starts, np.arange(first, first + len(part)), side="right")
        for d in range(1, min(window, len(part) - 1) + 1):
            n = min(AT_ONCE, len(part) - d)
            same_text = text[:n] == text[d : n + d]
            left, right = part[:n][same_text], part[d : n + d][same_text]
            sums += sp.coo_array((np.full(len(left), 1 / d), (left, right)), shape=sums.shape).tocsr()
    return (sums + sums.T).tocsr()


def positive_mutual_information(pairs: sp.csr_array) -> sp.csr_array:
    """Return max(0, log p(a, b) / (p(a) q(b))), where q is the context's distribution to the power 0.75."""
    entries = pairs.tocoo()
    row_sums = np.asarray(pairs.sum(axis=1)).ravel()
    context = row_sums**SMOOTHING / (row_sums**SMOOTHING).sum()
    value = np.log(entries.data / (row_sums[entries.row] * context[entries.col]))
    positive = value > 0
    return sp.coo_array((value[positive], (entries.row[positive], entries.col[positive])), shape=pairs.shape).tocsr()
