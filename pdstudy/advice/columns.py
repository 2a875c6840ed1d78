"""Which columns of a table are its texts and its label: taken by name and by what they hold, with reasons and the other reading."""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pdstudy.advice import noticed
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
# Columns that describe a row rather than class it: taken as label only where there is no other.
OTHER_NAMES = (
    "split", "set", "subset", "fold", "partition", "id", "idx", "index", "lang", "language", "locale", "source", "src", "origin", "url",
    "user", "author", "date", "time", "timestamp", "year",
)  # fmt: skip
MOST_LABELS = 200  # of a column that is not named as a label
SHORT = 60  # characters of a label
MANY_NUMBERS = 20  # classes; more whole numbers than that are likely a score


@dataclass(frozen=True)
class Found:
    """What a table seems to be."""

    text: tuple[str, ...]
    label: str
    sample: tuple[str, ...]
    why: tuple[str, ...]  # sentences: what was taken, why, what was passed over, and how else the table can be read


def look(
    path: Path, text: tuple[str, ...] = (), label: str | None = None, dialect: Dialect = PLAIN, header_given: bool = False
) -> Found:
    """Return what a table of labelled texts seems to be, from its first rows. Raises TextError, naming the options."""
    noticed.check(path, dialect, header_given, (*LABEL_NAMES, *TEXT_NAMES, *OTHER_NAMES, *text, *([label] if label else [])))
    names, rows = _first_rows(path, dialect)
    if twice := [n for n, k in Counter(names).items() if k > 1 and n.strip()]:
        raise TextError(f"{path.name}: {names.count(twice[0])} columns {twice[0]!r}; its columns are {', '.join(names)[:200]}")
    for wanted in (*text, *([label] if label else [])):
        if wanted not in names:
            raise TextError(f"{path.name}: no column {wanted!r}; its columns are {', '.join(names)[:200]}")
    if not rows:
        raise TextError(f"{path.name} holds no rows; give at least a few hundred labelled texts")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(n for n in names if n.strip())}
    kinds = {name: n for name, values in columns.items() if name not in text and (n := _n_classes(name, values))}
    taken, why_label = (label, "given") if label else _label(path, columns, kinds)
    others = {name: values for name, values in columns.items() if name != taken}
    texts, why_text = (text, "given") if text else _text(path, others)
    joined = [" ".join(str(columns[name][i] or "") for name in texts) for i in range(len(rows))]
    why = [
        f"text: {_quoted(texts)} ({why_text}); label: {taken!r} ({why_label})",
        *_passed_over({name: n for name, n in kinds.items() if name not in (taken, *texts)}),
        *_other_texts(others, texts),
        *_one_hot(columns, taken),
        *_score(taken, columns[taken]),
    ]
    return Found(texts, taken, tuple(joined[:1000]), tuple(why))


def _first_rows(path: Path, dialect: Dialect) -> tuple[list[str], list[list]]:
    """Return (names of the columns, the first rows' values of those that have a name). A field that a JSON line lacks is None."""
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json") and not path.is_dir():
        records = [record for _, record in islice(formats.objects(path, dialect), LOOKED_AT)]
        names = list(dict.fromkeys(name for record in records for name in record)) or formats.columns_of(path, dialect)
        return names, [[record.get(name) for name in names if name.strip()] for record in records]
    names = formats.columns_of(path, dialect)
    named = [name for name in names if name.strip()]
    if len(set(named)) < len(named):
        return names, []
    return names, [values for _, values in islice(formats.rows(path, named, dialect=dialect, names=True), LOOKED_AT)]


def first_values(path: Path, dialect: Dialect = PLAIN) -> dict[str, list]:
    """Return the first values of a table's columns, by name."""
    names, rows = _first_rows(path, dialect)
    return {name: [row[i] for row in rows] for i, name in enumerate(n for n in names if n.strip())} if rows else {}


def _n_classes(name: str, values: list) -> int:
    """Return how many classes a column could name, 0 where it looks like anything but labels."""
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
    """Return a cell as it would be compared."""
    try:
        return str(value).strip()
    except ValueError:  # more digits than Python writes
        return "a long number"


