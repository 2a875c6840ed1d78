import math

import pytest
import torch
import torch.nn.functional as F

from pdstudy.models import fused_loss


def drawn(n: int, width: int, words: int, seed: int, dtype=torch.float64):
    """Return hidden states, output weights, biases and the right pieces."""
    torch.manual_seed(seed)
    hidden, weight, bias = (torch.randn(shape, dtype=dtype) for shape in ((n, width), (words, width), (words,)))
    return [t.requires_grad_() for t in (hidden, weight, bias)], torch.randint(words, (n,))


def both(inputs, pieces, block: int, monkeypatch) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return (loss, gradients) of the read-out in blocks, and of the whole logits."""
    monkeypatch.setattr(fused_loss, "BLOCK", block)
    found = []
    for loss in (fused_loss.mlm_loss(*inputs, pieces), F.cross_entropy(F.linear(*inputs), pieces)):
        found.append([loss.detach(), *torch.autograd.grad(3 * loss, inputs)])
    return found


@pytest.mark.parametrize("n", [1, 5, 64, 129, 300])
@pytest.mark.parametrize("block", [1, 7, 128])
def test_in_blocks_the_loss_and_its_gradients_are_those_of_the_whole_logits(n, block, monkeypatch):
    width, words = 8 + n % 9, 50 + block
    for ours, plain in zip(*both(*drawn(n, width, words, seed=n + block), block, monkeypatch), strict=True):
        torch.testing.assert_close(ours, plain.to(ours.dtype), atol=1e-12, rtol=1e-10)


def test_single_precision_is_near_double(monkeypatch):
    inputs, pieces = drawn(200, 32, 1000, seed=0, dtype=torch.float32)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    _, plain = both(exact, pieces, 64, monkeypatch)
    ours, _ = both(inputs, pieces, 64, monkeypatch)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a.double(), b, atol=2e-6, rtol=1e-5)


def test_by_hand_one_piece_of_two_words():
    weight = torch.tensor([[math.log(3.0)], [0.0]], requires_grad=True)  # probabilities 3/4 and 1/4
    loss = fused_loss.mlm_loss(torch.ones(1, 1), weight, torch.zeros(2), torch.tensor([1]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4), abs=1e-6)
    assert weight.grad.flatten().tolist() == pytest.approx([0.75, -0.75], abs=1e-6)


def test_a_word_that_was_thought_impossible_costs_its_distance_and_no_infinity():
    hidden, bias = torch.zeros(1, 4), torch.tensor([0.0, -500.0, 400.0])
    assert fused_loss.mlm_loss(hidden, torch.zeros(3, 4), bias, torch.tensor([1])).item() == pytest.approx(900.0)


def test_no_piece_is_no_loss_and_no_gradient_but_a_path_to_every_weight():
    inputs, _ = drawn(0, 8, 20, seed=0)
    loss = fused_loss.mlm_loss(*inputs, torch.zeros(0, dtype=torch.int64))
    assert loss.item() == 0.0
    assert all(not g.any() for g in torch.autograd.grad(loss, inputs))


def test_under_autocast_products_are_half_and_sums_are_single():
    inputs, pieces = drawn(300, 16, 4000, seed=0, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        half = fused_loss.mlm_loss(*inputs, pieces)
        zero = fused_loss.mlm_loss(torch.zeros(2, 16), torch.zeros(30_000, 16), torch.zeros(30_000), torch.tensor([1, 2]))
    assert half.dtype == torch.float32 and half.item() == pytest.approx(fused_loss.mlm_loss(*inputs, pieces).item(), rel=2e-3)
    assert half.item() != fused_loss.mlm_loss(*inputs, pieces).item()
    assert zero.item() == pytest.approx(math.log(30_000), abs=1e-5)


def test_a_second_backward_is_an_error():
    inputs, pieces = drawn(3, 4, 9, seed=0)
    loss = fused_loss.mlm_loss(*inputs, pieces)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()
