"""Is the data sound? What the study found in its texts, as sentences with their counts: nothing is left unsaid.

Repeats and leaks are removed before anything is trained; what cannot be mended is named here.
"""

import json
from pathlib import Path

import pandas as pd

from pdstudy.data import left_out
from pdstudy.escape import Prose
from pdstudy.storage import results

NEARNESS = "nearness.json"  # in the study's folder: the transfer text and D_LM beside the training texts
LOPSIDED = 0.9  # share of the largest class from which accuracy says little
CUT = 0.2  # share of texts that max_length cuts, from which it matters
UNKNOWN = 0.01  # share of unknown word pieces
UNSEEN = 0.1  # share of the task's words that the transfer text never shows


def sentences(study: str | Path) -> list[str]:
    """Return what there is to know about a study's texts, one sentence each, with counts."""
    counts, classes = results.load_counts(study), results.load_classes(study)
    said = [_classes(name, classes["labels"], found) for name, found in classes["classes"].items()]
    said += [_lopsided(classes), _teacher(study)]
    said += [s for name in counts.index for s in _removed(name, counts.loc[name])]
    said += [s for name in counts.index for s in _pieces(name, counts.loc[name])]
    if "of train" in counts and counts.loc["D_T"].get("of train", 0) > 0:
        said.append(
            "There is no transfer text: D_T is the texts of train without their labels. A student that is distilled on them "
            "sees nothing new; unlabelled text of the same kind is what distillation lives on."
        )
    for row in nearness(study).itertuples():
        if row.corpus == "D_T" and row.unseen > UNSEEN:
            said.append(f"{row.unseen:.0%} of the running words of train never occur in D_T: it is of another kind.")
    return [s for s in said if s]


def nearness(study: str | Path) -> pd.DataFrame:
    """Return S, unseen words, repeats and lengths of D_T and D_LM beside the training texts; empty where it was not measured."""
    path = results.folder_of(study) / NEARNESS
    if not path.is_file():
        return pd.DataFrame(columns=["corpus", "texts", "words", "S", "unseen", "repeats", "words a text"])
    return pd.DataFrame(json.loads(path.read_text())).astype({"S": float})


def prose(study: str | Path) -> Prose:
    """Return the sentences as one paragraph."""
    return Prose(" ".join(sentences(study)))


def _classes(name: str, labels: list[str], found: list[int]) -> str:
    total = max(1, sum(found))
    shown = [f"{label} {n:,} ({n / total:.0%})" for label, n in sorted(zip(labels, found, strict=True), key=lambda pair: -pair[1])]
    return f"{name}: {sum(found):,} texts; {', '.join(shown[:12])}{', ...' if len(shown) > 12 else ''}."


def _lopsided(classes: dict) -> str:
    found = classes["classes"]["train"]
    share = max(found) / max(1, sum(found))
    if share < LOPSIDED:
        return ""
    largest = classes["labels"][found.index(max(found))]
    return (
        f"{share:.0%} of train is {largest}: accuracy says little here, look at F1 and Matthews' r, and label more of the others."
    )


def _teacher(study: str | Path) -> str:
    metrics = results.load_results(study)
    dev = metrics[(metrics.metric == "accuracy") & (metrics.split == "dev")].groupby("recipe").value.first()
    if "teacher" not in dev:
        return ""
    return f"The teacher is right on {dev['teacher']:.1%} of dev, the majority class on {dev['majority']:.1%}."


def _removed(name: str, row: pd.Series) -> list[str]:
    return [
        f"{name}: {row[key]:,} texts {what}."
        for key, what in left_out.WORDS.items()
        if key in row and row[key] is not pd.NA and row[key] > 0
    ]


def _pieces(name: str, row: pd.Series) -> list[str]:
    said, kept = [], row.get("kept", pd.NA)
    if row.get("truncated", pd.NA) is not pd.NA and kept is not pd.NA and (name == "train" or row.truncated > CUT * kept):
        said.append(
            f"{name}: {row.pieces / kept:.0f} word pieces of a text are read on average; {row.truncated / kept:.0%} of the texts are "
            "longer than max_length and lose their ends."
        )
    if row.get("unknown", pd.NA) is not pd.NA and row.unknown > UNKNOWN * row.pieces:
        said.append(f"{name}: {row.unknown / row.pieces:.1%} of the word pieces are unknown to the tokenizer.")
    return said