def _label(path: Path, columns: dict[str, list], kinds: dict[str, int]) -> tuple[str, str]:
    """Return (the label column, why)."""
    for wanted in LABEL_NAMES:
        for name in kinds:
            if name.lower() == wanted:
                return name, "named so"
    if kinds:
        best = min(kinds, key=lambda name: (name.lower() in OTHER_NAMES, kinds[name]))
        return best, f"{kinds[best]:,} different short values"
    raise TextError(f"{path.name}: none of its columns, {', '.join(columns)[:200]}, looks like labels; name it with --label")


def _text(path: Path, columns: dict[str, list]) -> tuple[tuple[str, ...], str]:
    """Return (the text column, or the two of a pair, why)."""
    lower = {name.lower(): name for name in columns}
    for pair in PAIR_NAMES:
        if set(pair) <= set(lower):
            return tuple(lower[name] for name in pair), "a pair that is named so"
    lengths = _lengths(columns)
    if not lengths:
        raise TextError(f"{path.name}: none of its columns, {', '.join(columns)[:200]}, looks like text; name it with --text")
    named = [lower[name] for name in TEXT_NAMES if lower.get(name) in lengths]
    return (
        ((named[0],), "named so")
        if named
        else ((max(lengths, key=lambda name: (name.lower() not in OTHER_NAMES, lengths[name])),), "the longest")
    )


def text_of(path: Path, columns: dict[str, list]) -> tuple[str, ...]:
    """Return the columns of a table that look like its texts. Raises TextError."""
    return _text(path, columns)[0]


def _lengths(columns: dict[str, list]) -> dict[str, float]:
    """Return the mean number of characters of the columns that hold letters or signs."""
    return {
        name: sum(len(v) for v in values if isinstance(v, str)) / len(values)
        for name, values in columns.items()
        if any(isinstance(v, str) and re.search(r"[^\d\s.,:;+-]", v) for v in values)
    }


def _quoted(names: tuple[str, ...]) -> str:
    return " and ".join(map(repr, names))


def _passed_over(kinds: dict[str, int]) -> list[str]:
    """Return a sentence on the other columns that could be labels."""
    if not kinds:
        return []
    shown = ", ".join(f"{name!r} ({n:,} values)" for name, n in list(kinds.items())[:8])
    return [f"passed over as label: {shown}; name one with --label"]


def _other_texts(columns: dict[str, list], texts: tuple[str, ...]) -> list[str]:
    """Return a sentence on further text columns, with the other reading."""
    lengths = _lengths(columns)
    words = {n: [v for v in columns[n] if isinstance(v, str)] for n in lengths if n not in texts and n.lower() not in OTHER_NAMES}
    more = [n for n, values in words.items() if values and sum(" " in v.strip() for v in values) > len(values) / 2]
    if not more:
        return []
    if len(texts) == 2:
        return [f"passed over as text: {_quoted(tuple(more))}; name one column with --text, or two"]
    return [f"passed over as text: {_quoted(tuple(more))}; two columns are read as a pair: --text {texts[0]!r} --text {more[0]!r}"]


def _one_hot(columns: dict[str, list], label: str) -> list[str]:
    """Return a sentence where several columns hold 0 and 1: labels of which a text may have several."""
    flags = [name for name, values in columns.items() if {cell_as_text(v) for v in values} == {"0", "1"}]
    if label not in flags or len(flags) < 2:
        return []
    return [
        f"{_quoted(tuple(flags[:8]))} each hold 0 and 1, as labels of which a text may have several; one label a text is learned here: "
        f"{label!r}; name another with --label, or write one column that names the class"
    ]


def _score(label: str, values: list) -> list[str]:
    """Return a sentence where the labels are many whole numbers."""
    distinct = {cell_as_text(v) for v in values if v is not None}
    if len(distinct) <= MANY_NUMBERS or not all(re.fullmatch(r"-?\d{1,18}", v) for v in distinct):
        return []
    least, most = min(map(int, distinct)), max(map(int, distinct))
    return [
        f"{label!r} holds {len(distinct):,} whole numbers from {least:,} to {most:,}, and each is read as a class of its own; where they are a "
        "score, write a column of a few ranges, such as low, middle and high, and name it with --label"
    ]
