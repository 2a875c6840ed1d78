"""The parents of a step, opened from the store, and the texts of Parquet files, a few thousand at a time."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdstudy.data.batches import Ids, Labelled, Vocabulary
from pdstudy.data.tasks import SCALE
from pdstudy.data.texts import Text
from pdstudy.data.tokenizer import AT_ONCE
from pdstudy.storage.store import Store
from pdstudy.study.steps import Step


class Inputs:
    """The parents of a step, opened from the store."""

    def __init__(self, step: Step, store: Store):
        self.step, self.store = step, store

    def folder(self, role: str) -> Path:
        """Return the verified folder of one parent."""
        return self.store.open(self.step.parents[role])

    def record(self, role: str) -> dict[str, Any]:
        """Return what a parent recorded of itself."""
        return json.loads((self.folder(role) / "record.json").read_text())

    def vocabulary(self) -> Vocabulary:
        """Return the vocabulary of the step's word pieces."""
        return Vocabulary(**self.record("ids")["vocabulary"])

    def labelled(self, split: str) -> Labelled:
        """Return one split of D_L."""
        folder = self.folder("ids")
        scale = tuple(self.record("ids")["labels"]) == SCALE
        return Labelled(Ids.load(folder, split), np.load(folder / f"{split}.labels.npy"), scale)

    def ids(self, name: str) -> Ids:
        """Return transfer, corpus or heldout as pieces."""
        return Ids.load(self.folder("ids"), name)

    def transfer(self) -> Ids:
        """Return D_T as pieces: the task's own, or that of the domain which the step was given."""
        return Ids.load(self.folder("transfer" if "transfer" in self.step.parents else "ids"), "transfer")


@dataclass(frozen=True)
class Lines:
    """The texts of a Parquet file, pairs as tuples: read a few thousand at a time, as often as somebody goes through them."""

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
