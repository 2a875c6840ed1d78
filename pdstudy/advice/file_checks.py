"""Check whether a file has the encoding, delimiter, quotes and header that its name or the user says, before it is misread."""

import csv
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from statistics import median

from pdstudy.data.dialects import UTF8, Dialect, TextError, decoded, records

LOOKED_AT = 200  # rows
DELIMITERS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
NUMBER = re.compile(r"[-+]?[\d.,]+")
QUOTED = re.compile(r'"(?:[^"]|"")*"')
LONG = 4  # words: a cell with at least so many is a text, not the name of a column
TEXT_FILES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json")


def check_style(path: Path, dialect: Dialect, check_header: bool, known: Iterable[str]) -> None:
    """Raise TextError if a file seems to have another encoding, a .csv or .tsv other delimiters or quotes, or no header.

    The message names the option to use. `check_header` is false if the user has said whether there is a header. `known` are frequent
    names of columns.
    """
    kind = path.suffix.lower()
    if path.is_file() and kind in TEXT_FILES and not dialect.encoding.startswith(UTF8):
        _check_not_utf8(path, dialect.encoding)
    if path.is_dir() or kind not in (".csv", ".tsv"):
        return
    style = dialect.style(kind)
    lines = list(islice(decoded(path, dialect.encoding), LOOKED_AT))
    if dialect.quotes is None and style.get("quoting") == csv.QUOTE_NONE and _quoted(lines, style["delimiter"]):
        raise TextError(
            f"{path.name}: its cells seem to be quoted, as in a CSV; read it with --quotes (task.quotes: true), or with --no-quotes if "
            "the quotes are part of the texts"
        )
    if dialect.delimiter is None and lines and not lines[0].startswith("sep="):
        other = _delimiter(lines, style["delimiter"])
        if other is not None:
            raise TextError(
                f"{path.name}: its delimiter seems to be {DELIMITERS[other]}; read it with --delimiter {DELIMITERS[other]} "
                "(task.delimiter)"
            )
    if dialect.header and check_header:
        rows = [row for _, row in islice(records(path, kind, dialect), LOOKED_AT)]
        if len(rows) > 2 and (cell := _data_cell(rows[0], rows[1:], {name.lower() for name in known})) is not None:
            raise TextError(
                f"{path.name}: its first row looks like a text with its label, not like names of columns ({cell[:40]!r}); read it with "
                "--no-header (task.header: false; the columns are then called 1, 2, 3), or with --header if it is a header"
            )


def _check_not_utf8(path: Path, encoding: str) -> None:
    """Raise TextError if a file that is read with another encoding is UTF-8 text: its letters with accents would be misread."""
    is_plain = True
    with path.open("rb") as file:
        for line in file:
            if not line.isascii():
                try:
                    line.decode()
                except UnicodeDecodeError:
                    return
                is_plain = False
    if not is_plain:
        raise TextError(
            f"{path.name}: UTF-8 text, which --encoding {encoding} (task.encoding) would misread; that holds for every file of a task: "
            "save the others as UTF-8, and leave it out"
        )


def _delimiter(lines: Sequence[str], current: str) -> str | None:
    """Return another delimiter that gives every row the same number of cells; None if `current` splits the first row."""
    try:
        if len(next(csv.reader(lines[:1], delimiter=current), [])) > 1:
            return None
    except csv.Error:  # the reader of the file reports it with its line
        return None
    for other in DELIMITERS:
        try:
            counts = {len(row) for row in csv.reader(lines[:-1] or lines, delimiter=other) if row}
        except csv.Error:
            continue
        if other != current and len(counts) == 1 and counts.pop() > 1:
            return other
    return None


def _quoted(lines: Sequence[str], delimiter: str) -> bool:
    """Return whether cells are quoted as in a CSV: all cells of the header, or one with a doubled quote inside or over two lines."""
    header = lines[0].rstrip("\r\n").split(delimiter) if lines else []
    if header and all(QUOTED.fullmatch(cell) for cell in header):
        return True
    cells = [line.rstrip("\r\n").split(delimiter) for line in lines[1:]]
    doubled = any(QUOTED.fullmatch(cell) and '""' in cell[1:-1] and len(cell) > 4 for row in cells for cell in row)
    open_line = any(len(row) < len(header) and row[-1].startswith('"') and row[-1].count('"') % 2 for row in cells)
    return doubled or open_line


def _data_cell(header: list[str], rows: list[list[str]], known: set[str]) -> str | None:
    """Return a cell of the first row that looks like data, or None if the row looks like a header."""
    names = [cell.strip() for cell in header]
    if any(name.lower() in known for name in names):
        return None
    for i, name in enumerate(names):
        values = [row[i].strip() for row in rows if len(row) == len(names)]
        if not name or not values:
            continue
        if NUMBER.fullmatch(name) and sum(bool(NUMBER.fullmatch(v)) for v in values) > 0.8 * len(values):
            return name
        if name in values and len(set(values)) <= max(2, len(values) // 3):
            return name
        if len(name.split()) >= LONG and median(len(v.split()) for v in values) >= LONG:
            return name
    return None
