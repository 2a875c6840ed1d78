"""The steps that train students, and choose among those that were trained."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pdstudy import stages
from pdstudy.data import mirror
from pdstudy.data.batches import Ids, Labelled
from pdstudy.data.formats import TextError
from pdstudy.models import encoder
from pdstudy.models.train import Diverged, Watch
from pdstudy.models.weights import copy_weights, save
from pdstudy.run.inputs import Inputs
from pdstudy.run.model_steps import n_params_of, trained
from pdstudy.sizes import Size
from pdstudy.study.steps import Step

SEARCH_BELOW = 3.0  # where every rate of a search collapses, rates this factor lower are tried,
SEARCH_DEPTH = 2  # so many times


def search(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Keep the candidate that is best on dev.

    Where every candidate collapsed to the majority class or diverged, lower rates are tried here, for every
    arm alike, until one learns or the depth is reached. With `seeds` above 1, where the largest rate wins or any candidate
    collapsed, every candidate is trained on so many seeds and chosen by their mean: for every arm alike, too.
    """
    records = {role: inputs.record(role) for role in step.parents}
    varied = {role: {k: _parent_step(inputs, role).settings[k] for k in ("batch", "epochs")} for role in records}
    several = [k for k in ("batch", "epochs") if len({v[k] for v in varied.values()}) > 1]
    varied = {role: {k: v[k] for k in several} for role, v in varied.items()}
    records = {role: r | varied[role] for role, r in records.items()}
    tried = sorted(records.values(), key=lambda r: r["rate"])
    below = []
    while all(r["collapsed"] for r in tried) and len(below) < SEARCH_DEPTH:
        rate = tried[0]["rate"] / SEARCH_BELOW
        role = next(iter(step.parents))
        candidate = _parent_step(inputs, role)
        place = folder / f"below-{len(below) + 1}"
        place.mkdir()
        record = train_student(candidate, Inputs(candidate, inputs.store), place, watch, rate)
        record |= varied[role]
        below.append((record, place))
        tried.insert(0, record)
    usable = [r for r in tried if not r["diverged"]]
    if not usable:
        raise Diverged(f"every rate from {tried[0]['rate']:g} to {tried[-1]['rate']:g} diverged; search lower rates")
    best = better(usable)
    if (n_seeds := step.settings.get("seeds", 1)) > 1 and (best["rate"] == tried[-1]["rate"] or any(r["collapsed"] for r in tried)):
        best = _on_more_seeds(records, step, inputs, folder, watch, n_seeds) or best
    source = next((p for r, p in below if r is best), None) or inputs.folder(next(k for k, r in records.items() if r is best))
    for name in (mirror.WEIGHTS, "config.json", "curve.jsonl"):
        shutil.copy(source / name, folder / name)
    for _, place in below:
        shutil.rmtree(place)
    table = [{k: r[k] for k in ("rate", "batch", "epochs", "dev", "collapsed", "diverged", "dev_by_seed") if k in r} for r in tried]
    return best | {"searched": table, "seconds": sum(r["seconds"] for r, _ in below)}


def _on_more_seeds(
    records: dict[str, dict], step: Step, inputs: Inputs, folder: Path, watch: Watch, n_seeds: int
) -> dict[str, Any] | None:
    """Return the record of the candidate that is best on dev in the mean over seeds, each with its scores by seed; None of none.

    A seed on which a candidate diverged counts as nothing: a score of 0.
    """
    means = {}
    for role, record in records.items():
        candidate = _parent_step(inputs, role)
        scores = [_score(record)]
        for seed in range(1, n_seeds):
            other, place = replace(candidate, settings=candidate.settings | {"seed": seed}), folder / f"seed-{seed}"
            place.mkdir()
            scores.append(_score(train_student(other, Inputs(other, inputs.store), place, watch)))
            shutil.rmtree(place)
        record["dev_by_seed"], means[role] = scores, sum(scores) / n_seeds
    usable = [role for role in records if not records[role]["diverged"]]
    return records[max(usable, key=lambda role: (means[role], -records[role]["rate"]))] if usable else None


