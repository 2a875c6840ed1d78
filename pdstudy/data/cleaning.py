"""From raw texts to D_L, D_T and D_LM: removes repeats and leaks, splits, counts.

A text that occurs several times stays in the first of test, dev, train, D_T and D_LM that contains it, so that no model is
trained on a text that it is measured on.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pdstudy.data import rare
from pdstudy.data.formats import TextError
from pdstudy.data.left_out import LeftOut
from pdstudy.data.repeats import Key, key
from pdstudy.data.sources import Raw
from pdstudy.data.tasks import HELD_BACK, SCALE
from pdstudy.data.texts import Text, sentences

Split = tuple[list[Text], list[int]]  # texts and their class numbers


@dataclass
class Texts:
    """A task's texts after cleaning: labelled splits, unlabelled transfer texts, documents for D_LM. Pairs are tuples."""

    labelled: dict[str, tuple[list, list[int]]]  # train, dev, test
    transfer: list
    documents: list[str]
    heldout: list[str]  # documents of D_LM kept back to measure the held-out MLM loss
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()  # names, in the order of the class numbers
    examples: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # of what was left out, by part and reason


def build(raw: Raw, splits: dict[str, int], n_documents: int | None, heldout: float, seed: int) -> Texts:
    """Return a task's texts, cleaned, and split by `seed` where the source has no splits of its own.

    `splits` is the number of dev and test texts; train gets the rest. `n_documents` limits D_LM, and `heldout` is the share of
    its documents that is held out. Without D_LM in the source it is the transfer texts; without D_T that is the training texts.
    Raises TextError if there are fewer texts than asked for.
    """
    rng, left_out = np.random.default_rng(seed), {"source": raw.left_out}
    labelled, labels, measured, transfer = {}, raw.labels, [], []
    if raw.labelled:
        labelled, labels = _labelled(raw, splits, rng, left_out)
        measured = [t for name in ("test", "dev") for t in labelled[name][0]]
    corpus = raw.documents if raw.reads is None else raw.reads
    if corpus is None:
        corpus = [" ".join(t) for t in raw.transfer or labelled["train"][0]]
    measured_keys = {raw.key(part) for t in measured for part in t}  # of both texts of a pair
    read, heldout_texts, left_out["D_LM"] = documents(_shuffled(corpus, rng), measured_keys, n_documents, heldout, raw.key)
    if raw.labelled:
        transfer, left_out["D_T"] = _transfer(raw, labelled["train"][0], read, measured, rng)
    return Texts(
        labelled={name: (plain(texts), numbers) for name, (texts, numbers) in labelled.items()},
        transfer=plain(transfer),
        documents=read,
        heldout=heldout_texts,
        counts={part: one.counts for part, one in left_out.items() if one.counts},
        labels=labels,
        # Splits that were cut from train, and D_T that is train, have left nothing out.
        examples={part: one.examples for part, one in left_out.items() if part == "source" or "exact" in one.counts},
    )


def _transfer(
    raw: Raw, train: list[Text], documents: list[str], measured: list[Text], rng: np.random.Generator
) -> tuple[list[Text], LeftOut]:
    """Return (D_T, what was left out): the source's transfer texts, sentences of `documents`, or without both the texts of train."""
    if raw.sentences:
        texts = [(s,) for document in (documents if raw.reads is None else raw.documents) for s in sentences(document)]
    elif raw.transfer is None:
        return train, LeftOut(**{"read": len(train), "kept": len(train), "of train": len(train)})
    else:
        texts = raw.transfer
    texts = _shuffled(texts, rng)
    known = () if raw.of_train else {raw.key(*t) for t in train}
    indices, left_out = distinct(texts, against={raw.key(*t) for t in measured}, known=known, key=raw.key)
    if not indices:
        raise TextError("D_T holds no text but those of D_L; give other transfer texts, or none to use those of train")
    return [texts[i] for i in indices], left_out


def plain(texts: list[Text]) -> list:
    """Return texts as strings; pairs stay tuples."""
    return [t[0] for t in texts] if texts and len(texts[0]) == 1 else texts


def _shuffled(items: list, rng: np.random.Generator) -> list:
    return [items[i] for i in rng.permutation(len(items))]


