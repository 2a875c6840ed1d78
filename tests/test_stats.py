"""Intervals over seeds and items: by hand on tiny tables, and by simulation with a known truth."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats

from pdstudy.analysis import stats
from pdstudy.analysis.stats import Effect, crossed_effect, holm, mean_interval, over_folds


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# Two-way tables


def test_a_table_of_equal_parts_by_hand():
    # Means 1 and 3 by seed and by item, no rest: both mean squares are 4, their sum 8 has 8^2 / (4^2 + 4^2) = 2 degrees of freedom.
    result = crossed_effect(np.array([[0.0, 2.0], [2.0, 4.0]]))
    assert (result.estimate, result.df, result.n_seeds, result.n_items) == (2, pytest.approx(2), 2, 2)
    assert (result.low, result.high) == pytest.approx((2 - 4.30265 * math.sqrt(8 / 4), 2 + 4.30265 * math.sqrt(8 / 4)), rel=1e-5)
    assert result.p == pytest.approx(1 - math.sqrt(2) / 2)  # Student's distribution has a closed form at 2 degrees of freedom


def test_a_table_with_a_rest_by_hand():
    # Means 0 and 1 by seed, 0, 0 and 1.5 by item; rest +-0.5, +-0.5, 0. Mean squares 1.5, 1.5 and 0.5.
    result = crossed_effect(np.array([[0.0, -1.0, 1.0], [0.0, 1.0, 2.0]]))
    assert result.estimate == pytest.approx(0.5)
    assert result.df == pytest.approx(2.5**2 / (1.5**2 / 1 + 1.5**2 / 2 + 0.5**2 / 2))
    assert result.high - 0.5 == pytest.approx(scipy.stats.t.ppf(0.975, result.df) * math.sqrt(2.5 / 6))
    assert result.low == pytest.approx(1 - result.high)


def test_an_effect_that_differs_between_items_only_has_the_interval_of_a_t_test_over_items():
    items = np.random.default_rng(0).normal(0.1, 1, size=200)
    result = crossed_effect(np.tile(items, (4, 1)))  # four seeds that answer alike
    error = items.std(ddof=1) / math.sqrt(200)
    assert result.high - result.estimate == pytest.approx(1.972 * error, rel=0.01)


def test_an_effect_that_differs_between_seeds_only_has_the_interval_of_a_t_test_over_seeds():
    seeds = np.array([0.1, 0.3, 0.2])
    result = crossed_effect(np.tile(seeds[:, None], (1, 500)))
    assert result.df == pytest.approx(2)
    assert result.high - result.estimate == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=1e-3)


def test_a_mean_of_zero_has_p_one():
    assert crossed_effect(np.array([[1.0, -1.0], [2.0, -2.0]])).p == pytest.approx(1)


def test_turning_the_sign_turns_the_interval_and_keeps_p():
    d = np.random.default_rng(1).normal(0.3, 1, size=(3, 50))
    a, b = crossed_effect(d), crossed_effect(-d)
    assert (b.estimate, b.low, b.high) == pytest.approx((-a.estimate, -a.high, -a.low))
    assert b.p == pytest.approx(a.p)


def test_p_is_below_a_twentieth_exactly_where_the_interval_leaves_out_zero():
    rng = np.random.default_rng(2)
    seen = set()
    for _ in range(60):
        result = crossed_effect(rng.normal(0.15, 1, size=(3, 60)))
        assert (result.p < 0.05) == (result.low > 0 or result.high < 0)
        seen.add(result.p < 0.05)
    assert seen == {True, False}


# Coverage


@pytest.mark.parametrize(
    ("seed_spread", "item_spread", "noise"),
    [(0.03, 0.5, 0.5), (0.1, 0.5, 0.5), (0.0, 0.5, 0.5)],
    ids=["seeds and items vary", "mostly seeds", "mostly items"],
)
@pytest.mark.parametrize("n_seeds", [3, 5])
def test_the_95_percent_interval_covers_the_truth_about_95_times_in_100(n_seeds, seed_spread, item_spread, noise):
    rng = np.random.default_rng(12345)
    truth, n_items, runs, covered = 0.02, 400, 600, 0
    for _ in range(runs):
        d = truth + seed_spread * rng.normal(size=(n_seeds, 1)) + item_spread * rng.normal(size=(1, n_items))
        result = crossed_effect(d + noise * rng.normal(size=(n_seeds, n_items)))
        covered += result.low <= truth <= result.high
    assert 0.92 <= covered / runs <= 0.99


def test_the_interval_also_covers_the_truth_for_answers_that_are_right_or_wrong():
    rng = np.random.default_rng(54321)
    runs, covered = 600, 0
    for _ in range(runs):
        p = rng.uniform(0.3, 0.9, size=(1, 400)) + 0.02 * rng.normal(size=(5, 1))  # ease of the item, effect of the seed
        better, worse = rng.random((5, 400)) < p + 0.04, rng.random((5, 400)) < p
        result = crossed_effect(better.astype(float) - worse)
        covered += result.low <= 0.04 <= result.high
    assert 0.92 <= covered / runs <= 0.995


# No interval


@pytest.mark.parametrize(
    "d",
    [np.array([[0.0, 1.0, -1.0]]), np.array([[0.0], [1.0]]), np.zeros((3, 4)), np.full((3, 4), 0.1)],
    ids=["one seed", "one item", "no difference", "the same difference everywhere"],
)
def test_without_variation_there_is_an_estimate_but_no_interval(d):
    result = crossed_effect(d)
    assert result.estimate == pytest.approx(d.mean())
    assert not result.known
    assert all(math.isnan(v) for v in (result.low, result.high, result.p))


def test_an_effect_in_points_is_a_hundred_times_the_effect_in_shares():
    effect = Effect(0.01, -0.02, 0.04, 0.3, 3, 400, 2.5)
    assert effect.scaled(100) == Effect(1.0, -2.0, 4.0, 0.3, 3, 400, 2.5)
    assert effect.known


# One number per seed


def test_the_interval_of_a_mean_is_students_t():
    result = mean_interval(np.array([1.0, 2.0, 3.0]))
    assert result.estimate == 2
    assert result.high == pytest.approx(2 + 4.3027 / math.sqrt(3), rel=1e-4)
    assert result.low == pytest.approx(2 - 4.3027 / math.sqrt(3), rel=1e-4)
    assert result.p == pytest.approx(0.0742, abs=1e-4)  # t = 3.464 with 2 degrees of freedom


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5]], ids=["one seed", "no spread"])
def test_the_mean_of_one_seed_or_without_spread_has_no_interval(values):
    result = mean_interval(np.array(values))
    assert result.estimate == 0.5
    assert not result.known


# Families of tests


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_holms_adjusted_values_never_fall_below_a_smaller_ones_and_never_exceed_one():
    assert holm([0.02, 0.021, 0.9, 0.6]) == pytest.approx([0.08, 0.08, 1.0, 1.0])


def test_holm_leaves_one_test_alone_and_does_not_count_nan_as_a_test():
    assert holm([0.04]) == [0.04]
    result = holm([math.nan, 0.04, 0.01])
    assert math.isnan(result[0])
    assert result[1:] == pytest.approx([0.04, 0.02])
    assert holm([]) == []


# Learning curves


def test_a_fit_recovers_the_curve_of_exact_points_and_forecasts_it():
    n = np.array([500, 1000, 2000, 4000, 8000])
    truth = stats.Law(0.80, 1.5, 0.45)
    result = stats.fit_learning_curve(np.tile(n, 3), np.tile(truth.at(n), 3))
    assert result.at(16_000) == pytest.approx(truth.at(16_000), abs=1e-4)
    assert stats.forecast_error(n, truth.at(n)) == pytest.approx(0, abs=1e-3)


def test_the_forecast_of_noisy_curves_is_unbiased():
    rng, n, truth = np.random.default_rng(0), np.array([500, 1000, 2000, 4000]), stats.Law(0.80, 1.5, 0.45)
    misses = []
    for _ in range(100):
        noisy = truth.at(n) + rng.normal(0, 0.004, (3, 4))
        misses.append(stats.fit_learning_curve(np.tile(n, 3), noisy.reshape(-1)).at(8000) - truth.at(8000))
    assert abs(np.mean(misses)) < 0.004 and np.std(misses) < 0.012


def test_falling_points_give_a_flat_curve_and_no_curve_exceeds_1():
    assert stats.fit_learning_curve([1, 2, 4], [0.9, 0.8, 0.7]).at(100) == pytest.approx(0.8, abs=1e-3)
    assert stats.fit_learning_curve([1, 2, 4, 8], [0.90, 0.97, 0.99, 1.0]).at(1e9) <= 1.0


@pytest.mark.parametrize("texts", [[1, 2], [5, 5, 5, 7]])
def test_a_curve_needs_three_numbers_of_texts(texts):
    with pytest.raises(ValueError, match="at least three numbers of texts"):
        stats.fit_learning_curve(texts, [0.5] * len(texts))


# Over texts alone, over seeds alone


def test_sign_flips_are_exact_for_few_seeds():
    d = np.array([[1.0, 3.0], [2.0, 4.0], [3.0, 5.0]])  # means 2, 3, 4: only all plus and all minus reach as far
    assert stats.sign_flip(d) == pytest.approx(2 / 8)
    assert stats.sign_flip(np.array([[1.0], [-1.0]])) == pytest.approx(1)


def test_sign_flips_are_uniform_where_there_is_no_difference():
    rng = np.random.default_rng(0)
    result = np.array([stats.sign_flip(rng.normal(size=(8, 1))) for _ in range(400)])
    for level in (0.05, 0.2, 0.5):
        assert (result <= level).mean() == pytest.approx(level, abs=3 * math.sqrt(level * (1 - level) / 400))


def test_the_bootstrap_over_texts_covers_the_truth_95_times_in_100():
    rng, covered, runs = np.random.default_rng(0), 0, 300
    for _ in range(runs):
        low, high = stats.over_items(rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=(1, 250)), resamples=500)
        covered += low <= 0.1 <= high
    assert 0.92 <= covered / runs <= 0.98


def test_the_bootstrap_over_texts_agrees_with_scipy():
    d = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], p=[0.05, 0.6, 0.35], size=(3, 200))
    theirs = scipy.stats.bootstrap((d.mean(axis=0),), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0))
    assert stats.over_items(d, resamples=20_000) == pytest.approx(tuple(theirs.confidence_interval), abs=0.004)


def test_the_bootstrap_over_texts_of_a_large_test_set_takes_no_time():
    import time

    d, begun = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=(3, 50_000)), time.process_time()
    stats.over_items(d)
    assert time.process_time() - begun < 2


def test_the_result_is_nan_for_texts_that_do_not_differ_and_for_one_seed():
    assert all(math.isnan(v) for v in stats.over_items(np.ones((3, 40))))
    assert math.isnan(stats.sign_flip(np.ones((1, 40)))) and math.isnan(stats.sign_flip(np.zeros((3, 40))))


def test_equivalence_is_two_one_sided_tests_by_hand():
    error = 0.4
    reach = scipy.stats.t.ppf(0.975, 10) * error
    result = Effect(0.3, 0.3 - reach, 0.3 + reach, 0.5, 3, 100, 10.0)
    assert stats.equivalence(result, 1.0) == pytest.approx(scipy.stats.t.sf((1 - 0.3) / error, 10))
    assert stats.not_below(result, 1.0) == pytest.approx(scipy.stats.t.sf((1 + 0.3) / error, 10))
    assert math.isnan(stats.equivalence(Effect(0.0, math.nan, math.nan, math.nan, 1, 100, 0.0), 1.0))


def test_the_interval_of_an_accuracy_adds_the_variances_of_texts_and_of_seeds():
    low, high = stats.accuracy_interval([0.5], 400)
    assert (low, high) == pytest.approx((0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025), abs=1e-5)
    low, high = stats.accuracy_interval([0.4, 0.6], 400)
    assert high - 0.5 == pytest.approx(1.96 * math.sqrt(0.025**2 + 0.02 / 2), abs=1e-5)
    low, high = stats.accuracy_interval([1.0, 1.0], 400)
    assert 0.99 < low < high == 1, "no error in 400 texts does not mean that none is possible"


def test_the_interval_over_folds_is_wider_by_the_correction_of_nadeau_and_bengio():
    effect = over_folds(np.array([1.0, 3.0]))
    error = math.sqrt(2) * math.sqrt(1 / 2 + 1)  # the standard deviation is the root of 2; k is 2
    assert effect.estimate == 2 and effect.high - effect.estimate == pytest.approx(12.7062 * error, rel=1e-5)
    assert effect.p == pytest.approx(2 * (0.5 - math.atan(2 / error) / math.pi))  # Student's t with one degree of freedom
    plain = mean_interval(np.array([1.0, 3.0]))
    assert (effect.high - 2) / (plain.high - 2) == pytest.approx(math.sqrt(3))
    assert not over_folds(np.array([1.0, 1.0])).known
