"""One step: open its parents, call its stage, write its artifact.

This is where stages, which know nothing of places, meet the store, which knows nothing of models.
"""

import importlib.metadata
import json
import platform
import shutil
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pdstudy import evaluate, mirror, modelfiles, models, prepare, stages, wordpieces
from pdstudy.models import Classifier
from pdstudy.prepare import Inputs
from pdstudy.sizes import Size
from pdstudy.stages import Labelled
from pdstudy.steps import VERSION, Step
from pdstudy.store import Store
from pdstudy.textfiles import TextError
from pdstudy.train import Diverged, Watch, device

LONG = ("pretrain",)  # stages that keep checkpoints
PLATEAU = 0.3  # nats below the unigram loss under which a model has hardly read
SEARCH_BELOW = 3.0  # where every rate of a search collapses, rates this factor lower are tried,
SEARCH_DEPTH = 2  # so many times


def execute(step: Step, store: Store, watch: Watch) -> Path:
    """Compute one step and return its artifact's folder."""
    inputs = Inputs(step, store)
    checkpoints = store.checkpoints(step.digest) if step.stage in LONG else None
    watch.checkpoints = checkpoints

    def fill(folder: Path) -> dict[str, Any]:
        begun = time.monotonic()
        record = STAGES[step.stage](step, inputs, folder, watch)
        if record:
            (folder / "record.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        return {
            "label": step.label,
            "version": VERSION[step.stage],  # with it, the manifest gives the digest again
            "settings": step.settings,
            "parents": step.parents,
            "versions": versions(),
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            **({"device": torch.cuda.get_device_name()} if device().type == "cuda" else {}),
            "flops": step.flops,
            "seconds": round(record.get("seconds", time.monotonic() - begun), 2),
        }

    folder = store.write(step.stage, step.digest, fill)
    if checkpoints is not None:
        checkpoints.drop()
    return folder


def assist(step: Step, store: Store, watch: Watch) -> None:
    """Train along with rank 0, which executes the same step, and write nothing."""
    watch.checkpoints = store.checkpoints(step.digest)
    _read(step, Inputs(step, store), watch)


@cache  # reading a package's metadata takes milliseconds
def versions() -> dict[str, str]:
    """Return the versions of the libraries that can change a number."""
    return {name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}


