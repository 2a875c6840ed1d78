"""BERT's weights as modules: transformers' names, order and random start, without its modelling code.

Every process that trains would import that code first, which takes longer than many a step. What a module here
holds is what `BertForMaskedLM` and `BertForSequenceClassification` hold, drawn in the same order from the same
stream, so that a seed gives the same weights; tests/test_bert.py holds them equal, bit for bit.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig


class Parts(nn.Module):
    """A module that only holds others, by name."""

    def __init__(self, parts: dict[str, nn.Module]):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class Encoder(Parts):
    """The weights of transformers' `BertModel`."""

    def __init__(self, config: BertConfig, pooled: bool):
        h, norm = config.hidden_size, {"eps": config.layer_norm_eps}
        embeddings = Parts(
            {
                "word_embeddings": nn.Embedding(config.vocab_size, h, padding_idx=config.pad_token_id),
                "position_embeddings": nn.Embedding(config.max_position_embeddings, h),
                "token_type_embeddings": nn.Embedding(config.type_vocab_size, h),
                "LayerNorm": nn.LayerNorm(h, **norm),
            }
        )
        layers = Parts({"layer": nn.ModuleList(_layer(config) for _ in range(config.num_hidden_layers))})
        pooler = {"pooler": Parts({"dense": nn.Linear(h, h)})} if pooled else {}
        super().__init__({"embeddings": embeddings, "encoder": layers, **pooler})
        self.config = config
        _start(self, config.initializer_range)


class MaskedLM(nn.Module):
    """The weights of transformers' `BertForMaskedLM`; the output layer is the word embeddings' own."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.bert = Encoder(config, pooled=False)
        h = config.hidden_size
        transform = Parts({"dense": nn.Linear(h, h), "LayerNorm": nn.LayerNorm(h, eps=config.layer_norm_eps)})
        predictions = Parts({"transform": transform, "decoder": nn.Linear(h, config.vocab_size)})
        predictions.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.cls = Parts({"predictions": predictions})
        _start(self.cls, config.initializer_range)
        predictions.decoder.weight, predictions.decoder.bias = self.bert.embeddings.word_embeddings.weight, predictions.bias

    def transform(self, hidden: Tensor) -> Tensor:
        """Return what the output layer, `cls.predictions.decoder`, reads of hidden states; both are (n, hidden)."""
        head = self.cls.predictions.transform
        return head.LayerNorm(F.gelu(head.dense(hidden)))


class SequenceClassifier(nn.Module):
    """The weights of transformers' `BertForSequenceClassification`."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.bert = Encoder(config, pooled=True)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        _start(self.classifier, config.initializer_range)


def _layer(config: BertConfig) -> Parts:
    h, inner, norm = config.hidden_size, config.intermediate_size, {"eps": config.layer_norm_eps}
    attention = {
        "self": Parts({name: nn.Linear(h, h) for name in ("query", "key", "value")}),
        "output": Parts({"dense": nn.Linear(h, h), "LayerNorm": nn.LayerNorm(h, **norm)}),
    }
    return Parts(
        {
            "attention": Parts(attention),
            "intermediate": Parts({"dense": nn.Linear(h, inner)}),
            "output": Parts({"dense": nn.Linear(inner, h), "LayerNorm": nn.LayerNorm(h, **norm)}),
        }
    )


@torch.no_grad()
def _start(module: nn.Module, std: float) -> None:
    """Start weights as transformers does, children first: normal with this deviation, no bias, the padding piece zero."""
    for child in module.children():
        _start(child, std)
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, mean=0.0, std=std)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])
