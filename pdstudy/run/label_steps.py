"""The steps that use a trained model: soft labels of the transfer set, and logits and scores on dev and test.

The model is a BERT that takes word pieces, a classifier that transformers opens, a linear model, or a file of soft labels.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdstudy import stages
from pdstudy.averaging import log_mean
from pdstudy.data import mirror
from pdstudy.data.batches import Ids, Labelled
from pdstudy.models import evaluate, linear
from pdstudy.models.train import Watch, device
from pdstudy.models.weights import load_classifier
from pdstudy.run.inputs import Inputs, read_record
from pdstudy.study.steps import Step

LOGITS = "{split}.logits.npy"
Predict = Callable[[str, "Ids | Sequence"], np.ndarray]  # split, its texts -> logits (n_texts, n_classes) float32


def part(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Label some thousands of transfer texts, so that a killed run loses no more."""
    s = step.settings
    predict = _qualified_teacher(step, inputs, watch)
    texts = inputs.texts("transfer", s["first"] + s["texts"])[s["first"] :]
    np.save(folder / "logits.npy", predict("transfer", texts).astype(np.float16))
    return {"texts": len(texts)}


def label(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Write the teacher's logits of D_T or of a split of D_L; those of text teachers in 16 bits, as they are released."""
    s, n_pieces = step.settings, 0
    if parts := sorted(role for role in step.parents if role.startswith("part-")):
        logits = np.concatenate([np.load(inputs.folder(role) / "logits.npy") for role in parts])
    else:
        split = s.get("of", "transfer")
        texts = inputs.texts(split, s["texts"])
        logits = _qualified_teacher(step, inputs, watch)(split, texts)
        if inputs.takes_word_pieces:
            n_pieces = int(texts.lengths.sum())
        else:
            logits = logits.astype(np.float16)
    np.save(folder / "logits.npy", logits)
    return {"tokens": n_pieces, "class_shares": class_counts(logits)}


def evaluation(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Write a model's logits on dev and test, and its scores; a file's on the splits that it has, none of a diverged candidate."""
    record, scores = inputs.record("model"), {}
    model = {k: record.get(k) for k in ("rate", "collapsed", "tokens", "steps", "n_params", "searched")}
    model |= {k: record[k] for k in ("batch", "epochs") if k in record}
    if "C" in record:  # a linear model's strengths are not learning rates
        model |= {"searched": None, "rate": record["C"]}
    if record.get("diverged"):
        return {"scores": scores, "model": model}
    predict = open_model(inputs, step.settings, watch)
    most_frequent = np.bincount(inputs.labelled("train").labels).argmax()
    for split in ("dev", "test"):
        data = inputs.labelled(split)
        try:
            logits = predict(split, inputs.texts(split))
        except FileNotFoundError:  # a file of soft labels without this split
            continue
        majority = float((data.labels == most_frequent).mean())
        scores[split] = save_scores(folder, split, logits, data.labels, data.scale) | {"n": len(data.labels), "majority": majority}
    return {"scores": scores, "model": model}


def mean(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Average several teachers: the logarithm of their mean probabilities, on D_T or, for evaluations, on dev and test."""
    members = [inputs.folder(role) for role in sorted(step.parents) if role.startswith("member-")]
    if (members[0] / "logits.npy").is_file():
        logits = log_mean([np.load(member / "logits.npy") for member in members]).astype(np.float16)
        np.save(folder / "logits.npy", logits)
        return untrained(0) | {"class_shares": class_counts(logits)}
    scores, records = {}, [read_record(member) for member in members]
    for split in ("dev", "test"):
        files = [member / LOGITS.format(split=split) for member in members]
        if all(path.is_file() for path in files):
            data = inputs.labelled(split)
            scores[split] = save_scores(folder, split, log_mean([np.load(path) for path in files]), data.labels, data.scale)
            scores[split] |= {k: records[0]["scores"][split][k] for k in ("n", "majority")}
    n_params = sum(r["model"]["n_params"] or 0 for r in records)
    return {"scores": scores, "model": untrained(n_params) | {"searched": None}}


def open_model(inputs: Inputs, settings: dict[str, Any], watch: Watch | None = None) -> Predict:
    """Return the step's parent "model" as a function of a split and its texts, whatever kind of model it is.

    For a file of soft labels, a split that it lacks raises FileNotFoundError.
    """
    folder = inputs.folder("model")
    if inputs.takes_word_pieces:
        model, vocabulary = load_classifier(folder).to(device()), inputs.vocabulary()
        return lambda split, ids: stages.label(model, ids, vocabulary, settings["precision"])
    if linear.is_linear(folder):
        model = linear.load(folder)
        return lambda split, texts: model.logits(texts)
    if (folder / mirror.CONFIG).is_file():
        from pdstudy.models import teachers  # here: it loads transformers

        opened = teachers.open_model(folder, inputs.labels)
        return lambda split, texts: teachers.logits(opened, texts, settings["max_length"], settings["precision"], watch)
    return lambda split, texts: np.load(folder / LOGITS.format(split=split))[: len(texts)]


def _qualified_teacher(step: Step, inputs: Inputs, watch: Watch) -> Predict:
    """Return the teacher as a function. Raises ValueError if it is not good enough on dev to teach."""
    predict, dev_logits = open_model(inputs, step.settings, watch), None
    if inputs.takes_word_pieces:
        dev_logits = predict("dev", inputs.texts("dev"))
    elif (file := inputs.folder("evaluation") / LOGITS.format(split="dev")).is_file():  # a file of soft labels may lack dev
        dev_logits = np.load(file)
    if dev_logits is not None:
        check_teacher(dev_logits, inputs.labelled("dev"), step.settings["margin"], inputs.labels)
    return predict


def check_teacher(logits: np.ndarray, dev: Labelled, margin: float, names: Sequence[str]) -> None:
    """Raise ValueError if a teacher's accuracy on dev is below the majority class plus `margin`, or its classes seem swapped."""
    scores, majority, predicted = evaluate.metrics(logits, dev.labels, dev.scale), dev.majority(), logits.argmax(1)
    if dev.above_baseline(scores) >= margin:
        return
    cure = "train it longer, on more text, or choose another; teacher.margin sets how much better it must be"
    if dev.scale:
        raise ValueError(f"the teacher's scores on dev have Pearson's r = {scores['pearson']:.2f} with the right ones: {cure}")
    order = np.array([np.bincount(dev.labels[predicted == i], minlength=len(names)).argmax() for i in range(len(names))])
    if (reordered := float((order[predicted] == dev.labels).mean())) >= majority + max(margin, 0.1):
        swapped = ", ".join(f"{names[i]!r} for {names[order[i]]!r}" for i in np.flatnonzero(order != np.arange(len(names))))
        cure = f"it seems to predict {swapped} (exchanged, it is right on {reordered:.1%}): set id2label in its config.json"
    raise ValueError(f"the teacher is right on {scores['accuracy']:.1%} of dev, the majority class on {majority:.1%}: {cure}")


def save_scores(folder: Path, split: str, logits: np.ndarray, labels: np.ndarray, scale: bool) -> dict[str, float]:
    """Return the scores of logits on a split after writing logits and classes."""
    np.save(folder / LOGITS.format(split=split), logits)
    np.save(folder / f"{split}.labels.npy", labels)
    return evaluate.metrics(logits, labels, scale)


def class_counts(logits: np.ndarray) -> list[int]:
    """Return how many texts each class is predicted for, (n_classes,)."""
    return np.bincount(logits.argmax(1), minlength=logits.shape[1]).tolist()


def untrained(n_params: int) -> dict[str, Any]:
    """Return the record of a model that is taken as it is."""
    return {"rate": None, "collapsed": False, "seconds": 0.0, "tokens": 0, "steps": 0, "n_params": n_params}