def _score(record: dict[str, Any]) -> float:
    return 0.0 if record["dev"] is None else record["dev"].get("pearson", record["dev"]["accuracy"])


def better(tried: list[dict]) -> dict:
    """Return the candidate that is best on dev: by accuracy, of scores by Pearson's r; of equal ones that of the lowest rate."""
    return max(tried, key=lambda r: (_score(r), -r["rate"]))


def train_student(step: Step, inputs: Inputs, folder: Path, watch: Watch, rate: float | None = None) -> dict[str, Any]:
    """Fine-tune on D_L or distil on D_T, at `rate` or else the step's own, and write the student, whatever it is worth.

    A collapse is a finding, and is named.
    """
    s, vocabulary = step.settings, inputs.vocabulary()
    if rate is None:
        rate = s["rate"] if "rate" in s else inputs.record("search")["rate"]
    searched = {key: inputs.record("search")[key] for key in ("batch", "epochs") if isinstance(s[key], list)}
    settings = s | {"rate": rate} | searched
    labels = inputs.record("ids")["labels"]
    config = encoder.bert_config(Size.parse(s["size"]), vocabulary.size, s["init_std"], s["dropout"], len(labels), s.get("heads"))
    if "pooling" in s:
        config.classifier_pooling = s["pooling"]
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: i for i, name in enumerate(labels)}
    model = encoder.new_classifier(config, s["seed"])
    if "start" in step.parents:
        copy_weights(model, s["start"], inputs.folder("start"))
    dev = inputs.labelled("dev")
    try:
        if step.stage == "finetune":
            train = _first(inputs.labelled("train"), s["texts"])
            outcome = stages.finetune(model, train, dev, settings, vocabulary, watch)
        else:
            outcome = stages.distill(model, *_taught(inputs, s), dev, settings, vocabulary, watch)
    except Diverged as error:
        if "search" in step.parents:
            raise
        # A candidate that diverges is an answer to the search: it is recorded without weights and without a score.
        return {"rate": rate, "dev": None, "collapsed": True, "diverged": True, "seconds": 0.0, "why": str(error)}
    save(folder, config, model.state(), "BertForSequenceClassification")
    record = {"rate": rate, "dev": outcome.dev, "collapsed": outcome.collapsed, "diverged": False, "n_params": n_params_of(model)}
    record |= searched
    return trained(outcome.fitted, folder) | record


def _taught(inputs: Inputs, settings: dict[str, Any]) -> tuple[Ids, np.ndarray]:
    """Return the texts that are distilled on and the teacher's logits, (n_texts, n_classes): D_T's, and D_L's where that is asked for."""
    soft = np.load(inputs.folder("label") / "logits.npy")[: settings["texts"]].astype(np.float32)
    texts = inputs.transfer().head(len(soft))
    if "labelled" not in settings:
        return texts, soft
    of_labelled = np.load(inputs.folder("labelled") / "logits.npy").astype(np.float32)
    train = _first(inputs.labelled("train"), len(of_labelled))
    if weight := settings.get("true_labels", 0.0):
        of_labelled = stages.mixed(of_labelled, train.labels, weight)
    return texts.followed_by(train.ids), np.concatenate([soft, of_labelled])


def _first(data: Labelled, n: int) -> Labelled:
    """Return the first `n` labelled texts, 0 for all: smaller sets are parts of larger ones."""
    if n > len(data.ids):
        raise TextError(f"splits.train asks for {n:,} texts, but dev and test leave {len(data.ids):,}; ask for fewer")
    return replace(data, ids=data.ids.head(n), labels=data.labels[:n]) if n else data


def _parent_step(inputs: Inputs, role: str) -> Step:
    """Return a parent as a step again, from its manifest."""
    manifest = inputs.store.manifest(inputs.step.parents[role])
    return Step(manifest["stage"], manifest["settings"], manifest["parents"], manifest["label"])
