"""How similar a transfer corpus is to a task's texts: S, the share of words that it lacks, repeats.

S is the paper's measure (Fig 9): the Spearman correlation between the word-frequency ranks of D_L and of D_T. Words are
lower-cased runs of letters, marks and digits, and single characters in scripts without spaces. The 10,000 most frequent words of
either text are ranked; the words that one text lacks are tied.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain

import numpy as np

from pdstudy.data import scripts
from pdstudy.data.repeats import Key, key

RANKED = 10_000
LEAST = 1_000  # words of a text; with fewer the ranks are chance


def words(texts: Iterable[str]) -> Counter:
    """Return how often each word occurs."""
    return Counter(chain.from_iterable(map(scripts.units, texts)))


def similarity(one: Counter, other: Counter) -> float:
    """Return S of two texts' word counts, -1 to 1. Raises ValueError for a text of fewer than 1,000 words."""
    for counts in (one, other):
        if counts.total() < LEAST:
            raise ValueError(f"{counts.total():,} words are too few for S, which ranks them; give at least {LEAST:,}")
    ranked = sorted({w for counts in (one, other) for w, _ in counts.most_common(RANKED)})
    from scipy.stats import spearmanr  # here: every worker imports this module, and few steps need S

    return float(spearmanr([one[w] for w in ranked], [other[w] for w in ranked]).statistic)


def unseen(task: Counter, transfer: Counter) -> float:
    """Return the share of the task's running words that do not occur in the transfer text."""
    return sum(n for word, n in task.items() if word not in transfer) / max(1, task.total())


def compare(task: list[str], candidates: Mapping[str, list[str]], key: Key = key) -> list[dict[str, str | int | float]]:
    """Return a row for each candidate corpus, the most similar first: texts, words, S, unseen, repeats of the task's, median length.

    S is nan for a candidate of fewer than 1,000 words. Raises ValueError when the task itself has fewer.
    """
    own, keys, rows = words(task), {key(t) for t in task}, []
    similarity(own, own)
    for name, texts in candidates.items():
        counts = words(texts)
        rows.append(
            {
                "corpus": name,
                "texts": len(texts),
                "words": counts.total(),
                "S": similarity(own, counts) if counts.total() >= LEAST else np.nan,
                "unseen": unseen(own, counts),
                "repeats": sum(key(t) in keys for t in texts),
                "words a text": _median_words(texts),
            }
        )
    return sorted(rows, key=lambda row: (np.isnan(row["S"]), -row["S"]))


def _median_words(texts: list[str]) -> float:
    """Return the median number of words of a text, counted by spaces if the script has any; nan without texts."""
    if not texts:
        return float("nan")
    if scripts.unspaced(texts[:200]):
        return float(np.median([sum(1 for _ in scripts.units(t)) for t in texts]))
    return float(np.median([t.count(" ") + 1 for t in texts]))
