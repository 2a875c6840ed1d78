"""Models of other kinds for tests, small and random: MPNet, RoBERTa, ModernBERT, each with word pieces of the reviews."""

import json
import string
from pathlib import Path

import reviews
import torch

WORDS = [word for kind in reviews.WORDS.values() for word in kind] + reviews.NEUTRAL
SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def write(folder: Path, kind: str, classes: list[str] | None = None) -> Path:
    """Return the folder of a small random model; with `classes` a classifier of them, else an encoder."""
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    pieces = {p: i for i, p in enumerate([*SPECIAL.values(), *WORDS, *string.digits, *(f"##{d}" for d in string.digits)])}
    cut = Tokenizer(models.WordPiece(pieces, unk_token="<unk>"))
    cut.normalizer, cut.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    cut.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", pieces["<s>"]), ("</s>", pieces["</s>"])]
    )
    names = {"input_ids", "attention_mask"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=cut, model_max_length=64, model_input_names=sorted(names), **SPECIAL
    )
    shape = SHAPE | {
        "vocab_size": len(pieces),
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "cls_token_id": 2,
        "sep_token_id": 3,
    }
    if classes:
        shape |= {"id2label": dict(enumerate(classes)), "label2id": {c: i for i, c in enumerate(classes)}}
    config = getattr(transformers, f"{kind}Config")(**shape)
    torch.manual_seed(0)
    auto = transformers.AutoModelForSequenceClassification if classes else transformers.AutoModel
    auto.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def changed(folder: Path, **fields) -> Path:
    """Return the folder after changing fields of its config.json; a field that is None is removed."""
    path = folder / "config.json"
    path.write_text(json.dumps({k: v for k, v in (json.loads(path.read_text()) | fields).items() if v is not None}))
    return folder
