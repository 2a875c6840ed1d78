"""Word vectors by counting: what the pieces' company in D_LM says before any gradient has been taken.

A pre-training that starts its word embeddings here begins below the plateau on which a random start spends
most of a small budget (docs/pretraining_budget.md).
"""

import numpy as np
import scipy.sparse as sp

from pdstudy.data.batches import Ids

SMOOTHING = 0.75  # of the context's counts (Levy, Goldberg and Dagan, 2015)
POWER_STEPS = 6  # of the randomised decomposition, with as many spare directions as are kept: the spectrum falls slowly
AT_ONCE = 4_000_000  # pieces whose pairs are held in memory


def word_vectors(ids: Ids, vocabulary: int, width: int, window: int) -> np.ndarray:
    """Return (vocabulary, width) float32 vectors of mean 0 and standard deviation 1 over all entries.

    Pieces that stand at most `window` apart in one document count as pairs, a pair at distance d as 1/d. The
    matrix of positive pointwise mutual information is cut to its `width` largest singular directions, each
    weighted by the root of its singular value (Levy, Goldberg and Dagan, 2015). The same ids give the same
    vectors. Raises ValueError where the text has too few different pieces for the width.
    """
    matrix = positive_mutual_information(pairs(ids, vocabulary, window))
    seen = int((np.diff(matrix.indptr) > 0).sum())
    if seen <= width:
        raise ValueError(
            f"D_LM has {seen:,} different pieces in company, too few for word vectors of width {width}; give more text"
        )
    from sklearn.utils.extmath import randomized_svd  # here: only this stage needs it

    left, values, _ = randomized_svd(matrix, width, n_oversamples=width, n_iter=POWER_STEPS, random_state=0)
    vectors = left * np.sqrt(values)
    vectors -= vectors.mean(axis=0)
    return (vectors / vectors.std()).astype(np.float32)


def pairs(ids: Ids, vocabulary: int, window: int) -> sp.csr_array:
    """Return the symmetric (vocabulary, vocabulary) sums of 1/d over all pairs at distance d <= `window` in one text."""
    found = sp.csr_array((vocabulary, vocabulary), dtype=np.float64)
    for first in range(0, len(ids.flat), AT_ONCE):
        part = np.asarray(ids.flat[first : first + AT_ONCE + window], dtype=np.int32)
        text = np.searchsorted(ids.starts, np.arange(first, first + len(part)), side="right")
        for d in range(1, min(window, len(part) - 1) + 1):
            n = min(AT_ONCE, len(part) - d)
            together = text[:n] == text[d : n + d]
            left, right = part[:n][together], part[d : n + d][together]
            found += sp.coo_array((np.full(len(left), 1 / d), (left, right)), shape=found.shape).tocsr()
    return (found + found.T).tocsr()


def positive_mutual_information(pairs: sp.csr_array) -> sp.csr_array:
    """Return max(0, log p(a, b) / (p(a) q(b))), where q is the context's distribution to the power 0.75."""
    entries = pairs.tocoo()
    row_sums = np.asarray(pairs.sum(axis=1)).ravel()
    context = row_sums**SMOOTHING / (row_sums**SMOOTHING).sum()
    value = np.log(entries.data / (row_sums[entries.row] * context[entries.col]))
    kept = value > 0
    return sp.coo_array((value[kept], (entries.row[kept], entries.col[kept])), shape=pairs.shape).tocsr()
