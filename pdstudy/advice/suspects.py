"""Texts worth a look: likely label errors, near-duplicates across splits, texts unlike those of train. They are reported, not changed.

Label errors are found by confident learning (Northcutt et al., 2021) over out-of-fold probabilities of a linear model of TF-IDF.
cleanlab does the same and more, but its licence is the AGPL.
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
from pdstudy.run.inputs import column, read_record, tuples
from pdstudy.storage import paths, results
from pdstudy.storage.store import Store
from pdstudy.study.plan import make
from pdstudy.study.settings import Study

SUSPECTS = "suspects.json"  # in the study's folder; it contains texts, and is not committed
MOST = 20_000  # texts of train that are checked, so that it takes seconds
MOST_ROWS = 10  # of each kind
FOLDS = 5
MOST_CONFIDENT = 0.9  # the largest threshold of confidence for another label
NEAR = 0.9  # cosine of TF-IDF from which two texts are near-duplicates
FAR = 0.5  # share of a text's words that do not occur in train, from which it is out of domain
LEAST_WORDS = 3  # of a text that can be out of domain
BLOCK = 1024  # texts whose similarities to train are computed at once
KINDS = {
    "label": "likely label error",
    "near": "nearly the same text in train",
    "far": "unlike the texts of train",
}
COLUMNS = ["what", "split", "text", "label", "why"]


def find(splits: dict[str, tuple[list[str], list[int]]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the suspects of the splits train, dev and test, each a row of COLUMNS; the likeliest first, at most 10 of each kind."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts, classes = splits["train"][0][:MOST], np.array(splits["train"][1][:MOST])
    tfidf = TfidfVectorizer(analyzer=_words_and_pairs, sublinear_tf=True)
    try:
        train = tfidf.fit_transform(texts)
    except ValueError:  # no words
        return []
    rows = _label_errors(texts, classes, labels)
    for split in ("dev", "test"):
        if splits[split][0]:
            rows += _near_duplicates(split, splits[split], tfidf.transform(splits[split][0]), texts, classes, train, labels)
            rows += _out_of_domain(split, splits[split], set(tfidf.vocabulary_), labels)
    return [row for kind in KINDS for row in sorted((r for r in rows if r["kind"] == kind), key=lambda r: -r["score"])[:MOST_ROWS]]


def _words_and_pairs(text: str) -> list[str]:
    """Return a text's words and pairs of neighbouring words; of scripts without spaces its characters and their pairs."""
    words = list(scripts.units(text))
    return words + [" ".join(pair) for pair in pairwise(words)]


def _label_errors(texts: list[str], classes: np.ndarray, labels: Sequence[str]) -> list[dict]:
    """Return the texts of train for which a linear model of the other texts gives another class with a high probability."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    counts = np.bincount(classes, minlength=len(labels))
    usable = np.flatnonzero(counts >= FOLDS)
    checked = np.flatnonzero(np.isin(classes, usable))
    if len(usable) < 2:
        return []
    y = np.searchsorted(usable, classes[checked])
    matrix = TfidfVectorizer(analyzer=lambda text: list(scripts.units(text)), sublinear_tf=True).fit_transform(texts)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    model = LogisticRegression(C=5.0, class_weight="balanced", max_iter=200)
    with threadpool_limits(1, user_api="blas"):  # as in models/linear.py
        p = cross_val_predict(model, matrix[checked], y, cv=folds, method="predict_proba")
    # The paper's threshold is the mean probability of a class for its own texts. It is capped: for easy classes hardly any text exceeds it.
    threshold = np.array([min(MOST_CONFIDENT, p[y == k, k].mean()) for k in range(len(usable))])
    confident = np.where(p >= threshold, p, 0.0)
    likely = confident.argmax(axis=1)
    return [
        _row("label", p[i, likely[i]] - p[i, y[i]], "train", texts[checked[i]], labels[usable[y[i]]],
             f"a linear model of the other texts predicts {labels[usable[likely[i]]]} ({p[i, likely[i]]:.0%})")
        for i in np.flatnonzero((confident.max(axis=1) > 0) & (likely != y))
    ]  # fmt: skip


def _near_duplicates(split: str, labelled: tuple, matrix, of_train, train_classes, train, labels: Sequence[str]) -> list[dict]:
    """Return the texts of a split that are nearly in train, first those with another label there."""
    rows = []
    for first in range(0, matrix.shape[0], BLOCK):
        similarity = (matrix[first : first + BLOCK] @ train.T).tocsr()
        cosines, nearest = similarity.max(axis=1).toarray().ravel(), np.asarray(similarity.argmax(axis=1)).ravel()
        for i in np.flatnonzero(cosines >= NEAR):
            text, number, j = labelled[0][first + i], labelled[1][first + i], nearest[i]
            if key(text) != key(of_train[j]):
                other = "" if number == train_classes[j] else f", there as {labels[train_classes[j]]}"
                why = f"train has: {of_train[j][:200]}{other}"
                rows.append(_row("near", cosines[i] + bool(other), split, text, labels[number], why))
    return rows


def _out_of_domain(split: str, labelled: tuple, known: set[str], labels: Sequence[str]) -> list[dict]:
    """Return the texts of a split most of whose words do not occur in train."""
    rows = []
    for text, number in zip(*labelled, strict=True):
        words = list(scripts.units(text))
        share = sum(word not in known for word in words) / max(1, len(words))
        if len(words) >= LEAST_WORDS and share >= FAR:
            rows.append(_row("far", share, split, text, labels[number], f"{share:.0%} of its words do not occur in train"))
    return rows


def _row(kind: str, score: float, split: str, text: str, label: str, why: str) -> dict:
    row = {"kind": kind, "score": float(score), "what": KINDS[kind], "split": split, "text": text[:400]}
    return row | {"label": label, "why": why}


def write(folder: Path, splits: dict[str, tuple[list[str], list[int]]], labels: Sequence[str]) -> None:
    """Write a study's suspects into its folder."""
    (folder / SUSPECTS).write_text(json.dumps(find(splits, labels), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_of_study(study: str, texts: Path) -> None:
    """Write the suspects of a study from the folder of its cleaned texts in the store."""
    splits = {}
    for split in ("train", "dev", "test"):
        file = texts / f"{split}.parquet"
        splits[split] = [" | ".join(text) for text in tuples(file)], column(file, "label")
    write(paths.study_folder(study), splits, read_record(texts)["labels"])


def of_study(study: Study) -> pd.DataFrame:
    """Return a computed study's suspects like `table`; they are found first if they were not. Raises StoreError without its texts."""
    folder = results.folder_of(study.name)
    # A run that changes neither settings nor counts of texts leaves these files as they are.
    changed = max((folder / name).stat().st_mtime_ns for name in (results.PARAMS, results.TEXTS))
    if not (folder / SUSPECTS).is_file() or (folder / SUSPECTS).stat().st_mtime_ns < changed:
        write_of_study(study.name, Store().open(make(study).of_stage("texts")[0].digest))
    return table(study.name)


def table(study: str | Path) -> pd.DataFrame:
    """Return a study's suspects, one row each with COLUMNS; empty if the study was not checked."""
    path = results.folder_of(study) / SUSPECTS
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return pd.DataFrame(rows, columns=COLUMNS)
