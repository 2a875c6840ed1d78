"""Texts worth a look: likely label errors, near-duplicates across splits, texts unlike any of train. Nothing is changed by them.

Label errors are found by confident learning (Northcutt et al., 2021) over out-of-fold probabilities of a linear model of TF-IDF:
twenty lines, for cleanlab, which does the same and more, is under the AGPL.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pdstudy.data import scripts
from pdstudy.data.repeats import key
from pdstudy.storage import results

SUSPECTS = "suspects.json"  # in the study's folder; it holds texts, and is not committed
MOST = 20_000  # texts of train that are looked at: seconds
SHOWN = 10  # of each kind
FOLDS = 5
SURE = 0.9  # of a class, where its average is higher
NEAR = 0.9  # cosine of TF-IDF from which two texts are near-duplicates
FAR = 0.5  # share of a text's words that train never shows, from which it is out of its domain
LEAST_WORDS = 3  # of a text that can be out of the domain
KINDS = {
    "label": "likely label error",
    "near": "nearly the same text in train",
    "far": "unlike the texts of train",
}
COLUMNS = ["what", "split", "text", "label", "why"]


def find(splits: dict[str, tuple[list[str], list[int]]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the suspects of a task's splits, each a row of COLUMNS; the likeliest first, at most 10 of each kind."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts, numbers = splits["train"][0][:MOST], np.array(splits["train"][1][:MOST])
    words = TfidfVectorizer(analyzer=_words, sublinear_tf=True)
    try:
        train = words.fit_transform(texts)
    except ValueError:  # no word at all
        return []
    rows = _label_errors(texts, numbers, labels)
    for split in ("dev", "test"):
        others, own = splits[split]
        if others:
            matrix = words.transform(others)
            rows += _near(split, others, own, matrix, texts, numbers, train, labels)
            rows += _far(split, others, own, set(words.vocabulary_), labels)
    return [row for kind in KINDS for row in sorted((r for r in rows if r["kind"] == kind), key=lambda r: -r["how much"])[:SHOWN]]


def _words(text: str) -> list[str]:
    """Return a text's words and pairs of neighbouring words; of scripts without spaces its characters and their pairs."""
    found = list(scripts.units(text))
    return found + [" ".join(pair) for pair in pairwise(found)]


def _label_errors(texts: list[str], numbers: np.ndarray, labels: Sequence[str]) -> list[dict]:
    """Return the texts of train whose label is likely wrong: another class is more probable than that class is where it is given."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    counts = np.bincount(numbers, minlength=len(labels))
    usable = np.flatnonzero(counts >= FOLDS)
    chosen = np.flatnonzero(np.isin(numbers, usable))
    if len(usable) < 2:
        return []
    given = np.searchsorted(usable, numbers[chosen])
    matrix = TfidfVectorizer(analyzer=lambda text: list(scripts.units(text)), sublinear_tf=True).fit_transform(texts)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    model = LogisticRegression(C=5.0, class_weight="balanced", max_iter=200)
    p = cross_val_predict(model, matrix[chosen], given, cv=folds, method="predict_proba")
    # The paper's threshold: as sure as on average of that class's own texts; capped, or few errors pass it where classes are easy.
    threshold = np.array([min(SURE, p[given == k, k].mean()) for k in range(len(usable))])
    sure = np.where(p >= threshold, p, 0.0)
    likely = sure.argmax(axis=1)
    found = np.flatnonzero((sure.max(axis=1) > 0) & (likely != given))
    return [
        _row("label", p[i, likely[i]] - p[i, given[i]], "train", texts[chosen[i]], labels[usable[given[i]]],
             f"a linear model of the other texts says {labels[usable[likely[i]]]} ({p[i, likely[i]]:.0%})")
        for i in found
    ]  # fmt: skip


def _near(split: str, texts, numbers, matrix, of_train, train_numbers, train, labels: Sequence[str]) -> list[dict]:
    """Return the texts of a split that nearly stand in train, first those under another label."""
    rows, least = [], 1024
    for first in range(0, matrix.shape[0], least):  # a block at a time: all similarities would be too many
        block = (matrix[first : first + least] @ train.T).tocsr()
        for i in range(block.shape[0]):
            line = block[i]
            if line.nnz and line.data.max() >= NEAR:
                j, cosine = int(line.indices[line.data.argmax()]), float(line.data.max())
                if key(texts[first + i]) != key(of_train[j]):
                    other = "" if numbers[first + i] == train_numbers[j] else f", there as {labels[train_numbers[j]]}"
                    why = f"train has: {of_train[j][:200]}{other}"
                    rows.append(_row("near", cosine + bool(other), split, texts[first + i], labels[numbers[first + i]], why))
    return rows


def _far(split: str, texts, numbers, known: set[str], labels: Sequence[str]) -> list[dict]:
    """Return the texts of a split most of whose words train never shows."""
    rows = []
    for text, number in zip(texts, numbers, strict=True):
        units = list(scripts.units(text))
        share = sum(u not in known for u in units) / max(1, len(units))
        if len(units) >= LEAST_WORDS and share >= FAR:
            rows.append(_row("far", share, split, text, labels[number], f"{share:.0%} of its words never occur in train"))
    return rows


def _row(kind: str, how_much: float, split: str, text: str, label: str, why: str) -> dict:
    return {
        "kind": kind,
        "how much": float(how_much),
        "what": KINDS[kind],
        "split": split,
        "text": text[:400],
        "label": label,
        "why": why,
    }


def write(folder: Path, splits: dict[str, tuple[list[str], list[int]]], labels: Sequence[str]) -> None:
    """Write a study's suspects into its folder."""
    (folder / SUSPECTS).write_text(json.dumps(find(splits, labels), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def table(study: str | Path) -> pd.DataFrame:
    """Return a study's suspects, one row each with COLUMNS; empty where they were not looked for."""
    path = results.folder_of(study) / SUSPECTS
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return pd.DataFrame(rows, columns=COLUMNS)
