"""Similarity of student and teacher: exact values for small examples."""

import math

import numpy as np
import pytest
from scipy.special import softmax

from pdstudy.analysis import fidelity


def test_a_student_that_is_its_teacher_agrees_and_does_not_diverge():
    p = softmax(np.random.default_rng(0).normal(size=(50, 3)), axis=1)
    assert fidelity.agreement(p, p) == 1 and fidelity.divergence(p, p) == pytest.approx(0)


def test_divergence_is_the_teachers_from_the_student_by_hand():
    teacher, student = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0.25, 0.75], [0.5, 0.5]])
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert fidelity.divergence(student, teacher) == pytest.approx((first + math.log(2)) / 2)
    assert (
        fidelity.agreement(student, teacher) == 0.5
    )  # the first student names class 1, the teacher (a tie) class 0; ties go to the first


def test_calibration_error_is_the_gap_of_confidence_and_accuracy_by_hand():
    p = np.array([[0.8, 0.2]] * 4 + [[0.6, 0.4]] * 4)
    labels = np.array([0, 0, 0, 1, 0, 0, 1, 1])  # 75 % right at 0.8, half right at 0.6
    assert fidelity.calibration_error(p, labels) == pytest.approx((0.05 + 0.1) / 2)


def test_a_study_tells_of_every_student_and_its_teacher_agrees_with_itself(smoke):
    table = fidelity.table("smoke").set_index("recipe")
    assert table.loc["teacher", "agreement"] == 1 and table.loc["teacher", "divergence"] == pytest.approx(0)
    assert table.agreement.between(0, 1).all() and len(table) == 3 + sum(2 * len(smoke.sizes_of(r)) for r in smoke.recipes)
