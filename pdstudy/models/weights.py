"""Reads and writes folders of weights: those of the stages, and encoders trained by others.

A folder contains config.json and model.safetensors and opens with `from_pretrained`. Pickled weights and remote code are refused,
and an error names what does not fit.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pdstudy.data.mirror import CONFIG, WEIGHTS, pickled_message
from pdstudy.models.bert_config import BertConfig
from pdstudy.models.encoder import Classifier, MaskedLanguageModel, size_of

TIED = {"weight": "bert.embeddings.word_embeddings.weight", "bias": "cls.predictions.bias"}  # the decoder's


def save(
    folder: Path, config: BertConfig, weights: dict[str, Tensor], architecture: str, dtype: torch.dtype = torch.float32
) -> None:
    """Write config.json and model.safetensors, which `from_pretrained` opens."""
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in sorted(weights.items())}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    fields = config.to_dict() | {"architectures": [architecture], "dtype": str(dtype).removeprefix("torch.")}
    fields.pop("transformers_version", None)  # it is in the manifest, and here would change the file's hash
    (folder / CONFIG).write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n")


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder's model.safetensors. Raises ValueError if it is missing or damaged."""
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise ValueError(pickled_message(str(folder)))
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a complete safetensors file ({error}); copy or fetch it again") from None


def load_config(folder: Path) -> BertConfig:
    """Return a folder's configuration. Raises ValueError for anything but a plain BERT, and for remote code."""
    fields = json.loads((Path(folder) / CONFIG).read_text())
    # The first released BERTs have no `model_type`; the names of their weights are checked later.
    if fields.get("model_type", "bert") != "bert" or "auto_map" in fields:
        raise ValueError(
            f"{folder}: not a plain BERT (model_type {fields.get('model_type')!r}, remote code {'auto_map' in fields})"
        )
    for key, ours in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
        if fields.get(key, ours) != ours:
            raise ValueError(f"{folder}: {key} is {fields[key]!r}, but the forward pass here supports only {ours!r}")
    return BertConfig(**{k: v for k, v in fields.items() if k not in ("transformers_version", "dtype", "torch_dtype")})


def copy_weights(model: Classifier, start: str, encoder: Path) -> None:
    """Copy weights of an encoder's folder into a classifier.

    `start` is "pretrained" (all weights of the encoder), "embeddings" (its word embeddings only) or "truncated" (its embeddings
    and bottom layers). Weights that the encoder lacks, such as the output layer, are unchanged. Raises ValueError if a weight does
    not fit.
    """
    weights = {k: v.float() for k, v in load_weights(encoder).items() if not k.startswith("cls.")}
    own = model.bert.state_dict()
    if start == "embeddings":
        weights = {k: v for k, v in weights.items() if k == TIED["weight"]}
    elif start == "truncated":  # the pooler belongs to the top layer, which is cut off
        bottom = (k for k in weights if not k.startswith("bert.pooler.") and (k in own or not k.startswith("bert.encoder.")))
        weights = {k: weights[k] for k in bottom}
    optional = {k for k in own if k.startswith(("classifier.", "bert.pooler.")) or (start == "embeddings" and k != TIED["weight"])}
    if wrong := _misfit(weights, own, optional):
        size = size_of(model.bert.config)
        raise ValueError(f"{encoder}: {wrong} does not fit a BERT of {size}; it is the encoder of another size or kind")
    model.bert.load_state_dict(weights, strict=False)


def _misfit(weights: dict[str, Tensor], own: dict[str, Tensor], optional: set[str]) -> str | None:
    """Return the name of a weight that is unknown, of another shape, or missing though not optional; None if all fit."""
    wrong = [k for k, v in weights.items() if k not in own or v.shape != own[k].shape]
    return min(wrong or set(own) - optional - set(weights), default=None)


