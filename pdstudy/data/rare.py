"""Classes with few texts: left out, made one class, or kept with at least one text to learn from. All of them at once."""

from collections import Counter

from pdstudy.data.formats import TextError
from pdstudy.data.left_out import Shown

FEW = 5  # distinct texts of a class in train, below which it is rare: dev and test take theirs of them
OTHER = "other"  # what rare classes are called together
CHOICES = ("drop", "merge", "keep")
SHOWN = 12  # classes in a message

Labelled = dict[str, tuple[list, list[int]]]


def treated(
    labelled: Labelled, labels: tuple[str, ...], how: str, counts: dict, shown: dict
) -> tuple[Labelled, tuple[str, ...], set[int] | None]:
    """Return (splits, classes, classes of which train needs its first text) once the rare classes of train are treated.

    "drop" leaves their texts out, "merge" makes them the class "other", "keep" sees to it that train holds a text of each. Raises
    TextError where fewer than two classes are left.
    """
    n = Counter(labelled["train"][1])
    few = {y for y in range(len(labels)) if n[y] < FEW}
    if how == "keep" or not few:
        return labelled, labels, few
    stay = [y for y in range(len(labels)) if y not in few]
    names = [labels[y] for y in stay]
    if how == "merge" and OTHER not in names:
        names.append(OTHER)
    if len(names) < 2:
        raise TextError(
            f"rare: only {len(stay)} of {len(labels)} classes have {FEW} distinct texts or more; give more of them, or keep them"
        )
    new = {y: i for i, y in enumerate(stay)} | (dict.fromkeys(few, names.index(OTHER)) if how == "merge" else {})
    found = {}
    for split, (texts, numbers) in labelled.items():
        kept = [i for i, y in enumerate(numbers) if y in new]
        found[split] = [texts[i] for i in kept], [new[numbers[i]] for i in kept]
        if lost := len(texts) - len(kept):
            part = "D_L" if split == "train" else split
            counts[part] = counts[part] | {"rare": lost}
            examples = shown.setdefault(part, Shown())
            for i, y in enumerate(numbers):
                if y not in new:
                    examples.add("rare", (labels[y], *texts[i]))
    return found, tuple(names), None


def lost(names: list[str]) -> str:
    """Return the sentence for classes of which train has no text left, with the cures."""
    shown = ", ".join(map(repr, names[:SHOWN])) + (f" and {len(names) - SHOWN:,} others" if len(names) > SHOWN else "")
    what = f"class {shown}" if len(names) == 1 else f"{len(names):,} classes, {shown},"
    return (
        f"train: no text of {what} is left after repeats and the other splits; give more of it, or say what becomes of rare classes: "
        "--rare drop, merge or keep (task.rare)"
    )


def note(counts: Counter) -> list[str]:
    """Return a sentence on the classes, by name in `counts`, that have few texts."""
    few = sorted(name for name, n in counts.items() if n < FEW)
    if not few:
        return []
    shown = ", ".join(few[:SHOWN]) + (", ..." if len(few) > SHOWN else "")
    return [f"fewer than {FEW} texts of {len(few):,} classes: {shown}; --rare drop leaves them out, merge makes them one class"]
