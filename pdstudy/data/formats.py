"""Reads the user's own files row by row or line by line: CSV, TSV, JSON lines, Parquet, what `datasets` saved, plain text.

The readers are strict: an error names the file and line of a row that cannot be read, before anything is trained. Values are
not guessed as other readers of tables do: "NA" and "1" stay text.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pdstudy.data.dialects import PLAIN, Dialect, TextError, decoded, records
from pdstudy.storage.files import sha256

csv.field_size_limit(1 << 26)  # 64 MB: a longer field is a broken quote, not a text
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


def digest(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's files and their names."""
    try:
        if path.is_dir():
            parts = [f"{file.relative_to(path)}\0{digest(file)}" for file in sorted(path.rglob("*")) if file.is_file()]
            return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
        return sha256(path)
    except OSError as error:
        raise TextError(f"{path.name}: cannot be read ({error.strerror or error})") from None


def rows(path: Path, columns: list[str], dialect: Dialect = PLAIN, names: bool = False) -> Iterator[tuple[str, list]]:
    """Yield (place, values of `columns`) of each row of a table, in order; place is "file, line n".

    CSV (quoted), TSV (a quote is an ordinary character), or as `dialect` says; JSON lines, Parquet, or a folder that `datasets`
    saved. With `names`, class numbers whose names the file stores (ClassLabel) become these names. Raises TextError for a missing
    or repeated column, a row of another length, broken quotes, NUL characters, lone surrogates, and text that is not of the
    dialect's encoding.
    """
    kind = path.suffix.lower()
    if path.is_dir() or kind == ".parquet":
        table_rows = _arrow_rows(path, columns, names)
    elif kind in (".csv", ".tsv"):
        table_rows = _delimited(path, columns, kind, dialect)
    elif kind in TABLES:
        table_rows = _json_lines(path, columns, dialect)
    else:
        raise _not_a_table(path)
    for place, values in table_rows:
        for value in values:
            if isinstance(value, str):
                check_text(place, value)
        yield place, values


