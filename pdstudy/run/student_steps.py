"""The steps that train students, and choose among them by their scores on dev."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pdstudy import stages
from pdstudy.data import mirror
from pdstudy.data.batches import Ids
from pdstudy.models import encoder
from pdstudy.models.train import Diverged, Watch
from pdstudy.models.weights import copy_weights, save
from pdstudy.run.inputs import Inputs
from pdstudy.run.model_steps import n_params, training_record
from pdstudy.sizes import Size
from pdstudy.study.steps import Step

LOWER_BY = 3.0  # if every rate of a search collapses, rates lower by this factor are tried,
LOWER_TIMES = 2  # this many times
TRAINED = "trained.json"  # settings, parents and record of a student that a search has trained


def search(step: Step, inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Copy the candidate that is best on dev.

    If every candidate collapsed to the majority class or diverged, lower rates are tried here until one learns, at most
    LOWER_TIMES. Otherwise, with `seeds` above 1, if the largest rate wins or some candidates collapsed, every candidate is trained on
    that many seeds and the best mean wins. Both are the same for every recipe.
    """
    candidates = {role: _parent_step(inputs, role) for role in step.parents}
    keys = [k for k in ("batch", "epochs") if len({c.settings[k] for c in candidates.values()}) > 1]  # searched with the rates
    records = {role: inputs.record(role) | {k: c.settings[k] for k in keys} for role, c in candidates.items()}
    tried = sorted(records.values(), key=lambda r: r["rate"])
    lower = []  # (record, folder)
    while all(r["collapsed"] for r in tried) and len(lower) < LOWER_TIMES:
        candidate, place = next(iter(candidates.values())), folder / f"below-{len(lower) + 1}"
        place.mkdir()
        record = train_student(candidate, Inputs(candidate, inputs.store), place, watch, tried[0]["rate"] / LOWER_BY)
        record |= {k: candidate.settings[k] for k in keys}
        lower.append((record, place))
        tried.insert(0, record)
    usable = [r for r in tried if not r["diverged"]]
    if not usable:
        raise Diverged(f"every rate from {tried[0]['rate']:g} to {tried[-1]['rate']:g} diverged; search lower rates")
    best, n_seeds, seconds = better(usable), step.settings.get("seeds", 1), sum(r["seconds"] for r, _ in lower)
    if n_seeds > 1 and not lower and (best["rate"] == tried[-1]["rate"] or any(r["collapsed"] for r in tried)):
        best_over_seeds, spent = _best_over_seeds(candidates, records, inputs, folder, watch, n_seeds)
        best, seconds = best_over_seeds or best, seconds + spent
    source = next((p for r, p in lower if r is best), None) or inputs.folder(next(k for k, r in records.items() if r is best))
    for name in (mirror.WEIGHTS, mirror.CONFIG, "curve.jsonl"):
        shutil.copy(source / name, folder / name)
    for _, place in lower:
        shutil.rmtree(place)
    table = [{k: r[k] for k in ("rate", "batch", "epochs", "dev", "collapsed", "diverged", "dev_by_seed") if k in r} for r in tried]
    return best | {"searched": table, "seconds": seconds}


def _best_over_seeds(
    candidates: dict[str, Step], records: dict[str, dict], inputs: Inputs, folder: Path, watch: Watch, n_seeds: int
) -> tuple[dict[str, Any] | None, float]:
    """Return the record of the candidate with the best mean score on dev over seeds, None if all diverged, and the seconds of training.

    The scores are added to the records. A seed on which a candidate diverged has a score of 0. Each seed of the best is kept in a
    folder of its own; its seconds are those of the student that is made of it.
    """
    means, seconds, places = {}, {}, {}
    for i, (role, candidate) in enumerate(candidates.items()):
        scores = [score(records[role])]
        for seed in range(1, n_seeds):
            other = replace(candidate, settings=candidate.settings | {"seed": seed})
            place = places[role, seed] = folder / f"seed-{seed}-{i}"
            place.mkdir()
            record = train_student(other, Inputs(other, inputs.store), place, watch)
            (place / TRAINED).write_text(json.dumps({"settings": other.settings, "parents": other.parents, "record": record}))
            scores.append(score(record))
            seconds[role, seed] = record["seconds"]
        records[role]["dev_by_seed"], means[role] = scores, sum(scores) / n_seeds
    usable = [role for role in records if not records[role]["diverged"]]
    best = max(usable, key=lambda role: (means[role], -records[role]["rate"]), default=None)
    for (role, seed), place in places.items():
        if role == best and (place / mirror.WEIGHTS).is_file():  # otherwise it diverged
            place.rename(folder / f"seed-{seed}")
            del seconds[role, seed]
        else:
            shutil.rmtree(place)
    return (records[best] if best else None), sum(seconds.values())


