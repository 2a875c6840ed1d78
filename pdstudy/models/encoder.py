"""BERT of a Size, and the two ways the study runs it.

The weights are those of `BertForMaskedLM` and `BertForSequenceClassification` (bert.py). The forward pass is ours:
queries, keys and values in one product, no mask where rows are full, and in the last layer only the positions that are
read, masked pieces or a classifier's [CLS], ask and answer: of a 2-layer student that saves four tenths of the
products. tests/test_models.py holds it equal to transformers' forward.
"""

import math
import os
import shutil
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig

from pdstudy.models import fused_loss
from pdstudy.models.bert import MaskedLM, SequenceClassifier
from pdstudy.sizes import POSITIONS, Size

POSITION_SCALE = 2 * math.sqrt(2)  # of sinusoid positions: twice as loud as the words beside them


def bert_config(size: Size, vocab_size: int, init_std: float, dropout: float, n_classes: int = 2) -> BertConfig:
    """Return the configuration of a BERT of this size; `init_std` also starts every head put on it later."""
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.hidden,
        max_position_embeddings=POSITIONS,
        initializer_range=init_std,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,  # dropping attention leaves the fused kernel; hidden states are dropped as in BERT
        num_labels=n_classes,
    )


def size_of(config: BertConfig) -> Size:
    """Return the Size of a configuration."""
    return Size(config.num_hidden_layers, config.hidden_size)


class MaskedReader(nn.Module):
    """A BERT that predicts pieces: (batch, length) ids and flat positions -> (n_positions, vocabulary) logits.

    With `unigram`, the (vocabulary,) counts of D_LM, it also tells from each row's [CLS] which pieces stand in
    the row. That head is a scaffold: it is trained and thrown away.
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
        """Return logits at `positions`, indices into the flattened batch: only those reach the output layer.

        With `pieces` (n_positions,), what stood there, return their mean loss instead: those logits are never held at once.
        With `of_rows` return also the logits of each row's words, (batch, vocabulary).
        """
        if not of_rows:
            return self._answer(self._encode(ids, positions), pieces)
        firsts = torch.arange(0, ids.numel(), ids.shape[1], device=ids.device)
        hidden = self._encode(ids, torch.cat([firsts, positions]))
        summary = torch.tanh(self.summary(hidden[: len(ids)]))
        of_row = F.linear(summary, self.bert.bert.embeddings.word_embeddings.weight).float() + self.prior
        return self._answer(hidden[len(ids) :], pieces), of_row

    def compile_encoder(self, batch: int, masked: int, graphs: bool) -> None:
        """Run the encoder compiled from now on, for rows of one length, `batch` of them with at most `masked` positions in all.

        With `graphs`, for a GPU, as CUDA graphs. Raises ValueError where a processor's kernels could not be compiled.
        """
        compiler = os.environ.get("CXX", "g++")
        if not graphs and shutil.which(compiler) is None:
            raise ValueError(
                f"pretrain.compile wants a C++ compiler, and there is no {compiler} here: install it, or set it to false"
            )
        compiled = torch.compile(encode, mode="reduce-overhead" if graphs else "default")
        most = batch + masked

        def encoder(bert: nn.Module, ids: Tensor, at: Tensor) -> Tensor:
            return compiled(bert, ids, at=F.pad(at, (0, most - len(at))))[: len(at)]  # the first piece again: one shape for all

        self._compiled = encoder

    def _encode(self, ids: Tensor, at: Tensor) -> Tensor:
        return (self._compiled or encode)(self.bert.bert, ids, at=at)

    def _answer(self, hidden: Tensor, pieces: Tensor | None) -> Tensor:
        decoder, x = self.bert.cls.predictions.decoder, self.bert.transform(hidden)
        return decoder(x) if pieces is None else fused_loss.mlm_loss(x, decoder.weight, decoder.bias, pieces)

    def state(self) -> dict[str, Tensor]:
        """Return the weights under transformers' names, the tied decoder once."""
        return {k: v for k, v in self.bert.state_dict().items() if not k.startswith("cls.predictions.decoder")}


