"""From the store to a study's results on disk, each file whole or not there: metrics, answers, costs, what became of the text.

Readers are in results.py, which says what each file holds.
"""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pdstudy.machine import commit, processor
from pdstudy.storage import paths
from pdstudy.storage.files import whole
from pdstudy.storage.results import (
    CLASSES,
    COLUMNS,
    COSTS,
    DOMAINS,
    ENVIRONMENT,
    METRICS,
    PARAMS,
    PREDICTIONS,
    SEARCHES,
    TEXTS,
    TRIED,
)
from pdstudy.storage.store import Store
from pdstudy.study.plan import judged, search_of
from pdstudy.study.steps import Plan


def schema() -> pa.Schema:
    """Return the schema of metrics.parquet."""
    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])


def collect(plan: Plan, store: Store) -> dict[str, pa.Table]:
    """Return the tables of every student that is in the store: metrics, predictions, costs."""
    here = store.here()
    rows, items, searched = [], [], []
    base = {"study": plan.study.name, "task": plan.study.resolved_task().name}
    for step in (*plan.of_stage("pretrain"), *plan.of_stage("adopt")):
        if step.digest in here:
            rows += _start_rows(base | {"corpus": plan.source_of(step)}, step, store)
    majority_done, told = False, set()  # the teacher may be a student too: one model, one set of answers
    for student in plan.students:
        if student.evaluation not in here:
            continue
        folder = store.open(student.evaluation)
        record = json.loads((folder / "record.json").read_text())
        who = base | {"recipe": student.recipe, "size": student.size, "seed": student.seed, "digest": student.model}
        who |= {"curve": student.curve, "texts": student.texts, "domain": student.domain, "corpus": student.corpus}
        made = record["model"]
        who |= {k: made[k] for k in ("n_params", "rate", "collapsed", "tokens")}
        searched += [
            {"recipe": student.recipe, "size": student.size, "corpus": student.corpus, "rate": tried["rate"]}
            | ({"batch": tried["batch"]} if "batch" in tried else {})
            | {
                "chosen": tried["rate"] == made["rate"] and tried.get("batch") == made.get("batch"),
                "dev_accuracy": tried["dev"] and tried["dev"]["accuracy"],
                "collapsed": tried["collapsed"],
                "diverged": tried["diverged"],
            }
            for tried in (made["searched"] or ())
        ]
        for split, scores in record["scores"].items():
            n, majority = scores["n"], scores["majority"]
            rows += [
                who | {"split": split, "metric": m, "value": v, "n": n} for m, v in scores.items() if m not in ("n", "majority")
            ]
            if not majority_done:
                rows.append(base | {"recipe": "majority", "split": split, "metric": "accuracy", "value": majority, "n": n})
            if student.model not in told:
                items.append(_predictions(folder, student.model, split))
        majority_done = True
        told.add(student.model)
    answers = tried(plan, store)
    return ({TRIED: answers} if len(answers) else {}) | {
        METRICS: pa.Table.from_pylist(rows, schema=schema()),
        SEARCHES: pa.Table.from_pylist(searched),
        PREDICTIONS: pa.concat_tables(items) if items else pa.table({}),
        COSTS: pa.Table.from_pylist([_cost(s.digest, store) for s in plan.steps.values() if s.digest in here]),
    }


def tried(plan: Plan, store: Store) -> pa.Table:
    """Return the answers on dev of every rate that was tried and measured: recipe, size, rate, digest, item, label, predicted."""
    plan, here, items, told = judged(plan), store.here(), [], set()
    measured = {step.parents["model"]: step.digest for step in plan.of_stage("evaluate")}
    for student in plan.students:
        search, who = search_of(plan, student), (student.recipe, student.size)
        if not student.own or search is None or who in told:
            continue
        told.add(who)
        for candidate in search.parents.values():
            if measured.get(candidate) not in here or (folder := store.find(measured[candidate])) is None:
                continue
            record = json.loads((folder / "record.json").read_text())
            if "dev" in record["scores"]:  # else it diverged and answers nothing
                answers = _predictions(folder, candidate, "dev")
                columns = dict(zip(("recipe", "size", "rate"), (*who, record["model"]["rate"]), strict=True))
                columns = {name: [value] * len(answers) for name, value in columns.items()}
                items.append(pa.table(columns | {name: answers[name] for name in ("digest", "item", "label", "predicted")}))
    return pa.concat_tables(items).unify_dictionaries() if items else pa.table({})


def write(plan: Plan, store: Store, environment: dict[str, Any]) -> Path:
    """Return the study's folder after writing its tables, parameters and environment, each atomically."""
    folder = paths.study_folder(plan.study.name)
    folder.mkdir(parents=True, exist_ok=True)
    tables = collect(plan, store)
    if TRIED not in tables:  # what may lie there belongs to other settings
        (folder / TRIED).unlink(missing_ok=True)
    for name, table in tables.items():
        with whole(folder / name) as new:
            pq.write_table(table, new, compression="zstd")
    if environment["steps"]["computed"] == 0 and (folder / ENVIRONMENT).is_file():
        environment = json.loads((folder / ENVIRONMENT).read_text())  # the record of the run that made the numbers
    written = {ENVIRONMENT: environment, PARAMS: plan.study.model_dump(mode="json"), TEXTS: counts(plan, store)}
    if plan.study.domains.corpora:
        written[DOMAINS] = domains(plan, store)
    if found := classes(plan, store):  # else the texts were cleaned away, and what was written of them holds
        written[CLASSES] = found
    for name, value in written.items():
        with whole(folder / name) as new:
            new.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    return folder