def _trained_in_search(step: Step, inputs: Inputs, folder: Path) -> dict[str, Any] | None:
    """Return the record of this student after copying it from its search, or None if the search did not train it."""
    if "search" not in step.parents or not (place := inputs.folder("search") / f"seed-{step.settings['seed']}").is_dir():
        return None
    trained = json.loads((place / TRAINED).read_text())
    given = [{k: v for k, v in s.items() if k not in ("rate", "batch", "epochs")} for s in (trained["settings"], step.settings)]
    if given[0] != given[1] or trained["parents"] != {role: digest for role, digest in step.parents.items() if role != "search"}:
        return None  # such as a point of a curve, which has fewer texts
    for name in (mirror.WEIGHTS, mirror.CONFIG, "curve.jsonl"):
        shutil.copy(place / name, folder / name)
    return trained["record"]


def score(record: dict[str, Any]) -> float:
    """Return a model's score on dev: its accuracy, or Pearson's r if the labels are scores; 0 if it diverged."""
    return 0.0 if record["dev"] is None else record["dev"].get("pearson", record["dev"]["accuracy"])


def better(records: list[dict]) -> dict:
    """Return the record of the candidate with the best score on dev; of equal ones that of the lowest rate."""
    return max(records, key=lambda r: (score(r), -r["rate"]))


def train_student(step: Step, inputs: Inputs, folder: Path, watch: Watch, rate: float | None = None) -> dict[str, Any]:
    """Fine-tune on D_L or distil on D_T, at `rate` or else the step's own, and write the student, also if it collapsed."""
    if (record := _trained_in_search(step, inputs, folder)) is not None:
        return record
    s, vocabulary, labels = step.settings, inputs.vocabulary(), inputs.labels
    if rate is None:
        rate = s["rate"] if "rate" in s else inputs.record("search")["rate"]
    searched = {key: inputs.record("search")[key] for key in ("batch", "epochs") if isinstance(s[key], list)}
    settings = s | {"rate": rate} | searched
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
            outcome = stages.finetune(model, inputs.labelled("train", s["texts"]), dev, settings, vocabulary, watch)
        else:
            labelled = inputs.labelled("train", s["match_classes"]) if "match_classes" in s else None
            outcome = stages.distill(model, *_soft_labelled(inputs, s), dev, settings, vocabulary, watch, labelled)
    except Diverged as error:
        if "search" in step.parents:
            raise
        return {"rate": rate} | diverged_record(error)  # a candidate: the search takes another one
    save(folder, config, model.state(), "BertForSequenceClassification")
    record = {"rate": rate, "dev": outcome.dev, "collapsed": outcome.collapsed, "diverged": False, "n_params": n_params(model)}
    return training_record(outcome.fitted, folder) | record | searched


def diverged_record(error: Diverged) -> dict[str, Any]:
    """Return the record of a candidate that diverged, which has no weights and no scores."""
    return {"dev": None, "collapsed": True, "diverged": True, "seconds": 0.0, "why": str(error)}


def _soft_labelled(inputs: Inputs, settings: dict[str, Any]) -> tuple[Ids, np.ndarray]:
    """Return the texts to distil on and the teacher's logits, (n_texts, n_classes): D_T, and D_L if the settings say so."""
    logits = np.load(inputs.folder("label") / "logits.npy")[: settings["texts"]].astype(np.float32)
    texts = inputs.texts("transfer", len(logits))
    if "labelled" not in settings:
        return texts, logits
    logits_of_train = np.load(inputs.folder("labelled") / "logits.npy").astype(np.float32)
    train = inputs.labelled("train", len(logits_of_train))
    if weight := settings.get("true_labels", 0.0):
        logits_of_train = stages.mixed(logits_of_train, train.labels, weight)
    return texts.followed_by(train.ids), np.concatenate([logits, logits_of_train])


def _parent_step(inputs: Inputs, role: str) -> Step:
    """Return a parent as a step, from its manifest."""
    manifest = inputs.store.manifest(inputs.step.parents[role])
    return Step(manifest["stage"], manifest["settings"], manifest["parents"], manifest["label"])
