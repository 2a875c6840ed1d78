"""Folders of weights: what a stage writes and the next one starts from, and encoders that others have trained.

A folder holds config.json and model.safetensors and opens with `from_pretrained`. Pickled weights are never opened, remote
code is refused, and whatever does not fit is named.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig

from pdstudy.data.mirror import CONFIG, WEIGHTS, pickled
from pdstudy.models.encoder import Classifier, MaskedReader, size_of

TIED = {"weight": "bert.embeddings.word_embeddings.weight", "bias": "cls.predictions.bias"}  # the decoder's


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


def take(model: Classifier, start: str, encoder: Path) -> None:
    """Give a classifier the weights of an encoder's folder that `start` says.

    `start` is "pretrained" (all weights that the encoder has), "embeddings" (its word embeddings alone) or "truncated" (its
    embeddings and bottom layers). What the encoder lacks, such as the classifier, stays as it is. Raises ValueError when
    anything else does not fit.
    """
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
        size = size_of(model.bert.config)
        raise ValueError(f"{encoder}: {name} does not fit a BERT of {size}; it is the encoder of another size or kind")
    model.bert.load_state_dict(weights, strict=False)


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
