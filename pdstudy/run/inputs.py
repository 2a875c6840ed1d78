"""The parents of a step, opened from the store, and the texts of Parquet files, a few thousand at a time."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pdstudy.data.batches import Ids, Labelled, Vocabulary
from pdstudy.data.formats import TextError
from pdstudy.data.tasks import SCALE
from pdstudy.data.texts import Text
from pdstudy.data.tokenizer import AT_ONCE
from pdstudy.storage.store import Store
from pdstudy.study.steps import Step

NO_TEXTS = Ids(np.empty(0, np.int32), np.zeros(1, np.int64))


class Inputs:
    """The parents of a step, opened from the store. A step takes texts as word pieces or as they are."""

    def __init__(self, step: Step, store: Store):
        self.step, self.store = step, store
        self.takes_word_pieces = "ids" in step.parents

    def folder(self, role: str) -> Path:
        """Return the verified folder of one parent."""
        return self.store.open(self.step.parents[role])

    def record(self, role: str) -> dict[str, Any]:
        """Return the record of one parent."""
        return read_record(self.folder(role))

    def vocabulary(self) -> Vocabulary:
        """Return the vocabulary of the step's word pieces."""
        return Vocabulary(**self.record("ids")["vocabulary"])

    @cached_property
    def labels(self) -> list[str]:
        """Return the names of the classes."""
        return self.record("ids" if self.takes_word_pieces else "texts")["labels"]

    def labelled(self, split: str, n: int | None = None) -> Labelled:
        """Return the first `n` texts (0 or None: all) of train, dev or test with their classes; no texts if not as word pieces."""
        if self.takes_word_pieces:
            texts, classes = self.texts(split, n), np.load(self.folder("ids") / f"{split}.labels.npy")
        else:
            texts, classes = NO_TEXTS, np.array(column(self.folder("texts") / f"{split}.parquet", "label"), np.int64)
        if n and n > len(classes):
            raise ValueError(f"{n:,} labels are asked for (curves.labels), and {split} has {len(classes):,}; ask for fewer")
        return Labelled(texts, classes[: n or None], tuple(self.labels) == SCALE)

    def ids(self, name: str) -> Ids:
        """Return transfer, corpus or heldout as word pieces."""
        return Ids.load(self.folder("ids"), name)

    def texts(self, split: str, n: int | None = None) -> Ids | list:
        """Return the first `n` texts (0 or None: all) of train, dev, test or transfer; transfer is the step's domain, if it has one.

        They are word pieces or, if the step takes none, strings and, for pairs, tuples. Raises TextError if there are fewer.
        """
        own = "ids" if self.takes_word_pieces else "texts"
        folder = self.folder("transfer" if split == "transfer" and "transfer" in self.step.parents else own)
        texts = Ids.load(folder, split) if self.takes_word_pieces else list(Lines(folder / f"{split}.parquet"))
        if n and n > len(texts):
            if split == "transfer":
                raise TextError(f"transfer.texts asks for {n:,} texts, but D_T has {len(texts):,} after cleaning; ask for fewer")
            raise TextError(f"splits.train asks for {n:,} texts, but dev and test leave {len(texts):,}; ask for fewer")
        return texts if not n else texts.head(n) if self.takes_word_pieces else texts[:n]


@dataclass(frozen=True)
class Lines:
    """The texts of a Parquet file, pairs as tuples, read a few thousand at a time in every iteration."""

    path: Path

    def batches(self) -> Iterator[list]:
        """Yield the texts in lists."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            names = [name for name in ("text", "pair") if name in file.schema_arrow.names]
            for batch in file.iter_batches(AT_ONCE, columns=names):
                columns = [batch.column(name).to_pylist() for name in names]
                yield columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))

    def __iter__(self):
        for batch in self.batches():
            yield from batch


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record that a step wrote into its folder."""
    return json.loads((folder / "record.json").read_text())


def tuples(path: Path) -> list[Text]:
    """Return the texts of a Parquet file, each as a tuple of one or two."""
    return [(t,) if isinstance(t, str) else t for t in Lines(path)]


def joined(texts: list[Text]) -> list[str]:
    """Return texts as one string each, the two of a pair with a space between."""
    return [" ".join(t) for t in texts]


def column(path: Path, name: str = "text") -> list:
    """Return the values of one column of a Parquet file."""
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=[name]).column(name).to_pylist()
