"""Guess which columns of a table are its texts and its label, by their names and values, and say why."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pdstudy.advice.file_checks import check_style
from pdstudy.data import classes, formats
from pdstudy.data.dialects import PLAIN, Dialect
from pdstudy.data.formats import TextError

LOOKED_AT = 5000  # rows
LABEL_NAMES = (
    "label", "labels", "class", "category", "target", "sentiment", "verdict", "gold", "gold_label", "intent", "topic", "rating", "stars", "y",
)  # fmt: skip
TEXT_NAMES = ("text", "sentence", "review", "body", "content", "message", "comment", "document", "utterance", "question", "title")
PAIR_NAMES = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "passage"), ("question", "answer"), ("question1", "question2"),
    ("text_a", "text_b"), ("text1", "text2"), ("query", "passage"), ("question", "sentence"),
)  # fmt: skip
# Columns that describe a row but are no classes of it: taken as the label only if there is no other column.
OTHER_NAMES = (
    "split", "set", "subset", "fold", "partition", "id", "idx", "index", "lang", "language", "locale", "source", "src", "origin", "url",
    "user", "author", "date", "time", "timestamp", "year",
)  # fmt: skip
KNOWN = (*LABEL_NAMES, *TEXT_NAMES, *OTHER_NAMES)
SURE_LABELS = ("label", "labels", "class")  # no other column is taken in the place of such a one
MOST_LABELS = 200  # of a column that is not named as a label
SHORT = 60  # characters of a label
MANY_NUMBERS = 20  # more different whole numbers are likely a score, not classes


@dataclass(frozen=True)
class Columns:
    """The text and label columns of a table."""

    text: tuple[str, ...]
    label: str
    sample: tuple[str, ...]  # the first 1,000 texts, those of a pair joined by a space
    reasons: tuple[str, ...]  # sentences: what was chosen and why, what else could be chosen, and with which option


def find_columns(
    path: Path, text: tuple[str, ...] = (), label: str | None = None, dialect: Dialect = PLAIN, check_header: bool = True
) -> Columns:
    """Return the text and label columns of a table of labelled texts, guessed from its first rows unless `text` and `label` name them.

    Raises TextError; the message names the options.
    """
    named = (*text, *([label] if label else []))
    check_style(path, dialect, check_header, (*KNOWN, *named))
    names, rows = _first_rows(path, dialect)
    listed = f"its columns are {', '.join(names)[:200]}"
    if repeated := [name for name, n in Counter(names).items() if n > 1 and name.strip()]:
        raise TextError(f"{path.name}: {names.count(repeated[0])} columns {repeated[0]!r}; {listed}")
    for name in named:
        if name not in names:
            raise TextError(f"{path.name}: no column {name!r}; {listed}")
    if not rows:
        raise TextError(f"{path.name} holds no rows; give at least a few hundred labelled texts")
    columns = _by_name(names, rows)
    n_classes = {name: n for name, values in columns.items() if name not in text and (n := _n_classes(name, values))}
    if not label and not any(name.lower() in LABEL_NAMES for name in n_classes):
        n_classes |= _classes_below(path, {name: columns[name] for name in columns if name not in text}, dialect)
    label, why_label = (label, "given") if label else _label(path, columns, n_classes)
    others = {name: values for name, values in columns.items() if name != label}
    text, why_text = (text, "given") if text else _text(path, others)
    sample = [" ".join(str(columns[name][i] or "") for name in text) for i in range(min(1000, len(rows)))]
    reasons = [
        f"text: {_quoted(text)} ({why_text}); label: {label!r} ({why_label})",
        *_other_labels({name: n for name, n in n_classes.items() if name not in (label, *text)}),
        *_other_texts(others, text),
        *_one_hot(columns, label),
        *_score(label, columns[label]),
    ]
    return Columns(text, label, tuple(sample), tuple(reasons))


def text_columns(path: Path, dialect: Dialect = PLAIN) -> tuple[str, ...]:
    """Return the columns of a table that look like its texts. Raises TextError."""
    names, rows = _first_rows(path, dialect)
    return _text(path, _by_name(names, rows) if rows else {})[0]


def _by_name(names: list[str], rows: list[list]) -> dict[str, list]:
    """Return the values of each column that has a name."""
    return {name: [row[i] for row in rows] for i, name in enumerate(n for n in names if n.strip())}


def _first_rows(path: Path, dialect: Dialect) -> tuple[list[str], list[list]]:
    """Return (names of the columns, the first rows with the values of the columns that have a name).

    A field that a JSON line lacks is None. There are no rows if two columns have the same name.
    """
    names = formats.columns_of(path, dialect)
    if _has_records(path):
        records = [record for _, record in islice(formats.objects(path, dialect), LOOKED_AT)]
        names = list(dict.fromkeys(name for record in records for name in record)) or names
    named = [name for name in names if name.strip()]
    if not _has_records(path) and len(set(named)) < len(named):
        return names, []
    return names, list(islice(_rows(path, named, dialect), LOOKED_AT))


def _has_records(path: Path) -> bool:
    return path.suffix.lower() in (".jsonl", ".ndjson", ".json") and not path.is_dir()


def _rows(path: Path, names: list[str], dialect: Dialect) -> Iterator[list]:
    """Yield the values of these columns, row by row."""
    if _has_records(path):
        yield from ([record.get(name) for name in names] for _, record in formats.objects(path, dialect))
    else:
        yield from (values for _, values in formats.rows(path, names, dialect=dialect, names=True))


def _classes_below(path: Path, columns: dict[str, list], dialect: Dialect) -> dict[str, int]:
    """Return the columns of one value in the first rows that have several further down, and how many: a file may be sorted by label.

    `columns` holds the first rows; the whole file is read only if there may be more of them.
    """
    constant = [name for name, values in columns.items() if len(values) == LOOKED_AT and len({*map(cell_as_text, values)}) == 1]
    distinct: dict[str, dict[str, object]] = {name: {} for name in constant}
    for row in _rows(path, constant, dialect) if constant else ():
        for name, value in zip(constant, row, strict=True):
            if len(distinct[name]) <= classes.MOST_CLASSES:
                distinct[name].setdefault(cell_as_text(value), value)
    counted = {name: _n_classes(name, [*columns[name], *distinct[name].values()]) for name in constant}
    return {name: n for name, n in counted.items() if n}


def _n_classes(name: str, values: list) -> int:
    """Return how many classes a column could name; 0 if it does not look like labels."""
    present = [v for v in values if v is not None and v != ""]
    distinct = {cell_as_text(v) for v in present}
    named = name.lower() in LABEL_NAMES
    most = min(classes.MOST_CLASSES, int(0.75 * len(present))) if named else min(MOST_LABELS, len(present) // 3)
    short = all(len(v) <= SHORT for v in distinct)
    decimals = any(
        isinstance(v, float) or classes.DECIMAL.fullmatch(str(v)) for v in list(present)[:LOOKED_AT] if not isinstance(v, int)
    )
    return len(distinct) if 2 <= len(distinct) <= max(2, most) and (short or named) and not decimals else 0


def cell_as_text(value: object) -> str:
    """Return a cell as text without surrounding spaces, for comparison."""
    try:
        return str(value).strip()
    except ValueError:  # more digits than Python writes
        return "a long number"


def _label(path: Path, columns: dict[str, list], n_classes: dict[str, int]) -> tuple[str, str]:
    """Return (the label column, why). Raises TextError if no column looks like labels."""
    for label in LABEL_NAMES:
        for name in n_classes:
            if name.lower() == label:
                return name, "named so"
    unusable = next((f"{name!r} has {_values_in_words(columns[name])}" for name in columns if name.lower() in SURE_LABELS), "")
    if n_classes and unusable:
        raise TextError(f"{path.name}: {unusable}; correct it, or name another column with --label")
    if n_classes:
        best = min(n_classes, key=lambda name: (name.lower() in OTHER_NAMES, n_classes[name]))
        return best, f"{n_classes[best]:,} different short values in its first rows"
    raise TextError(
        f"{path.name}: none of its columns, {', '.join(columns)[:200]}, looks like labels; name it with --label{unusable and f' ({unusable})'}"
    )


def _values_in_words(values: list) -> str:
    """Return what a column holds instead of labels."""
    distinct = list(dict.fromkeys(map(cell_as_text, values)))
    if decimal := next((v for v in distinct if classes.DECIMAL.fullmatch(v)), None):
        return f"numbers with decimals, such as {decimal}"
    if len(distinct) == 1:
        return f"only the value {distinct[0][:SHORT]!r}"
    return f"{len(distinct):,} different values in {len(values):,} rows"


def _text(path: Path, columns: dict[str, list]) -> tuple[tuple[str, ...], str]:
    """Return (the text column, or the two of a pair, why). Raises TextError if no column looks like text."""
    lower = {name.lower(): name for name in columns}
    for pair in PAIR_NAMES:
        if set(pair) <= set(lower):
            return tuple(lower[name] for name in pair), "a pair that is named so"
    lengths = _lengths(columns)
    if not lengths:
        raise TextError(f"{path.name}: none of its columns, {', '.join(columns)[:200]}, looks like text; name it with --text")
    for name in TEXT_NAMES:
        if lower.get(name) in lengths:
            return (lower[name],), "named so"
    return (max(lengths, key=lambda name: (name.lower() not in OTHER_NAMES, lengths[name])),), "the longest"


def _lengths(columns: dict[str, list]) -> dict[str, float]:
    """Return the mean number of characters of each column that has letters or signs, and not only numbers."""
    return {
        name: sum(len(v) for v in values if isinstance(v, str)) / len(values)
        for name, values in columns.items()
        if any(isinstance(v, str) and re.search(r"[^\d\s.,:;+-]", v) for v in values)
    }


def _quoted(names: tuple[str, ...]) -> str:
    return " and ".join(map(repr, names))


def _other_labels(n_classes: dict[str, int]) -> list[str]:
    """Return a sentence about the other columns that could be labels."""
    if not n_classes:
        return []
    listed = ", ".join(f"{name!r} ({n:,} values)" for name, n in list(n_classes.items())[:8])
    return [f"not used as label: {listed}; name one with --label"]


def _other_texts(columns: dict[str, list], texts: tuple[str, ...]) -> list[str]:
    """Return a sentence about further text columns, with the options that use them."""
    lengths = _lengths(columns)
    words = {n: [v for v in columns[n] if isinstance(v, str)] for n in lengths if n not in texts and n.lower() not in OTHER_NAMES}
    more = [n for n, values in words.items() if values and sum(" " in v.strip() for v in values) > len(values) / 2]
    if not more:
        return []
    if len(texts) == 2:
        return [f"not used as text: {_quoted(tuple(more))}; name one column with --text, or two"]
    return [f"not used as text: {_quoted(tuple(more))}; two columns make a pair: --text {texts[0]!r} --text {more[0]!r}"]


def _one_hot(columns: dict[str, list], label: str) -> list[str]:
    """Return a sentence if several columns have only 0 and 1: labels of which a text may have several."""
    flags = [name for name, values in columns.items() if {cell_as_text(v) for v in values} == {"0", "1"}]
    if label not in flags or len(flags) < 2:
        return []
    return [
        f"{_quoted(tuple(flags[:8]))} have only 0 and 1, as labels of which a text may have several; only one label a text is learned: "
        f"{label!r}; name another with --label, or write one column that names the class"
    ]


def _score(label: str, values: list) -> list[str]:
    """Return a sentence if the labels are many whole numbers."""
    distinct = {cell_as_text(v) for v in values if v is not None}
    if len(distinct) <= MANY_NUMBERS or not all(re.fullmatch(r"-?\d{1,18}", v) for v in distinct):
        return []
    least, most = min(map(int, distinct)), max(map(int, distinct))
    return [
        f"{label!r} has {len(distinct):,} whole numbers from {least:,} to {most:,}, and each is a class of its own; if they are a "
        "score, write a column of a few ranges, such as low, middle and high, and name it with --label"
    ]
