"""The steps of teachers that are not of the study's own family, and of the linear model: taken, fine-tuned, asked, averaged.

They read texts, not the students' word pieces. What such a step writes is asked in one way, `respond`, whatever it is.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdstudy.data import mirror, soft_labels
from pdstudy.data.batches import Ids, Labelled
from pdstudy.data.tasks import SCALE
from pdstudy.models import evaluate, linear
from pdstudy.models.train import Diverged, Watch
from pdstudy.run.inputs import Inputs
from pdstudy.stages import COLLAPSE_MARGIN
from pdstudy.storage.files import sha256
from pdstudy.study.steps import Step

EVERY = 300.0  # seconds between checkpoints of a large model: one takes seconds to write
ANSWERED = "{split}.logits.npy"

Respond = Callable[[str, Sequence], np.ndarray]  # split, texts -> logits (n_texts, n_classes) float32


def outside(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Take a sequence classifier of any kind from a folder, its classes checked against the task's by name."""
    from pdstudy.models import teachers

    source = _source(step)
    opened = teachers.open_model(source, _labels(inputs))
    for name in (mirror.CONFIG, mirror.WEIGHTS):
        shutil.copy(source / name, folder / name)
    teachers.copy_tokenizer(source, folder)
    return _untrained(opened.n_params)


