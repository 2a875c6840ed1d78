"""Writes a study's result files from the store, each atomically. results.py reads them and describes their contents."""

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
from pdstudy.storage import paths, results
from pdstudy.storage.files import atomic_write
from pdstudy.storage.store import Store
from pdstudy.study.plan import judged, search_of
from pdstudy.study.steps import Plan, Student


def schema() -> pa.Schema:
    """Return the schema of metrics.parquet."""
    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in results.COLUMNS.items()])


def collect(plan: Plan, store: Store) -> dict[str, pa.Table]:
    """Return the tables of every student that is in the store: metrics, predictions, costs."""
    here = store.digests()
    rows, items, searched = [], [], []
    base = {"study": plan.study.name, "task": plan.study.resolved_task().name}
    for step in (*plan.of_stage("pretrain"), *plan.of_stage("adopt")):
        if step.digest in here:
            rows += _start_rows(base | {"corpus": plan.source_of(step)}, step, store)
    majorities, seen = set(), set()  # the teacher may also be a student; its predictions are written once
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
            | {key: tried[key] for key in ("batch", "epochs") if key in tried}
            | {
                "chosen": all(tried.get(key) == made.get(key) for key in ("rate", "batch", "epochs") if key in tried),
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
            if split not in majorities:
                rows.append(base | {"recipe": "majority", "split": split, "metric": "accuracy", "value": majority, "n": n})
            if student.model not in seen:
                items.append(_predictions(folder, student.model, split))
        majorities |= set(record["scores"])  # the soft labels of a file may lack test
        seen.add(student.model)
    answers = search_predictions(plan, store)
    return ({results.TRIED: answers} if len(answers) else {}) | {
        results.METRICS: pa.Table.from_pylist(rows, schema=schema()),
        results.SEARCHES: pa.Table.from_pylist(searched),
        results.PREDICTIONS: pa.concat_tables(items) if items else pa.table({}),
        results.COSTS: pa.Table.from_pylist([_cost(s.digest, store) for s in plan.steps.values() if s.digest in here]),
    }


def search_predictions(plan: Plan, store: Store) -> pa.Table:
    """Return the predictions on dev at every searched rate: recipe, size, rate, digest, item, label, predicted."""
    plan, here, items, seen = judged(plan), store.digests(), [], set()
    measured = {step.parents["model"]: step.digest for step in plan.of_stage("evaluate")}
    for student in plan.students:
        search, who = search_of(plan, student), (student.recipe, student.size)
        if plan.steps[student.model].stage == "linear" and student.evaluation in here and who not in seen:
            seen.add(who)
            items += _linear_predictions(student, store)
        if not student.own or search is None or who in seen:
            continue
        seen.add(who)
        for candidate in search.parents.values():
            if measured.get(candidate) not in here or (folder := store.find(measured[candidate])) is None:
                continue
            record = json.loads((folder / "record.json").read_text())
            if "dev" in record["scores"]:  # otherwise it diverged
                answers = _predictions(folder, candidate, "dev")
                columns = dict(zip(("recipe", "size", "rate"), (*who, record["model"]["rate"]), strict=True))
                columns = {name: [value] * len(answers) for name, value in columns.items()}
                items.append(pa.table(columns | {name: answers[name] for name in ("digest", "item", "label", "predicted")}))
    return pa.concat_tables(items).unify_dictionaries() if items else pa.table({})


def _linear_predictions(student: Student, store: Store) -> list[pa.Table]:
    """Return the answers on dev of a linear model at each strength that was tried, which stands in the place of a rate."""
    folder = store.find(student.model)
    if folder is None:
        return []
    record, answers = json.loads((folder / "record.json").read_text()), np.load(folder / "dev.tried.npy")
    labels = np.load(store.open(student.evaluation) / "dev.labels.npy")
    return [
        pa.table(
            {
                "recipe": [student.recipe] * len(labels),
                "size": [student.size] * len(labels),
                "rate": [row["C"]] * len(labels),
                "digest": pa.array([f"{student.model}-{row['C']:g}"] * len(labels)).dictionary_encode(),
                "item": pa.array(np.arange(len(labels)), pa.int32()),
                "label": pa.array(labels, pa.int16()),
                "predicted": pa.array(said, pa.int16()),
            }
        )
        for row, said in zip(record["searched"], answers, strict=True)
    ]


def write(plan: Plan, store: Store, environment: dict[str, Any]) -> Path:
    """Return the study's folder after writing its tables, parameters and environment, each atomically."""
    folder = paths.study_folder(plan.study.name)
    folder.mkdir(parents=True, exist_ok=True)
    tables = collect(plan, store)
    if results.TRIED not in tables:  # an old file belongs to other settings
        (folder / results.TRIED).unlink(missing_ok=True)
    for name, table in tables.items():
        with atomic_write(folder / name, keep_same=True) as new:
            pq.write_table(table, new, compression="zstd")
    if environment["steps"]["computed"] == 0 and (folder / results.ENVIRONMENT).is_file():
        environment = json.loads((folder / results.ENVIRONMENT).read_text())  # keep the record of the run that computed the results
    written = {
        results.ENVIRONMENT: environment,
        results.PARAMS: plan.study.model_dump(mode="json"),
        results.TEXTS: counts(plan, store),
    }
    if plan.study.domains.corpora:
        written[results.DOMAINS] = domains(plan, store)
    if names := classes(plan, store):  # otherwise the texts were removed from the store, and the old file is still right
        written[results.CLASSES] = names
    for name, value in written.items():
        with atomic_write(folder / name, keep_same=True) as new:
            new.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    return folder


def counts(plan: Plan, store: Store) -> dict[str, dict[str, int]]:
    """Return counts for each kind of text: read, left out by reason, kept; pieces, unknown pieces, truncated texts."""
    here, result, names = store.digests(), {}, {"transfer": "D_T", "corpus": "D_LM", "heldout": "heldout"}
    for step in (*plan.of_stage("texts"), *plan.of_stage("corpus")):
        if step.digest in here:
            kept, corpus = json.loads((store.open(step.digest) / "record.json").read_text())["counts"], step.settings["corpus"]
            result |= kept if step.stage == "texts" else {f"{name} {corpus}": count for name, count in kept.items()}
    for step in plan.of_stage("ids"):
        if step.digest in here:
            other = plan.source_of(step)
            for name, count in json.loads((store.open(step.digest) / "record.json").read_text())["counts"].items():
                kept = {k: count[k] for k in ("pieces", "unknown", "truncated")}
                title = names.get(name, name) + (f" {other}" if other else "")
                result[title] = result.get(title, {"kept": count["texts"]} if other else {}) | kept
    return result


def domains(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """Return the similarity to D_L of each transfer set of another corpus, the nearest first: corpus, texts, words, S, unseen."""
    here = store.digests()
    steps = [s for s in plan.of_stage("domain") if s.digest in here]
    near = [json.loads((store.open(s.digest) / "record.json").read_text())["near"] for s in steps]
    return sorted(near, key=lambda row: -row["S"])


def classes(plan: Plan, store: Store) -> dict[str, Any]:
    """Return the classes' names and their counts in each split: {"labels": [...], "classes": {split: [...]}}."""
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
    tokens = record.get("tokens", 0) if manifest["stage"] not in ("search", "evaluate") else 0  # recorded with a parent
    return {"digest": digest} | kept | {"tokens": tokens, "family": digest in store.released()}


def environment(plan: Plan, computed: int, reused: int, seconds: float) -> dict:
    """Return the record of a run: command, commit, versions, machine, and what was computed."""
    names = ("pdstudy", "torch", "transformers", "tokenizers", "accelerate", "datasets", "numpy", "pandas", "scipy")
    return {
        "command": " ".join(["python -m pdstudy", *map(_without_folders, sys.argv[1:])])
        if "pdstudy" in sys.argv[0]
        else "run_study(study)",
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "machine": {"system": platform.system(), "processor": processor(), "cores": os.cpu_count(), "threads_per_step": 1},
        "precision": plan.study.resolved_precision(),
        "steps": {"asked": plan.asked, "distinct": len(plan.steps), "computed": computed, "reused": reused},
        "seconds": round(seconds, 1),
    }


def _without_folders(word: str) -> str:
    """Return a word of the command line without this machine's folders: a path in the checkout from there, others by name."""
    path = Path(word)
    if not path.is_absolute():
        return word
    return str(path.relative_to(paths.ROOT)) if path.is_relative_to(paths.ROOT) else path.name
