"""Intervals over seeds and items: by hand on tiny tables, and by simulation where the truth is known."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats

from pdstudy.analysis import stats
from pdstudy.analysis.stats import Effect, crossed_effect, holm, mean_interval


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# Two-way tables


def test_a_table_of_equal_parts_by_hand():
    # Means 1 and 3 by seed and by item, no rest: both mean squares are 4, their sum 8 has 8^2 / (4^2 + 4^2) = 2 degrees of freedom.
    found = crossed_effect(np.array([[0.0, 2.0], [2.0, 4.0]]))
    assert (found.estimate, found.df, found.n_seeds, found.n_items) == (2, pytest.approx(2), 2, 2)
    assert (found.low, found.high) == pytest.approx((2 - 4.30265 * math.sqrt(8 / 4), 2 + 4.30265 * math.sqrt(8 / 4)), rel=1e-5)
    assert found.p == pytest.approx(1 - math.sqrt(2) / 2)  # Student's distribution has a closed form at 2 degrees of freedom


def test_a_table_with_a_rest_by_hand():
    # Means 0 and 1 by seed, 0, 0 and 1.5 by item; rest +-0.5, +-0.5, 0. Mean squares 1.5, 1.5 and 0.5.
    found = crossed_effect(np.array([[0.0, -1.0, 1.0], [0.0, 1.0, 2.0]]))
    assert found.estimate == pytest.approx(0.5)
    assert found.df == pytest.approx(2.5**2 / (1.5**2 / 1 + 1.5**2 / 2 + 0.5**2 / 2))
    assert found.high - 0.5 == pytest.approx(scipy.stats.t.ppf(0.975, found.df) * math.sqrt(2.5 / 6))
    assert found.low == pytest.approx(1 - found.high)


def test_an_effect_that_differs_between_items_only_is_as_sure_as_a_t_test_over_items():
    items = np.random.default_rng(0).normal(0.1, 1, size=200)
    found = crossed_effect(np.tile(items, (4, 1)))  # four seeds that answer alike
    error = items.std(ddof=1) / math.sqrt(200)
    assert found.high - found.estimate == pytest.approx(1.972 * error, rel=0.01)


def test_an_effect_that_differs_between_seeds_only_is_as_sure_as_a_t_test_over_seeds():
    seeds = np.array([0.1, 0.3, 0.2])
    found = crossed_effect(np.tile(seeds[:, None], (1, 500)))
    assert found.df == pytest.approx(2)
    assert found.high - found.estimate == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=1e-3)


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
        found = crossed_effect(rng.normal(0.15, 1, size=(3, 60)))
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
        seen.add(found.p < 0.05)
    assert seen == {True, False}


# Coverage


@pytest.mark.parametrize(
    ("seed_spread", "item_spread", "noise"),
    [(0.03, 0.5, 0.5), (0.1, 0.5, 0.5), (0.0, 0.5, 0.5)],
    ids=["both kinds of luck", "seeds rule", "items rule"],
)
@pytest.mark.parametrize("n_seeds", [3, 5])
def test_the_95_percent_interval_holds_the_truth_about_95_times_in_100(n_seeds, seed_spread, item_spread, noise):
    rng = np.random.default_rng(12345)
    truth, n_items, runs, held = 0.02, 400, 600, 0
    for _ in range(runs):
        d = truth + seed_spread * rng.normal(size=(n_seeds, 1)) + item_spread * rng.normal(size=(1, n_items))
        found = crossed_effect(d + noise * rng.normal(size=(n_seeds, n_items)))
        held += found.low <= truth <= found.high
    assert 0.92 <= held / runs <= 0.99


def test_the_interval_also_holds_the_truth_for_answers_that_are_right_or_wrong():
    rng = np.random.default_rng(54321)
    runs, held = 600, 0
    for _ in range(runs):
        p = rng.uniform(0.3, 0.9, size=(1, 400)) + 0.02 * rng.normal(size=(5, 1))  # how easy the item, how lucky the seed
        better, worse = rng.random((5, 400)) < p + 0.04, rng.random((5, 400)) < p
        found = crossed_effect(better.astype(float) - worse)
        held += found.low <= 0.04 <= found.high
    assert 0.92 <= held / runs <= 0.995


# What cannot be known


@pytest.mark.parametrize(
    "d",
    [np.array([[0.0, 1.0, -1.0]]), np.array([[0.0], [1.0]]), np.zeros((3, 4)), np.full((3, 4), 0.1)],
    ids=["one seed", "one item", "no difference", "the same difference everywhere"],
)
def test_where_nothing_varies_there_is_an_estimate_without_interval(d):
    found = crossed_effect(d)
    assert found.estimate == pytest.approx(d.mean())
    assert not found.known
    assert all(math.isnan(v) for v in (found.low, found.high, found.p))


def test_an_effect_in_points_is_a_hundred_times_the_effect_in_shares():
    effect = Effect(0.01, -0.02, 0.04, 0.3, 3, 400, 2.5)
    assert effect.scaled(100) == Effect(1.0, -2.0, 4.0, 0.3, 3, 400, 2.5)
    assert effect.known


# One number per seed


def test_the_interval_of_a_mean_is_students_t():
    found = mean_interval(np.array([1.0, 2.0, 3.0]))
    assert found.estimate == 2
    assert found.high == pytest.approx(2 + 4.3027 / math.sqrt(3), rel=1e-4)
    assert found.low == pytest.approx(2 - 4.3027 / math.sqrt(3), rel=1e-4)
    assert found.p == pytest.approx(0.0742, abs=1e-4)  # t = 3.464 with 2 degrees of freedom


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5]], ids=["one seed", "no spread"])
def test_the_mean_of_one_seed_or_without_spread_has_no_interval(values):
    found = mean_interval(np.array(values))
    assert found.estimate == 0.5
    assert not found.known


# Families of tests


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_holms_adjusted_values_never_fall_below_a_smaller_ones_and_never_exceed_one():
    assert holm([0.02, 0.021, 0.9, 0.6]) == pytest.approx([0.08, 0.08, 1.0, 1.0])


def test_holm_leaves_one_test_alone_and_counts_unknown_ones_for_none():
    assert holm([0.04]) == [0.04]
    found = holm([math.nan, 0.04, 0.01])
    assert math.isnan(found[0])
    assert found[1:] == pytest.approx([0.04, 0.02])
    assert holm([]) == []


# Learning curves


def test_a_law_finds_its_own_points_again_and_forecasts_them():
    n = np.array([500, 1000, 2000, 4000, 8000])
    truth = stats.Law(0.80, 1.5, 0.45)
    found = stats.saturating(np.tile(n, 3), np.tile(truth.at(n), 3))
    assert found.at(16_000) == pytest.approx(truth.at(16_000), abs=1e-4)
    assert stats.held_back(n, truth.at(n)) == pytest.approx(0, abs=1e-3)


def test_the_forecast_of_noisy_curves_is_right_on_average_and_the_held_back_point_says_how_wrong():
    rng, n, truth = np.random.default_rng(0), np.array([500, 1000, 2000, 4000]), stats.Law(0.80, 1.5, 0.45)
    misses = []
    for _ in range(100):
        noisy = truth.at(n) + rng.normal(0, 0.004, (3, 4))
        misses.append(stats.saturating(np.tile(n, 3), noisy.reshape(-1)).at(8000) - truth.at(8000))
    assert abs(np.mean(misses)) < 0.004 and np.std(misses) < 0.012


def test_points_that_fall_give_a_flat_law_and_never_more_than_everything_right():
    assert stats.saturating([1, 2, 4], [0.9, 0.8, 0.7]).at(100) == pytest.approx(0.8, abs=1e-3)
    assert stats.saturating([1, 2, 4, 8], [0.90, 0.97, 0.99, 1.0]).at(1e9) <= 1.0


@pytest.mark.parametrize("texts", [[1, 2], [5, 5, 5, 7]])
def test_two_points_are_no_curve(texts):
    with pytest.raises(ValueError, match="at least three numbers of texts"):
        stats.saturating(texts, [0.5] * len(texts))


# Over texts alone, over seeds alone


def test_signs_of_seeds_are_flipped_in_every_way():
    d = np.array([[1.0, 3.0], [2.0, 4.0], [3.0, 5.0]])  # means 2, 3, 4: only all plus and all minus reach as far
    assert stats.sign_flip(d) == pytest.approx(2 / 8)
    assert stats.sign_flip(np.array([[1.0], [-1.0]])) == pytest.approx(1)


def test_sign_flips_are_uniform_where_there_is_no_difference():
    rng = np.random.default_rng(0)
    found = np.array([stats.sign_flip(rng.normal(size=(8, 1))) for _ in range(400)])
    for level in (0.05, 0.2, 0.5):
        assert (found <= level).mean() == pytest.approx(level, abs=3 * math.sqrt(level * (1 - level) / 400))


def test_the_bootstrap_over_texts_covers_the_truth_as_often_as_it_says():
    rng, held, runs = np.random.default_rng(0), 0, 300
    for _ in range(runs):
        low, high = stats.over_items(rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=(1, 250)), resamples=500)
        held += low <= 0.1 <= high
    assert 0.92 <= held / runs <= 0.98


def test_the_bootstrap_over_texts_is_scipys():
    d = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], p=[0.05, 0.6, 0.35], size=(3, 200))
    theirs = scipy.stats.bootstrap((d.mean(axis=0),), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0))
    assert stats.over_items(d, resamples=20_000) == pytest.approx(tuple(theirs.confidence_interval), abs=0.004)


def test_the_bootstrap_over_texts_of_a_large_test_set_takes_no_time():
    import time

    d, begun = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=(3, 50_000)), time.process_time()
    stats.over_items(d)
    assert time.process_time() - begun < 2


def test_texts_that_do_not_differ_and_a_single_seed_give_no_number():
    assert all(math.isnan(v) for v in stats.over_items(np.ones((3, 40))))
    assert math.isnan(stats.sign_flip(np.ones((1, 40)))) and math.isnan(stats.sign_flip(np.zeros((3, 40))))


def test_equivalence_is_two_one_sided_tests_by_hand():
    error = 0.4
    reach = scipy.stats.t.ppf(0.975, 10) * error
    found = Effect(0.3, 0.3 - reach, 0.3 + reach, 0.5, 3, 100, 10.0)
    assert stats.equivalence(found, 1.0) == pytest.approx(scipy.stats.t.sf((1 - 0.3) / error, 10))
    assert stats.not_below(found, 1.0) == pytest.approx(scipy.stats.t.sf((1 + 0.3) / error, 10))
    assert math.isnan(stats.equivalence(Effect(0.0, math.nan, math.nan, math.nan, 1, 100, 0.0), 1.0))