def tune(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Fine-tune an encoder of any kind on D_L at one rate, for one number of epochs."""
    from pdstudy.models import teachers

    s, source, labels = step.settings, _source(step), _labels(inputs)
    opened = teachers.open_model(source, labels, s["seed"])
    if not opened.fresh_head:
        raise ValueError(f"{source}: it is a classifier already, but its {mirror.CONFIG} does not say so; set its architectures")
    n, watch.save_every = s["texts"] or None, EVERY
    record: dict[str, Any] = {"rate": s["rate"], "epochs": s["epochs"], "n_params": opened.n_params}
    try:
        fitted = teachers.finetune(opened, inputs.texts("train", n), inputs.classes("train", n), s, watch)
    except Diverged as error:
        return record | {
            "dev": None,
            "collapsed": True,
            "diverged": True,
            "seconds": 0.0,
            "tokens": 0,
            "steps": 0,
            "why": str(error),
        }
    dev = _labelled(inputs, "dev")
    scores = evaluate.metrics(teachers.logits(opened, inputs.texts("dev"), s["max_length"], s["precision"]), dev.labels, dev.scale)
    teachers.save(opened, source, folder)
    (folder / "curve.jsonl").write_text("".join(json.dumps(r) + "\n" for r in fitted.curve))
    record |= {"dev": scores, "collapsed": dev.above_baseline(scores) < COLLAPSE_MARGIN, "diverged": False}
    return record | {
        "steps": fitted.steps,
        "tokens": fitted.tokens,
        "seconds": round(fitted.seconds, 2),
        "train_loss": fitted.final_loss,
    }


def choose(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Keep the fine-tuned teacher that is best on dev; of equal ones that of the lowest rate and fewest epochs."""
    records = {role: inputs.record(role) for role in step.parents if role != "texts"}
    usable = {role: r for role, r in records.items() if not r["diverged"]}
    if not usable:
        raise Diverged("the teacher diverged at every rate; give lower ones in teacher.finetune.rates")
    score = lambda r: r["dev"].get("pearson", r["dev"]["accuracy"])  # noqa: E731
    best = max(usable, key=lambda role: (score(usable[role]), -usable[role]["rate"], -usable[role]["epochs"]))
    for path in inputs.folder(best).iterdir():
        if path.name not in ("record.json", "manifest.json"):
            shutil.copy(path, folder / path.name)
    table = [{k: r[k] for k in ("rate", "epochs", "dev", "collapsed", "diverged")} for r in records.values()]
    return usable[best] | {"searched": table, "seconds": 0.0}


def file(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Take the soft labels of a file: those of D_T, and of dev and test where it has them."""
    s = step.settings
    texts = {split: inputs.texts(split) for split in ("transfer", "dev", "test")}
    inputs.texts("transfer", s["texts"])  # raises where there are fewer
    needed = {"transfer": s["texts"]} | ({"dev": len(texts["dev"])} if s["needs_dev"] else {})
    logits = soft_labels.read(Path(step.folder), texts, needed, _labels(inputs), s["columns"])
    for split, array in logits.items():
        np.save(folder / ANSWERED.format(split=split), array)
    return _untrained(0)


def linear_model(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Train the linear model: on the labels of D_L, or on D_T with the teacher's soft labels as weights."""
    s, labels = step.settings, _labels(inputs)
    if "label" in step.parents:
        logits = np.load(inputs.folder("label") / "logits.npy")[: s["texts"]].astype(np.float64)
        targets = np.exp(logits - logits.max(axis=1, keepdims=True))
        targets /= targets.sum(axis=1, keepdims=True)
        texts = inputs.texts("transfer", len(targets))
    else:
        texts, targets = inputs.texts("train", s["texts"] or None), inputs.classes("train", s["texts"] or None)
    dev = _labelled(inputs, "dev")
    model, tried, answers = linear.fit(texts, targets, len(labels), inputs.texts("dev"), dev.labels, s["strengths"])
    model.save(folder)
    np.save(folder / "dev.tried.npy", answers)
    right = max(row["dev_accuracy"] for row in tried["searched"])
    record = {"rate": None, "collapsed": right - dev.majority() < COLLAPSE_MARGIN, "tokens": 0, "steps": 0}
    return record | tried | {"n_params": model.n_params, "labels": labels}


def part(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Label some thousands of transfer texts, so that a killed run loses no more and several workers share the rest."""
    _check(step, inputs)
    s = step.settings
    texts = inputs.texts("transfer", s["first"] + s["texts"])[s["first"] :]
    np.save(folder / "logits.npy", respond(inputs, s, watch)("transfer", texts).astype(np.float16))
    return {"texts": len(texts)}


def label(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Label the transfer set, or put together the parts that are labelled; logits in 16 bits, as they are released."""
    s = step.settings
    if parts := sorted(role for role in step.parents if role.startswith("part-")):
        logits = np.concatenate([np.load(inputs.folder(role) / "logits.npy") for role in parts])
    else:
        _check(step, inputs)
        split = s.get("of", "transfer")
        logits = respond(inputs, s, watch)(split, inputs.texts(split, s["texts"] or None)).astype(np.float16)
    np.save(folder / "logits.npy", logits)
    return {"tokens": 0, "class_shares": np.bincount(logits.argmax(1), minlength=logits.shape[1]).tolist()}


def evaluation(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Measure a teacher or the linear model on dev and test, text by text; a file's on the splits that it has."""
    source, scores, answer = inputs.record("model"), {}, respond(inputs, step.settings, watch)
    own = {k: source.get(k) for k in ("rate", "collapsed", "tokens", "steps", "n_params", "searched")}
    commonest = np.bincount(inputs.classes("train")).argmax()
    for split in ("dev", "test"):
        data = _labelled(inputs, split)
        try:
            logits = answer(split, inputs.texts(split))
        except FileNotFoundError:  # a file of soft labels without this split
            continue
        _keep(folder, split, logits, data.labels)
        scores[split] = evaluate.metrics(logits, data.labels, data.scale)
        scores[split] |= {"n": len(data.labels), "majority": float((data.labels == commonest).mean())}
    own |= {"epochs": source["epochs"]} if "epochs" in source else {}
    if "C" in source:  # of a linear model the strengths that were tried are no learning rates
        own |= {"searched": None, "rate": source["C"]}
    return {"scores": scores, "model": own}


def mean(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Average several teachers: the logarithm of their mean probabilities, on D_T or, of evaluations, on dev and test."""
    members = [inputs.folder(role) for role in sorted(step.parents) if role.startswith("member-")]
    if (members[0] / "logits.npy").is_file():
        logits = _mean([np.load(member / "logits.npy") for member in members]).astype(np.float16)
        np.save(folder / "logits.npy", logits)
        return _untrained(0) | {"class_shares": np.bincount(logits.argmax(1), minlength=logits.shape[1]).tolist()}
    scores = {}
    records = [json.loads((member / "record.json").read_text()) for member in members]
    scale = tuple(_labels(inputs)) == SCALE
    for split in ("dev", "test"):
        files = [member / ANSWERED.format(split=split) for member in members]
        if all(path.is_file() for path in files):
            labels = np.load(members[0] / f"{split}.labels.npy")
            logits = _mean([np.load(path) for path in files])
            _keep(folder, split, logits, labels)
            known = {k: records[0]["scores"][split][k] for k in ("n", "majority")}
            scores[split] = evaluate.metrics(logits, labels, scale) | known
    n_params = sum(r["model"]["n_params"] or 0 for r in records)
    return {"scores": scores, "model": _untrained(n_params) | {"searched": None}}


def respond(inputs: Inputs, settings: dict[str, Any], watch: Watch | None = None) -> Respond:
    """Return the step's parent "model" as a function of a split and its texts, whatever kind of teacher it is.

    Of a file's answers a split that it lacks raises FileNotFoundError.
    """
    folder = inputs.folder("model")
    if linear.is_linear(folder):
        model = linear.load(folder)
        return lambda split, texts: model.logits(texts)
    if (folder / mirror.CONFIG).is_file():
        from pdstudy.models import teachers

        opened = teachers.open_model(folder, _labels(inputs))
        return lambda split, texts: teachers.logits(opened, texts, settings["max_length"], settings["precision"], watch)
    return lambda split, texts: np.load(folder / ANSWERED.format(split=split))[: len(texts)]


def check(logits: np.ndarray, dev: Labelled, margin: float, names: Sequence[str]) -> None:
    """Raise ValueError where a teacher's answers to dev are hardly better than the majority class, or its classes seem swapped."""
    scores, majority = evaluate.metrics(logits, dev.labels, dev.scale), dev.majority()
    answers, right = logits.argmax(1), scores["accuracy"]
    if dev.above_baseline(scores) >= margin:
        return
    cure = "train it longer, on more text, or choose another; teacher.margin sets how much better it must be"
    if dev.scale:
        raise ValueError(f"the teacher's scores on dev have Pearson's r = {scores['pearson']:.2f} with the right ones: {cure}")
    order = np.array([np.bincount(dev.labels[answers == i], minlength=len(names)).argmax() for i in range(len(names))])
    if (mended := float((order[answers] == dev.labels).mean())) >= majority + max(margin, 0.1):
        swapped = ", ".join(f"{names[i]!r} for {names[order[i]]!r}" for i in np.flatnonzero(order != np.arange(len(names))))
        cure = f"it seems to say {swapped} (read so it is right on {mended:.1%}): set id2label in its config.json"
    raise ValueError(f"the teacher is right on {right:.1%} of dev, the majority class on {majority:.1%}: {cure}")


def _check(step: Step, inputs: Inputs) -> None:
    """Raise ValueError unless the teacher's evaluation on dev lets it teach."""
    answers = inputs.folder("evaluation") / ANSWERED.format(split="dev")
    if answers.is_file():
        check(np.load(answers), _labelled(inputs, "dev"), step.settings["margin"], _labels(inputs))


def _mean(logits: Sequence[np.ndarray]) -> np.ndarray:
    shares = [np.exp(a - a.max(axis=1, keepdims=True)) for a in (np.asarray(x, dtype=np.float64) for x in logits)]
    p = np.mean([share / share.sum(axis=1, keepdims=True) for share in shares], axis=0)
    return np.log(np.maximum(p, soft_labels.SMALLEST)).astype(np.float32)


def _keep(folder: Path, split: str, logits: np.ndarray, labels: np.ndarray) -> None:
    np.save(folder / ANSWERED.format(split=split), logits)
    np.save(folder / f"{split}.labels.npy", labels)


def _labels(inputs: Inputs) -> list[str]:
    return inputs.record("texts")["labels"]


def _labelled(inputs: Inputs, split: str) -> Labelled:
    """Return one split's classes, its texts left out."""
    nothing = Ids(np.empty(0, np.int32), np.zeros(1, np.int64))
    return Labelled(nothing, inputs.classes(split), tuple(_labels(inputs)) == SCALE)


def _source(step: Step) -> Path:
    """Return the folder of a model that lies outside of the store, after checking that its files are those of the settings."""
    source = mirror.model_folder(step.folder)
    for name, wanted in step.settings["sha256"].items():
        if not (source / name).is_file() or sha256(source / name) != wanted:
            raise ValueError(f"{step.folder}: {name} is not the file that the study was planned with (sha256 {wanted[:12]}...)")
    return source


def _untrained(n_params: int) -> dict[str, Any]:
    return {"rate": None, "collapsed": False, "seconds": 0.0, "tokens": 0, "steps": 0, "n_params": n_params}
