"""BERT of a Size, and the two ways the study runs it.

The weights are those of `BertForMaskedLM` and `BertForSequenceClassification` (bert.py), so every artifact opens
with `from_pretrained`. The forward pass is ours: queries, keys and values in one product, no mask where
rows are full, and only the positions that are read, masked pieces or a classifier's [CLS], leave the last layer's
attention: of a 2-layer student that saves four tenths of the products. tests/test_models.py holds it equal to
transformers' forward.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig

from pdstudy import readout
from pdstudy.bert import MaskedLM, SequenceClassifier
from pdstudy.mirror import CONFIG, WEIGHTS, pickled
from pdstudy.sizes import POSITIONS, Size

TIED = {"weight": "bert.embeddings.word_embeddings.weight", "bias": "cls.predictions.bias"}  # the decoder's
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
            return self._answer(encode(self.bert.bert, ids, at=positions), pieces)
        firsts = torch.arange(0, ids.numel(), ids.shape[1], device=ids.device)
        hidden = encode(self.bert.bert, ids, at=torch.cat([firsts, positions]))
        summary = torch.tanh(self.summary(hidden[: len(ids)]))
        of_row = F.linear(summary, self.bert.bert.embeddings.word_embeddings.weight).float() + self.prior
        return self._answer(hidden[len(ids) :], pieces), of_row

    def _answer(self, hidden: Tensor, pieces: Tensor | None) -> Tensor:
        decoder, x = self.bert.cls.predictions.decoder, self.bert.transform(hidden)
        return decoder(x) if pieces is None else readout.mlm_loss(x, decoder.weight, decoder.bias, pieces)

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
        if last and at is None:  # the other pieces are only looked at
            k, v = _heads(x, n_heads, a.key, a.value)
            x = x[:, :1]
            (q,) = _heads(x, n_heads, a.query)
        else:
            q, k, v = _heads(x, n_heads, a.query, a.key, a.value)
        y = attend(q, k, v, mask).transpose(1, 2).reshape(x.shape)
        if last:
            x, y = (t.flatten(0, 1) if at is None else t.flatten(0, 1)[at] for t in (x, y))
        x = _norm(x + drop(out.dense(y), p), out.LayerNorm)
        y = layer.output.dense(F.gelu(layer.intermediate.dense(x)))
        x = _norm(x + drop(y, p), layer.output.LayerNorm)
    return x


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Return softmax(q k' / sqrt(width)) v; all are (batch, heads, length, width), `mask` (batch, 1, 1, length).

    Queries may be fewer than keys. On a CPU the plain products are used: torch's fused kernel is five times slower
    there in bf16 at these lengths, almost all of it in its backward pass.
    """
    if q.device.type != "cpu":
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


def new_classifier(config: BertConfig, seed: int, start: str = "random", encoder: Path | None = None) -> Classifier:
    """Return a student: random, or with the weights of `encoder`'s folder taken over as `start` says.

    `start` is "random", "pretrained" (all weights that the encoder has), "embeddings" (its word embeddings
    alone) or "truncated" (its embeddings and bottom layers). What the encoder lacks, such as the classifier,
    starts at random by `seed`. Raises ValueError when anything else does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(config)
    if start == "random":
        return model
    weights = {k: v.float() for k, v in load_weights(encoder).items() if not k.startswith("cls.")}
    own = model.bert.state_dict()
    if start == "embeddings":
        weights = {k: v for k, v in weights.items() if k == "bert.embeddings.word_embeddings.weight"}
    elif start == "truncated":  # the pooler reads the top layer, which is cut off
        kept = (k for k in weights if not k.startswith(("bert.encoder.", "bert.pooler.")) or (k in own and "pooler" not in k))
        weights = {k: weights[k] for k in kept}
    wrong = [k for k, v in weights.items() if k not in own or v.shape != own[k].shape]
    needed = (k for k in own if not k.startswith(("classifier.", "bert.pooler.")))
    wrong += [k for k in needed if k not in weights and (start != "embeddings" or "word_embeddings" in k)]
    if wrong:
        name = sorted(wrong)[0]
        raise ValueError(f"{encoder}: {name} does not fit a BERT of {size_of(config)}; it is the encoder of another size or kind")
    model.bert.load_state_dict(weights, strict=False)
    return model


def save(
    folder: Path, config: BertConfig, weights: dict[str, Tensor], architecture: str, dtype: torch.dtype = torch.float32
) -> None:
    """Write config.json and model.safetensors, which `from_pretrained` opens."""
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in sorted(weights.items())}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    fields = config.to_dict() | {"architectures": [architecture], "dtype": str(dtype).removeprefix("torch.")}
    fields.pop("transformers_version", None)  # recorded in the manifest; here it would change the file's digest
    (folder / "config.json").write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n")


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder's model.safetensors. Pickled weights are never opened."""
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise ValueError(pickled(str(folder)))
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error}); copy or fetch it again") from None


