"""The output layer over the vocabulary and its loss in one, a block of masked positions at a time.

A compact model's logits are larger than all else that a step makes, and would pass through main memory again and again on
their way to the gradients. A block of them stays in a core's cache, and is forgotten there.
"""

import torch
from torch import Tensor

BLOCK = 128  # positions: with 8,192 words 4 MB of logits


def mlm_loss(hidden: Tensor, weight: Tensor, bias: Tensor, pieces: Tensor) -> Tensor:
    """Mean cross-entropy of the masked pieces, a scalar: `losses.mlm_loss` of `hidden @ weight.T + bias`; 0 for no piece.

    `hidden` is (n_masked, hidden), `weight` (vocabulary, hidden), `bias` (vocabulary,), `pieces` (n_masked,). Under autocast
    the products are made in its precision, the exponentials and sums are not. It can be differentiated once.
    """
    kind = hidden.device.type
    low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    return _ReadOut.apply(hidden, weight, bias, pieces, low)


class _ReadOut(torch.autograd.Function):
    """The loss, and on the way to it the gradients, which then only wait for their factor."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, pieces, low):
        n, exact = len(pieces), weight.dtype
        block = min(n, BLOCK) if hidden.device.type == "cpu" else n  # a GPU would wait for so many small calls
        to_hidden, to_weight, to_bias = torch.empty_like(hidden), torch.zeros_like(weight), torch.zeros_like(bias)
        total, logits, x, words = weight.new_zeros(()), weight.new_empty(block, len(weight)), hidden.to(low), weight.to(low)
        with torch.autocast(hidden.device.type, enabled=False):
            for begin in range(0, n, max(1, block)):
                part = slice(begin, begin + block)
                a, y = x[part], pieces[part]
                p = logits[: len(a)]
                torch.mm(a, words.T, out=p) if low == exact else p.copy_(a @ words.T)
                right, most = p.add_(bias).gather(1, y[:, None]), p.amax(1, keepdim=True)
                sums = p.sub_(most).exp_().sum(1, keepdim=True)  # p / sums are the probabilities
                total += (sums.log() + most - right).sum()
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
            raise RuntimeError("the loss of the read-out can be differentiated once")
        return *(g.mul_(factor / ctx.n) for g in gradients), None, None