def _labelled(
    raw: Raw, splits: dict[str, int], rng: np.random.Generator, left_out: dict[str, LeftOut]
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Return (train, dev and test without texts in common, the classes' names)."""
    labelled, measured, labels = {}, set(), raw.labels
    for name in ("test", "dev"):
        if name in raw.labelled:
            labelled[name], left_out[name] = _distinct_labelled(raw.labelled[name], measured, raw.key)
            measured |= {raw.key(*t) for t in labelled[name][0]}
    labelled["train"], left_out["D_L"] = _distinct_labelled(_shuffled(raw.labelled["train"], rng), measured, raw.key)
    first_in_train: set[int] = set()
    if raw.rare is not None:
        labelled, labels, first_in_train = rare.treat(labelled, labels, raw.rare, left_out)
    if not labelled["train"][0] and (n_leaks := left_out["D_L"].counts["leaks"]):
        raise TextError(
            f"train: all of its {n_leaks:,} distinct texts occur in dev or test too, and were removed; give other files"
        )
    wanted = {name: n for name, n in splits.items() if name not in labelled}
    cut = _split(list(zip(*labelled.pop("train"), strict=True)), wanted, first_in_train)
    left_out |= {name: LeftOut(kept=len(texts)) for name, (texts, _) in cut.items()}
    labelled |= cut
    lost = sorted(set(range(len(labels))) - set(labelled["train"][1]))
    if lost and labels != SCALE:  # some scores of a scale occur nowhere
        raise TextError(rare.lost_message([labels[i] for i in lost]))
    return labelled, labels


def _distinct_labelled(items: list[tuple[Text, int]], against: set[str], key: Key) -> tuple[Split, LeftOut]:
    indices, left_out = distinct([t for t, _ in items], against, key=key)
    texts, labels = [items[i][0] for i in indices], [items[i][1] for i in indices]
    left_out.counts["contradictory"] = 0
    if left_out.counts["exact"] + left_out.counts["normalised"]:
        first = {key(*t): y for t, y in zip(texts, labels, strict=True)}
        for text, label in items:
            if first.get(key(*text), label) != label:
                left_out.add("contradictory", text)
    return (texts, labels), left_out


def transfer_set(
    corpora: dict[str, list[Text]], n: int, measured: Iterable[Text], labelled: Iterable[Text], seed: int, key: Key = key
) -> tuple[list[Text], dict[str, dict[str, int]]]:
    """Return (`n` texts, counts by corpus): an equal share of each corpus, drawn by `seed`, none of them in D_L.

    Raises TextError, with both counts, for a corpus that has fewer texts than its share.
    """
    rng, chosen, counts = np.random.default_rng(seed), [], {}
    measured, known = {key(*t) for t in measured}, {key(*t) for t in labelled}
    for i, (name, texts) in enumerate(corpora.items()):
        wanted = n // len(corpora) + (i < n % len(corpora))
        texts = _shuffled(texts, rng)
        indices, left_out = distinct(texts, against=measured, known=known, key=key)
        counts[name] = left_out.counts
        if len(indices) < wanted:
            advice = "lower splits.train, which leaves more" if name == HELD_BACK else "give more text"
            raise TextError(
                f"domains.texts asks for {wanted:,} texts of {name}, which has {len(indices):,}; ask for fewer, or {advice}"
            )
        share = [texts[k] for k in indices[:wanted]]
        known |= {key(*t) for t in share}
        chosen += share
    return _shuffled(chosen, rng), counts


def documents(
    texts: list[str], measured: set[str], n: int | None, heldout: float, key: Key = key
) -> tuple[list[str], list[str], LeftOut]:
    """Return (D_LM, the documents held out of it, what was left out). Documents with a sentence of dev or test are removed."""
    indices, left_out = distinct([(t,) for t in texts], key=key)
    read = []
    for text in (texts[i] for i in indices[:n]):
        if any(key(s) in measured for s in sentences(text)) or key(text) in measured:
            left_out.add("leaks", (text,))
        else:
            read.append(text)
    if len(read) < 2:
        raise TextError(
            f"D_LM has {len(read)} documents after cleaning, and one is held out to measure pre-training: "
            "at least 2 are needed; raise corpus.documents"
        )
    n_heldout = max(1, round(heldout * len(read)))
    left_out.counts |= {"kept": len(read), "heldout": n_heldout, "used": len(read) - n_heldout}
    return read[n_heldout:], read[:n_heldout], left_out


def distinct(
    texts: Iterable[Text], against: Iterable[str] = (), known: Iterable[str] = (), key: Key = key
) -> tuple[list[int], LeftOut]:
    """Return (indices of the texts to keep, what was left out). Of repeats the first is kept.

    Left out are empty texts, exact repeats, repeats by `key` ("normalised"), texts whose key is in `against` ("leaks") and
    those whose key is in `known`.
    """
    seen, exact, against, known = set(), set(), frozenset(against), frozenset(known)
    indices, left_out, n = [], LeftOut(read=0, empty=0, exact=0, normalised=0, leaks=0, known=0), 0
    for n, text in enumerate(texts, 1):
        k = key(*text)
        reason = (
            "empty" if not k
            else "exact" if text in exact
            else "normalised" if k in seen
            else "leaks" if k in against
            else "known" if k in known
            else None
        )  # fmt: skip
        if reason is None:
            indices.append(n - 1)
        else:
            left_out.add(reason, text)
        exact.add(text)
        seen.add(k)
    left_out.counts |= {"read": n, "kept": len(indices)}
    return indices, left_out


def _split(items: list[tuple[Text, int]], splits: dict[str, int], first_in_train: Iterable[int] = ()) -> dict[str, Split]:
    """Return train and the splits asked for; every class has its share of each.

    The first text of each class in `first_in_train` is always in train.
    """
    if sum(splits.values()) >= len(items):
        asked = " + ".join(f"{n:,} {name}" for name, n in splits.items()) or "none"
        raise TextError(
            f"splits ask for {asked} texts and leave none to train on: the task has {len(items):,} distinct labelled texts; ask for fewer"
        )
    labels, indices = np.array([y for _, y in items]), {}
    of_train = np.array(sorted({np.flatnonzero(labels == y)[0] for y in first_in_train}), dtype=int)
    rest = np.setdiff1d(np.arange(len(items)), of_train)
    for name in ("test", "dev"):
        if name in splits:
            chosen = _share(labels[rest], min(splits[name], len(rest)))
            indices[name], rest = rest[chosen], rest[~chosen]
    indices["train"] = np.sort(np.concatenate([rest, of_train]))
    return {name: ([items[i][0] for i in index], [items[i][1] for i in index]) for name, index in indices.items()}


def _share(labels: np.ndarray, n: int) -> np.ndarray:
    """Return which `n` of the items to take, (n_items,) bool, with every class in its share, up to one item."""
    by_class = np.argsort(labels, kind="stable")
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[by_class[((np.arange(n) + 0.5) * len(labels) / max(1, n)).astype(int)]] = True
    return chosen
