"""Word vectors by counting: pairs by hand, the mutual information by hand, words of like company alike."""

import math

import numpy as np
import pytest

from pdstudy.data import word_vectors as counts
from pdstudy.data.batches import Ids
from pdstudy.data.word_vectors import pairs, positive_mutual_information, word_vectors


def texts(*pieces: list[int]) -> Ids:
    return Ids(np.concatenate(pieces).astype(np.uint16), np.cumsum([0, *map(len, pieces)]))


def test_pairs_are_weighted_by_distance_symmetric_and_never_cross_texts():
    counts = pairs(texts([0, 1, 2], [1, 0]), 4, window=2).toarray()
    expected = np.zeros((4, 4))
    for a, b, weight in ((0, 1, 1), (1, 2, 1), (0, 2, 0.5), (1, 0, 1)):
        expected[a, b] += weight
        expected[b, a] += weight
    assert (counts == expected).all()


def test_a_piece_beside_itself_is_a_pair_too():
    assert pairs(texts([3, 3]), 4, window=5).toarray()[3, 3] == 2


@pytest.mark.parametrize("at_once", [1, 2, 7, 50])
def test_pairs_do_not_depend_on_how_many_pieces_are_held_in_memory(monkeypatch, at_once):
    rng = np.random.default_rng(0)
    some = texts(*(rng.integers(0, 20, n) for n in (30, 1, 2, 40, 3)))
    expected = pairs(some, 20, 4).toarray()
    monkeypatch.setattr(counts, "AT_ONCE", at_once)
    assert np.allclose(pairs(some, 20, 4).toarray(), expected, atol=1e-12)


def test_mutual_information_by_hand_and_what_is_negative_is_left_out():
    information = positive_mutual_information(pairs(texts([0, 1], [0, 1], [2, 3], [0, 3]), 4, window=1)).toarray()
    sums = np.array([3, 2, 1, 2])  # pairs of each piece
    context = sums**0.75 / (sums**0.75).sum()
    assert information[0, 1] == pytest.approx(math.log(2 / (3 * context[1])))
    assert information[3, 2] == pytest.approx(math.log(1 / (2 * context[2])))
    assert math.log(1 / (3 * context[3])) > 0 and information[0, 3] > 0
    assert (information[information != 0] > 0).all() and information[1, 3] == 0  # never met


def test_pieces_of_like_company_have_like_vectors():
    rng = np.random.default_rng(1)
    noun, verb = range(0, 10), range(10, 20)  # a noun is always followed by a verb
    lines = [[piece for _ in range(20) for piece in (rng.choice(noun), rng.choice(verb))] for _ in range(200)]
    vectors = word_vectors(texts(*lines), 20, width=3, window=1)
    assert vectors.shape == (20, 3) and vectors.dtype == np.float32
    assert abs(vectors.mean()) < 1e-6 and vectors.std() == pytest.approx(1, abs=1e-5)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    assert alike[:10, :10].min() > 0.8 > 0 > alike[:10, 10:].max()


def test_the_same_text_gives_the_same_vectors():
    some = texts(np.random.default_rng(0).integers(0, 50, 3000))
    assert (word_vectors(some, 50, 8, 3) == word_vectors(some, 50, 8, 3)).all()


def test_a_text_of_too_few_different_pieces_is_refused():
    with pytest.raises(ValueError, match=r"D_LM has 3 different pieces .* width 8; give more text"):
        word_vectors(texts([0, 1, 2]), 50, width=8, window=3)
