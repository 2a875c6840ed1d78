"""Reads soft labels from a file: the probabilities or labels that something else gave to the texts of a study.

The columns are `p_<class>` for every class, or `label`, and the text, named as in the task's files or `text` (and `pair`).
Rows are matched to texts by the text, in any order. Without a text column the rows are those of D_T, in order.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pdstudy.averaging import SMALLEST
from pdstudy.data import formats
from pdstudy.data.formats import TextError
from pdstudy.data.texts import LONGEST, Text, as_tuple, spaced

PREFIX, LABEL = "p_", "label"
TOLERANCE = 1e-3  # of the sum of a text's probabilities
QUOTED = 40  # characters of a text or value in a message
ADVICE = "python -m pdstudy texts PARAMS --to texts.csv writes the texts that need a row"


def read(
    path: Path,
    texts: dict[str, Sequence[str | Text]],
    needed: dict[str, int],
    labels: Sequence[str],
    columns: Sequence[str] = ("text",),
) -> dict[str, np.ndarray]:
    """Return the logits of each split in the file, (n_texts, n_classes) float32: the logarithms of its probabilities.

    `texts` are the study's by split. `needed` is how many texts of a split, from its first, must have a row; a split that is not
    needed has a row for every text or none. Raises TextError, naming the row, for probabilities that are no numbers or do not sum
    to 1, for a class that is missing, and for a text that is missing, unknown or there twice.
    """
    if not path.is_file():
        raise TextError(f"teacher.file: {path.name} does not exist; paths are relative to the params file")
    header = formats.columns_of(path)
    class_columns = _class_columns(path, header, labels)
    width = len(as_tuple(texts["transfer"][0]))
    namings = (tuple(columns), ("text", "pair")[:width])
    text_columns = next((names for names in namings if len(names) == width and set(names) <= set(header)), ())
    rows = formats.rows(path, [*text_columns, *(class_columns or [LABEL])])
    if not text_columns:
        return {"transfer": _in_order(path, rows, class_columns, labels, needed["transfer"])}
    position = {as_tuple(text): (split, i) for split, items in texts.items() for i, text in enumerate(items)}
    logits = {split: np.full((len(items), len(labels)), np.nan, np.float32) for split, items in texts.items()}
    for place, values in rows:
        text = tuple(spaced(str(v))[:LONGEST] for v in values[:width])
        if text not in position:
            raise TextError(f"{place}: {_quoted(text)} is none of the study's transfer, dev and test texts; {ADVICE}")
        split, i = position[text]
        if not math.isnan(logits[split][i, 0]):
            raise TextError(f"{place}: {_quoted(text)} has a row already; leave one of them out")
        logits[split][i] = _logits(place, values[width:], class_columns, labels)
    in_file = {}
    for split, array in logits.items():
        has_row = ~np.isnan(array[:, 0])
        n = needed.get(split, len(array) if has_row.any() else 0)
        missing = np.flatnonzero(~has_row[:n])
        if len(missing):
            first = _quoted(as_tuple(texts[split][missing[0]]))
            raise TextError(f"{path.name}: {len(missing):,} of the first {n:,} {split} texts have no row, first {first}; {ADVICE}")
        if has_row.any():
            in_file[split] = array[:n]
    return in_file


def _class_columns(path: Path, header: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return the columns of the probabilities in the order of the classes; none if the file holds labels."""
    by_class = {name[len(PREFIX) :].casefold(): name for name in header if name.startswith(PREFIX)}
    if not by_class:
        if LABEL not in header:
            raise TextError(
                f"{path.name}: neither probabilities nor labels; name the columns {', '.join(PREFIX + c for c in labels)}, or label"
            )
        return []
    for label in labels:
        if label.casefold() not in by_class:
            raise TextError(f"{path.name}: no column {PREFIX + label}; every class of the task needs one: {', '.join(labels)}")
    names = [by_class[label.casefold()] for label in labels]
    if others := sorted(set(by_class.values()) - set(names)):
        raise TextError(f"{path.name}: column {others[0]} is none of the task's classes, {', '.join(labels)}; leave it out")
    return names


def _in_order(path: Path, rows: Iterable, class_columns: list[str], labels: Sequence[str], n: int) -> np.ndarray:
    logits = [_logits(place, values, class_columns, labels) for place, values in rows]
    if len(logits) != n:
        raise TextError(f"{path.name}: {len(logits):,} rows for {n:,} transfer texts; give as many, or add a text column")
    return np.array(logits, np.float32)


def _logits(place: str, values: Sequence, class_columns: list[str], labels: Sequence[str]) -> np.ndarray:
    """Return the logits of one row, (n_classes,), from its probabilities or, without `class_columns`, its label."""
    if not class_columns:
        p = np.zeros(len(labels))
        p[_class_number(place, values[0], labels)] = 1
    else:
        p = np.array([_probability(place, name, value) for name, value in zip(class_columns, values, strict=True)])
        if abs(p.sum() - 1) > TOLERANCE:
            raise TextError(f"{place}: the probabilities sum to {p.sum():.4g}, not to 1; divide each row by its sum")
    return np.log(np.maximum(p, SMALLEST)).astype(np.float32)


def _probability(place: str, column: str, value: object) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not -TOLERANCE <= number <= 1 + TOLERANCE:
        raise TextError(f"{place}: {column} is {str(value)[:QUOTED]!r}, not a probability from 0 to 1")
    return number


def _class_number(place: str, value: object, labels: Sequence[str]) -> int:
    name = str(value).strip().casefold()
    names = [label.casefold() for label in labels]
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < len(labels) and not any(label.isdecimal() for label in labels):
        return int(name)
    raise TextError(f"{place}: the label is {str(value)[:QUOTED]!r}, none of {', '.join(labels[:20])}")


def _quoted(text: Text) -> str:
    line = " | ".join(text)
    return repr(line if len(line) <= QUOTED else line[:QUOTED] + "...")
