"""Files of one's own, row by row or line by line: CSV, TSV, JSON lines, Parquet, what `datasets` saved, plain text.

Strict on purpose: a row that cannot be read is named, with its file and line, before anything is trained. What
a reader of tables would guess ("NA" is missing, "1" is a number) stays the text it is.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from pdstudy.storage.files import sha256

csv.field_size_limit(1 << 26)  # 64 MB: a longer field is a broken quote, not a text
LONGEST_LINE = 1 << 28  # bytes; a record may hold several fields
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


class TextError(ValueError):
    """Raised when a text source is missing, altered, too small or malformed; the message names the cure."""


def digest(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's files and their names."""
    if path.is_dir():
        parts = [f"{file.relative_to(path)}\0{digest(file)}" for file in sorted(path.rglob("*")) if file.is_file()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return sha256(path)


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
        return list(open_parquet(path).schema_arrow.names)
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
            index = positions(path, header, columns)
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


def positions(path: Path, header: list[str], columns: list[str]) -> list[int]:
    """Return where the columns stand in the header of a file. Raises TextError for one that is missing or there twice."""
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
    file, n = open_parquet(path), 0
    positions(path, file.schema_arrow.names, columns)
    for batch in file.iter_batches(4096, columns=columns):
        for values in zip(*(batch.column(c).to_pylist() for c in columns), strict=True):
            n += 1
            yield f"{path.name}, row {n}", list(values)


def open_parquet(path: Path):
    """Return a `pyarrow.parquet.ParquetFile`. Raises TextError for a broken one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise TextError(f"{path.name}: not a whole Parquet file ({str(error).splitlines()[0][:120]})") from None


def _dataset(path: Path, columns: list[str]) -> Iterator[tuple[str, list]]:
    found, n = _open_dataset(path), 0
    positions(path, found.column_names, columns)
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
