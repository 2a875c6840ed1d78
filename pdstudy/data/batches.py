"""Ids on disk, rows for masked language modelling, batches for classification.

Every random choice depends on (seed, purpose, step) only, not on what was drawn before: a run that continues from step k draws
exactly what the uninterrupted run drew.
"""

import mmap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

MASKING, ORDER, SHIFT = range(3)  # the purposes of random streams
MOST_PERMUTED = 1 << 24  # rows; the order of more is computed row by row, without an array of them
ROUNDS = 6  # of the Feistel network that computes it
POOL = 40  # batches whose texts are sorted by length together
RELEASE_EVERY = 1024  # rows, after which the memory pages of a mapped text are released


def stream(seed: int, purpose: int, step: int) -> np.random.Generator:
    """Return the random generator of (seed, purpose, step)."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose << 40 | step]))


@dataclass(frozen=True)
class Vocabulary:
    """The number of a tokenizer's pieces, and the ids of the special ones."""

    size: int
    pad: int = 0
    unk: int = 1
    cls: int = 2
    sep: int = 3
    mask: int = 4


@dataclass(frozen=True)
class Ids:
    """Texts as word pieces: one flat array and where each text starts. Arrays may be memory-mapped."""

    flat: np.ndarray  # (n_pieces,) uint16 or int32
    starts: np.ndarray  # (n_texts + 1,) int64
    second: np.ndarray | None = None  # (n_texts,) of pairs: the number of pieces before the second text's

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of pieces of each text, (n_texts,)."""
        return np.diff(self.starts)

    def head(self, n: int) -> "Ids":
        """Return the first `n` texts, without copying."""
        return Ids(self.flat[: self.starts[n]], self.starts[: n + 1], None if self.second is None else self.second[:n])

    def followed_by(self, other: "Ids") -> "Ids":
        """Return these texts followed by others, copied into memory."""
        second = None if self.second is None else np.concatenate([self.second, other.second])
        starts = np.concatenate([self.starts, other.starts[1:] + self.starts[-1]])
        return Ids(np.concatenate([self.flat, other.flat]), starts, second)

    def save(self, folder: Path, name: str) -> None:
        """Write `<name>.ids.npy`, `<name>.starts.npy` and, of pairs, `<name>.second.npy`."""
        for part, array in (("ids", self.flat), ("starts", self.starts), ("second", self.second)):
            if array is not None:
                np.save(folder / f"{name}.{part}.npy", array)

    @classmethod
    def load(cls, folder: Path, name: str) -> "Ids":
        """Return the texts saved under `name`, memory-mapped."""
        parts = ("ids", "starts", *(["second"] if (folder / f"{name}.second.npy").is_file() else []))
        return cls(*(np.load(folder / f"{name}.{part}.npy", mmap_mode="r") for part in parts))


@dataclass(frozen=True)
class Rows:
    """Packed rows for masked language modelling: [CLS] and `length - 1` pieces of one running text.

    Documents follow each other, separated by [SEP], so there is no padding. Each epoch cuts the text at another offset and takes
    the rows in another order. A memory-mapped text may be larger than memory: its pages are released again, and the order of many
    rows is computed row by row.
    """

    text: np.ndarray  # (n_pieces,)
    length: int  # pieces in a row, [CLS] included
    seed: int
    vocabulary: Vocabulary
    _cached: dict = field(default_factory=dict, init=False, repr=False)  # the order and offset of the current epoch

    def __post_init__(self):
        if self.per_epoch < 1:
            raise ValueError(
                f"the LM corpus has {len(self.text):,} pieces, fewer than two rows of {self.length}: "
                "give a longer D_LM or a shorter pretrain.row"
            )
        _advise(self.text, "MADV_RANDOM")  # a row is 128 bytes; without this each costs a read-ahead of 128 kB

    @property
    def per_epoch(self) -> int:
        """Return the number of rows in one pass over the text."""
        return (len(self.text) - self.length) // (self.length - 1)

    def batch(self, step: int, size: int) -> np.ndarray:
        """Return the rows of training step `step`, (size, length) int64."""
        rows = np.empty((size, self.length), dtype=np.int64)
        rows[:, 0] = self.vocabulary.cls
        if step * size // RELEASE_EVERY != (step * size + size) // RELEASE_EVERY:
            _advise(self.text, "MADV_DONTNEED")  # release its pages; they are read again when they are needed
        for i in range(size):
            epoch, k = divmod(step * size + i, self.per_epoch)
            order, shift = self._epoch(epoch)
            row = order[k] if isinstance(order, np.ndarray) else permuted(k, self.per_epoch, order)
            start = shift + row * (self.length - 1)
            rows[i, 1:] = self.text[start : start + self.length - 1]
        return rows

    def _epoch(self, epoch: int) -> tuple["np.ndarray | list[int]", int]:
        """Return an epoch's order of the rows, or the keys of `permuted` for it, and the offset of its first row."""
        if self._cached.get("epoch") != epoch:
            rng, n = stream(self.seed, ORDER, epoch), self.per_epoch
            order = rng.permutation(n) if n <= MOST_PERMUTED else rng.integers(1 << 32, size=ROUNDS).tolist()
            shift = int(stream(self.seed, SHIFT, epoch).integers(self.length))
            self._cached.update(epoch=epoch, value=(order, shift))
        return self._cached["value"]


