"""What the optimisers share, AdamW by torch's fused kernel, and the clipping of gradients.

`torch.optim.Optimizer` is not used: the first one made imports torch's compiler, two seconds in every worker process, and its hooks
take half a millisecond of every step.
"""

from typing import Any

import torch
from torch import Tensor, nn

EPSILON = 1e-8
CLIP = 1.0  # largest gradient norm, as in BERT


class Optimiser:
    """Groups of parameters with their settings, and the tensors that are kept for each parameter between steps."""

    def __init__(self, groups: list[dict[str, Any]], **defaults):
        self.param_groups = [defaults | group for group in groups]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {p: {} for group in self.param_groups for p in group["params"]}

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for p in self.state:
            p.grad = None

    def slots(self) -> dict[int, dict[str, Tensor]]:
        """Return the tensors of each parameter by its number; a parameter that no gradient has reached has none."""
        return {i: slots for i, slots in enumerate(self.state.values()) if slots}

    def load(self, slots: dict[int, dict[str, Tensor]]) -> None:
        """Put back what `slots` returned."""
        for i, p in enumerate(self.state):
            self.state[p] = {name: value.to(p.device) for name, value in slots.get(i, {}).items()}


class AdamW(Optimiser):
    """AdamW (Loshchilov and Hutter, 2019), the same as `torch.optim.AdamW(fused=True)` bit for bit."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]):
        super().__init__(groups, lr=lr)
        self.betas = betas

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            for p in trained:
                if not self.state[p]:
                    step = torch.zeros((), dtype=torch.float32, device=p.device)
                    self.state[p] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            slots = [self.state[p] for p in trained]
            first, second, steps = ([s[name] for s in slots] for name in ("exp_avg", "exp_avg_sq", "step"))
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                trained, [p.grad for p in trained], first, second, [], steps,
                amsgrad=False, lr=group["lr"], beta1=self.betas[0], beta2=self.betas[1],
                weight_decay=group["weight_decay"], eps=EPSILON, maximize=False, grad_scale=None, found_inf=None,
            )  # fmt: skip


def clip(parameters: list[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients, a scalar, after scaling them in place if it is above CLIP.

    The result is that of `torch.nn.utils.clip_grad_norm_`, bit for bit. That function always multiplies, to avoid waiting for a
    GPU; on a CPU the comparison is free and saves one small call per weight.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if norm.device.type != "cpu":
        torch.nn.utils.clip_grads_with_norm_(parameters, CLIP, norm)
    elif not (factor := float(CLIP / (norm + 1e-6))) >= 1:  # `not >= 1` also catches NaN
        torch._foreach_mul_(gradients, factor)
    return norm
