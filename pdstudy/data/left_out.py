"""What is left out of a task's texts, in words: how many, why, and two examples of each."""

from collections.abc import Mapping

WORDS = {
    "empty": "without a word",
    "exact": "repeated word for word",
    "normalised": "repeated but for case, white space or Unicode form",
    "leaks": "standing in dev or test, removed",
    "known": "standing in train already, removed",
    "contradictory": "repeated under another label",
    "cut": "longer than 32,768 characters, cut",
    "half pairs": "pairs of which one text is empty",
    "rare": "of a class with too few texts",
}
PARTS = {"source": "files", "D_L": "train", "D_T": "transfer", "D_LM": "corpus"}  # as the params file calls them
LONGEST = 60  # characters of an example

Counts = Mapping[str, Mapping[str, int]]
Examples = Mapping[str, Mapping[str, list[str]]]


def lines(counts: Counts, examples: Examples) -> list[str]:
    """Return one line for each kind of loss in each part of a task: count, of how many, why, and up to two examples."""
    said = []
    for part, found in counts.items():
        for kind, what in WORDS.items():
            if n := found.get(kind, 0):
                of = f" of {found['read']:,}" if "read" in found else ""
                shown = " and ".join(f'"{text}"' for text in examples.get(part, {}).get(kind, ()) if text)
                said.append(f"{PARTS.get(part, part)}: {n:,}{of} texts {what}" + (f", such as {shown}" if shown else ""))
    return said


def example(text: tuple[str, ...]) -> str:
    """Return a text, or a pair, as it is shown in an example: one line, cut where it is long."""
    whole = " | ".join(" ".join(part.split()) for part in text)
    return whole if len(whole) <= LONGEST else whole[: LONGEST - 3] + "..."


class Shown(dict):
    """The first two texts of each kind of loss."""

    def add(self, kind: str, text: tuple[str, ...]) -> None:
        """Keep a text as an example of `kind`, unless there are two already."""
        shown = self.setdefault(kind, [])
        if len(shown) < 2:
            shown.append(example(text))
