"""Muon, the optimiser of the layers' matrices, in the precision of the step that uses it.

torch.optim.Muon orthogonalises in bf16 whatever it is asked; on a processor without bf16 tiles that is a third of a
pre-training step. In bf16 this one gives torch's bits, in fp32 the same update to rounding, in half the time.
"""

import math

import torch
from torch import Tensor

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan et al. (2024): steep at zero, near one everywhere else
ITERATIONS, SMALLEST = 5, 1e-7
WIDE = 2  # from so many times as wide as high on, a matrix is orthogonalised through its Gram matrix


class Muon(torch.optim.Optimizer):
    """Momentum (Nesterov's) whose update is made orthogonal, with decoupled weight decay; parameters are matrices."""

    def __init__(self, params, lr: float, weight_decay: float, dtype: torch.dtype):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every matrix from its gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                held = state["momentum_buffer"].lerp_(p.grad, 1 - MOMENTUM)
                update = orthogonal(p.grad.lerp(held, MOMENTUM).to(self.dtype))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * math.sqrt(max(1, p.shape[0] / p.shape[1])))


def orthogonal(x: Tensor) -> Tensor:
    """Return U S V', (rows, columns), where x = U D V' and S lies between about 0.5 and 1.5: five Newton-Schulz iterations.

    A wide fp32 matrix is never iterated itself: X stays in the row space of the first one, so the iterations run on the
    square Gram matrix and the factor to the left of X, and cost half as much.
    """
    a, b, c = COEFFICIENTS
    y = x.T if (tall := x.shape[0] > x.shape[1]) else x
    y = y / y.norm().clamp(min=SMALLEST)
    if y.shape[1] < WIDE * y.shape[0] or y.dtype != torch.float32:
        for _ in range(ITERATIONS):
            gram = y @ y.T
            y = torch.addmm(y, torch.addmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
        return y.T if tall else y
    gram, left = y @ y.T, None
    for i in range(ITERATIONS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        left = factor if left is None else factor @ left
        if i < ITERATIONS - 1:
            gram = factor @ gram @ factor  # both are polynomials of one matrix and commute
    y = left @ y
    return y.T if tall else y
