"""One text or label as a table holds it: spaces, tags, what makes two texts the same, and labels as class numbers."""

import re
from collections import Counter
from collections.abc import Iterable

from pdstudy.data.formats import TextError

LONGEST = 1 << 15  # characters of a labelled or transfer text that are kept: far more than any model reads
TAG = re.compile(r"<[^<>]{1,40}>")
SPACE = re.compile(r"\s+")
NOT_WORD = re.compile(r"\W+")
DECIMAL = re.compile(r"[-+]?\d*\.\d+|nan|inf", re.IGNORECASE)

Text = tuple[str, ...]  # one text, or the two of a pair


def without_tags(text: str) -> str:
    """Return the text without HTML tags and with single spaces; case is the tokenizer's business."""
    return spaced(TAG.sub(" ", text))


def spaced(text: str) -> str:
    """Return the text with single spaces."""
    return SPACE.sub(" ", text).strip()


def key(*text: str) -> str:
    """Return what two texts (or pairs) share when they differ only in case, punctuation and spaces."""
    return "\t".join(NOT_WORD.sub(" ", part.lower()).strip() for part in text).strip()


def checked_text(place: str, values: Iterable, counts: Counter | None) -> Text:
    """Return a row's text, or the two of a pair, with single spaces; with `counts` cut to LONGEST, and that is counted. Raises TextError."""
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


def label_text(place: str, cell: object) -> str:
    """Return a label as the text it is. Raises TextError for none, and for a number with decimals."""
    text = str(cell).strip() if isinstance(cell, (str, int)) and not isinstance(cell, bool) else "" if cell is None else repr(cell)
    if not text:
        raise TextError(f"{place}: no label; remove the row, or give it among the transfer texts")
    if isinstance(cell, float) or DECIMAL.fullmatch(text):
        raise TextError(f"{place}: the label is {text[:40]}, a number with decimals; write class names or whole numbers")
    if len(text) > 100:
        raise TextError(f"{place}: the label is {text[:40]!r}..., {len(text):,} characters; is it the label column?")
    return text


def nearest_class(place: str, score: object, scale: tuple[str, ...]) -> int:
    """Return the number of the class that is nearest to a score."""
    least, most = float(scale[0]), float(scale[-1])
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not least <= score <= most:
        raise TextError(f"{place}: the label is {str(score)[:40]!r}, no score from {least:g} to {most:g}")
    return round((score - least) / (most - least) * (len(scale) - 1))


def class_number(place: str, cell: str, labels: tuple[str, ...]) -> int:
    """Return the number of the class that a label names, or is. Raises TextError."""
    if cell in labels:
        return labels.index(cell)
    if cell.isdecimal() and int(cell) < len(labels) and not any(name.isdecimal() for name in labels):
        return int(cell)
    known = ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")
    raise TextError(f"{place}: the label is {cell[:40]!r}, none of {known}")
