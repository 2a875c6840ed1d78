"""A BERT for tests: of 100 pieces, with every weight random, and inputs for it."""

import torch

from pdstudy.models import encoder
from pdstudy.sizes import Size

VOCABULARY = 100


def config_of(size: str = "2/64", dropout: float = 0.1, n_classes: int = 3):
    return encoder.bert_config(Size.parse(size), VOCABULARY, init_std=0.2, dropout=dropout, n_classes=n_classes)


def stirred(model: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Return the model with every weight random, biases and norms too, so that none can be left out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model.eval()


def some_ids(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def a_mask(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    """Return a mask with real pieces at the start of every row and nowhere else."""
    lengths = torch.randint(1, length + 1, (batch, 1), generator=torch.Generator().manual_seed(seed))
    return torch.arange(length) < lengths
