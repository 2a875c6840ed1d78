"""A copy is judged by its answers and by nearly all of its logits: rounding is no other classifier, other weights are."""

import numpy as np
import pytest

from pdstudy.release.faithful import unfaithful

LOGITS = np.random.default_rng(0).normal(0, 1, (170, 2)).astype(np.float32)


def test_one_logit_of_340_that_bf16_rounds_otherwise_is_no_other_classifier():
    copy = LOGITS.copy()
    clear = int(np.argmax(np.abs(LOGITS[:, 0] - LOGITS[:, 1])))
    copy[clear, 0] += 0.12
    assert unfaithful(copy, LOGITS, "bf16") is None


def test_a_turned_answer_between_two_classes_as_good_as_equal_is_no_other_classifier():
    original, copy = LOGITS.copy(), LOGITS.copy()
    original[0], copy[0] = (0.5, 0.501), (0.501, 0.5)
    assert unfaithful(copy, original, "bf16") is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: x[:, ::-1], "by "),
        (lambda x: x + 0.2, "by 0.2, more than"),
        (lambda x: x * np.nan, "by nan"),
        (lambda x: np.where(np.arange(170)[:, None] == int(np.abs(x[:, 0] - x[:, 1]).argmax()), x[:, ::-1], x), "in 1 clear answers of 170"),
    ],
    ids=["swapped classes", "a bias", "no number", "one clear answer"],
)  # fmt: skip
def test_other_weights_are_found_out(change, sentence):
    assert sentence in unfaithful(change(LOGITS), LOGITS, "bf16")
