"""The steps that pre-train, label and measure models: each takes its inputs from the store and writes into a folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pdstudy import stages
from pdstudy.data import classes, tokenizer
from pdstudy.data.formats import TextError
from pdstudy.models import encoder, evaluate, inference
from pdstudy.models.encoder import Classifier
from pdstudy.models.train import Fitted, Watch, device
from pdstudy.models.weights import load_classifier, load_masked_lm, load_pretrained, save
from pdstudy.run import teacher_steps
from pdstudy.run.inputs import Inputs
from pdstudy.sizes import Size
from pdstudy.storage import paths
from pdstudy.study.steps import Step

PLATEAU = 0.3  # nats below the unigram loss under which a model has hardly read


def pretrain(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Pre-train one encoder and measure how well it reads."""
    s, vocabulary = step.settings, inputs.vocabulary()
    model, fitted = train_reader(step, inputs, watch)
    # Weights are kept in 16 bits, as families are released: a released encoder is the computed one, byte for byte.
    save(folder, model.bert.config, model.state(), "BertForMaskedLM", torch.float16)
    unigram = np.load(inputs.folder("ids") / "corpus.counts.npy")
    reader = load_masked_lm(folder).to(device())
    level = evaluate.heldout_mlm(reader, inputs.ids("heldout").flat, vocabulary, unigram, s["precision"])
    plateau = level["mlm_loss"] > level["unigram_loss"] - PLATEAU
    n_params = sum(p.numel() for p in model.bert.parameters())
    return trained(fitted, folder) | {"reading": level, "plateau": plateau, "n_params": n_params}


def adopt(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Take an encoder that has read already, and measure how well it reads this study's D_LM."""
    source, s, vocabulary = Path(step.folder), step.settings, inputs.vocabulary()
    config, weights, reader = load_pretrained(source)
    if str(encoder.size_of(config)) != s["size"]:
        raise ValueError(f"{source}: a BERT of {encoder.size_of(config)}, not of {s['size']}")
    if config.vocab_size != vocabulary.size:
        raise ValueError(f"{source}: the encoder knows {config.vocab_size:,} word pieces, its tokenizer {vocabulary.size:,}")
    half = all(w.dtype == torch.float16 for w in weights.values())  # as families are released; others stay as they came
    save(folder, config, weights, "BertForMaskedLM", torch.float16 if half else torch.float32)
    heldout, counted = inputs.ids("heldout").flat, np.load(inputs.folder("ids") / "corpus.counts.npy")
    # A small task may hold out too little to measure reading on, and an encoder may come without its MLM head: no reason to stop.
    enough = reader is not None and len(heldout) >= 2 * evaluate.HELDOUT_ROW
    level = evaluate.heldout_mlm(reader.to(device()), heldout, vocabulary, counted, s["precision"]) if enough else None
    plateau = enough and level["mlm_loss"] > level["unigram_loss"] - PLATEAU
    n_params = sum(w.numel() for w in weights.values())
    return {"reading": level, "plateau": plateau, "n_params": n_params, "tokens": 0, "steps": 0, "seconds": 0.0}


def train_reader(step: Step, inputs: Inputs, watch: Watch):
    """Return (model, what happened) of a pre-training."""
    s, vocabulary = step.settings, inputs.vocabulary()
    config = encoder.bert_config(Size.parse(s["size"]), vocabulary.size, s["init_std"], dropout=0.0)
    pieces = inputs.folder("ids")
    counted = np.load(inputs.folder("words") / "words.npy") * s["words_std"] if "words" in step.parents else None
    unigram = np.load(pieces / "corpus.counts.npy") if s["cls_words"] else None
    model = encoder.new_masked_lm(config, s["seed"], s["positions"], counted, unigram)
    corpus = stages.RunningText(inputs.ids("corpus").flat, np.load(pieces / "continues.npy"))
    return model, stages.pretrain(model, corpus, s, vocabulary, watch)


def given(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Take a fine-tuned teacher from a folder: safetensors only, its classes checked against the task's by name."""
    source = paths.expanded(step.folder)
    model = load_classifier(source)
    config, wanted = model.bert.config, inputs.record("texts")["labels"]
    _, vocabulary = tokenizer.open_tokenizer(source)
    if vocabulary.size > config.vocab_size:
        raise ValueError(f"{source}: the teacher knows {config.vocab_size:,} word pieces, its tokenizer {vocabulary.size:,}")
    names = [config.id2label[i] for i in range(config.num_labels)]
    classes.check_names(f"{source}: the teacher", names, wanted, inputs.record("texts").get("ordered", True))
    save(folder, config, model.state(), "BertForSequenceClassification")
    return {"rate": None, "collapsed": False, "seconds": 0.0, "tokens": 0, "steps": 0, "n_params": n_params_of(model)}


def label(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Label the transfer set: teacher logits, computed once."""
    if "ids" not in step.parents:
        return teacher_steps.label(step, inputs, folder, watch)
    s, vocabulary, dev = step.settings, inputs.vocabulary(), inputs.labelled("dev")
    texts = inputs.transfer() if "of" not in s else inputs.labelled(s["of"]).ids
    n = s["texts"] or len(texts)
    if n > len(texts):
        raise TextError(f"transfer.texts asks for {n:,} texts, but D_T has {len(texts):,} after cleaning; ask for fewer")
    teacher = load_classifier(inputs.folder("model")).to(device())
    answers = inference.logits(teacher, dev.ids, vocabulary.pad, s["precision"])
    teacher_steps.check(answers, dev, s["margin"], inputs.record("ids")["labels"])
    found = stages.label(teacher, texts.head(n), vocabulary, s["precision"])
    np.save(folder / "logits.npy", found)
    return {
        "tokens": int(texts.head(n).lengths.sum()),
        "class_shares": np.bincount(found.argmax(1), minlength=found.shape[1]).tolist(),
    }


def evaluation(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Measure a model on dev and test, text by text; of a candidate that diverged there is nothing to measure."""
    if "ids" not in step.parents:
        return teacher_steps.evaluation(step, inputs, folder, watch)
    source, scores = inputs.record("model"), {}
    kept = {k: source.get(k) for k in ("rate", "collapsed", "tokens", "steps", "n_params", "searched")}
    kept |= {key: source[key] for key in ("batch", "epochs") if key in source}
    if source.get("diverged"):
        return {"scores": scores, "model": kept}
    model = load_classifier(inputs.folder("model")).to(device())
    for split in ("dev", "test"):
        data = inputs.labelled(split)
        found = inference.logits(model, data.ids, inputs.vocabulary().pad, step.settings["precision"])
        np.save(folder / f"{split}.logits.npy", found)
        np.save(folder / f"{split}.labels.npy", data.labels)
        majority = float((data.labels == np.bincount(inputs.labelled("train").labels).argmax()).mean())
        scores[split] = evaluate.metrics(found, data.labels, data.scale) | {"n": len(data.labels), "majority": majority}
    return {"scores": scores, "model": kept}


def trained(fitted: Fitted, folder: Path) -> dict[str, Any]:
    """Return what is recorded of a training, after writing its curve."""
    (folder / "curve.jsonl").write_text("".join(json.dumps(r) + "\n" for r in fitted.curve))
    return {"steps": fitted.steps, "tokens": fitted.tokens, "seconds": round(fitted.seconds, 2), "train_loss": fitted.final_loss}


def n_params_of(model: Classifier) -> int:
    """Return the number of a model's weights."""
    return sum(p.numel() for p in model.parameters())
