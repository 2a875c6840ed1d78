"""From raw texts to D_L, D_T and D_LM: removes repeats and leaks, splits, counts.

Order of precedence where a text stands twice: test, dev, train, D_T, D_LM. What is measured on is never
learned from.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pdstudy.data import rare
from pdstudy.data.formats import TextError
from pdstudy.data.left_out import Shown
from pdstudy.data.repeats import Key, key
from pdstudy.data.sources import Raw
from pdstudy.data.tasks import HELD_BACK, SCALE
from pdstudy.data.texts import Text

SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+")
SENTENCE_WORDS = (4, 60)  # shorter ones say little, longer ones are lists and lost full stops


@dataclass
class Texts:
    """A task's texts after cleaning: labelled splits, unlabelled transfer texts, documents for D_LM. Pairs are tuples."""

    labelled: dict[str, tuple[list, list[int]]]  # train, dev, test
    transfer: list
    documents: list[str]
    heldout: list[str]  # documents kept from D_LM to measure the reading level
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()  # names, in the order of the class numbers
    examples: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # of what was left out, by part and kind


def sentences(document: str) -> list[str]:
    """Return a document's sentences of 4 to 60 words."""
    low, high = SENTENCE_WORDS
    return [s for s in SENTENCE_END.split(document) if low <= s.count(" ") + 1 <= high]


def build(raw: Raw, splits: dict[str, int], n_documents: int | None, heldout: float, seed: int) -> Texts:
    """Return a task's texts, cleaned, and split by `seed` where the source has no splits of its own.

    `splits` gives the number of dev and test texts; train takes all that are left. `n_documents` limits D_LM,
    `heldout` is the share of its documents kept to measure reading. A source without D_LM has its transfer texts
    read instead, one without D_T its training texts. Raises TextError when there are fewer texts than asked for.
    """
    rng, counts, shown = np.random.default_rng(seed), {}, {"source": raw.examples}
    given, key = raw.documents if raw.reads is None else raw.reads, raw.key
    if not raw.labelled:  # a corpus alone
        read, held = documents([given[i] for i in rng.permutation(len(given))], set(), n_documents, heldout, counts, key, shown)
        return Texts({}, [], read, held, counts, raw.labels, shown)
    labelled, labels = _labelled(raw, splits, rng, counts, shown)
    measured = {key(*t) for name in ("test", "dev") for t in labelled[name][0]}
    parts = {key(part) for name in ("test", "dev") for t in labelled[name][0] for part in t}  # of pairs; else the same
    learned = {key(*t) for t in labelled["train"][0]}

    found = given if given is not None else [" ".join(t) for t in raw.transfer or labelled["train"][0]]
    read, held = documents([found[i] for i in rng.permutation(len(found))], parts, n_documents, heldout, counts, key, shown)

    if raw.transfer is None and not raw.sentences:
        transfer = labelled["train"][0]
        counts["D_T"] = {"read": len(transfer), "kept": len(transfer), "of train": len(transfer)}
    else:
        cut = read if raw.reads is None else raw.documents
        texts = [(s,) for d in cut for s in sentences(d)] if raw.sentences else raw.transfer
        texts = [texts[i] for i in rng.permutation(len(texts))]
        kept, counts["D_T"], shown["D_T"] = distinct(texts, against=measured, known=() if raw.of_train else learned, key=key)
        transfer = [texts[i] for i in kept]
        if not transfer:
            raise TextError("D_T holds no text but those of D_L; give other transfer texts, or none to use those of train")
    splits = {name: (plain(texts), numbers) for name, (texts, numbers) in labelled.items()}
    counts |= {"source": raw.counts} if raw.counts else {}
    return Texts(splits, plain(transfer), read, held, counts, labels, shown)


def plain(texts: list[Text]) -> list:
    """Return texts as strings; pairs stay tuples."""
    return [t[0] for t in texts] if texts and len(texts[0]) == 1 else texts


def _labelled(
    raw: Raw, splits: dict[str, int], rng: np.random.Generator, counts: dict, shown: dict
) -> tuple[dict[str, tuple[list[Text], list[int]]], tuple[str, ...]]:
    """Return (train, dev and test, none of which holds a text of another; the classes' names)."""
    labelled, measured, labels = {}, set(), raw.labels
    for name in ("test", "dev"):
        if name in raw.labelled:
            labelled[name], counts[name], shown[name] = _distinct_labelled(raw.labelled[name], measured, raw.key)
            measured |= {raw.key(*t) for t in labelled[name][0]}
    train = raw.labelled["train"]
    found, counts["D_L"], shown["D_L"] = _distinct_labelled([train[i] for i in rng.permutation(len(train))], measured, raw.key)
    labelled["train"], first = found, None
    if raw.rare is not None:
        labelled, labels, first = rare.treated(labelled, labels, raw.rare, counts, shown)
    wanted = {name: n for name, n in splits.items() if name not in labelled}
    cut = _split(list(zip(*labelled.pop("train"), strict=True)), wanted, first)
    counts |= {name: {"kept": len(found)} for name, (found, _) in cut.items()}
    labelled |= cut
    lost = sorted(set(range(len(labels))) - set(labelled["train"][1]))
    if lost and labels != SCALE:  # a scale goes on where nobody scored
        raise TextError(rare.lost([labels[i] for i in lost]))
    return labelled, labels


