"""Check a study's texts: what cleaning removed and what may still be wrong, as sentences with counts.

Repeats and leaks are removed before anything is trained. What cannot be corrected automatically is reported here.
"""

import json
from pathlib import Path

import pandas as pd

from pdstudy.analysis import class_shares
from pdstudy.data import left_out
from pdstudy.storage import results

NEARNESS = "nearness.json"  # in the study's folder: how similar D_T and D_LM are to the training texts
LOPSIDED = 0.9  # share of the largest class from which accuracy says little
CUT = 0.2  # share of texts cut at max_length from which it matters
UNKNOWN = 0.01  # share of unknown word pieces
UNSEEN = 0.1  # share of the running words of train that do not occur in D_T


def sentences(study: str | Path) -> list[str]:
    """Return sentences about a study's texts, with counts."""
    counts, classes = results.load_counts(study), results.load_classes(study)
    lines = [_class_counts(name, classes["labels"], numbers) for name, numbers in classes["classes"].items()]
    lines += [_lopsided(classes["labels"], classes["classes"]["train"]), _teacher(study), class_shares.sentence(study)]
    lines += [line for name in counts.index for line in _removed(name, counts.loc[name])]
    lines += [line for name in counts.index for line in _pieces(name, counts.loc[name])]
    if "of train" in counts and counts.loc["D_T"].get("of train", 0) > 0:
        lines.append(
            "There is no transfer text: D_T is the texts of train without their labels. A student that is distilled on them sees no "
            "new text; distillation needs unlabelled text of the same kind."
        )
    for row in nearness(study).itertuples():
        if row.corpus == "D_T" and row.unseen > UNSEEN:
            lines.append(f"{row.unseen:.0%} of the running words of train never occur in D_T: it is text of another kind.")
    return [line for line in lines if line]


def nearness(study: str | Path) -> pd.DataFrame:
    """Return S, unseen words, repeats and lengths of D_T and D_LM against the training texts; empty if not measured."""
    path = results.folder_of(study) / NEARNESS
    if not path.is_file():
        return pd.DataFrame(columns=["corpus", "texts", "words", "S", "unseen", "repeats", "words a text"])
    return pd.DataFrame(json.loads(path.read_text())).astype({"S": float})


def _class_counts(name: str, labels: list[str], counts: list[int]) -> str:
    n = max(1, sum(counts))
    classes = [f"{label} {k:,} ({k / n:.0%})" for label, k in sorted(zip(labels, counts, strict=True), key=lambda pair: -pair[1])]
    return f"{name}: {sum(counts):,} texts; {', '.join(classes[:12])}{', ...' if len(classes) > 12 else ''}."


def _lopsided(labels: list[str], counts: list[int]) -> str:
    share = max(counts) / max(1, sum(counts))
    if share < LOPSIDED:
        return ""
    largest = labels[counts.index(max(counts))]
    return (
        f"{share:.0%} of train is {largest}: accuracy says little here, use F1 and Matthews' r, and label more texts of the other "
        "classes."
    )


def _teacher(study: str | Path) -> str:
    accuracies = results.accuracies(results.load_results(study), "dev").groupby("recipe").value.first()
    if "teacher" not in accuracies:
        return ""
    return f"The teacher is right on {accuracies['teacher']:.1%} of dev, the majority class on {accuracies['majority']:.1%}."


def _removed(name: str, row: pd.Series) -> list[str]:
    row = row.dropna()
    return [f"{name}: {row[key]:,} texts {what}." for key, what in left_out.WORDS.items() if row.get(key, 0) > 0]


def _pieces(name: str, row: pd.Series) -> list[str]:
    lines, row = [], row.dropna()
    if {"truncated", "kept"} <= set(row.index) and (name == "train" or row.truncated > CUT * row.kept):
        lines.append(
            f"{name}: {row.pieces / row.kept:.0f} word pieces a text are used on average; {row.truncated / row.kept:.0%} of the texts "
            "are longer than max_length and are cut at their ends."
        )
    if "unknown" in row and row.unknown > UNKNOWN * row.pieces:
        lines.append(f"{name}: {row.unknown / row.pieces:.1%} of the word pieces are unknown to the tokenizer.")
    return lines