def load_config(folder: Path) -> BertConfig:
    """Return a folder's configuration. Refuses anything but BERT, and remote code."""
    fields = json.loads((Path(folder) / CONFIG).read_text())
    # Released BERTs are older than `model_type`, and some lack it; what they are, their weights' names say.
    if fields.get("model_type", "bert") != "bert" or "auto_map" in fields:
        raise ValueError(
            f"{folder}: not a plain BERT (model_type {fields.get('model_type')!r}, remote code {'auto_map' in fields})"
        )
    for key, ours in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
        if fields.get(key, ours) != ours:
            raise ValueError(f"{folder}: {key} is {fields[key]!r}, but the forward pass here knows {ours!r} alone")
    return BertConfig(**{k: v for k, v in fields.items() if k not in ("transformers_version", "dtype", "torch_dtype")})


def load_start(folder: Path) -> tuple[BertConfig, dict[str, Tensor], MaskedReader | None]:
    """Return (configuration, weights, masked reader) of an encoder that has read, however BERT's checkpoints name its weights.

    The weights are the encoder's, its pooler's and its MLM head's, of those that it has; without that head there is no
    reader. The head of next-sentence prediction is left out. Raises ValueError for any other weight that is missing or
    unexpected: nothing starts at random that was thought to have read.
    """
    config, size = load_config(folder), size_of(load_config(folder))
    for key, ours in (("num_attention_heads", size.heads), ("intermediate_size", 4 * size.hidden), ("layer_norm_eps", 1e-12)):
        if getattr(config, key) != ours:
            raise ValueError(f"{folder}: {key} is {getattr(config, key)}, but a BERT of {size} has {ours} here")
    weights = _as_named_here(load_weights(folder))
    if any(k.startswith("classifier.") for k in weights):
        raise ValueError(
            f"{folder}: a classifier, which has been fine-tuned already; it can be a teacher (teacher.folder), no start"
        )
    reader = MaskedReader(config)
    own = reader.bert.state_dict()
    decoder = {k for k in own if k.startswith("cls.predictions.decoder.")}
    for key in decoder & set(weights):
        tied, own_weight = weights.get(TIED[key.rsplit(".", 1)[1]]), weights.pop(key)
        if tied is not None and not torch.equal(own_weight, tied):
            raise ValueError(f"{folder}: {key} is not tied to the word embeddings, as in BERT")
    pooler = {"bert.pooler.dense.weight": (size.hidden,) * 2, "bert.pooler.dense.bias": (size.hidden,)}
    known = {k: tuple(v.shape) for k, v in own.items()} | pooler
    if wrong := sorted(k for k, v in weights.items() if known.get(k) != tuple(v.shape)):
        raise ValueError(f"{folder}: {wrong[0]} is no weight of a BERT of {size}, or has another shape; what is it for?")
    head = {k for k in own if k.startswith("cls.")} - decoder
    missing = set(own) - decoder - set(weights)
    if missing - head or (missing and missing != head):
        raise ValueError(f"{folder}: {min(missing)} is missing; it would start at random")
    if missing:
        return config, weights, None
    reader.bert.load_state_dict({k: v.float() for k, v in weights.items() if k in own}, strict=False)
    return config, weights, reader


def _as_named_here(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint's weights under today's names, without buffers and the head of next-sentence prediction.

    The first BERTs call a norm's weight and bias gamma and beta; a checkpoint of the encoder alone leaves `bert.` out.
    """
    bare = not any(k.startswith(("bert.", "cls.")) for k in weights)
    found = {}
    for name, value in weights.items():
        name = name.removesuffix("gamma") + "weight" if name.endswith("LayerNorm.gamma") else name
        name = name.removesuffix("beta") + "bias" if name.endswith("LayerNorm.beta") else name
        if not name.endswith("position_ids") and not name.startswith("cls.seq_relationship."):
            found[f"bert.{name}" if bare else name] = value
    return found


def load_classifier(folder: Path) -> Classifier:
    """Return a fine-tuned or distilled model, every weight accounted for."""
    model = Classifier(load_config(folder))
    weights = {k: v.float() for k, v in load_weights(folder).items() if not k.endswith("position_ids")}
    try:
        model.bert.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{folder}: not a BERT classifier of its own config.json: {str(error).splitlines()[1].strip()}") from None
    return model


def load_reader(folder: Path) -> MaskedReader:
    """Return a pre-trained masked reader."""
    model = MaskedReader(load_config(folder))
    weights = {k: v.float() for k, v in load_weights(folder).items()}
    own = model.bert.state_dict()
    tied = {k for k in own if k.startswith("cls.predictions.decoder")}
    wrong = sorted(k for k in weights if k not in own or weights[k].shape != own[k].shape) or sorted(set(own) - tied - set(weights))
    if wrong:
        raise ValueError(f"{folder}: not a BERT masked language model of its own config.json: {wrong[0]} does not fit")
    model.bert.load_state_dict(weights, strict=False)
    return model
