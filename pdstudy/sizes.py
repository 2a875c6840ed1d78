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

    @property
    def name(self) -> str | None:
        """Return the paper's name for this size, or None."""
        return next((name for name, size in NAMED.items() if size == self), None)

    def n_encoder_params(self, vocab_size: int = BERT_VOCABULARY, positions: int = POSITIONS) -> int:
        """Return the exact number of parameters of the embeddings, layers and pooler."""
        h = self.hidden
        embeddings = (vocab_size + positions + SEGMENTS) * h + 2 * h
        return embeddings + self.layers * (12 * h * h + 13 * h) + (h * h + h)

    def n_params(self, vocab_size: int = BERT_VOCABULARY, positions: int = POSITIONS) -> int:
        """Return the exact number of parameters with the MLM head (decoder tied), as counted in the paper's Table 2a."""
        h = self.hidden
        return self.n_encoder_params(vocab_size, positions) + (h * h + h) + 2 * h + vocab_size

    def n_classifier_params(self, vocab_size: int, n_classes: int, positions: int = POSITIONS) -> int:
        """Return the exact number of parameters of a student: encoder, pooler and classifier."""
        return self.n_encoder_params(vocab_size, positions) + n_classes * (self.hidden + 1)

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
