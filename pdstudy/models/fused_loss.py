"""The output layer over the vocabulary fused with its loss, one block of masked positions at a time.

A compact model's logits are its largest activations, and their gradients would move them through main memory several times. A
block of them stays in a core's cache.
"""

import torch
from torch import Tensor

BLOCK = 128  # positions: with 8,192 words 4 MB of logits


def mlm_loss(hidden: Tensor, weight: Tensor, bias: Tensor, pieces: Tensor) -> Tensor:
    """Mean cross-entropy of the masked pieces, a scalar: `losses.mlm_loss` of `hidden @ weight.T + bias`; 0 without pieces.

    `hidden` is (n_masked, hidden), `weight` (vocabulary, hidden), `bias` (vocabulary,), `pieces` (n_masked,). Under autocast
    only the products are computed in its precision. It can be differentiated once.
    """
    kind = hidden.device.type
    low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    return _FusedLoss.apply(hidden, weight, bias, pieces, low)


class _FusedLoss(torch.autograd.Function):
    """The loss and its gradients, which `backward` only scales."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, pieces, low):
        n, exact = len(pieces), weight.dtype
        block = min(n, BLOCK) if hidden.device.type == "cpu" else n  # many small calls would slow a GPU down
        to_hidden, to_weight, to_bias = torch.empty_like(hidden), torch.zeros_like(weight), torch.zeros_like(bias)
        total, logits, x, words = weight.new_zeros(()), weight.new_empty(block, len(weight)), hidden.to(low), weight.to(low)
        with torch.autocast(hidden.device.type, enabled=False):
            for begin in range(0, n, max(1, block)):
                part = slice(begin, begin + block)
                a, y = x[part], pieces[part]
                p = logits[: len(a)]
                torch.mm(a, words.T, out=p) if low == exact else p.copy_(a @ words.T)
                correct, largest = p.add_(bias).gather(1, y[:, None]), p.amax(1, keepdim=True)
                sums = p.sub_(largest).exp_().sum(1, keepdim=True)  # p / sums are the probabilities
                total += (sums.log() + largest - correct).sum()
                to_bias += ((1 / sums).T @ p)[0]
                q = p.to(low)
                to_hidden[part] = (q @ words) / sums - weight[y]
                scaled = (a / sums).to(low)
                to_weight.addmm_(q.T, scaled) if low == exact else to_weight.add_(q.T @ scaled)
            to_weight.index_add_(0, pieces, hidden.to(exact), alpha=-1)
            to_bias.index_add_(0, pieces, torch.ones_like(pieces, dtype=bias.dtype), alpha=-1)
        ctx.gradients, ctx.n = (to_hidden, to_weight, to_bias), max(1, n)
        return total / ctx.n

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, factor):
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the fused loss can be differentiated once")
        return *(g.mul_(factor / ctx.n) for g in gradients), None, None
