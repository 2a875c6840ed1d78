"""Sizes of compact BERTs: the paper's 24 (Table 2a), the five with a name, and the exact number of parameters.

Layers and hidden width give everything else, as in the paper: heads = hidden / 64, feed-forward = 4 x hidden.
"""

import re
from dataclasses import dataclass

HEAD_WIDTH = 64
BERT_VOCABULARY = 30_522
POSITIONS = 512
SEGMENTS = 2


@dataclass(frozen=True, order=True)
class Size:
    """The size of a BERT, written "layers/hidden", such as "4/256". Raises ValueError if no BERT has that size."""

    layers: int
    hidden: int

    def __post_init__(self):
        if self.layers < 1:
            raise ValueError(f"size {self}: needs at least one layer")
        if self.hidden < HEAD_WIDTH or self.hidden % HEAD_WIDTH:
            below = max(HEAD_WIDTH, self.hidden // HEAD_WIDTH * HEAD_WIDTH)
            raise ValueError(
                f"size {self}: the hidden width must be a multiple of {HEAD_WIDTH} (one head each); "
                f"try {self.layers}/{below} or {self.layers}/{below + HEAD_WIDTH}"
            )

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Return the size written as "layers/hidden" or as one of five names (tiny to base). Raises ValueError."""
        if str(text).lower() in NAMED:
            return NAMED[str(text).lower()]
        match = re.fullmatch(r"(\d{1,3})/(\d{1,5})", str(text).strip())
        if match is None:
            raise ValueError(f'size {text!r} is not "layers/hidden", such as "2/128", nor one of {sorted(NAMED)}')
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.layers}/{self.hidden}"

    @property
    def heads(self) -> int:
        """Return the number of attention heads."""
        return self.hidden // HEAD_WIDTH

    def n_params(self, vocab_size: int = BERT_VOCABULARY) -> int:
        """Return the exact number of parameters with pooler and MLM head (decoder tied), as counted in the paper's Table 2a."""
        h = self.hidden
        embeddings = (vocab_size + POSITIONS + SEGMENTS) * h + 2 * h
        layers, pooler, head = self.layers * (12 * h * h + 13 * h), h * h + h, h * h + 3 * h + vocab_size
        return embeddings + layers + pooler + head

    def flops_per_token(self, length: int) -> float:
        """Return the floating-point operations of a forward pass per token, for texts of `length` tokens, without the output layer."""
        return self.layers * (24 * self.hidden**2 + 4 * length * self.hidden)


NAMED = {
    "tiny": Size(2, 128),
    "mini": Size(4, 256),
    "small": Size(4, 512),
    "medium": Size(8, 512),
    "base": Size(12, 768),
}
PAPER_SIZES = tuple(Size(layers, hidden) for hidden in (128, 256, 512, 768) for layers in (2, 4, 6, 8, 10, 12))
