"""Muon against torch's own, and the orthogonal update against what it stands for."""

import pytest
import torch

from pdstudy import muon

SHAPES = [(16, 16), (12, 48), (48, 12), (16, 24), (1, 8), (8, 1)]


def some(shape: tuple[int, int], seed: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def trained(make, steps: int = 4) -> list[torch.Tensor]:
    matrices = [torch.nn.Parameter(some(shape, i)) for i, shape in enumerate(SHAPES)]
    optimiser = make(matrices)
    for step in range(steps):
        for i, p in enumerate(matrices):
            p.grad = some(p.shape, 100 * step + i)
        optimiser.step()
    return [p.detach() for p in matrices]


def of_torch(matrices):
    return torch.optim.Muon(matrices, lr=0.02, momentum=muon.MOMENTUM, weight_decay=0.1)


def test_in_bf16_the_weights_are_those_of_torch_bit_for_bit():
    ours = trained(lambda matrices: muon.Muon(matrices, 0.02, 0.1, torch.bfloat16))
    assert all(map(torch.equal, ours, trained(of_torch)))


def test_matrices_of_one_shape_may_be_updated_together():
    def stacked(matrices):
        optimiser = muon.Muon(matrices, 0.02, 0.1, torch.bfloat16)
        optimiser.step = lambda: optimiser.step_stacked(optimiser.param_groups[0])
        return optimiser

    for p, one in zip(trained(stacked), trained(of_torch), strict=True):
        assert (p - one).abs().max() < 2e-3  # products of stacks round otherwise


def test_in_fp32_the_weights_are_those_of_torch_to_the_rounding_of_bf16():
    start = [some(shape, i) for i, shape in enumerate(SHAPES)]
    ours = trained(lambda matrices: muon.Muon(matrices, 0.02, 0.1, torch.float32))
    for p, theirs, before in zip(ours, trained(of_torch), start, strict=True):
        assert (p - theirs).norm() < 0.02 * (theirs - before).norm()


@pytest.mark.parametrize("shape", [(16, 64), (16, 32), (64, 16), (7, 100)])
def test_a_wide_matrix_through_its_gram_matrix_is_what_the_iterations_give(shape):
    for seed in range(3):
        x = some(shape, seed) @ torch.diag(torch.logspace(0, -4, shape[1]))  # down to singular values that almost vanish
        plain = muon.orthogonal(x.double())  # which is iterated as it is
        torch.testing.assert_close(muon.orthogonal(x).double(), plain, atol=2e-4, rtol=2e-4)


def test_the_update_keeps_the_directions_and_evens_out_their_lengths():
    u, _, v = torch.linalg.svd(some((8, 24), 0), full_matrices=False)
    x = u @ torch.diag(torch.linspace(0.3, 3, 8)) @ v
    within = u.T @ muon.orthogonal(x) @ v.T  # diagonal, if the directions are kept
    assert (within - torch.diag(within.diagonal())).abs().max() < 1e-4
    assert within.diagonal().min() > 0.5 and within.diagonal().max() < 1.5
