"""AdamW equals torch's bit for bit, and goes on from its saved tensors."""

import torch

from pdstudy.models.optimisers import AdamW

SHAPES = [(300, 16), (16, 48), (16,), (7,)]
BETAS, RATE, DECAY = (0.9, 0.98), 3e-3, 0.1


def parameters() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(i))) for i, shape in enumerate(SHAPES)]


def groups(weights: list) -> list[dict]:
    return [{"params": weights[:2], "weight_decay": DECAY}, {"params": weights[2:], "weight_decay": 0.0}]


def train(weights: list, optimiser, steps: range) -> None:
    """Train all weights but the last, with another rate in each step."""
    for step in steps:
        for i, p in enumerate(weights[:-1]):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * step + i))
        for group in optimiser.param_groups:
            group["lr"] = RATE / (step + 1)
        optimiser.step()
        optimiser.zero_grad()


def test_the_weights_are_those_of_torch_bit_for_bit():
    ours, theirs = parameters(), parameters()
    train(ours, AdamW(groups(ours), RATE, BETAS), range(20))
    train(theirs, torch.optim.AdamW(groups(theirs), lr=RATE, betas=BETAS, fused=True), range(20))
    assert all(map(torch.equal, ours, theirs))
    assert torch.equal(ours[-1], parameters()[-1]), "without a gradient nothing is decayed"


def test_it_goes_on_from_its_saved_tensors_as_if_it_had_not_stopped():
    whole, stopped = parameters(), parameters()
    train(whole, AdamW(groups(whole), RATE, BETAS), range(8))
    first = AdamW(groups(stopped), RATE, BETAS)
    train(stopped, first, range(5))
    assert set(first.slots()) == {0, 1, 2}
    resumed = AdamW(groups(stopped), RATE, BETAS)
    resumed.load({i: {name: t.clone() for name, t in slots.items()} for i, slots in first.slots().items()})
    train(stopped, resumed, range(5, 8))
    assert all(map(torch.equal, whole, stopped))
