"""Classes with few texts: dropped, merged into one class, or kept with at least one text in train."""

from collections import Counter
from collections.abc import Sequence

from pdstudy.data.formats import TextError
from pdstudy.data.left_out import LeftOut

FEW = 5  # distinct texts of a class in train; with fewer it is rare, because dev and test take a part of them
OTHER = "other"  # the class of all rare classes
LISTED = 12  # classes in a message

Labelled = dict[str, tuple[list, list[int]]]


def treat(
    labelled: Labelled, labels: tuple[str, ...], how: str, left_out: dict[str, LeftOut]
) -> tuple[Labelled, tuple[str, ...], set[int]]:
    """Return (splits, classes, class numbers whose first text must be in train) after treating the rare classes of train.

    "drop" leaves their texts out, "merge" makes them the class "other", "keep" makes sure that train has a text of each. Raises
    TextError if fewer than two classes remain.
    """
    n = Counter(labelled["train"][1])
    few = {y for y in range(len(labels)) if n[y] < FEW}
    if how == "keep" or not few:
        return labelled, labels, few
    common = [y for y in range(len(labels)) if y not in few]
    names = [labels[y] for y in common]
    if how == "merge" and OTHER not in names:
        names.append(OTHER)
    if len(names) < 2:
        raise TextError(
            f"rare: only {len(common)} of {len(labels)} classes have {FEW} distinct texts or more; give more of them, or keep them"
        )
    new_number = {y: i for i, y in enumerate(common)} | (dict.fromkeys(few, names.index(OTHER)) if how == "merge" else {})
    splits = {}
    for split, (texts, numbers) in labelled.items():
        items = [(text, new_number[y]) for text, y in zip(texts, numbers, strict=True) if y in new_number]
        splits[split] = [text for text, _ in items], [y for _, y in items]
        for text, y in zip(texts, numbers, strict=True):
            if y not in new_number:
                left_out["D_L" if split == "train" else split].add("rare", (labels[y], *text))
    return splits, tuple(names), set()


def lost_message(names: Sequence[str]) -> str:
    """Return the message for classes of which train has no text left."""
    listed = ", ".join(map(repr, names[:LISTED])) + (f" and {len(names) - LISTED:,} others" if len(names) > LISTED else "")
    classes = f"class {listed}" if len(names) == 1 else f"{len(names):,} classes, {listed},"
    return (
        f"train: no text of {classes} is left after repeats and the other splits; give more of it, or choose what happens to rare "
        "classes: --rare drop, merge or keep (task.rare)"
    )


def note(counts: Counter) -> list[str]:
    """Return a sentence on the classes, by name in `counts`, that have few texts; none if there are no such classes."""
    few = sorted(name for name, n in counts.items() if n < FEW)
    if not few:
        return []
    listed = ", ".join(few[:LISTED]) + (", ..." if len(few) > LISTED else "")
    return [f"fewer than {FEW} texts of {len(few):,} classes: {listed}; --rare drop leaves them out, merge makes them one class"]
