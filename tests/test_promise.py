"""The promise that pays for the choice, in worlds whose truth is known: how often it is kept, by whom, and what it takes off."""

import numpy as np
import pytest
from scipy.stats import norm

from pdstudy.analysis.stats import Answers, chosen_anew, promise

N_DEV, N_TEST = 320, 400
WORLDS, RESAMPLES = 500, 200
LADDER = np.linspace(0.70, 0.82, 10)[:, None] + [-0.01, 0.0, -0.03]


def ahead(by: float) -> np.ndarray:
    """Return the chances of ten students at three rates, all alike but one that is ahead."""
    chances = np.full((10, 3), 0.85 - by)
    chances[3, 1] = 0.85
    return chances


def worlds(chances: np.ndarray, alike: float):
    """Yield, from many draws of dev and test, every student's accuracy on test as chosen on dev, its dev accuracy and answers.

    `chances` (n_students, n_rates) of being right; `alike` is the correlation of what makes a text hard for each.
    """
    rng = np.random.default_rng(3)

    def answers(n: int) -> np.ndarray:
        hard = np.sqrt(alike) * rng.normal(size=n) + np.sqrt(1 - alike) * rng.normal(size=(*chances.shape, n))
        return (hard < norm.ppf(chances)[..., None]).astype(float)

    for _ in range(WORLDS):
        dev, test = answers(N_DEV), answers(N_TEST)
        taken = dev.mean(axis=2).argmax(axis=1)[:, None]
        scores = [np.take_along_axis(found.mean(axis=2), taken, axis=1)[:, 0] for found in (test, dev)]
        order = np.argsort(-scores[1], kind="stable")  # the best on dev first
        yield *(s[order] for s in scores), [Answers(student, student) for student in dev]


@pytest.mark.parametrize(
    ("chances", "alike", "kept_by_dev_alone"),
    [
        (np.full((10, 3), 0.8), 0.0, (0.55, 0.72)),
        (np.full((10, 3), 0.8), 0.6, (0.65, 0.80)),
        (np.full((10, 3), 0.8), 0.9, (0.78, 0.90)),
        (LADDER, 0.0, (0.78, 0.91)),
        (LADDER, 0.6, (0.86, 0.95)),
        (ahead(0.05), 0.6, (0.82, 0.94)),
        (ahead(0.10), 0.0, (0.90, 0.99)),
        (ahead(0.20), 0.0, (0.92, 0.99)),
    ],
    ids=["equal", "equal, alike", "equal, very alike", "ladder", "ladder, alike", "a little ahead, alike", "ahead", "far ahead"],
)
def test_a_promise_is_kept_as_often_as_it_says_whoever_is_chosen(chances, alike, kept_by_dev_alone):
    kept, kept_by_rank, broken_below = [], [], []
    for test, dev, students in worlds(chances, alike):
        expected = chosen_anew(students, RESAMPLES)
        bounds = np.array([promise(d, e, N_DEV, N_TEST, 1, 0.0) for d, e in zip(dev, expected, strict=True)])
        low, high = promise(dev[0], dev[0], N_DEV, N_TEST, 1, 0.0)  # as if nothing had been chosen
        kept.append(low <= test[0] <= high)
        kept_by_rank.append((bounds[:, 0] <= test) & (test <= bounds[:, 1]))
        broken_below.append(test[0] < bounds[0, 0])
    by_rank = np.mean(kept_by_rank, axis=0)
    assert kept_by_dev_alone[0] <= np.mean(kept) <= kept_by_dev_alone[1]
    assert 0.93 <= by_rank[0] <= 0.99 and np.mean(broken_below) <= 0.05
    assert by_rank.min() >= 0.93, "whoever takes another student than the best was promised no less"


def test_one_that_is_far_ahead_pays_nothing_and_the_best_of_equals_pays_what_it_was_lucky():
    paid = {}
    for name, chances in (("far ahead", ahead(0.25)), ("equal", np.full((10, 3), 0.8))):
        found = [(dev[0], chosen_anew(students, RESAMPLES)[0]) for _, dev, students in worlds(chances, 0.0)]
        dev, expected = np.mean(found, axis=0)
        paid[name] = dev - expected
    assert abs(paid["far ahead"]) < 0.001
    assert expected == pytest.approx(0.8, abs=0.003) and paid["equal"] > 0.03


def test_the_rate_is_chosen_by_the_seed_that_searched_and_the_student_judged_by_all_its_seeds():
    level = lambda *rates: np.repeat(np.array(rates)[:, None], 50, axis=1)  # noqa: E731
    assert chosen_anew([Answers(level(0.0, 1.0), level(0.75, 0.5))]) == pytest.approx([0.5])
    of_equals_the_smallest = chosen_anew([Answers(level(1.0, 1.0), level(0.25, 0.75))])
    assert of_equals_the_smallest == pytest.approx([0.25]), "as the search does"


def test_students_that_differ_by_nothing_stand_in_the_order_in_which_they_are_given():
    alike = np.tile([1.0, 0.0, 1.0, 1.0], 25)
    first, other = chosen_anew([Answers(alike[None], alike[None]), Answers(alike[None], alike[None])])
    assert first == other == pytest.approx(0.75, abs=0.01)


def test_the_same_answers_are_promised_the_same_and_another_draw_hardly_differs():
    students = next(iter(worlds(LADDER, 0.6)))[2]
    assert (chosen_anew(students) == chosen_anew(students)).all()
    assert np.abs(chosen_anew(students) - chosen_anew(students, seed=1)).max() < 0.005


def test_a_choice_made_on_a_single_text_is_refused():
    with pytest.raises(ValueError, match="dev holds 1 text"):
        chosen_anew([Answers(np.ones((2, 1)), np.ones((2, 1)))])


def test_a_promise_is_wider_for_fewer_texts_and_for_more_luck_and_never_certain():
    low, high = promise(1.0, 1.0, 100, 1000, 2, 0.0)
    assert low < 0.99 and high == 1.0
    widths = [np.diff(promise(0.5, 0.5, n, n, 3, 0.01))[0] for n in (100, 400, 1600)]
    assert widths[0] > widths[1] > widths[2] > 0.04
    plain, lucky = promise(0.8, 0.8, 320, 400, 1, 0.0), promise(0.8, 0.77, 320, 400, 1, 0.0)
    assert lucky[1] == plain[1] and plain[0] - lucky[0] == pytest.approx(0.03, abs=0.004)
