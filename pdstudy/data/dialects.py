"""How a delimited or plain text file is written: its encoding, delimiter, quotes and header.

Nothing is guessed while a file is read. `advice.file_checks` checks how a file seems to be written, and names the option that reads it.
"""

import codecs
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

LONGEST_LINE = 1 << 28  # characters; a record may hold several fields
UTF8 = "utf-8"
HEAD = 1 << 16  # bytes from which line ends and encodings are recognised
SEP = re.compile(r"sep=(.)\r?\n?")  # the first line of a CSV that Excel wrote


class TextError(ValueError):
    """Raised when a text source is missing, altered, too small or malformed; the message says what to do."""


@dataclass(frozen=True)
class Dialect:
    """How the delimited and plain text files of a task are written. None: as the file's suffix says."""

    delimiter: str | None = None  # .csv: a comma, .tsv: a tab
    quotes: bool | None = None  # .csv: true, .tsv: false
    header: bool = True  # without one the columns are called 1, 2, 3
    encoding: str = UTF8

    def style(self, kind: str) -> dict:
        """Return the arguments of `csv.reader` for a file that ends in ".csv" or ".tsv"."""
        delimiter = self.delimiter or ("," if kind == ".csv" else "\t")
        quotes = kind == ".csv" if self.quotes is None else self.quotes
        return {"delimiter": delimiter} | ({"strict": True} if quotes else {"quoting": csv.QUOTE_NONE, "quotechar": None})


PLAIN = Dialect()


def checked_encoding(name: str) -> str:
    """Return the name of a text encoding that Python knows. Raises ValueError."""
    try:
        encoding = codecs.lookup(name).name
        "a".encode(name)
        codecs.getincrementaldecoder(name)
    except (LookupError, ValueError, TypeError, UnicodeError):
        raise ValueError(f"no encoding {name[:40]!r}; write one such as utf-8, cp1252, utf-16 or gb18030") from None
    return encoding


def checked_delimiter(text: str) -> str:
    r"""Return the one character between cells; "tab" and "\t" stand for a tab. Raises ValueError."""
    text = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(text) != 1 or text in '\r\n"\0' or (not text.isprintable() and text != "\t"):
        raise ValueError(f"the delimiter is {text[:10]!r}; give one character, such as ; or tab")
    return text


def decoded(path: Path, encoding: str = UTF8) -> Iterator[str]:
    """Yield a file's lines, in bounded memory. A file without line feeds is split at carriage returns, as old Macs write it.

    Raises TextError naming the line that is not text of this encoding, or is far too long.
    """
    if path.exists() and not path.is_file():
        raise TextError(f"{path.name}: not a file, such as a pipe; save the text as a file, because it is read more than once")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
        if encoding == UTF8 and head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise TextError(f"{path.name}: UTF-16 text; save it as UTF-8, or read it with --encoding utf-16 (task.encoding)")
        end = "\r" if b"\r" in head and b"\n" not in head else "\n"
        n = 0
        with path.open(encoding="utf-8-sig" if encoding == UTF8 else encoding, newline=end) as file:
            while line := file.readline(LONGEST_LINE + 1):
                n += 1
                if len(line) > LONGEST_LINE:
                    raise TextError(f"{path.name}, line {n}: longer than {LONGEST_LINE >> 20} MB; is this text, one a line?")
                yield line[:-1] + "\n" if end == "\r" and line.endswith("\r") else line
    except UnicodeError:
        raise TextError(_encoding_message(path, encoding)) from None
    except OSError as error:
        raise TextError(f"{path.name}: cannot be read ({error.strerror or error})") from None


def _encoding_message(path: Path, encoding: str) -> str:
    """Return the message for a file that is not text of the encoding that it was read with."""
    if encoding != UTF8:
        return f"{path.name}: not {encoding} text; name another with --encoding (task.encoding), or save it as UTF-8"
    n, line = 0, b""
    with path.open("rb") as file:
        for line in file:
            n += 1
            try:
                line.decode()
            except UnicodeDecodeError:
                break
    likely = _likely_encoding(path, line)
    return (
        f"{path.name}, line {n}: not UTF-8 text; save it as UTF-8, or read it with --encoding {likely} (task.encoding), which then "
        "holds for every file of the task"
    )


def _likely_encoding(path: Path, line: bytes) -> str:
    """Return the encoding that a file, or of a long file this line, seems to have; cp1252 if that is unclear."""
    from charset_normalizer import from_bytes  # here: few files need it

    with path.open("rb") as file:
        head = file.read(HEAD)
    best = from_bytes(head if len(head) < HEAD else line[:HEAD]).best()
    return best.encoding if best is not None and best.encoding not in ("ascii", "utf_8") else "cp1252"


def records(path: Path, kind: str, dialect: Dialect = PLAIN) -> Iterator[tuple[str, list[str]]]:
    """Yield (place, cells) of each row of a delimited file, the header too. Raises TextError naming the line.

    A first line "sep=;", as Excel writes it, gives the delimiter, unless the dialect does.
    """
    lines, style, n_skipped = decoded(path, dialect.encoding), dialect.style(kind), 0
    first = next(lines, "")
    if dialect.delimiter is None and (sep := SEP.fullmatch(first)):
        style["delimiter"], n_skipped = sep[1], 1
    elif first:
        lines = chain([first], lines)
    try:
        reader = csv.reader(lines, **style)
    except (TypeError, ValueError) as error:
        raise TextError(f"{path.name}: {error}; give another delimiter") from None
    try:
        for row in reader:
            yield f"{path.name}, line {reader.line_num + n_skipped}", row
    except csv.Error as error:
        raise TextError(f"{path.name}, line {reader.line_num + n_skipped}: {error}; is a quote missing?") from None