def counts(plan: Plan, store: Store) -> dict[str, dict[str, int]]:
    """Return what became of each kind of text: read, left out and why, kept; pieces, unknown pieces, texts cut short."""
    here, found, names = store.here(), {}, {"transfer": "D_T", "corpus": "D_LM", "heldout": "heldout"}
    for step in (*plan.of_stage("texts"), *plan.of_stage("corpus")):
        if step.digest in here:
            kept, corpus = json.loads((store.open(step.digest) / "record.json").read_text())["counts"], step.settings["corpus"]
            found |= kept if step.stage == "texts" else {f"{name} {corpus}": count for name, count in kept.items()}
    for step in plan.of_stage("ids"):
        if step.digest in here:
            other = plan.source_of(step)
            for name, count in json.loads((store.open(step.digest) / "record.json").read_text())["counts"].items():
                kept = {k: count[k] for k in ("pieces", "unknown", "truncated")}
                told = names.get(name, name) + (f" {other}" if other else "")
                found[told] = found.get(told, {"kept": count["texts"]} if other else {}) | kept
    return found


def domains(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """Return how near each transfer set of another corpus is to D_L, the nearest first: corpus, texts, words, S, unseen."""
    here = store.here()
    steps = [s for s in plan.of_stage("domain") if s.digest in here]
    near = [json.loads((store.open(s.digest) / "record.json").read_text())["near"] for s in steps]
    return sorted(near, key=lambda row: -row["S"])


def classes(plan: Plan, store: Store) -> dict[str, Any]:
    """Return the classes' names, and how many texts of each stand in each split: {"labels": [...], "classes": {split: [...]}}."""
    (texts,) = plan.of_stage("texts")
    if not (folder := store.find(texts.digest)):
        return {}
    record = json.loads((folder / "record.json").read_text())
    return {key: record[key] for key in ("labels", "classes")}


def _start_rows(base: dict, step, store: Store) -> list[dict]:
    record = json.loads((store.open(step.digest) / "record.json").read_text())
    level, settings = record["reading"], step.settings
    if level is None:  # too little text was held out to measure it
        return []
    who = base | {"recipe": "start", "size": settings["size"], "seed": settings.get("seed", 0), "split": "heldout"}
    who |= {"n": level["masked_pieces"], "n_params": record["n_params"], "rate": settings.get("rate"), "tokens": record["tokens"]}
    who |= {"collapsed": record["plateau"], "digest": step.digest}
    return [who | {"metric": m, "value": v} for m, v in level.items() if m != "masked_pieces"]


def _predictions(folder: Path, digest: str, split: str) -> pa.Table:
    logits, labels = np.load(folder / f"{split}.logits.npy"), np.load(folder / f"{split}.labels.npy")
    n = len(labels)
    return pa.table(
        {
            "digest": pa.array([digest] * n).dictionary_encode(),
            "split": pa.array([split] * n).dictionary_encode(),
            "item": pa.array(np.arange(n), pa.int32()),
            "label": pa.array(labels, pa.int16()),
            "predicted": pa.array(logits.argmax(1), pa.int16()),
            "logits": pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), logits.shape[1]),
        }
    ).unify_dictionaries()


def _cost(digest: str, store: Store) -> dict[str, Any]:
    manifest = store.manifest(digest)
    kept = {k: manifest[k] for k in ("stage", "label", "seconds", "flops")}
    record = json.loads((store.open(digest) / "record.json").read_text()) if "record.json" in manifest["files"] else {}
    tokens = record.get("tokens", 0) if manifest["stage"] not in ("search", "evaluate") else 0  # theirs are a parent's
    return {"digest": digest} | kept | {"tokens": tokens, "family": digest in store.released()}


def environment(plan: Plan, computed: int, reused: int, seconds: float) -> dict:
    """Return the record of a run: command, commit, versions, machine, and what was computed."""
    names = ("pdstudy", "torch", "transformers", "tokenizers", "accelerate", "datasets", "numpy", "pandas", "scipy")
    return {
        "command": " ".join(["python -m pdstudy", *map(_shown, sys.argv[1:])]) if "pdstudy" in sys.argv[0] else "run_study(study)",
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "machine": {"system": platform.system(), "processor": processor(), "cores": os.cpu_count(), "threads_per_step": 1},
        "precision": plan.study.resolved_precision(),
        "steps": {"asked": plan.asked, "distinct": len(plan.steps), "computed": computed, "reused": reused},
        "seconds": round(seconds, 1),
    }


def _shown(word: str) -> str:
    """Return a word of the command line without this machine's folders: a path in the checkout from there, others by name."""
    path = Path(word)
    if not path.is_absolute():
        return word
    return str(path.relative_to(paths.ROOT)) if path.is_relative_to(paths.ROOT) else path.name
