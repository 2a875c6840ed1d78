"""The forward pass of BERT as a masked language model and as a classifier.

The weights are those of `BertForMaskedLM` and `BertForSequenceClassification` (bert.py). The forward pass is our own: queries, keys
and values are one matrix product, rows without padding need no mask, and the last layer computes queries only for positions whose
output is used, the masked pieces or a classifier's [CLS]. In a 2-layer student that saves 40 % of the products.
tests/test_models.py checks that it equals transformers' forward pass.
"""

import math
import os
import shutil
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdstudy.models import fused_loss
from pdstudy.models.bert import MaskedLM, SequenceClassifier
from pdstudy.models.bert_config import BertConfig
from pdstudy.sizes import POSITIONS, Size

POSITIONS_MULTIPLE, ROW_MULTIPLE = 32, 4  # of the masked positions of a batch and of a row, in bf16 on a CPU
POSITION_SCALE = 2 * math.sqrt(2)  # of sinusoid positions, so that their norm is twice that of the initial word embeddings


def bert_config(
    size: Size, vocab_size: int, init_std: float, dropout: float, n_classes: int = 2, heads: int | None = None
) -> BertConfig:
    """Return the configuration of a BERT of this size; `init_std` also initialises heads added later.

    `heads` is the number of attention heads; None: the size's own, one for each 64 of its width.
    """
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=heads or size.heads,
        intermediate_size=4 * size.hidden,
        max_position_embeddings=POSITIONS,
        initializer_range=init_std,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,  # dropout in attention would prevent the fused kernel; hidden states have dropout as in BERT
        num_labels=n_classes,
    )


def size_of(config: BertConfig) -> Size:
    """Return the Size of a configuration."""
    return Size(config.num_hidden_layers, config.hidden_size)


