"""The steps that pre-train an encoder, or take an encoder or a teacher of the study's own kind from a folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pdstudy import stages
from pdstudy.data import classes, tokenizer
from pdstudy.models import encoder, evaluate
from pdstudy.models.encoder import MaskedLanguageModel
from pdstudy.models.train import Fitted, Watch, device
from pdstudy.models.weights import load_classifier, load_masked_lm, load_pretrained, save
from pdstudy.run.inputs import Inputs
from pdstudy.run.label_steps import untrained
from pdstudy.sizes import Size
from pdstudy.storage import paths
from pdstudy.study.steps import Step

PLATEAU = 0.3  # nats below the unigram loss; a model that gains less has hardly learned from context


def pretrain(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Pre-train one encoder and measure it on held-out text."""
    n_heldout = len(inputs.ids("heldout").flat)
    if n_heldout < 2 * evaluate.HELDOUT_ROW - 1:  # the first piece of each row is [CLS]
        raise ValueError(
            f"{n_heldout:,} word pieces are held out of D_LM, fewer than two rows of {evaluate.HELDOUT_ROW} to measure pre-training on: "
            "raise corpus.heldout or give a longer D_LM"
        )
    model, fitted = train_encoder(step, inputs, watch)
    # Weights are saved in 16 bits, as families are released, so that a released encoder is the computed one byte for byte.
    save(folder, model.bert.config, model.state(), "BertForMaskedLM", torch.float16)
    return training_record(fitted, folder) | _pretraining_level(inputs, load_masked_lm(folder)) | {"n_params": n_params(model.bert)}


def adopt(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Take a pre-trained encoder from a folder, and measure it on this study's held-out text."""
    source, size, n_pieces = Path(step.folder), step.settings["size"], inputs.vocabulary().size
    config, weights, model = load_pretrained(source)
    if str(encoder.size_of(config)) != size:
        raise ValueError(f"{source}: a BERT of {encoder.size_of(config)}, not of {size}")
    if config.vocab_size != n_pieces:
        raise ValueError(f"{source}: the encoder knows {config.vocab_size:,} word pieces, its tokenizer {n_pieces:,}")
    half = all(w.dtype == torch.float16 for w in weights.values())  # as families are released; others keep their type
    save(folder, config, weights, "BertForMaskedLM", torch.float16 if half else torch.float32)
    # A small task may hold out too little text for the measurement, and an encoder may come without its MLM head.
    measurable = model is not None and len(inputs.ids("heldout").flat) >= 2 * evaluate.HELDOUT_ROW
    level = _pretraining_level(inputs, model) if measurable else {"reading": None, "plateau": False}
    return level | {"n_params": sum(w.numel() for w in weights.values()), "tokens": 0, "steps": 0, "seconds": 0.0}


def given(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Take a fine-tuned teacher from a folder: safetensors only, its classes compared with the task's by name."""
    source, texts = paths.expanded(step.folder), inputs.record("texts")
    model = load_classifier(source)
    config = model.bert.config
    _, vocabulary = tokenizer.open_tokenizer(source)
    if vocabulary.size > config.vocab_size:
        raise ValueError(f"{source}: the teacher knows {config.vocab_size:,} word pieces, its tokenizer {vocabulary.size:,}")
    names = [config.id2label[i] for i in range(config.num_labels)]
    classes.check_names(f"{source}: the teacher", names, texts["labels"], texts.get("ordered", True))
    save(folder, config, model.state(), "BertForSequenceClassification")
    return untrained(n_params(model))


def train_encoder(step: Step, inputs: Inputs, watch: Watch) -> tuple[MaskedLanguageModel, Fitted]:
    """Return a pre-trained model and the record of its training."""
    s, vocabulary = step.settings, inputs.vocabulary()
    config = encoder.bert_config(Size.parse(s["size"]), vocabulary.size, s["init_std"], dropout=0.0)
    pieces = inputs.folder("ids")
    word_vectors = np.load(inputs.folder("words") / "words.npy") * s["words_std"] if "words" in step.parents else None
    unigram = np.load(pieces / "corpus.counts.npy") if s["cls_words"] else None
    model = encoder.new_masked_lm(config, s["seed"], s["positions"], word_vectors, unigram)
    corpus = stages.RunningText(inputs.ids("corpus").flat, np.load(pieces / "continues.npy"))
    return model, stages.pretrain(model, corpus, s, vocabulary, watch)


def training_record(fitted: Fitted, folder: Path) -> dict[str, Any]:
    """Return the record of a training, after writing its curve."""
    (folder / "curve.jsonl").write_text("".join(json.dumps(r) + "\n" for r in fitted.curve))
    return {"steps": fitted.steps, "tokens": fitted.tokens, "seconds": round(fitted.seconds, 2), "train_loss": fitted.final_loss}


def n_params(model: nn.Module) -> int:
    """Return the number of a model's weights."""
    return sum(p.numel() for p in model.parameters())


def _pretraining_level(inputs: Inputs, model: MaskedLanguageModel) -> dict[str, Any]:
    """Return the held-out loss of a model and whether it is on the plateau, hardly better than the unigram baseline."""
    unigram = np.load(inputs.folder("ids") / "corpus.counts.npy")
    heldout, precision = inputs.ids("heldout").flat, inputs.step.settings["precision"]
    level = evaluate.heldout_mlm(model.to(device()), heldout, inputs.vocabulary(), unigram, precision)
    return {"reading": level, "plateau": level["mlm_loss"] > level["unigram_loss"] - PLATEAU}
