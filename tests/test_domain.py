"""S and its companions: exact on hand-made texts, and the properties that a similarity must have."""

import math
import random

import pytest

from pdstudy.data import similarity as domain
from pdstudy.data.similarity import compare, similarity, unseen, words


def text(rng: random.Random, n: int, skew: int = 0) -> list[str]:
    """Return sentences over 200 words whose frequencies fall; `skew` moves which words are frequent."""
    vocabulary = [f"w{(i + skew) % 200}" for i in range(200)]
    return [" ".join(rng.choices(vocabulary, [1 / (1 + i) for i in range(200)], k=10)) for _ in range(n)]


def test_words_are_counted_without_case_and_punctuation():
    assert words(["A film, a FILM!", "It's été"]) == {"a": 2, "film": 2, "it": 1, "s": 1, "été": 1}


def test_s_of_a_text_with_itself_is_one_and_order_does_not_matter():
    rng = random.Random(0)
    one, other = text(rng, 300), text(rng, 400, skew=40)
    assert similarity(words(one), words(one)) == pytest.approx(1)
    shuffled = [" ".join(rng.sample(t.split(), 10)) for t in rng.sample(other, len(other))]
    assert similarity(words(one), words(other)) == similarity(words(shuffled), words(one))


def test_s_falls_with_the_distance_between_texts():
    near, far, farther = (
        similarity(words(text(random.Random(1), 500)), words(text(random.Random(2), 500, skew))) for skew in (0, 30, 100)
    )
    assert near > 0.7 > 0.3 > far > farther


def test_ranks_are_spearmans_on_a_text_made_by_hand(monkeypatch):
    monkeypatch.setattr(domain, "LEAST", 1)
    one, other = words(["a a a b b c"]), words(["a b b b c c d"])
    # counts over a, b, c, d: (3, 2, 1, 0) and (1, 3, 2, 1); ranks (4, 3, 2, 1) and (1.5, 4, 3, 1.5)
    assert similarity(one, other) == pytest.approx(0.5 / math.sqrt(5 * 4.5))


def test_too_few_words_are_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"999 words are too few for S.*at least 1,000"):
        similarity(words(["w " * 999]), words(["w " * 5000]))


def test_unseen_is_the_share_of_running_words():
    assert unseen(words(["a a a b"]), words(["a c"])) == 0.25


def test_candidates_are_ranked_and_what_they_repeat_is_counted():
    task = text(random.Random(1), 300)
    near = [*text(random.Random(2), 300), task[0].upper()]
    table = compare(task, {"far": text(random.Random(3), 300, 100), "near": near, "few": ["one text"]})
    assert [row["corpus"] for row in table] == ["near", "far", "few"]
    assert [row["repeats"] for row in table] == [1, 0, 0] and [row["texts"] for row in table] == [301, 300, 1]
    assert math.isnan(table[2]["S"])
