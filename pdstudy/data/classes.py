"""Turns labels into class numbers: matched by name, in train, dev, test, a teacher's model and a file that is labelled.

A number stands for a class only if the file stores its name, or `labels` in the params file gives the order of the classes.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pdstudy.data.dialects import TextError
from pdstudy.data.repeats import key

DECIMAL = re.compile(r"[-+]?\d*\.\d+")
UNNAMED = re.compile(r"label_\d+", re.IGNORECASE)  # transformers' names for classes without names
MOST_CLASSES = 1000
LISTED = 20  # names in a message


def cell_text(place: str, cell: object) -> str:
    """Return a label as text. Raises TextError for no label, several labels, a number with decimals, and any other type."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)) or (isinstance(cell, str) and not cell.strip()):
        raise TextError(f"{place}: no label; remove the row, or give it among the transfer texts")
    if isinstance(cell, float) or (isinstance(cell, str) and DECIMAL.fullmatch(cell.strip())):
        raise TextError(
            f"{place}: the label is {str(cell).strip()[:40]}, a number with decimals; write class names or whole numbers"
        )
    if isinstance(cell, (list, tuple, set, dict)):
        raise TextError(
            f"{place}: the label is {str(cell)[:40]}, a {'group' if isinstance(cell, dict) else 'list'} of {len(cell)}; a text has one "
            "label here: keep one of them, or write a column that names each combination"
        )
    if not isinstance(cell, (str, int)):
        raise TextError(
            f"{place}: the label is {str(cell)[:40]}, of type {type(cell).__name__}; write class names or whole numbers"
        )
    try:
        text = str(cell).strip()
    except ValueError:  # an integer of more digits than Python writes
        raise TextError(f"{place}: the label is a number of thousands of digits; is it the label column?") from None
    if len(text) > 100:
        raise TextError(f"{place}: the label is {text[:40]!r}..., {len(text):,} characters; is it the label column?")
    return text


def names_of(cells: Counter, column: str) -> tuple[str, ...]:
    """Return the classes of a label column, numbers in ascending order or names in alphabetical order.

    `cells` counts each label. Raises TextError if they do not look like classes.
    """
    if len(cells) == 1:
        raise TextError(f"{column} holds only {next(iter(cells))!r}; at least two classes are needed")
    if len(cells) > MOST_CLASSES or (len(cells) > 20 and len(cells) > cells.total() / 2):
        raise TextError(f"{column} holds {len(cells):,} different values in {cells.total():,} rows; is it the label column?")
    per_key = Counter(map(key, cells))
    if repeated := next((k for k, n in per_key.items() if n > 1), None):
        alike = [name for name in cells if key(name) == repeated]
        raise TextError(
            f"{column} holds {' and '.join(map(repr, alike))}, which differ only in case or spelling of the same letters; "
            "write one class one way"
        )
    if all(re.fullmatch(r"-?\d+", name) for name in cells):
        return tuple(sorted(cells, key=int))
    return tuple(sorted(cells))


def numbers(places: Mapping[str, str], labels: Sequence[str], ordered: bool) -> dict[str, int]:
    """Return the class number of each label of a file; `places` says where each occurs first.

    `ordered` means that the user gave the order of `labels`, so that a bare number is a position in it. Raises TextError that
    names every label that cannot be matched.
    """
    matched = {cell: labels.index(cell) for cell in places if cell in labels}
    others = [cell for cell in places if cell not in matched]
    bare = [cell for cell in others if cell.isdecimal()] if not any(name.isdecimal() for name in labels) else []
    if ordered:
        matched |= {cell: int(cell) for cell in bare if len(cell) < 6 and int(cell) < len(labels)}
        others = [cell for cell in others if cell not in matched]
    if not others:
        return matched
    place = places[others[0]]
    if set(bare) == set(others) and not ordered:
        raise TextError(
            f"{place}: the labels are the numbers {_listed(sorted(bare, key=int))}, and train's classes are called {_listed(labels)}: no "
            "file says which number is which class; give their names in the order of the numbers, labels: [...] in the params file or "
            "--labels of init"
        )
    more = f" (and {len(others) - 1:,} others are unknown: {_listed(others[1:])})" if others[1:] else ""
    raise TextError(f"{place}: the label is {others[0][:40]!r}, none of {_listed(labels)}{more}; the classes are those of train")


def check_names(owner: str, names: Iterable[str], labels: Sequence[str], ordered: bool) -> None:
    """Raise ValueError unless a model's class names are `labels`, in their order, up to case.

    A model without class names is accepted if `ordered`: the user gave the order of `labels`.
    """
    names = [str(name) for name in names]
    if len(names) != len(labels):
        raise ValueError(f"{owner} knows {len(names)} classes, the task {len(labels)} ({_listed(labels)})")
    unnamed = all(UNNAMED.fullmatch(name) for name in names)
    if [n.casefold() for n in names] == [label.casefold() for label in labels] or (unnamed and ordered):
        return
    if unnamed:
        raise ValueError(
            f"{owner}'s classes have no names, only numbers; say which is which: id2label in its config.json, or task.labels in the "
            "order of its numbers"
        )
    raise ValueError(f"{owner}'s classes are {names}, the task's {list(labels)}; set id2label in its config.json")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name[:40] for name in names[:LISTED]) + (", ..." if len(names) > LISTED else "")
