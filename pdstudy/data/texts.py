"""Normalises one text: white space, HTML tags, the longest length; cuts it into sentences; turns a score into a class."""

import re
from collections.abc import Iterable

from pdstudy.data.formats import TextError
from pdstudy.data.left_out import LeftOut

LONGEST = 1 << 15  # characters of a labelled or transfer text that are kept: far more than any model reads
TAG = re.compile(r"<[^<>]{1,40}>")
SPACE = re.compile(r"\s+")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+")
SENTENCE_WORDS = (4, 60)  # shorter sentences say little, longer ones are lists or lack full stops

Text = tuple[str, ...]  # one text, or the two of a pair


def without_tags(text: str) -> str:
    """Return the text without HTML tags and with single spaces. Case stays; the tokenizer lowers it."""
    return spaced(TAG.sub(" ", text))


def spaced(text: str) -> str:
    """Return the text with single spaces."""
    return SPACE.sub(" ", text).strip()


def sentences(document: str) -> list[str]:
    """Return a document's sentences of 4 to 60 words."""
    low, high = SENTENCE_WORDS
    return [s for s in SENTENCE_END.split(document) if low <= s.count(" ") + 1 <= high]


def checked_text(place: str, values: Iterable, left_out: LeftOut | None = None) -> Text:
    """Return a row's text, or the two of a pair, with single spaces; with `left_out` cut to LONGEST and counted there.

    Raises TextError for what is not text, and for a pair of which one text is empty.
    """
    texts = []
    for value in values:
        if value is None:
            value = ""
        if not isinstance(value, str):
            raise TextError(f"{place}: the text is {shortened(value)}, of type {type(value).__name__}; is it the text column?")
        value = spaced(value)
        if left_out is not None and len(value) > LONGEST:
            value = value[:LONGEST]
            left_out.add("cut", (value,))
        texts.append(value)
    if len(texts) == 2 and any(texts) and not all(texts):
        raise TextError(f"{place}: one text of the pair is empty; remove the row, or give one text column")
    return tuple(texts)


def as_tuple(text: str | Text) -> Text:
    """Return a text, or a pair, as a tuple."""
    return (text,) if isinstance(text, str) else tuple(text)


def joined(texts: Iterable[str | Text]) -> list[str]:
    """Return each text as one string, the two of a pair with a space between."""
    return [text if isinstance(text, str) else " ".join(text) for text in texts]


def shortened(value: object) -> str:
    """Return the first characters of a value that is not text, for a message."""
    try:
        return repr(value)[:40]
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"


def nearest_class(place: str, score: object, scale: tuple[str, ...]) -> int:
    """Return the number of the class of `scale` that is nearest to a score. Raises TextError for what is not a score."""
    least, most = float(scale[0]), float(scale[-1])
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not least <= score <= most:
        raise TextError(f"{place}: the label is {str(score)[:40]!r}, not a score from {least:g} to {most:g}")
    return round((score - least) / (most - least) * (len(scale) - 1))
