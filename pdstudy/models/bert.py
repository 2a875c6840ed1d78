"""BERT's weights as modules, with transformers' names, order and random initialisation but without its modelling code.

Importing that code takes longer than many steps. The modules here hold the weights of `BertForMaskedLM` and
`BertForSequenceClassification`, drawn in the same order, so that a seed gives the same weights; tests/test_bert.py checks
that they are equal bit for bit.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdstudy.models.bert_config import BertConfig


class Parts(nn.Module):
    """A module with named children and no forward pass."""

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
        _init_weights(self, config.initializer_range)


class MaskedLM(nn.Module):
    """The weights of transformers' `BertForMaskedLM`; the output layer is tied to the word embeddings."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.bert = Encoder(config, pooled=False)
        h = config.hidden_size
        transform = Parts({"dense": nn.Linear(h, h), "LayerNorm": nn.LayerNorm(h, eps=config.layer_norm_eps)})
        predictions = Parts({"transform": transform, "decoder": nn.Linear(h, config.vocab_size)})
        predictions.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.cls = Parts({"predictions": predictions})
        _init_weights(self.cls, config.initializer_range)
        predictions.decoder.weight, predictions.decoder.bias = self.bert.embeddings.word_embeddings.weight, predictions.bias

    def transform(self, hidden: Tensor) -> Tensor:
        """Return the input of the output layer, `cls.predictions.decoder`, from hidden states; both are (n, hidden)."""
        head = self.cls.predictions.transform
        return head.LayerNorm(F.gelu(head.dense(hidden)))


class SequenceClassifier(nn.Module):
    """The weights of transformers' `BertForSequenceClassification`."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.bert = Encoder(config, pooled=True)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        _init_weights(self.classifier, config.initializer_range)


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
def _init_weights(module: nn.Module, std: float) -> None:
    """Initialise as transformers does, children first: normal weights of deviation `std`, zero biases, zero padding embedding."""
    for child in module.children():
        _init_weights(child, std)
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, mean=0.0, std=std)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])