class MaskedLanguageModel(nn.Module):
    """A BERT for pre-training: (batch, length) ids and flat positions -> (n_positions, vocabulary) logits.

    With `unigram`, the (vocabulary,) counts of D_LM, a second head predicts from each row's [CLS] which pieces are in the row.
    That head is used in pre-training only and is not saved.
    """

    def __init__(self, config: BertConfig, unigram: Tensor | None = None):
        super().__init__()
        self.bert = MaskedLM(config)
        self._compiled: Callable[..., Tensor] | None = None
        self.summary = None
        if unigram is not None:
            self.summary = nn.Linear(config.hidden_size, config.hidden_size)
            self.register_buffer("prior", ((unigram + 1) / (unigram + 1).sum()).log(), persistent=False)

    def forward(
        self, ids: Tensor, positions: Tensor, pieces: Tensor | None = None, of_rows: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the logits at `positions`, indices into the flattened batch.

        With `pieces` (n_positions,), the masked pieces, return their mean loss instead, without storing all logits at once.
        With `of_rows` also return the logits of each row's words, (batch, vocabulary).
        """
        if not of_rows:
            return self._predict(self._encode(ids, positions), pieces)
        cls_positions = torch.arange(0, ids.numel(), ids.shape[1], device=ids.device)
        hidden = self._encode(ids, torch.cat([cls_positions, positions]))
        summary = torch.tanh(self.summary(hidden[: len(ids)]))
        row_logits = F.linear(summary, self.bert.bert.embeddings.word_embeddings.weight).float() + self.prior
        return self._predict(hidden[len(ids) :], pieces), row_logits

    def compile_encoder(self, batch: int, masked: int, graphs: bool) -> None:
        """Compile the encoder for batches of `batch` rows of one length with at most `masked` masked positions.

        With `graphs` use CUDA graphs. Raises ValueError if there is no C++ compiler for a CPU's kernels.
        """
        compiler = os.environ.get("CXX", "g++")
        if not graphs and shutil.which(compiler) is None:
            raise ValueError(
                f"pretrain.compile needs a C++ compiler, and {compiler} is not installed: install it, or set pretrain.compile to false"
            )
        compiled = torch.compile(encode, mode="reduce-overhead" if graphs else "default")
        n_positions = batch + masked

        def encoder(bert: nn.Module, ids: Tensor, at: Tensor) -> Tensor:
            return compiled(bert, ids, at=F.pad(at, (0, n_positions - len(at))))[: len(at)]  # padded with position 0 to one shape

        self._compiled = encoder

    def _encode(self, ids: Tensor, at: Tensor) -> Tensor:
        if self._compiled:
            return self._compiled(self.bert.bert, ids, at=at)
        n = len(at)
        # The number of masked pieces differs from step to step: round it up with some rows' first pieces.
        if _kernel_per_shape(ids):
            at = torch.cat([at, torch.arange(-n % POSITIONS_MULTIPLE) % len(ids) * ids.shape[1]])
        return encode(self.bert.bert, ids, at=at)[:n]

    def _predict(self, hidden: Tensor, pieces: Tensor | None) -> Tensor:
        decoder, x = self.bert.cls.predictions.decoder, self.bert.transform(hidden)
        return decoder(x) if pieces is None else fused_loss.mlm_loss(x, decoder.weight, decoder.bias, pieces)

    def state(self) -> dict[str, Tensor]:
        """Return the weights under transformers' names, the tied decoder once."""
        return {k: v for k, v in self.bert.state_dict().items() if not k.startswith("cls.predictions.decoder")}


class Classifier(nn.Module):
    """A BERT for classification: (batch, length) ids and their mask -> (batch, n_classes) logits."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.bert = SequenceClassifier(config)

    def forward(self, ids: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Return logits (batch, n_classes). `mask` (batch, length) is true on real pieces; None: there is no padding."""
        bert = self.bert.bert
        pool = _mean_of_pieces if getattr(bert.config, "classifier_pooling", "cls") == "mean" else encode
        pooled = torch.tanh(F.linear(pool(bert, ids, mask, segments), bert.pooler.dense.weight, bert.pooler.dense.bias))
        return self.bert.classifier(drop(pooled, self.bert.config.hidden_dropout_prob if self.training else 0.0))

    def state(self) -> dict[str, Tensor]:
        """Return the weights under transformers' names."""
        return self.bert.state_dict()


def encode(
    bert: nn.Module, ids: Tensor, mask: Tensor | None = None, segments: Tensor | None = None, at: Tensor | None = None
) -> Tensor:
    """Return the last hidden states of transformers' BertModel at each row's first piece, (batch, hidden).

    With `at`, indices into the flattened batch, return those positions, (n_positions, hidden).
    """
    config, e = bert.config, bert.embeddings
    p = config.hidden_dropout_prob if bert.training else 0.0
    n_heads = config.num_attention_heads
    x = F.embedding(ids, e.word_embeddings.weight) + e.position_embeddings.weight[: ids.shape[1]]
    x = x + (e.token_type_embeddings.weight[0] if segments is None else e.token_type_embeddings(segments))
    x = drop(_norm(x, e.LayerNorm), p)
    if mask is not None:
        mask = mask[:, None, None, :]
    for i, layer in enumerate(bert.encoder.layer):
        a, out = layer.attention.self, layer.attention.output
        last = i == len(bert.encoder.layer) - 1
        if last:  # the other pieces are keys and values only
            k, v = _heads(x, n_heads, a.key, a.value)
            x, at = _used_by_row(x, at)
            (q,) = _heads(x, n_heads, a.query)
        else:
            q, k, v = _heads(x, n_heads, a.query, a.key, a.value)
        y = attend(q, k, v, mask).transpose(1, 2).reshape(x.shape)
        if last:
            x, y = (t.flatten(0, 1) if at is None else F.embedding(at, t.flatten(0, 1)) for t in (x, y))
        x = _norm(x + drop(out.dense(y), p), out.LayerNorm)
        y = layer.output.dense(F.gelu(layer.intermediate.dense(x)))
        x = _norm(x + drop(y, p), layer.output.LayerNorm)
    return x


def _mean_of_pieces(bert: nn.Module, ids: Tensor, mask: Tensor | None, segments: Tensor | None) -> Tensor:
    """Return the mean of the last hidden states of each row's real pieces, (batch, hidden)."""
    hidden = encode(bert, ids, mask, segments, at=torch.arange(ids.numel(), device=ids.device)).view(*ids.shape, -1)
    if mask is None:
        return hidden.mean(dim=1)
    real = mask[:, :, None].to(hidden.dtype)
    return (hidden * real).sum(dim=1) / real.sum(dim=1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Return softmax(q k' / sqrt(width)) v; all are (batch, heads, length, width), `mask` (batch, 1, 1, length).

    There may be fewer queries than keys. This is torch's fused kernel, except in bf16 on a CPU, where its backward pass is five
    times slower at these lengths than the plain products.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1).to(v.dtype) @ v


def drop(x: Tensor, p: float) -> Tensor:
    """Return `x` with a share `p` of its values set to zero and the others scaled by 1 / (1 - p).

    On a CPU torch draws one random number per value, which takes a tenth of a small student's training step. Here one draw of
    64 bits decides for four values, with `p` rounded to the nearest 1/65,536.
    """
    if not p or x.device.type != "cpu":
        return F.dropout(x, p, training=bool(p))
    random = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    keep = random[: x.numel()].view(x.shape) >= round(p * 2**16) - 2**15
    return x * (keep.to(x.dtype) / (1 - p))


def _used_by_row(x: Tensor, at: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the states of each row whose output is used, (batch, n_used, hidden), and the new flat indices of those at `at`.

    Without `at` that is each row's first piece. Rows with fewer than `n_used` are padded with their first piece. On a GPU and when
    compiled, where shapes must not depend on the mask, all states are returned.
    """
    batch, length, _ = x.shape
    if at is None:
        return x[:, :1], None
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return x, at
    row = at // length
    order, counts = row.argsort(stable=True), row.bincount(minlength=batch)
    n_used, slot = max(1, int(counts.max())), torch.empty_like(at)  # under torchrun a rank may have no masked piece
    if _kernel_per_shape(x):
        n_used = -(-n_used // ROW_MULTIPLE) * ROW_MULTIPLE
    slot[order] = torch.arange(len(at)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    used, new_at = (torch.arange(batch) * length).repeat_interleave(n_used), row * n_used + slot
    used[new_at] = at
    return F.embedding(used.view(batch, n_used), x.flatten(0, 1)), new_at


def _kernel_per_shape(x: Tensor) -> bool:
    """Return whether torch compiles and keeps a kernel for each shape of a product: in bf16 on a CPU (see `stages.length_multiple`)."""
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def _heads(x: Tensor, n_heads: int, *maps: nn.Linear) -> Tensor:
    """Return the output of linear maps, computed in one product, (n_maps, batch, heads, length, width)."""
    y = F.linear(x, torch.cat([m.weight for m in maps]), torch.cat([m.bias for m in maps]))
    return y.view(*x.shape[:2], len(maps), n_heads, -1).permute(2, 0, 3, 1, 4)


def _norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def new_masked_lm(
    config: BertConfig,
    seed: int,
    positions: str = "random",
    words: np.ndarray | None = None,
    unigram: np.ndarray | None = None,
) -> MaskedLanguageModel:
    """Return a masked language model with random initial weights, except for those that the arguments initialise.

    `positions="sinusoid"` initialises the position embeddings as sinusoids, so that attention to a neighbour is easy to learn; they
    are trained like other weights. `words`, (vocabulary, hidden), initialises the word embeddings after a random rotation, because
    each head sees a block of dimensions and no block should contain all of the strongest directions. `unigram` as in
    MaskedLanguageModel.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MaskedLanguageModel(config, None if unigram is None else torch.from_numpy(unigram).float())
        rotation = torch.linalg.qr(torch.randn(config.hidden_size, config.hidden_size))[0]
    embeddings = model.bert.bert.embeddings
    with torch.no_grad():
        if positions == "sinusoid":
            table = embeddings.position_embeddings.weight
            table.copy_(sinusoids(*table.shape) * config.initializer_range * POSITION_SCALE)
        if words is not None:
            embeddings.word_embeddings.weight.copy_(torch.from_numpy(words) @ rotation)
    return model


def sinusoids(length: int, width: int) -> Tensor:
    """Return Vaswani et al.'s position table, (length, width), sines in even columns and cosines in odd ones."""
    frequency = torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2) / width)
    angle = torch.arange(length)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=2).reshape(length, width)


def new_classifier(config: BertConfig, seed: int) -> Classifier:
    """Return a classifier with random initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(config)
