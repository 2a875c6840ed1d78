"""Masks a batch as BERT does, and divides a masked batch among ranks."""

import numpy as np

from pdstudy.data.batches import Vocabulary


def mask_rows(rows: np.ndarray, rate: float, vocabulary: Vocabulary, rng: np.random.Generator, continues: np.ndarray | None = None):
    """Return (inputs, positions, pieces) of a batch masked as in BERT.

    `round(rate x maskable)` positions are chosen, at least one and none of them [CLS] or [SEP]; 80 % become [MASK], 10 % a random
    piece, 10 % stay. With `continues` (vocabulary,), true on pieces such as "##ing", complete words are chosen, as many as fit
    into that number. `inputs` is (batch, length); `positions` (n_masked,) index the flattened batch; `pieces` (n_masked,) are the
    original pieces there.
    """
    flat = rows.reshape(-1)
    v = vocabulary
    special = np.zeros(v.size, dtype=bool)
    special[[v.pad, v.unk, v.cls, v.sep, v.mask]] = True
    maskable = np.flatnonzero(~special[flat])
    if not len(maskable):
        raise ValueError(f"none of a batch's {len(flat):,} pieces can be masked: all are special; look at D_LM and its tokenizer")
    n_masked = max(1, round(rate * len(maskable)))  # the mean loss over no position is NaN
    if continues is None:
        positions = np.sort(rng.choice(maskable, size=n_masked, replace=False, shuffle=False))
    else:
        positions = _whole_words(rows, maskable, n_masked, continues, rng)
        n_masked = len(positions)
    pieces = flat[positions]
    inputs = flat.copy()
    fate = rng.random(n_masked)
    inputs[positions[fate < 0.8]] = v.mask
    random_piece = positions[(fate >= 0.8) & (fate < 0.9)]
    inputs[random_piece] = rng.choice(np.flatnonzero(~special), size=len(random_piece))
    return inputs.reshape(rows.shape), positions, pieces


def _whole_words(rows: np.ndarray, maskable: np.ndarray, n: int, continues: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return at most `n` of the maskable positions, in order, that cover complete words, at least one."""
    begins = ~continues[rows]
    begins[:, 0] = True
    word = np.cumsum(begins.reshape(-1))[maskable]
    _, word, lengths = np.unique(word, return_inverse=True, return_counts=True)
    order = rng.permutation(len(lengths))
    chosen = np.zeros(len(lengths), dtype=bool)
    chosen[order[: max(1, np.searchsorted(np.cumsum(lengths[order]), n, side="right"))]] = True
    return maskable[chosen[word]]


def own_rows(inputs: np.ndarray, positions: np.ndarray, pieces: np.ndarray, rank: int, ranks: int):
    """Return the part of a masked batch that `rank` of `ranks` trains on, in the form of `mask_rows`.

    The parts of all ranks together are the batch, so the batch does not depend on the number of ranks.
    """
    n, length = inputs.shape
    if n < ranks:
        raise ValueError(f"pretrain.batch: {n} rows cannot be shared by {ranks} ranks; start fewer, or use a larger batch")
    first, last = n * rank // ranks, n * (rank + 1) // ranks
    mine = (positions >= first * length) & (positions < last * length)
    return inputs[first:last], positions[mine] - first * length, pieces[mine]