def permuted(k: int, n: int, keys: list[int]) -> int:
    """Return the image of `k` under a permutation of 0 .. n - 1 that needs no memory: a Feistel network over `keys`.

    The network permutes the numbers below a power of four >= n; it is applied again until the image is below n.
    """
    half = ((n - 1).bit_length() + 1) // 2
    low = (1 << half) - 1
    while True:
        left, right = k >> half, k & low
        for key in keys:
            left, right = right, left ^ (((right + key) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 32 & low)
        k = left << half | right
        if k < n:
            return k


def _advise(text: np.ndarray, advice: str) -> None:
    """Tell the kernel how a mapped file is read, where the system knows this advice."""
    if isinstance(text, np.memmap) and hasattr(mmap, advice):
        text._mmap.madvise(getattr(mmap, advice))


@dataclass(frozen=True)
class Labelled:
    """One split of D_L: texts as pieces, and their class numbers (n_texts,), with `scale` the steps of a scale."""

    ids: Ids
    labels: np.ndarray
    scale: bool = False

    def majority(self) -> float:
        """Return the share of the largest class."""
        return float(np.bincount(self.labels).max() / len(self.labels))

    def above_baseline(self, scores: dict[str, float]) -> float:
        """Return how far scores on this split are above those of a constant answer: in accuracy, for a scale in Pearson's r."""
        return scores["pearson"] if self.scale else scores["accuracy"] - self.majority()


@dataclass(frozen=True)
class Batches:
    """Texts in batches of similar length, so that little is padding; each epoch in another order."""

    ids: Ids
    targets: np.ndarray  # (n_texts, ...): class numbers or teacher logits
    size: int  # texts in a batch
    seed: int
    pad: int
    multiple: int = 1  # a batch's length is rounded up to a multiple of this
    _cached: dict = field(default_factory=dict, init=False, repr=False)  # the batches of the current epoch

    @property
    def per_epoch(self) -> int:
        """Return the number of batches in one pass."""
        return -(-len(self.ids) // self.size)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray]:
        """Return (ids, mask, segments, targets) of training step `step`; see `padded`."""
        epoch, k = divmod(step, self.per_epoch)
        index = self._epoch(epoch)[k]
        return *padded(self.ids, index, self.pad, self.multiple), self.targets[index]

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        if self._cached.get("epoch") != epoch:
            self._cached.update(epoch=epoch, value=by_length(self.ids.lengths, self.size, stream(self.seed, ORDER, epoch)))
        return self._cached["value"]


def by_length(lengths: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return index batches of similar length: shuffle, sort within pools of POOL batches, shuffle the batches."""
    order = rng.permutation(len(lengths))
    batches = []
    for i in range(0, len(order), POOL * size):
        chunk = order[i : i + POOL * size]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches += [chunk[j : j + size] for j in range(0, len(chunk), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def padded(ids: Ids, index: np.ndarray, pad: int, multiple: int = 1) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return (ids, mask, segments) of the texts at `index`, each (batch, longest), `longest` rounded up to a `multiple`.

    The mask is None if there is no padding. Segments, 1 on the pieces of a pair's second text, are None if the texts are not pairs.
    """
    starts, lengths = ids.starts[index], ids.starts[index + 1] - ids.starts[index]
    longest = -(-int(lengths.max()) // multiple) * multiple
    segments = None if ids.second is None else (np.arange(longest) >= ids.second[index][:, None]).astype(np.int64)
    if (lengths == longest).all():
        return ids.flat[starts[:, None] + np.arange(longest)].astype(np.int64), None, segments
    out = np.full((len(index), longest), pad, dtype=np.int64)
    mask = np.arange(longest) < lengths[:, None]
    out[mask] = np.concatenate([ids.flat[a : a + n] for a, n in zip(starts, lengths, strict=True)])
    return out, mask, segments