class Classifier(nn.Module):
    """A BERT that answers: (batch, length) ids and their mask -> (batch, n_classes) logits."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.bert = SequenceClassifier(config)

    def forward(self, ids: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Return logits (batch, n_classes). `mask` (batch, length) is true on real pieces, None where all are."""
        bert = self.bert.bert
        first = encode(bert, ids, mask, segments)
        pooled = torch.tanh(F.linear(first, bert.pooler.dense.weight, bert.pooler.dense.bias))
        return self.bert.classifier(drop(pooled, self.bert.config.hidden_dropout_prob if self.training else 0.0))

    def state(self) -> dict[str, Tensor]:
        """Return the weights under transformers' names."""
        return self.bert.state_dict()


def encode(
    bert: nn.Module, ids: Tensor, mask: Tensor | None = None, segments: Tensor | None = None, at: Tensor | None = None
) -> Tensor:
    """Return the last hidden states that transformers' BertModel would give, of those pieces alone that are read.

    These are each row's first, (batch, hidden), or with `at`, indices into the flattened batch, (n_positions, hidden).
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
        if last:  # pieces that are not read are only looked at
            k, v = _heads(x, n_heads, a.key, a.value)
            x, at = _read_by_row(x, at)
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


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Return softmax(q k' / sqrt(width)) v; all are (batch, heads, length, width), `mask` (batch, 1, 1, length).

    Queries may be fewer than keys. It is torch's fused kernel but for bf16 on a CPU, where that is five times slower at
    these lengths, almost all of it in its backward pass: there the plain products are used.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1).to(v.dtype) @ v


def drop(x: Tensor, p: float) -> Tensor:
    """Return `x` with a share `p` of its values set to zero and the others scaled by 1 / (1 - p).

    On a CPU torch draws its masks one value at a time, a tenth of a small student's step: here one draw of 64 bits
    decides for four values, `p` to the nearest 65,536th.
    """
    if not p or x.device.type != "cpu":
        return F.dropout(x, p, training=bool(p))
    drawn = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    keep = drawn[: x.numel()].view(x.shape) >= round(p * 2**16) - 2**15
    return x * (keep.to(x.dtype) / (1 - p))


def _read_by_row(x: Tensor, at: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the pieces of each row that are read, (batch, most, hidden), and where those at `at` now lie in them, flat.

    Without `at` each row's first is read. A row of fewer than `most` is filled up with its first piece. Where shapes must not
    hang on what is masked, compiled and on a GPU, all pieces stay.
    """
    batch, length, _ = x.shape
    if at is None:
        return x[:, :1], None
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return x, at
    row = at // length
    order, counts = row.argsort(stable=True), row.bincount(minlength=batch)
    most, place = max(1, int(counts.max())), torch.empty_like(at)  # under torchrun a rank's rows may all go unread
    place[order] = torch.arange(len(at)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    pieces, now = (torch.arange(batch) * length).repeat_interleave(most), row * most + place
    pieces[now] = at
    return F.embedding(pieces.view(batch, most), x.flatten(0, 1)), now


def _heads(x: Tensor, n_heads: int, *maps: nn.Linear) -> Tensor:
    """Return (n_maps, batch, heads, length, width), all maps in one product."""
    y = F.linear(x, torch.cat([m.weight for m in maps]), torch.cat([m.bias for m in maps]))
    return y.view(*x.shape[:2], len(maps), n_heads, -1).permute(2, 0, 3, 1, 4)


def _norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def new_reader(
    config: BertConfig,
    seed: int,
    positions: str = "random",
    words: np.ndarray | None = None,
    unigram: np.ndarray | None = None,
) -> MaskedReader:
    """Return a masked reader at its start, random but for what is given.

    `positions="sinusoid"` starts the learned position embeddings as sinusoids, so that attention to a
    neighbour can be found at once; they are learned on from there. `words`, (vocabulary, hidden), starts the
    word embeddings; they are turned by a random rotation, for a head sees a block of dimensions and no block
    should hold the strongest directions alone. `unigram` as in MaskedReader.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MaskedReader(config, None if unigram is None else torch.from_numpy(unigram).float())
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
    """Return a classifier at its random start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(config)
