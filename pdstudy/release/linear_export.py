"""The linear model of a finished study as a folder: a vocabulary in JSON, weights as safetensors, a card. No pickle, no torch.

What is written is asked the test texts before it is shown, and must answer as it did in the study.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pdstudy.data.tasks import SCALE
from pdstudy.escape import escape_control, escape_markdown
from pdstudy.models import evaluate, latency, linear
from pdstudy.recipes import LINEAR_TAUGHT
from pdstudy.release.student import Finished, beside_teacher, interval

CARD = "README.md"
TOLERANCE = 1e-4  # of a logit, between the folder and the study


class Unlike(RuntimeError):
    """Raised when what was written does not answer as the model did in the study."""


def fill(found: Finished, folder: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Write the linear model's files into `folder` and return the facts about it. Raises Unlike."""
    tell("weights and vocabulary")
    record, texts = found.record("model"), found.lines("test")
    model = linear.load(found.folder("model"))
    model.save(folder)
    path = folder / linear.VOCABULARY
    named = json.loads(path.read_text(encoding="utf-8")) | {"labels": record["labels"]}
    path.write_text(json.dumps(named, ensure_ascii=False) + "\n", encoding="utf-8")
    tell(f"asking it the {len(texts):,} test texts")
    evaluation = found.folder("evaluation")
    before, labels = (np.load(evaluation / f"test.{part}.npy") for part in ("logits", "labels"))
    logits = linear.load(folder).logits(texts)
    if (off := float(np.abs(logits - before).max())) > TOLERANCE:
        raise Unlike(f"the folder's logits differ from the study's by {off:.2g}, more than {TOLERANCE:g}")
    tell("measuring how fast it answers")
    study, task = found.plan.study, found.plan.study.resolved_task()
    return {
        "study": study.name,
        "task": task.name,
        "pairs": isinstance(texts[0], tuple),
        "without_tags": task.without_tags,
        "labels": record["labels"],
        "student": found.name,
        "recipe": found.student.recipe,
        "digest": found.student.model,
        "n_params": record["n_params"],
        "n_grams": record["n_grams"],
        "analyzer": record["analyzer"],
        "C": record["C"],
        "searched": record["searched"],
        "test": evaluate.metrics(logits, labels, tuple(record["labels"]) == SCALE)
        | interval(int((logits.argmax(1) == labels).sum()), len(labels))
        | {"n": len(labels), "majority": found.record("evaluation")["scores"]["test"]["majority"]},
        "teacher": beside_teacher(found, logits),
        "latency": asdict(latency.measure_on_texts(model.logits, texts)),
        "texts": found.record("texts")["counts"],
    }


def card(facts: dict[str, Any]) -> str:
    """Return the card of an exported linear model, made from its facts."""
    test, speed, teacher = facts["test"], facts["latency"], facts["teacher"]
    kind = {"word": "words and pairs of words", "char": "runs of one to three characters"}[facts["analyzer"]]
    taught = facts["recipe"] == LINEAR_TAUGHT
    learned = "the teacher's soft labels of D_T, as weights" if taught else "the labels of D_L"
    tried = ", ".join(f"{row['C']:g} ({row['dev_accuracy']:.1%})" for row in facts["searched"])
    rows = [
        f"| accuracy | {test['accuracy']:.1%} | {test['low']:.1%} to {test['high']:.1%} |",
        f"| F1 | {test['f1']:.3f} | |",
        f"| Matthews' r | {test['mcc']:.3f} | |",
        f"| majority class, accuracy | {test['majority']:.1%} | |",
    ]
    if teacher:
        rows.append(f"| same answer as the teacher | {teacher['agreement']:.1%} | {teacher['low']:.1%} to {teacher['high']:.1%} |")
        rows.append(f"| the teacher ({escape_markdown(teacher['size'])}), accuracy | {teacher['accuracy']:.1%} | |")
    labels = ", ".join(f"{i} = {escape_markdown(label)}" for i, label in enumerate(facts["labels"]))
    return escape_control(f"""---
library_name: pdstudy
pipeline_tag: text-classification
tags: [tf-idf, logistic-regression, pdstudy]
---

# {escape_markdown(facts["student"])}: a linear model for {escape_markdown(facts["task"])}

TF-IDF of {kind} ({facts["n_grams"]:,} of them) with logistic regression, {facts["n_params"]:,} numbers in all. It learned from {learned}.
It gives a text one of {len(facts["labels"])} labels ({labels}).

`{linear.VOCABULARY}` holds the vocabulary and how texts are cut, as `sklearn.feature_extraction.text.TfidfVectorizer` takes them;
`{linear.WEIGHTS}` holds `idf` (n_grams,), `weights` (n_classes, n_grams) and `bias` (n_classes,). Nothing in the folder is a pickle.
A whole file at once: `python -m pdstudy predict FOLDER texts.csv --text COLUMN{" --text COLUMN" if facts["pairs"] else ""}`.

## How good it is

On the {test["n"]:,} test texts of {escape_markdown(facts["task"])}, asked of these very files:

| | | 95 % interval |
|---|---|---|
{chr(10).join(rows)}

The intervals (Wilson's) are over texts like these.

## How fast it is

On {escape_markdown(speed["processor"])}, one thread: {speed["p50"]:.2f} ms for one text (median of {speed["n"]}; 95th percentile {speed["p95"]:.2f} ms),
{speed["throughput"]:,.0f} texts a second, {speed["batch"]} at once.

## How it was made

C, the inverse of the penalty, was chosen on dev: {facts["C"]:g} of {tried}.

- The study: {escape_markdown(facts["trained"])}
- The export: {escape_markdown(facts["exported"]["command"])} · commit {facts["exported"]["commit"]} · {facts["exported"]["date"]}

## Limits

- It reads words, not their order beyond pairs, and gives every text one of its labels, also one that deserves none.
- Its probabilities were not calibrated.
""")
