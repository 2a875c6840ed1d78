"""When another seed cannot change the recommendation: hand-sized tables of answers on dev."""

import math

import numpy as np
import pandas as pd
import pytest

from pdstudy.advice import early_stop
from pdstudy.advice.candidates import Candidates

N = 400  # texts of dev
SIZES = {"Linear": "linear", "PF": "2/128", "PD": "2/128", "Basic": "4/128"}
PF, PD = ("PF", "2/128"), ("PD", "2/128")


class ByHand(Candidates):
    """Students from the numbers of dev texts that they answer right, one number for each seed; all of them the easiest texts first."""

    def __init__(self, outside=(), **right: list[int]):
        self.cross_validation = None
        rows = [(recipe, SIZES[recipe], seed, n / N) for recipe, counts in right.items() for seed, n in enumerate(counts)]
        self.models = pd.DataFrame(rows, columns=["recipe", "size", "seed", "value"]).set_index(["recipe", "size", "seed"])
        self.models["digest"] = [f"{recipe}-{seed}" for recipe, _, seed, _ in rows]
        self.models = self.models.sort_index()
        self._right = {(f"{r}-{seed}", "dev"): (np.arange(N) < right[r][seed]).astype(float) for r, _, seed, _ in rows}
        self.table = pd.DataFrame(
            {"recipe": r, "size": SIZES[r], "seeds": len(counts), "dev": 100 * np.mean(counts) / N, "fits": r not in outside}
            for r, counts in right.items()
        )
        self.table["p50_ms"] = self.table["mb"] = 1.0


def test_a_mean_over_seeds_moves_less_with_every_seed_and_more_if_both_students_get_one():
    one = ByHand(Linear=[320], PF=[324])
    assert early_stop.move(one, 1, 1) == pytest.approx(1.96 * math.sqrt(1 / 2))
    assert early_stop.move(one, 2, 1) == pytest.approx(1.96 * math.sqrt(1 / 6))
    assert early_stop.move(one, 2, 2) == pytest.approx(1.96 * math.sqrt(2 / 6))
    spread = ByHand(Linear=[320], PF=[312, 328])  # 78 and 82 %: a standard deviation of 2.8 points
    assert early_stop.move(spread, 2, 1) == pytest.approx(1.96 * math.sqrt(8) * math.sqrt(1 / 6))


def test_the_linear_model_stays_where_no_student_can_become_significantly_better():
    worse = ByHand(Linear=[340], PF=[332], PD=[320])  # PF is 2 points below
    assert early_stop.why(worse, [PF, PD]) == (
        "another seed can bring 2/128 by PF to -0.6 points against the linear model on dev, and to be significantly better it needs "
        "more than +1.4"
    )
    near = ByHand(Linear=[340], PF=[341])  # 0.25 points above, not significantly
    assert early_stop.why(near, [PF]) == ""
    assert early_stop.why(ByHand(Linear=[340], PF=[332]), []) == "no student is near the linear model on dev"


def test_a_student_stays_where_no_other_can_be_half_a_point_better():
    assert early_stop.why(ByHand(Linear=[200], PF=[340], PD=[338]), [PF, PD]) == "", "0.5 points below may be 2.3 above"
    far = ByHand(Linear=[200], PF=[340], PD=[328])  # 3 points below, and two means move by 2.0 at most
    assert early_stop.why(far, [PF, PD]) == "with another seed no student can be more than 0.5 points above 2/128 by PF on dev"
    assert early_stop.why(far, [PF]) == "no other student is near 2/128 by PF on dev"


def test_a_student_that_is_hardly_better_than_the_linear_model_gets_another_seed():
    hardly = ByHand(Linear=[320], PF=[328])  # 2 points, 1.4 are significant, and one seed moves it by 1.4
    assert early_stop.why(hardly, [PF]) == ""
    assert early_stop.why(ByHand(Linear=[320], PF=[340]), [PF]) == "no other student is near 2/128 by PF on dev"


def test_students_outside_the_limits_do_not_count():
    assert early_stop.why(ByHand(Linear=[340], PF=[341], outside=("PF",)), [PF]) == "no student is near the linear model on dev"
    none = ByHand(Linear=[340], PF=[341], outside=("PF", "Linear"))
    assert early_stop.why(none, [PF]) == "no student is within the limits"
