import math

import pytest
import torch

from pdstudy.models.losses import hard_label_loss, mlm_loss, row_words_loss, soft_label_loss

LOG3 = math.log(3)


@pytest.mark.parametrize("loss", [hard_label_loss, mlm_loss])
def test_cross_entropy_by_hand(loss):
    logits = torch.tensor([[LOG3, 0.0], [0.0, LOG3]])  # (3/4, 1/4) and (1/4, 3/4)
    assert loss(logits, torch.tensor([0, 0])).item() == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2, abs=1e-6)


def test_mlm_loss_of_equal_logits_is_the_logarithm_of_the_vocabulary():
    assert mlm_loss(torch.zeros(3, 50), torch.tensor([0, 7, 49])).item() == pytest.approx(math.log(50), abs=1e-6)


def test_losses_of_half_precision_logits_are_summed_in_single():
    assert mlm_loss(torch.zeros(2, 30_000, dtype=torch.bfloat16), torch.tensor([1, 2])).item() == pytest.approx(
        math.log(30_000), abs=1e-5
    )


def test_row_words_loss_by_hand_in_whatever_order_the_pieces_stand():
    logits = torch.tensor([[LOG3, 0.0], [0.0, 0.0]])  # (3/4, 1/4) and (1/2, 1/2)
    expected = -(2 * math.log(0.75) + math.log(0.25) + 3 * math.log(0.5)) / 6
    for rows in ([[0, 0, 1], [1, 1, 0]], [[1, 0, 0], [0, 1, 1]]):
        assert row_words_loss(logits, torch.tensor(rows)).item() == pytest.approx(expected, abs=1e-6)


def test_soft_label_loss_by_hand():
    teacher = torch.tensor([[LOG3, 0.0]])  # (3/4, 1/4)
    student = torch.tensor([[0.0, LOG3]])  # (1/4, 3/4)
    assert soft_label_loss(student, teacher).item() == pytest.approx(-(0.75 * math.log(0.25) + 0.25 * math.log(0.75)), abs=1e-6)


def test_soft_label_loss_is_the_teachers_entropy_when_the_student_agrees():
    teacher = torch.tensor([[0.25, 0.75]]).log()
    assert soft_label_loss(teacher + 5.0, teacher).item() == pytest.approx(0.5623, abs=1e-4)


def test_no_student_is_below_the_teachers_entropy():
    teacher = torch.tensor([[0.25, 0.75]]).log()
    losses = [soft_label_loss(torch.tensor([[0.0, x]]), teacher).item() for x in torch.linspace(-3, 3, 61)]
    assert min(losses) >= 0.56233
    assert losses.index(min(losses)) == round((LOG3 + 3) * 10)  # and the least one is where they agree


def test_a_certain_teacher_gives_the_hard_label_loss():
    student = torch.tensor([[0.3, -1.2, 0.5], [2.0, 0.1, -0.4]])
    labels = torch.tensor([2, 0])
    certain = 1000.0 * torch.nn.functional.one_hot(labels, 3)
    assert soft_label_loss(student, certain).item() == pytest.approx(hard_label_loss(student, labels).item(), abs=1e-6)


def test_the_mean_is_over_texts():
    teacher, student = torch.tensor([[1.0, -1.0], [0.0, 2.0]]), torch.tensor([[0.5, 0.0], [1.0, 1.0]])
    each = [soft_label_loss(student[i : i + 1], teacher[i : i + 1]).item() for i in (0, 1)]
    assert soft_label_loss(student, teacher).item() == pytest.approx(sum(each) / 2, abs=1e-6)


def test_temperature_softens_both_and_is_scaled_by_its_square():
    teacher, student = torch.tensor([[2 * LOG3, 0.0]]), torch.tensor([[0.0, 2 * LOG3]])
    at_one = soft_label_loss(student / 2, teacher / 2).item()  # (3/4, 1/4) against (1/4, 3/4)
    assert soft_label_loss(student, teacher, 2.0).item() == pytest.approx(4 * at_one, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_gradient_is_student_minus_teacher(temperature):
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3, dtype=torch.float64, requires_grad=True), torch.randn(4, 3, dtype=torch.float64)
    soft_label_loss(student, teacher, temperature).backward()
    wanted = temperature * ((student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)) / 4
    assert torch.allclose(student.grad, wanted, atol=1e-6)  # the loss itself is summed in single precision


@pytest.mark.parametrize("loss", [mlm_loss, hard_label_loss])
def test_the_gradient_of_a_hard_loss_is_student_minus_label(loss):
    torch.manual_seed(1)
    student, labels = torch.randn(5, 4, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1, 2, 3, 0])
    loss(student, labels).backward()
    wanted = (student.softmax(-1) - torch.nn.functional.one_hot(labels, 4)) / 5
    assert torch.allclose(student.grad, wanted, atol=1e-6)
