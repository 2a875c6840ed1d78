"""Soft labels that something else made: a file of probabilities or labels for the texts of a study.

Columns are `p_<class>`, one a class, or `label`; and the text, as the task's files call it or `text` (and `pair`). A row
belongs to the text that it holds, in any order. Without a text column the rows are those of D_T, in order.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pdstudy.data import formats
from pdstudy.data.formats import TextError
from pdstudy.data.texts import LONGEST, spaced

PREFIX, LABEL = "p_", "label"
TOLERANCE = 1e-3  # of the sum of a text's probabilities
SMALLEST = 1e-6  # a probability of 0 becomes this: its logarithm is finite
SHOWN = 40  # characters of a text in a message
CURE = "python -m pdstudy texts PARAMS --to texts.csv writes the texts that need a row"

Text = str | tuple[str, ...]


def read(
    path: Path, texts: dict[str, Sequence[Text]], needed: dict[str, int], labels: Sequence[str], columns: Sequence[str] = ("text",)
) -> dict[str, np.ndarray]:
    """Return the logits of each split that the file knows, (n_texts, n_classes) float32: logarithms of its probabilities.

    `texts` are the study's by split, `needed` how many of the first of a split must have a row; of those that need none a split
    may be left out as a whole. Raises TextError, naming the row, for probabilities that do not sum to 1, no number, a class that is
    missing, a text that is missing, there twice, or none of the study's.
    """
    if not path.is_file():
        raise TextError(f"teacher.file: {path.name} does not exist; paths are relative to the params file")
    header = formats.columns_of(path)
    numbers = _class_columns(path, header, labels)
    width = len(_key(texts["transfer"][0]))
    names = [c for c in (tuple(columns), ("text", "pair")[:width]) if len(c) == width]
    at = next((c for c in names if set(c) <= set(header)), None)
    rows = formats.rows(path, [*(at or ()), *(numbers or [LABEL])])
    if at is None:
        return {"transfer": _in_order(path, rows, numbers, labels, needed["transfer"])}
    place_of = {_key(text): (split, i) for split, items in texts.items() for i, text in enumerate(items)}
    logits = {split: np.full((len(items), len(labels)), np.nan, np.float32) for split, items in texts.items()}
    for place, values in rows:
        text = tuple(spaced(str(v))[:LONGEST] for v in values[: len(at)])
        if text not in place_of:
            raise TextError(f"{place}: {_short(text)} is none of the study's transfer, dev and test texts; {CURE}")
        split, i = place_of[text]
        if not math.isnan(logits[split][i, 0]):
            raise TextError(f"{place}: {_short(text)} has a row already; leave one of them out")
        logits[split][i] = _logits(place, values[len(at) :], numbers, labels)
    for split, n in needed.items():
        missing = np.flatnonzero(np.isnan(logits[split][:n, 0]))
        if len(missing):
            text = _short(_key(texts[split][missing[0]]))
            raise TextError(f"{path.name}: {len(missing):,} of the first {n:,} {split} texts have no row, first {text}; {CURE}")
    known = {split: ~np.isnan(array[:, 0]) for split, array in logits.items()}
    for split, rows_known in known.items():
        if split not in needed and rows_known.any() and not rows_known.all():
            raise TextError(f"{path.name}: {int((~rows_known).sum()):,} of {len(rows_known):,} {split} texts have no row; {CURE}")
    return {split: array[: needed.get(split)] for split, array in logits.items() if known[split].any()}


def _class_columns(path: Path, header: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return the columns of the probabilities in the order of the classes; none where the file holds labels."""
    given = {name[len(PREFIX) :].casefold(): name for name in header if name.startswith(PREFIX)}
    if not given:
        if LABEL not in header:
            raise TextError(
                f"{path.name}: neither probabilities nor labels; name the columns {', '.join(PREFIX + c for c in labels)}, or label"
            )
        return []
    wanted = [label.casefold() for label in labels]
    for label, name in zip(labels, wanted, strict=True):
        if name not in given:
            raise TextError(f"{path.name}: no column {PREFIX + label}; every class of the task needs one: {', '.join(labels)}")
    if other := sorted(set(given) - set(wanted)):
        raise TextError(f"{path.name}: column {given[other[0]]} is none of the task's classes, {', '.join(labels)}; leave it out")
    return [given[name] for name in wanted]


def _in_order(path: Path, rows, numbers: list[str], labels: Sequence[str], n: int) -> np.ndarray:
    logits = [_logits(place, values, numbers, labels) for place, values in rows]
    if len(logits) != n:
        raise TextError(f"{path.name}: {len(logits):,} rows for {n:,} transfer texts; give as many, or add a text column")
    return np.array(logits, np.float32)


def _logits(place: str, values: Sequence, numbers: list[str], labels: Sequence[str]) -> np.ndarray:
    """Return the logits of one row, (n_classes,)."""
    if not numbers:
        p = np.zeros(len(labels))
        p[_class_number(place, values[0], labels)] = 1
    else:
        p = np.array([_number(place, name, value) for name, value in zip(numbers, values, strict=True)])
        if abs(p.sum() - 1) > TOLERANCE:
            raise TextError(f"{place}: the probabilities sum to {p.sum():.4g}, not to 1; divide each row by its sum")
    return np.log(np.maximum(p, SMALLEST)).astype(np.float32)


def _number(place: str, name: str, value: object) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not -TOLERANCE <= number <= 1 + TOLERANCE:
        raise TextError(f"{place}: {name} is {str(value)[:SHOWN]!r}, no probability from 0 to 1")
    return number


def _class_number(place: str, value: object, labels: Sequence[str]) -> int:
    name = str(value).strip().casefold()
    names = [label.casefold() for label in labels]
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < len(labels) and not any(label.isdecimal() for label in labels):
        return int(name)
    raise TextError(f"{place}: the label is {str(value)[:SHOWN]!r}, none of {', '.join(labels[:20])}")


def _key(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text)


def _short(text: tuple[str, ...]) -> str:
    whole = " | ".join(text)
    return repr(whole if len(whole) <= SHOWN else whole[:SHOWN] + "...")