def pretrain(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Pre-train one encoder and measure how well it reads."""
    s, vocabulary = step.settings, inputs.vocabulary()
    model, fitted = _read(step, inputs, watch)
    # Weights are kept in 16 bits, as families are released: a released encoder is the computed one, byte for byte.
    modelfiles.save(folder, model.bert.config, model.state(), "BertForMaskedLM", torch.float16)
    unigram = np.load(inputs.folder("ids") / "corpus.counts.npy")
    level = evaluate.reading_level(
        modelfiles.load_reader(folder).to(device()), inputs.ids("heldout").flat, vocabulary, unigram, s["precision"]
    )
    plateau = level["mlm_loss"] > level["unigram_loss"] - PLATEAU
    n_params = sum(p.numel() for p in model.bert.parameters())
    return _trained(fitted, folder) | {"reading": level, "plateau": plateau, "n_params": n_params}


def adopt(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Take an encoder that has read already, and measure how well it reads this study's D_LM."""
    source, s, vocabulary = Path(step.folder), step.settings, inputs.vocabulary()
    config, weights, reader = modelfiles.load_start(source)
    if str(models.size_of(config)) != s["size"]:
        raise ValueError(f"{source}: a BERT of {models.size_of(config)}, not of {s['size']}")
    if config.vocab_size != vocabulary.size:
        raise ValueError(f"{source}: the encoder knows {config.vocab_size:,} word pieces, its tokenizer {vocabulary.size:,}")
    half = all(w.dtype == torch.float16 for w in weights.values())  # as families are released; others stay as they came
    modelfiles.save(folder, config, weights, "BertForMaskedLM", torch.float16 if half else torch.float32)
    heldout, counted = inputs.ids("heldout").flat, np.load(inputs.folder("ids") / "corpus.counts.npy")
    # A small task may hold out too little to measure reading on, and an encoder may come without its MLM head: no reason to stop.
    enough = reader is not None and len(heldout) >= 2 * evaluate.HELDOUT_ROW
    level = evaluate.reading_level(reader.to(device()), heldout, vocabulary, counted, s["precision"]) if enough else None
    plateau = enough and level["mlm_loss"] > level["unigram_loss"] - PLATEAU
    n_params = sum(w.numel() for w in weights.values())
    return {"reading": level, "plateau": plateau, "n_params": n_params, "tokens": 0, "steps": 0, "seconds": 0.0}


def _read(step: Step, inputs: Inputs, watch: Watch):
    """Return (model, what happened) of a pre-training."""
    s, vocabulary = step.settings, inputs.vocabulary()
    config = models.bert_config(Size.parse(s["size"]), vocabulary.size, s["init_std"], dropout=0.0)
    pieces = inputs.folder("ids")
    counted = np.load(inputs.folder("words") / "words.npy") * s["words_std"] if "words" in step.parents else None
    unigram = np.load(pieces / "corpus.counts.npy") if s["cls_words"] else None
    model = models.new_reader(config, s["seed"], s["positions"], counted, unigram)
    corpus = stages.Running(inputs.ids("corpus").flat, np.load(pieces / "continues.npy"))
    return model, stages.pretrain(model, corpus, s, vocabulary, watch)


def finetune(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Fine-tune on D_L."""
    return _student(step, inputs, folder, watch, _rate(step, inputs))


def distill(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Distil on D_T."""
    return _student(step, inputs, folder, watch, _rate(step, inputs))


def search(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Keep the candidate that is best on dev.

    Where every candidate collapsed to the majority class or diverged, lower rates are tried here, for every
    arm alike, until one learns or the depth is reached.
    """
    records = {role: inputs.record(role) for role in step.parents}
    batches = {role: _parent_step(inputs, role).settings["batch"] for role in records}
    if several := len(set(batches.values())) > 1:
        records = {role: r | {"batch": batches[role]} for role, r in records.items()}
    tried = sorted(records.values(), key=lambda r: r["rate"])
    below = []
    while all(r["collapsed"] for r in tried) and len(below) < SEARCH_DEPTH:
        rate = tried[0]["rate"] / SEARCH_BELOW
        role = next(iter(step.parents))
        candidate = _parent_step(inputs, role)
        place = folder / f"below-{len(below) + 1}"
        place.mkdir()
        record = _student(candidate, Inputs(candidate, inputs.store), place, watch, rate)
        record |= {"batch": batches[role]} if several else {}
        below.append((record, place))
        tried.insert(0, record)
    usable = [r for r in tried if not r["diverged"]]
    if not usable:
        raise Diverged(f"every rate from {tried[0]['rate']:g} to {tried[-1]['rate']:g} diverged; search lower rates")
    best = better(usable)
    source = next((p for r, p in below if r is best), None) or inputs.folder(next(k for k, r in records.items() if r is best))
    for name in (mirror.WEIGHTS, "config.json", "curve.jsonl"):
        shutil.copy(source / name, folder / name)
    for _, place in below:
        shutil.rmtree(place)
    table = [{k: r[k] for k in ("rate", "batch", "dev", "collapsed", "diverged") if k in r} for r in tried]
    return best | {"searched": table, "seconds": sum(r["seconds"] for r, _ in below)}


def better(tried: list[dict]) -> dict:
    """Return the candidate that is best on dev: by accuracy, of scores by Pearson's r; of equal ones that of the lowest rate."""
    return max(tried, key=lambda r: (r["dev"].get("pearson", r["dev"]["accuracy"]), -r["rate"]))


def given(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Take a fine-tuned teacher from a folder: safetensors only, its classes checked against the task's by name."""
    source = Path(step.folder).expanduser()
    model = modelfiles.load_classifier(source)
    config, wanted = model.bert.config, inputs.record("texts")["labels"]
    _, vocabulary = wordpieces.open_tokenizer(source)
    if vocabulary.size > config.vocab_size:
        raise ValueError(f"{source}: the teacher knows {config.vocab_size:,} word pieces, its tokenizer {vocabulary.size:,}")
    names = [str(config.id2label[i]).lower() for i in range(config.num_labels)]
    if len(names) != len(wanted):
        raise ValueError(f"{source}: the teacher knows {len(names)} classes, the task {len(wanted)} ({', '.join(wanted)})")
    if not all(n == f"label_{i}" for i, n in enumerate(names)) and names != [w.lower() for w in wanted]:
        raise ValueError(f"{source}: the teacher's classes are {names}, the task's {list(wanted)}; set id2label in its config.json")
    modelfiles.save(folder, config, model.state(), "BertForSequenceClassification")
    return {"rate": None, "collapsed": False, "seconds": 0.0, "tokens": 0, "steps": 0, "n_params": _n_params(model)}


def label(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Label the transfer set: teacher logits, computed once."""
    transfer, n = inputs.transfer(), step.settings["texts"]
    if n > len(transfer):
        raise TextError(f"transfer.texts asks for {n:,} texts, but D_T has {len(transfer):,} after cleaning; ask for fewer")
    teacher = modelfiles.load_classifier(inputs.folder("model")).to(device())
    _qualified(teacher, step, inputs)
    found = stages.label(teacher, transfer.head(n), inputs.vocabulary(), step.settings["precision"])
    np.save(folder / "logits.npy", found)
    return {
        "tokens": int(transfer.head(n).lengths.sum()),
        "class_shares": np.bincount(found.argmax(1), minlength=found.shape[1]).tolist(),
    }


def _qualified(teacher: Classifier, step: Step, inputs: Inputs) -> None:
    """Raise ValueError where a teacher is hardly better on dev than the majority class, or its classes seem swapped."""
    dev, margin = inputs.labelled("dev"), step.settings["margin"]
    logits = evaluate.logits(teacher, dev.ids, inputs.vocabulary().pad, step.settings["precision"])
    scores, majority = evaluate.metrics(logits, dev.labels, dev.scale), dev.majority()
    answers, right = logits.argmax(1), scores["accuracy"]
    if dev.above_nothing(scores) >= margin:
        return
    cure = "train it longer, on more text, or choose another; teacher.margin sets how much better it must be"
    if dev.scale:
        raise ValueError(f"the teacher's scores on dev have Pearson's r = {scores['pearson']:.2f} with the right ones: {cure}")
    names = inputs.record("ids")["labels"]
    order = np.array([np.bincount(dev.labels[answers == i], minlength=len(names)).argmax() for i in range(len(names))])
    if (mended := float((order[answers] == dev.labels).mean())) >= majority + max(margin, 0.1):
        swapped = ", ".join(f"{names[i]!r} for {names[order[i]]!r}" for i in np.flatnonzero(order != np.arange(len(names))))
        cure = f"it seems to say {swapped} (read so it is right on {mended:.1%}): set id2label in its config.json"
    raise ValueError(f"the teacher is right on {right:.1%} of dev, the majority class on {majority:.1%}: {cure}")


def evaluation(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Measure a model on dev and test, text by text; of a candidate that diverged there is nothing to measure."""
    source, scores = inputs.record("model"), {}
    kept = {k: source.get(k) for k in ("rate", "collapsed", "tokens", "steps", "n_params", "searched")}
    kept |= {"batch": source["batch"]} if "batch" in source else {}
    if source.get("diverged"):
        return {"scores": scores, "model": kept}
    model = modelfiles.load_classifier(inputs.folder("model")).to(device())
    for split in ("dev", "test"):
        data = inputs.labelled(split)
        found = evaluate.logits(model, data.ids, inputs.vocabulary().pad, step.settings["precision"])
        np.save(folder / f"{split}.logits.npy", found)
        np.save(folder / f"{split}.labels.npy", data.labels)
        majority = float((data.labels == np.bincount(inputs.labelled("train").labels).argmax()).mean())
        scores[split] = evaluate.metrics(found, data.labels, data.scale) | {"n": len(data.labels), "majority": majority}
    return {"scores": scores, "model": kept}


STAGES = {
    "texts": prepare.texts,
    "domain": prepare.domain,
    "corpus": prepare.corpus,
    "tokenizer": prepare.tokenizer,
    "ids": prepare.ids,
    "words": prepare.words,
    "pretrain": pretrain,
    "adopt": adopt,
    "given": given,
    "finetune": finetune,
    "distill": distill,
    "search": search,
    "label": label,
    "evaluate": evaluation,
}


def _student(step: Step, inputs: Inputs, folder: Path, watch: Watch, rate: float) -> dict[str, Any]:
    """Train one student at one rate and write it, whatever it is worth: a collapse is a finding, and is named."""
    s, vocabulary = step.settings, inputs.vocabulary()
    settings = s | {"rate": rate}
    if isinstance(s["batch"], list):  # several were searched
        settings |= {"batch": inputs.record("search")["batch"]}
    labels = inputs.record("ids")["labels"]
    config = models.bert_config(Size.parse(s["size"]), vocabulary.size, s["init_std"], s["dropout"], len(labels))
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: i for i, name in enumerate(labels)}
    model = models.new_classifier(config, s["seed"])
    if "start" in step.parents:
        modelfiles.take(model, s["start"], inputs.folder("start"))
    dev = inputs.labelled("dev")
    try:
        if step.stage == "finetune":
            train = _first(inputs.labelled("train"), s["texts"])
            outcome = stages.finetune(model, train, dev, settings, vocabulary, watch)
        else:
            soft = np.load(inputs.folder("label") / "logits.npy")[: s["texts"]]
            outcome = stages.distill(model, inputs.transfer().head(len(soft)), soft, dev, settings, vocabulary, watch)
    except Diverged as error:
        if "search" in step.parents:
            raise
        # A candidate that diverges is an answer to the search: it is recorded without weights and without a score.
        return {"rate": rate, "dev": None, "collapsed": True, "diverged": True, "seconds": 0.0, "why": str(error)}
    modelfiles.save(folder, config, model.state(), "BertForSequenceClassification")
    record = {"rate": rate, "dev": outcome.dev, "collapsed": outcome.collapsed, "diverged": False, "n_params": _n_params(model)}
    record |= {"batch": settings["batch"]} if isinstance(s["batch"], list) else {}
    return _trained(outcome.fitted, folder) | record


def _first(data: Labelled, n: int) -> Labelled:
    """Return the first `n` labelled texts, 0 for all: smaller sets are parts of larger ones."""
    if n > len(data.ids):
        raise TextError(f"splits.train asks for {n:,} texts, but dev and test leave {len(data.ids):,}; ask for fewer")
    return replace(data, ids=data.ids.head(n), labels=data.labels[:n]) if n else data


def _trained(fitted, folder: Path) -> dict[str, Any]:
    (folder / "curve.jsonl").write_text("".join(json.dumps(r) + "\n" for r in fitted.curve))
    return {"steps": fitted.steps, "tokens": fitted.tokens, "seconds": round(fitted.seconds, 2), "train_loss": fitted.final_loss}


def _rate(step: Step, inputs: Inputs) -> float:
    return step.settings["rate"] if "rate" in step.settings else inputs.record("search")["rate"]


def _parent_step(inputs: Inputs, role: str) -> Step:
    """Return a parent as a step again, from its manifest."""
    manifest = inputs.store.manifest(inputs.step.parents[role])
    return Step(manifest["stage"], manifest["settings"], manifest["parents"], manifest["label"])


def _n_params(model: Classifier) -> int:
    return sum(p.numel() for p in model.parameters())