def _distinct_labelled(
    items: list[tuple[Text, int]], against: set[str], key: Key
) -> tuple[tuple[list[Text], list[int]], dict[str, int], Shown]:
    kept, count, shown = distinct([t for t, _ in items], against, key=key)
    texts, labels = [items[i][0] for i in kept], [items[i][1] for i in kept]
    repeated = count["exact"] + count["normalised"] > 0
    first = {key(*t): y for t, y in zip(texts, labels, strict=True)} if repeated else {}
    contradictory = [t for t, y in items if first.get(key(*t), y) != y] if repeated else []  # repeats under another label
    count["contradictory"] = len(contradictory)
    for text in contradictory[:2]:
        shown.add("contradictory", text)
    return (texts, labels), count, shown


def transfer_set(
    parts: dict[str, list[Text]], n: int, measured: Iterable[Text], labelled: Iterable[Text], seed: int, key: Key = key
) -> tuple[list[Text], dict[str, dict[str, int]]]:
    """Return (`n` texts, counts by part), an equal share of each part, drawn by `seed`, none of which stands in D_L.

    Raises TextError, with both counts, for a part that has fewer texts than its share.
    """
    rng, shares, counts = np.random.default_rng(seed), [], {}
    measured, known = {key(*t) for t in measured}, {key(*t) for t in labelled}
    for i, (name, texts) in enumerate(parts.items()):
        wanted = n // len(parts) + (i < n % len(parts))
        texts = [texts[k] for k in rng.permutation(len(texts))]
        kept, counts[name], _ = distinct(texts, against=measured, known=known, key=key)
        if len(kept) < wanted:
            cure = "lower splits.train, which leaves more" if name == HELD_BACK else "give more text"
            raise TextError(f"domains.texts asks for {wanted:,} texts of {name}, which has {len(kept):,}; ask for fewer, or {cure}")
        shares.append([texts[k] for k in kept[:wanted]])
        known |= {key(*t) for t in shares[-1]}
    mixed = [t for share in shares for t in share]
    return [mixed[i] for i in rng.permutation(len(mixed))], counts


def documents(
    texts: list[str], measured: set[str], n: int | None, heldout: float, counts: dict, key: Key = key, shown: dict | None = None
) -> tuple[list[str], list[str]]:
    """Return D_LM and the documents held out of it. One that quotes a sentence of dev or test is read by nobody."""
    kept, count, examples = distinct([(t,) for t in texts], key=key)
    read = []
    for text in (texts[i] for i in kept[:n]):
        if any(key(s) in measured for s in sentences(text)) or key(text) in measured:
            count["leaks"] += 1
            examples.add("leaks", (text,))
        else:
            read.append(text)
    if len(read) < 2:
        raise TextError(
            f"D_LM has {len(read)} documents after cleaning, and one is held out to measure reading: "
            "at least 2 are needed; raise corpus.documents"
        )
    if shown is not None:
        shown["D_LM"] = examples
    n_heldout = max(1, round(heldout * len(read)))
    counts["D_LM"] = count | {"kept": len(read), "heldout": n_heldout, "used": len(read) - n_heldout}
    return read[n_heldout:], read[:n_heldout]


def distinct(
    texts: Iterable[Text], against: Iterable[str] = (), known: Iterable[str] = (), key: Key = key
) -> tuple[list[int], dict[str, int], Shown]:
    """Return (indices of the texts to keep, first come first kept; counts of the others; two examples of each kind).

    Empty texts, exact repeats, repeats by `key` ("normalised"), texts whose key is in `against` (leaks) and those whose key is in
    `known` are left out and counted.
    """
    seen, exact, against, known = set(), set(), frozenset(against), frozenset(known)
    kept, count, shown = [], Counter(read=0, empty=0, exact=0, normalised=0, leaks=0, known=0), Shown()
    for i, text in enumerate(texts):
        count["read"] += 1
        k = key(*text)
        kind = (
            "empty" if not k
            else "exact" if text in exact
            else "normalised" if k in seen
            else "leaks" if k in against
            else "known" if k in known
            else None
        )  # fmt: skip
        if kind is None:
            kept.append(i)
        else:
            count[kind] += 1
            if count[kind] <= 2:
                shown.add(kind, text)
        exact.add(text)
        seen.add(k)
    count["kept"] = len(kept)
    return kept, dict(count), shown


def _split(
    items: list[tuple[Text, int]], splits: dict[str, int], first: set[int] | None = None
) -> dict[str, tuple[list[Text], list[int]]]:
    """Return train and the splits asked for; every class has its share of each. The first text of classes in `first` is of train."""
    if sum(splits.values()) >= len(items):
        asked = " + ".join(f"{n:,} {name}" for name, n in splits.items()) or "none"
        raise TextError(
            f"splits ask for {asked} texts and leave none to train on: the task has {len(items):,} distinct labelled texts; ask for fewer"
        )
    labels, cuts = np.array([y for _, y in items]), {}
    kept = np.array(sorted({np.flatnonzero(labels == y)[0] for y in first or ()}), dtype=int)
    left = np.setdiff1d(np.arange(len(items)), kept)
    for name in ("test", "dev"):
        if name in splits:
            chosen = _share(labels[left], min(splits[name], len(left)))
            cuts[name], left = left[chosen], left[~chosen]
    cuts["train"] = np.sort(np.concatenate([left, kept]))
    return {name: ([items[i][0] for i in index], [items[i][1] for i in index]) for name, index in cuts.items()}


def _share(labels: np.ndarray, n: int) -> np.ndarray:
    """Return which `n` of the items to take, (n_items,) bool, so that every class is taken in its share, up to one item."""
    by_class = np.argsort(labels, kind="stable")
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[by_class[((np.arange(n) + 0.5) * len(labels) / max(1, n)).astype(int)]] = True
    return chosen
