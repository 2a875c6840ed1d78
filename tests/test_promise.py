"""The interval for new texts after selection on dev, in simulations with a known truth: coverage and correction."""

import numpy as np
import pytest
from scipy.stats import norm

from pdstudy.analysis.stats import Answers, accuracy_after_selection, interval_on_new_texts

N_DEV, N_TEST = 320, 400
SIMULATIONS, RESAMPLES = 500, 200
LADDER = np.linspace(0.70, 0.82, 10)[:, None] + [-0.01, 0.0, -0.03]


def ahead(by: float) -> np.ndarray:
    """Return the chances of ten students at three rates, all alike but one that is ahead."""
    chances = np.full((10, 3), 0.85 - by)
    chances[3, 1] = 0.85
    return chances


def simulations(chances: np.ndarray, alike: float):
    """Yield, from many draws of dev and test, every student's accuracy on test as chosen on dev, its dev accuracy and answers.

    `chances` (n_students, n_rates) of being right; `alike` is the correlation of the difficulty of a text for each.
    """
    rng = np.random.default_rng(3)

    def answers(n: int) -> np.ndarray:
        hard = np.sqrt(alike) * rng.normal(size=n) + np.sqrt(1 - alike) * rng.normal(size=(*chances.shape, n))
        return (hard < norm.ppf(chances)[..., None]).astype(float)

    for _ in range(SIMULATIONS):
        dev, test = answers(N_DEV), answers(N_TEST)
        taken = dev.mean(axis=2).argmax(axis=1)[:, None]
        scores = [np.take_along_axis(scored.mean(axis=2), taken, axis=1)[:, 0] for scored in (test, dev)]
        order = np.argsort(-scores[1], kind="stable")  # the best on dev first
        yield *(s[order] for s in scores), [Answers(student, student) for student in dev]


@pytest.mark.parametrize(
    ("chances", "alike", "coverage_without_correction"),
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
def test_the_interval_covers_the_accuracy_95_times_in_100_at_every_rank(chances, alike, coverage_without_correction):
    covered, covered_by_rank, below = [], [], []
    for test, dev, students in simulations(chances, alike):
        expected = accuracy_after_selection(students, RESAMPLES)
        bounds = np.array([interval_on_new_texts(d, e, N_DEV, N_TEST, 1, 0.0) for d, e in zip(dev, expected, strict=True)])
        low, high = interval_on_new_texts(dev[0], dev[0], N_DEV, N_TEST, 1, 0.0)  # as if nothing had been chosen
        covered.append(low <= test[0] <= high)
        covered_by_rank.append((bounds[:, 0] <= test) & (test <= bounds[:, 1]))
        below.append(test[0] < bounds[0, 0])
    by_rank = np.mean(covered_by_rank, axis=0)
    assert coverage_without_correction[0] <= np.mean(covered) <= coverage_without_correction[1]
    assert 0.93 <= by_rank[0] <= 0.99 and np.mean(below) <= 0.05
    assert by_rank.min() >= 0.93, "the interval holds for every rank"


def test_the_correction_is_zero_for_a_clear_winner_and_the_selection_bias_for_equals():
    correction = {}
    for name, chances in (("far ahead", ahead(0.25)), ("equal", np.full((10, 3), 0.8))):
        scored = [(dev[0], accuracy_after_selection(students, RESAMPLES)[0]) for _, dev, students in simulations(chances, 0.0)]
        dev, expected = np.mean(scored, axis=0)
        correction[name] = dev - expected
    assert abs(correction["far ahead"]) < 0.001
    assert expected == pytest.approx(0.8, abs=0.003) and correction["equal"] > 0.03


def test_the_rate_is_selected_by_the_search_seed_and_the_score_is_the_mean_of_all_seeds():
    level = lambda *rates: np.repeat(np.array(rates)[:, None], 50, axis=1)  # noqa: E731
    assert accuracy_after_selection([Answers(level(0.0, 1.0), level(0.75, 0.5))]) == pytest.approx([0.5])
    of_equals_the_smallest = accuracy_after_selection([Answers(level(1.0, 1.0), level(0.25, 0.75))])
    assert of_equals_the_smallest == pytest.approx([0.25]), "as the search does"


def test_equal_students_keep_their_order():
    alike = np.tile([1.0, 0.0, 1.0, 1.0], 25)
    first, other = accuracy_after_selection([Answers(alike[None], alike[None]), Answers(alike[None], alike[None])])
    assert first == other == pytest.approx(0.75, abs=0.01)


def test_the_result_is_deterministic_and_depends_little_on_the_seed():
    students = next(iter(simulations(LADDER, 0.6)))[2]
    assert (accuracy_after_selection(students) == accuracy_after_selection(students)).all()
    assert np.abs(accuracy_after_selection(students) - accuracy_after_selection(students, seed=1)).max() < 0.005


def test_selection_on_a_single_text_is_refused():
    with pytest.raises(ValueError, match="dev holds 1 text"):
        accuracy_after_selection([Answers(np.ones((2, 1)), np.ones((2, 1)))])


def test_the_interval_is_wider_for_fewer_texts_and_a_larger_correction_and_never_a_point():
    low, high = interval_on_new_texts(1.0, 1.0, 100, 1000, 2, 0.0)
    assert low < 0.99 and high == 1.0
    widths = [np.diff(interval_on_new_texts(0.5, 0.5, n, n, 3, 0.01))[0] for n in (100, 400, 1600)]
    assert widths[0] > widths[1] > widths[2] > 0.04
    plain, corrected = interval_on_new_texts(0.8, 0.8, 320, 400, 1, 0.0), interval_on_new_texts(0.8, 0.77, 320, 400, 1, 0.0)
    assert corrected[1] == plain[1] and plain[0] - corrected[0] == pytest.approx(0.03, abs=0.004)
