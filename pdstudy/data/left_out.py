"""Texts that are left out of a task, or cut: how many, why, and two examples of each reason."""

from collections.abc import Mapping

WORDS = {
    "empty": "without a word",
    "exact": "repeated word for word",
    "normalised": "repeated except for case, white space or Unicode form",
    "leaks": "also in dev or test, removed",
    "known": "also in train, removed",
    "contradictory": "repeated with another label",
    "cut": "longer than 32,768 characters, cut",
    "half pairs": "pairs of which one text is empty",
    "rare": "of a class with too few texts",
}
PARTS = {"source": "files", "D_L": "train", "D_T": "transfer", "D_LM": "corpus"}  # as the params file calls them
LONGEST = 60  # characters of an example


class LeftOut:
    """How many texts of one part of a task are left out, by reason, and the first two of each."""

    def __init__(self, **counts: int):
        self.counts = counts
        self.examples: dict[str, list[str]] = {}

    def add(self, reason: str, text: tuple[str, ...]) -> None:
        """Count a text, or a pair."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < 2:
            line = " | ".join(" ".join(part.split()) for part in text)
            examples.append(line if len(line) <= LONGEST else line[: LONGEST - 3] + "...")


def lines(counts: Mapping[str, Mapping[str, int]], examples: Mapping[str, Mapping[str, list[str]]]) -> list[str]:
    """Return a line for each part of a task and reason: the count, of how many, the reason, and up to two examples."""
    out = []
    for part, part_counts in counts.items():
        for reason, words in WORDS.items():
            if n := part_counts.get(reason, 0):
                of = f" of {part_counts['read']:,}" if "read" in part_counts else ""
                quoted = " and ".join(f'"{text}"' for text in examples.get(part, {}).get(reason, ()) if text)
                out.append(f"{PARTS.get(part, part)}: {n:,}{of} texts {words}" + (f", such as {quoted}" if quoted else ""))
    return out