def load_pretrained(folder: Path) -> tuple[BertConfig, dict[str, Tensor], MaskedLanguageModel | None]:
    """Return (configuration, weights, masked language model) of a pre-trained encoder, under any naming of BERT checkpoints.

    The weights are those of the encoder and, if present, of the pooler and the MLM head; without the head the model is None. The
    head of next-sentence prediction is left out. Raises ValueError for any other missing or unexpected weight, so that nothing
    starts at random unnoticed.
    """
    config = load_config(folder)
    size = size_of(config)
    if size.hidden % config.num_attention_heads:
        raise ValueError(f"{folder}: {config.num_attention_heads} heads do not divide a width of {size.hidden}")
    for key, ours in (("intermediate_size", 4 * size.hidden), ("layer_norm_eps", 1e-12)):
        if getattr(config, key) != ours:
            raise ValueError(f"{folder}: {key} is {getattr(config, key)}, but a BERT of {size} has {ours} here")
    weights = _current_names(load_weights(folder))
    if any(k.startswith("classifier.") for k in weights):
        raise ValueError(f"{folder}: a fine-tuned classifier; it can be a teacher (teacher.folder), not a start")
    model = MaskedLanguageModel(config)
    own = model.bert.state_dict()
    decoder = {k for k in own if k.startswith("cls.predictions.decoder.")}
    for key in decoder & set(weights):
        tied, weight = weights.get(TIED[key.rsplit(".", 1)[1]]), weights.pop(key)
        if tied is not None and not torch.equal(weight, tied):
            raise ValueError(f"{folder}: {key} is not tied to the word embeddings, as it is in BERT")
    pooler = {"bert.pooler.dense.weight": (size.hidden,) * 2, "bert.pooler.dense.bias": (size.hidden,)}
    known = {k: tuple(v.shape) for k, v in own.items()} | pooler
    if wrong := sorted(k for k, v in weights.items() if known.get(k) != tuple(v.shape)):
        raise ValueError(f"{folder}: {wrong[0]} is not a weight of a BERT of {size}, or has another shape")
    head = {k for k in own if k.startswith("cls.")} - decoder
    missing = set(own) - decoder - set(weights)
    if missing - head or (missing and missing != head):
        raise ValueError(f"{folder}: {min(missing)} is missing; it would be initialised at random")
    if missing:
        return config, weights, None
    model.bert.load_state_dict({k: v.float() for k, v in weights.items() if k in own}, strict=False)
    return config, weights, model


def _current_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint's weights under current names, without buffers and the head of next-sentence prediction.

    The first BERTs call a norm's weight and bias gamma and beta; a checkpoint of the encoder alone omits `bert.`.
    """
    no_prefix = not any(k.startswith(("bert.", "cls.")) for k in weights)
    renamed = {}
    for name, value in weights.items():
        name = name.removesuffix("gamma") + "weight" if name.endswith("LayerNorm.gamma") else name
        name = name.removesuffix("beta") + "bias" if name.endswith("LayerNorm.beta") else name
        if not name.endswith("position_ids") and not name.startswith("cls.seq_relationship."):
            renamed[f"bert.{name}" if no_prefix else name] = value
    return renamed


def load_classifier(folder: Path) -> Classifier:
    """Return a fine-tuned or distilled model. Raises ValueError if a weight is missing or unexpected."""
    return _with_weights(Classifier(load_config(folder)), folder, "classifier")


def load_masked_lm(folder: Path) -> MaskedLanguageModel:
    """Return a pre-trained masked language model. Raises ValueError if a weight is missing or unexpected."""
    return _with_weights(MaskedLanguageModel(load_config(folder)), folder, "masked language model")


def _with_weights(model: nn.Module, folder: Path, kind: str):
    weights = {k: v.float() for k, v in load_weights(folder).items() if not k.endswith("position_ids")}
    own = model.bert.state_dict()
    if wrong := _misfit(weights, own, {k for k in own if k.startswith("cls.predictions.decoder")}):
        raise ValueError(f"{folder}: not a BERT {kind} of its own config.json: {wrong} is missing or does not fit")
    model.bert.load_state_dict(weights, strict=False)
    return model
