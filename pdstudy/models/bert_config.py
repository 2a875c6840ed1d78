"""The configuration of a BERT: transformers' `BertConfig` without importing transformers, which takes a third of a worker's start.

tests/test_bert.py checks that both have the same fields and write the same config.json.
"""

from types import SimpleNamespace
from typing import Any

DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "classifier_dropout": None,
    "hidden_act": "gelu",
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
    "tie_word_embeddings": True,
    "use_cache": True,
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "chunk_size_feed_forward": 0,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
    "problem_type": None,
    "architectures": None,
    "_name_or_path": "",
    "model_type": "bert",
}
WHOLE = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")


class BertConfig(SimpleNamespace):
    """The fields of a BERT's config.json as attributes; those not given have transformers' defaults.

    Raises ValueError if a size is not a whole number above zero.
    """

    def __init__(self, *, num_labels: int = 2, id2label: dict | None = None, **fields: Any):
        labels = {int(i): name for i, name in (id2label or {i: f"LABEL_{i}" for i in range(num_labels)}).items()}
        super().__init__(**DEFAULTS | {"label2id": {name: i for i, name in labels.items()}} | fields, id2label=labels)
        for key in WHOLE:
            if type(value := getattr(self, key)) is not int or value < 1:
                raise ValueError(f"{key} of a BERT's config.json is {value!r}, but must be a whole number above zero")

    @property
    def num_labels(self) -> int:
        """Return the number of classes."""
        return len(self.id2label)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of config.json."""
        return dict(vars(self))

    def for_transformers(self):
        """Return transformers' own configuration with the same fields, which its models take."""
        from transformers import BertConfig as Config

        return Config(**self.to_dict())