def check_text(place: str, text: str) -> None:
    """Raise TextError for NUL characters and lone surrogates (halves of a character)."""
    if "\0" in text:
        is_utf16 = 3 * text.count("\0") > len(text)
        raise TextError(f"{place}: {'UTF-16 text; save it as UTF-8' if is_utf16 else 'a NUL character; remove it'}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise TextError(f"{place}: half of a character (a lone surrogate); remove it") from None


def columns_of(path: Path, dialect: Dialect = PLAIN) -> list[str]:
    """Return the names of a table's columns; without a header 1, 2, 3. Raises TextError."""
    if path.is_dir():
        return list(_open_dataset(path).column_names)
    kind = path.suffix.lower()
    if kind == ".parquet":
        return list(open_parquet(path).schema_arrow.names)
    if kind in (".csv", ".tsv"):
        for _, row in records(path, kind, dialect):
            return row if dialect.header else _numbered(row)
    if kind not in TABLES:
        raise _not_a_table(path)
    for _, record in objects(path, dialect):
        return list(record)
    raise TextError(f"{path.name}: the file is empty")


def _numbered(row: list[str]) -> list[str]:
    return [str(i + 1) for i in range(len(row))]


def _not_a_table(path: Path) -> TextError:
    return TextError(f"{path.name}: tables are {', '.join(TABLES)} or a folder saved by `datasets`; convert it to one of them")


def _delimited(path: Path, columns: list[str], kind: str, dialect: Dialect) -> Iterator[tuple[str, list]]:
    header = None
    for place, row in records(path, kind, dialect):
        if header is None:
            header = row if dialect.header else _numbered(row)
            index = positions(path, header, columns)
            if dialect.header:
                continue
        if len(row) != len(header):
            if kind == ".csv" and not row:
                continue  # an empty line
            raise TextError(f"{place}: {len(row)} fields, expected {','.join(header)[:200]}{_ragged(row, kind, dialect)}")
        yield place, [row[i] for i in index]
    if header is None:
        raise TextError(f"{path.name}: the file is empty")


def _ragged(row: list[str], kind: str, dialect: Dialect) -> str:
    """Return what may help for a row with too few or too many cells, or an empty text."""
    unquoted = dialect.quotes is False or (dialect.quotes is None and kind == ".tsv")
    if unquoted and any(cell.count('"') % 2 for cell in row):
        return "; where cells are quoted, read it with --quotes (task.quotes: true)"
    return ""


def positions(path: Path, header: list[str], columns: list[str]) -> list[int]:
    """Return the columns' positions in the header of a file. Raises TextError for one that is missing or there twice."""
    for column in columns:
        if (n := header.count(column)) != 1:
            raise TextError(f"{path.name}: {n or 'no'} column{'s' * (n > 1)} {column!r}; its columns are {', '.join(header)[:200]}")
    return [header.index(column) for column in columns]


def _json_lines(path: Path, columns: list[str], dialect: Dialect) -> Iterator[tuple[str, list]]:
    for place, record in objects(path, dialect):
        if missing := [c for c in columns if c not in record]:
            raise TextError(f"{place}: no field {missing[0]!r}; its fields are {', '.join(record)[:200]}")
        yield place, [record[c] for c in columns]


def objects(path: Path, dialect: Dialect = PLAIN) -> Iterator[tuple[str, dict]]:
    """Yield (place, record) of each line of a JSON lines file. Raises TextError for a line that is not a JSON object."""
    for n, line in enumerate(decoded(path, dialect.encoding), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError also for an integer of more digits than Python reads
            raise TextError(f"{path.name}, line {n}: {str(error).split(':')[0]}; write one JSON object a line") from None
        if not isinstance(record, dict):
            raise TextError(f"{path.name}, line {n}: not a JSON object; write one object a line")
        yield f"{path.name}, line {n}", record


def _arrow_rows(path: Path, columns: list[str], names: bool) -> Iterator[tuple[str, list]]:
    """Yield the rows of a Parquet file or of a folder that `datasets` saved."""
    import pyarrow as pa

    if path.is_dir():
        dataset = _open_dataset(path)
        positions(path, dataset.column_names, columns)
        class_names = {c: getattr(dataset.features[c], "names", None) for c in columns}
        batches = dataset.select_columns(columns).with_format("arrow").iter(4096)  # as Arrow no image or sound is decoded
    else:
        file = open_parquet(path)
        positions(path, file.schema_arrow.names, columns)
        class_names = _class_names(file.schema_arrow)
        batches = file.iter_batches(4096, columns=columns)
    n = 0
    try:
        for batch in batches:
            for values in zip(*(_values(batch.column(c), class_names.get(c) if names else None) for c in columns), strict=True):
                n += 1
                yield f"{path.name}, row {n}", list(values)
    except (pa.ArrowException, OSError, KeyError, OverflowError) as error:
        raise TextError(f"{path.name}, after row {n}: cannot be read ({(str(error).splitlines() or [''])[0][:120]})") from None


def _values(column: Any, class_names: list[str] | None) -> list:
    """Return the values of an Arrow column; with `class_names` class numbers become names, and -1 (no label) None."""
    values = column.to_pylist()
    if class_names is None:
        return values
    return [class_names[v] if isinstance(v, int) and 0 <= v < len(class_names) else None if v == -1 else v for v in values]


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Return the class names that `datasets` stored in an Arrow schema, by column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        stored = {column: feature.get("names") for column, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
    return {column: names for column, names in stored.items() if isinstance(names, list) and all(isinstance(n, str) for n in names)}


def open_parquet(path: Path):
    """Return a `pyarrow.parquet.ParquetFile`. Raises TextError for a broken one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, OverflowError, ValueError) as error:
        raise TextError(f"{path.name}: not a complete Parquet file ({str(error).splitlines()[0][:120]})") from None


def _open_dataset(path: Path):
    import datasets

    try:
        dataset = datasets.load_from_disk(str(path))
    except Exception:  # a broken folder raises many kinds of errors
        raise TextError(f"{path.name}: not a folder that `datasets` saved with save_to_disk") from None
    if isinstance(dataset, datasets.DatasetDict):
        raise TextError(f"{path.name}: holds the splits {', '.join(dataset)}; name one, such as {path.name}/{next(iter(dataset))}")
    return dataset


def lines(path: Path, dialect: Dialect = PLAIN) -> Iterator[tuple[str, str]]:
    """Yield (place, text): each line of a text file that is not empty, or the full text of each .txt file of a folder."""
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise TextError(f"{path.name}: the folder holds no .txt file")
    for file in files:
        texts = decoded(file, dialect.encoding)
        for n, text in enumerate(["".join(texts)] if path.is_dir() else texts, 1):
            check_text(f"{file.name}, line {n}", text)
            if text.strip():
                yield f"{file.name}, line {n}", text


def is_table(path: Path) -> bool:
    """Return whether a path is read as a table rather than as text."""
    if path.is_dir():
        return any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json", "state.json"))
    return path.suffix.lower() in TABLES
