"""The steps that make teachers of other kinds, and linear models: taken, fine-tuned, chosen. They take texts, not word pieces."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from pdstudy.data import mirror, soft_labels
from pdstudy.models import evaluate, linear
from pdstudy.models.train import Diverged, Watch
from pdstudy.run.inputs import Inputs
from pdstudy.run.label_steps import LOGITS, untrained
from pdstudy.run.model_steps import n_params, training_record
from pdstudy.run.student_steps import diverged_record, score
from pdstudy.stages import COLLAPSE_MARGIN
from pdstudy.storage.files import sha256
from pdstudy.study.steps import Step

SAVE_EVERY = 300.0  # seconds between checkpoints of a large model, which take seconds to write


def outside(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Take a sequence classifier of any kind from a folder, its classes compared with the task's by name."""
    from pdstudy.models import teachers

    source = _verified_source(step)
    opened = teachers.open_model(source, inputs.labels)
    for name in (mirror.CONFIG, mirror.WEIGHTS):
        shutil.copy(source / name, folder / name)
    teachers.copy_tokenizer(source, folder)
    return untrained(n_params(opened.model))


def tune(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Fine-tune an encoder of any kind on D_L at one rate, for one number of epochs."""
    from pdstudy.models import teachers

    s, source = step.settings, _verified_source(step)
    opened = teachers.open_model(source, inputs.labels, s["seed"])
    if not opened.fresh_head:
        raise ValueError(f"{source}: it is a classifier already, but its {mirror.CONFIG} does not say so; set its architectures")
    watch.save_every = SAVE_EVERY
    texts, classes = inputs.texts("train", s["texts"]), inputs.labelled("train", s["texts"]).labels
    record: dict[str, Any] = {"rate": s["rate"], "epochs": s["epochs"], "n_params": n_params(opened.model)}
    try:
        fitted = teachers.finetune(opened, texts, classes, s, watch)
    except Diverged as error:
        return record | diverged_record(error) | {"tokens": 0, "steps": 0}
    dev = inputs.labelled("dev")
    scores = evaluate.metrics(teachers.logits(opened, inputs.texts("dev"), s["max_length"], s["precision"]), dev.labels, dev.scale)
    teachers.save(opened, source, folder)
    record |= {"dev": scores, "collapsed": dev.above_baseline(scores) < COLLAPSE_MARGIN, "diverged": False}
    return record | training_record(fitted, folder)


def choose(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Copy the fine-tuned teacher that is best on dev; of equal ones that of the lowest rate and fewest epochs."""
    records = {role: inputs.record(role) for role in step.parents}
    usable = {role: r for role, r in records.items() if not r["diverged"]}
    if not usable:
        raise Diverged("the teacher diverged at every rate; give lower ones in teacher.finetune.rates")
    best = max(usable, key=lambda role: (score(usable[role]), -usable[role]["rate"], -usable[role]["epochs"]))
    for path in inputs.folder(best).iterdir():
        if path.name not in ("record.json", "manifest.json"):
            shutil.copy(path, folder / path.name)
    table = [{k: r[k] for k in ("rate", "epochs", "dev", "collapsed", "diverged")} for r in records.values()]
    return usable[best] | {"searched": table, "seconds": 0.0}


def file(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Take the soft labels of a file: those of D_T, and of dev and test if it has them."""
    s = step.settings
    texts = {split: inputs.texts(split) for split in ("transfer", "dev", "test")}
    inputs.texts("transfer", s["texts"])  # raises if there are fewer
    needed = {"transfer": s["texts"]} | ({"dev": len(texts["dev"])} if s["needs_dev"] else {})
    for split, logits in soft_labels.read(Path(step.folder), texts, needed, inputs.labels, s["columns"]).items():
        np.save(folder / LOGITS.format(split=split), logits)
    return untrained(0)


def linear_model(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Train the linear model: on the labels of D_L, or on D_T with the teacher's soft labels as weights."""
    s, labels, dev = step.settings, inputs.labels, inputs.labelled("dev")
    if "label" in step.parents:
        from scipy.special import softmax

        logits = np.load(inputs.folder("label") / "logits.npy")[: s["texts"]]
        texts, targets = inputs.texts("transfer", len(logits)), softmax(logits.astype(np.float64), axis=1)
    else:
        texts, targets = inputs.texts("train", s["texts"]), inputs.labelled("train", s["texts"]).labels
    model, searched, dev_logits = linear.fit(texts, targets, len(labels), inputs.texts("dev"), dev.labels, s["strengths"])
    model.save(folder)
    np.save(folder / "dev.tried.npy", dev_logits)
    accuracy = max(row["dev_accuracy"] for row in searched["searched"])
    record = {"rate": None, "collapsed": accuracy - dev.majority() < COLLAPSE_MARGIN, "tokens": 0, "steps": 0}
    return record | searched | {"n_params": model.n_params, "labels": labels}


def _verified_source(step: Step) -> Path:
    """Return the folder of a model outside the store. Raises ValueError if its files are not those of the step's settings."""
    source = mirror.model_folder(step.folder)
    for name, digest in step.settings["sha256"].items():
        if not (source / name).is_file() or sha256(source / name) != digest:
            raise ValueError(f"{step.folder}: {name} is not the file that the study was planned with (sha256 {digest[:12]}...)")
    return source
