"""Which class a label is: matched by name, in train, dev, test, a given teacher and a file that is labelled.

A number stands for a class only where somebody has said which: the names stored with the file, or `labels` in the params file.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pdstudy.data.dialects import TextError
from pdstudy.data.repeats import key

DECIMAL = re.compile(r"[-+]?\d*\.\d+")
UNNAMED = re.compile(r"label_\d+", re.IGNORECASE)  # what transformers calls classes that nobody named
MOST_CLASSES = 1000
SHOWN = 20  # names in a message


def cell_text(place: str, cell: object) -> str:
    """Return a label as the text it is. Raises TextError for none, several, a number with decimals, and any other type."""
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
    except ValueError:  # more digits than Python writes
        raise TextError(f"{place}: the label is a number of thousands of digits; is it the label column?") from None
    if len(text) > 100:
        raise TextError(f"{place}: the label is {text[:40]!r}..., {len(text):,} characters; is it the label column?")
    return text


def names_of(cells: Counter, column: str) -> tuple[str, ...]:
    """Return the classes that a label column names: numbers in their order, names in the alphabet's. Raises TextError."""
    if len(cells) == 1:
        raise TextError(f"{column} holds only {next(iter(cells))!r}; at least two classes are needed")
    if len(cells) > MOST_CLASSES or (len(cells) > 20 and len(cells) > cells.total() / 2):
        raise TextError(f"{column} holds {len(cells):,} different values in {cells.total():,} rows; is it the label column?")
    alike = Counter(map(key, cells))
    if twice := next((name for name, n in alike.items() if n > 1), None):
        same = [name for name in cells if key(name) == twice]
        raise TextError(
            f"{column} holds {' and '.join(map(repr, same))}, which differ only in case or spelling of the same letters; "
            "write one class one way"
        )
    if all(re.fullmatch(r"-?\d+", name) for name in cells):
        return tuple(sorted(cells, key=int))
    return tuple(sorted(cells))


def numbers(places: Mapping[str, str], labels: Sequence[str], ordered: bool) -> dict[str, int]:
    """Return the class number of each label that a file holds; `places` says where each stands first.

    `ordered` says that somebody gave the order of `labels`, so that a bare number is a position in it. Raises TextError that
    names every label that cannot be matched.
    """
    found = {cell: labels.index(cell) for cell in places if cell in labels}
    others = [cell for cell in places if cell not in found]
    bare = [cell for cell in others if cell.isdecimal()] if not any(name.isdecimal() for name in labels) else []
    if ordered:
        found |= {cell: int(cell) for cell in bare if len(cell) < 6 and int(cell) < len(labels)}
        others = [cell for cell in others if cell not in found]
    if not others:
        return found
    place = places[others[0]]
    if set(bare) == set(others) and not ordered:
        raise TextError(
            f"{place}: the labels are the numbers {_shown(sorted(bare, key=int))}, and train's classes are called {_shown(labels)}: no file says "
            "which number is which class; give their names in the order of the numbers, labels: [...] in the params file or "
            "--labels of init"
        )
    more = f" (and {len(others) - 1:,} others are unknown: {_shown(others[1:])})" if others[1:] else ""
    raise TextError(f"{place}: the label is {others[0][:40]!r}, none of {_shown(labels)}{more}; the classes are those of train")


def check_names(whose: str, names: Iterable[str], labels: Sequence[str], ordered: bool) -> None:
    """Raise ValueError unless a model's class names are `labels`, in their order; names nobody gave need an order that somebody gave."""
    names = [str(name) for name in names]
    if len(names) != len(labels):
        raise ValueError(f"{whose} knows {len(names)} classes, the task {len(labels)} ({_shown(labels)})")
    if all(UNNAMED.fullmatch(name) for name in names) and [n.casefold() for n in names] != [w.casefold() for w in labels]:
        if not ordered:
            raise ValueError(
                f"{whose}'s classes have no names, only numbers; say which is which: id2label in its config.json, or task.labels in the "
                "order of its numbers"
            )
    elif [n.casefold() for n in names] != [w.casefold() for w in labels]:
        raise ValueError(f"{whose}'s classes are {names}, the task's {list(labels)}; set id2label in its config.json")


def _shown(names: Sequence[str]) -> str:
    return ", ".join(name[:40] for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
