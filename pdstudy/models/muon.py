"""Muon, the optimiser of the layers' matrices (Jordan et al., 2024), in the precision of the training step.

torch.optim.Muon always orthogonalises in bf16, which takes a third of a pre-training step on a CPU without bf16 instructions. In
bf16 this implementation equals torch's bit for bit; in fp32 its update is the same up to rounding, in half the time.
"""

import math

import torch
from torch import Tensor

from pdstudy.models.optimisers import Optimiser

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan et al. (2024): steep at zero, near one everywhere else
ITERATIONS, SMALLEST = 5, 1e-7
WIDE = 2  # a matrix at least this many times wider than high is orthogonalised through its Gram matrix


class Muon(Optimiser):
    """Nesterov momentum with orthogonalised updates and decoupled weight decay; parameters are matrices."""

    def __init__(self, params, lr: float, weight_decay: float, dtype: torch.dtype):
        super().__init__([{"params": params}], lr=lr, weight_decay=weight_decay)
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix from its gradient; on a GPU in bf16 those of one shape together, with a sixth of the kernels."""
        for group in self.param_groups:
            if self.dtype == torch.bfloat16 and group["params"][0].device.type == "cuda":
                self.step_stacked(group)
                continue
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                momentum = state["momentum_buffer"].lerp_(p.grad, 1 - MOMENTUM)
                update = orthogonal(p.grad.lerp(momentum, MOMENTUM).to(self.dtype))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * math.sqrt(max(1, p.shape[0] / p.shape[1])))

    @torch.no_grad()
    def step_stacked(self, group: dict) -> None:
        """Update the matrices of a group, those of one shape together."""
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for p in group["params"]:
            by_shape.setdefault(p.shape, []).append(p)
        for (rows, columns), matrices in by_shape.items():
            for p in matrices:
                if not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            gradients, momenta = [p.grad for p in matrices], [self.state[p]["momentum_buffer"] for p in matrices]
            torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
            stacked = torch.stack(torch._foreach_lerp(gradients, momenta, MOMENTUM)).to(self.dtype)
            updates = orthogonal_stack(stacked).to(matrices[0].dtype).unbind()
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(matrices, updates, alpha=-group["lr"] * math.sqrt(max(1, rows / columns)))


def orthogonal_stack(x: Tensor) -> Tensor:
    """Return `orthogonal` of each matrix of a stack, (n, rows, columns)."""
    a, b, c = COEFFICIENTS
    y = x.mT if (tall := x.shape[1] > x.shape[2]) else x
    y = y / y.norm(dim=(1, 2), keepdim=True).clamp(min=SMALLEST)
    for _ in range(ITERATIONS):
        gram = y @ y.mT
        y = torch.baddbmm(y, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return y.mT if tall else y


def orthogonal(x: Tensor) -> Tensor:
    """Return U S V', (rows, columns), where x = U D V' and S lies between about 0.5 and 1.5: five Newton-Schulz iterations.

    For a wide fp32 matrix the iterations run on the square Gram matrix and a factor to the left of x, which costs half as much. This
    is possible because x keeps its row space.
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
