"""Writes a study's result files from the store, each atomically; storage/results.py reads and describes them."""

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
from pdstudy.run.inputs import read_record
from pdstudy.storage import paths, results
from pdstudy.storage.files import atomic_write
from pdstudy.storage.store import Store
from pdstudy.study.plan import search_of, with_candidates_measured
from pdstudy.study.steps import Plan, Step, Student


def schema() -> pa.Schema:
    """Return the schema of metrics.parquet."""
    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in results.COLUMNS.items()])


def collect(plan: Plan, store: Store) -> dict[str, pa.Table]:
    """Return the tables of the students in the store by file name: metrics, searches, predictions, costs."""
    here = store.digests()
    rows, predictions, searches = [], [], []
    study = {"study": plan.study.name, "task": plan.study.resolved_task().name}
    for step in (*plan.of_stage("pretrain"), *plan.of_stage("adopt")):
        if step.digest in here:
            rows += _encoder_rows(study | {"corpus": plan.source_of(step)}, step, store)
    splits, models = set(), set()  # already in the tables; the teacher may also be a student
    for student in plan.students:
        if student.evaluation not in here:
            continue
        folder = store.open(student.evaluation)
        record = read_record(folder)
        model = record["model"]
        columns = study | {k: getattr(student, k) for k in ("recipe", "size", "seed", "curve", "texts", "domain", "corpus")}
        columns |= {"digest": student.model} | {k: model[k] for k in ("n_params", "rate", "collapsed", "tokens")}
        searches += _search_rows(student, model)
        for split, scores in record["scores"].items():
            n, majority = scores["n"], scores["majority"]
            rows += [
                columns | {"split": split, "metric": metric, "value": value, "n": n}
                for metric, value in scores.items()
                if metric not in ("n", "majority")
            ]
            if split not in splits:
                rows.append(study | {"recipe": "majority", "split": split, "metric": "accuracy", "value": majority, "n": n})
            if student.model not in models:
                predictions.append(_predictions(folder, student.model, split))
        splits |= set(record["scores"])  # the soft labels of a file may lack test
        models.add(student.model)
    tried = search_predictions(plan, store)
    return ({results.TRIED: tried} if len(tried) else {}) | {
        results.METRICS: pa.Table.from_pylist(rows, schema=schema()),
        results.SEARCHES: pa.Table.from_pylist(searches),
        results.PREDICTIONS: pa.concat_tables(predictions) if predictions else pa.table({}),
        results.COSTS: pa.Table.from_pylist([_cost(s.digest, store) for s in plan.steps.values() if s.digest in here]),
    }


def search_predictions(plan: Plan, store: Store) -> pa.Table:
    """Return the predictions on dev at every searched rate: recipe, size, rate, digest, item, label, predicted, logits.

    The linear model's have no logits.
    """
    plan, here, tables, seen = with_candidates_measured(plan), store.digests(), [], set()
    evaluations = {step.parents["model"]: step.digest for step in plan.of_stage("evaluate")}
    for student in plan.students:
        search, key = search_of(plan, student), (student.recipe, student.size)
        is_linear = plan.steps[student.model].stage == "linear" and student.evaluation in here
        if key in seen or not student.own or not (is_linear or search is not None):
            continue
        seen.add(key)
        if is_linear:
            tables += _linear_predictions(student, store)
            continue
        for candidate in search.parents.values():
            if evaluations.get(candidate) not in here or (folder := store.find(evaluations[candidate])) is None:
                continue
            record = read_record(folder)
            if "dev" in record["scores"]:  # otherwise it diverged
                logits, labels = np.load(folder / "dev.logits.npy"), np.load(folder / "dev.labels.npy")
                rows = _tried(student, record["model"]["rate"], candidate, labels, logits.argmax(1))
                tables.append(rows.append_column("logits", _rows(logits)))
    return pa.concat_tables(tables, promote_options="default").unify_dictionaries() if tables else pa.table({})


def _linear_predictions(student: Student, store: Store) -> list[pa.Table]:
    """Return the predictions on dev of a linear model at each strength C that was tried, in the column of rates."""
    folder = store.find(student.model)
    if folder is None:
        return []
    labels, predicted = np.load(store.open(student.evaluation) / "dev.labels.npy"), np.load(folder / "dev.tried.npy")
    strengths = [row["C"] for row in read_record(folder)["searched"]]
    return [
        _tried(student, c, f"{student.model}-{c:g}", labels, predicted_at_c)
        for c, predicted_at_c in zip(strengths, predicted, strict=True)
    ]


def _tried(student: Student, rate: float, digest: str, labels: np.ndarray, predicted: np.ndarray) -> pa.Table:
    n = len(labels)
    columns = {"recipe": [student.recipe] * n, "size": [student.size] * n, "rate": [rate] * n}
    return pa.table(columns | {"digest": _repeated(digest, n)} | _items(labels, predicted))


def _items(labels: np.ndarray, predicted: np.ndarray) -> dict[str, pa.Array]:
    numbers = {"item": pa.array(np.arange(len(labels)), pa.int32())}
    return numbers | {"label": pa.array(labels, pa.int16()), "predicted": pa.array(predicted, pa.int16())}


def _rows(logits: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), logits.shape[1])


def _repeated(text: str, n: int) -> pa.Array:
    return pa.array([text] * n).dictionary_encode()


def write(plan: Plan, store: Store, environment: dict[str, Any]) -> Path:
    """Return the study's folder after writing its tables, parameters and environment, each atomically."""
    folder = paths.study_folder(plan.study.name)
    folder.mkdir(parents=True, exist_ok=True)
    tables = collect(plan, store)
    for name, has in ((results.TRIED, results.TRIED in tables), (results.DOMAINS, bool(plan.study.domains.corpora))):
        if not has:  # an old file is of other settings
            (folder / name).unlink(missing_ok=True)
    for name, table in tables.items():
        with atomic_write(folder / name, keep_same=True) as new:
            pq.write_table(table, new, compression="zstd")
    if environment["steps"]["computed"] == 0 and (folder / results.ENVIRONMENT).is_file():
        environment = json.loads((folder / results.ENVIRONMENT).read_text())  # of the run that computed the results
    if devices := _devices(plan, store):
        environment = environment | {"devices": devices}
    contents = {
        results.ENVIRONMENT: environment,
        results.PARAMS: plan.study.model_dump(mode="json"),
        results.TEXTS: counts(plan, store),
    }
    if plan.study.domains.corpora:
        contents[results.DOMAINS] = domains(plan, store)
    if names := classes(plan, store):  # if the texts were removed from the store, the old file stays
        contents[results.CLASSES] = names
    for name, value in contents.items():
        with atomic_write(folder / name, keep_same=True) as new:
            new.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    return folder


def counts(plan: Plan, store: Store) -> dict[str, dict[str, int]]:
    """Return counts for each kind of text: read, left out by reason, kept; pieces, unknown pieces, truncated texts."""
    here, rows, names = store.digests(), {}, {"transfer": "D_T", "corpus": "D_LM", "heldout": "heldout"}
    for step in (*plan.of_stage("texts"), *plan.of_stage("corpus")):
        if step.digest in here:
            by_name, corpus = read_record(store.open(step.digest))["counts"], step.settings["corpus"]
            rows |= by_name if step.stage == "texts" else {f"{name} {corpus}": count for name, count in by_name.items()}
    for step in plan.of_stage("ids"):
        if step.digest in here and step.settings["of"] != "labelled":  # a fold of D_L has no counts of its own
            corpus = plan.source_of(step)
            for name, count in read_record(store.open(step.digest))["counts"].items():
                title = names.get(name, name) + (f" {corpus}" if corpus else "")
                row = rows.get(title, {"kept": count["texts"]} if corpus else {})
                rows[title] = row | {k: count[k] for k in ("pieces", "unknown", "truncated")}
    return rows


def domains(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """Return the similarity of each other transfer set to D_L, the most similar first: corpus, texts, words, S, unseen."""
    here = store.digests()
    rows = [read_record(store.open(s.digest))["near"] for s in plan.of_stage("domain") if s.digest in here]
    return sorted(rows, key=lambda row: -row["S"])


def classes(plan: Plan, store: Store) -> dict[str, Any]:
    """Return the names of the classes and their counts in each split: {"labels": [...], "classes": {split: [...]}}.

    "taught" has the counts of the transfer texts by the teacher's most probable class, where students are distilled.
    """
    (texts,) = plan.of_stage("texts")
    if not (folder := store.find(texts.digest)):
        return {}
    record = read_record(folder)
    names = {key: record[key] for key in ("labels", "classes")}
    own = (step.parents["label"] for step in plan.of_stage("distill") if "transfer" not in step.parents)  # no other domain
    labelled = store.find(digest) if (digest := next(own, None)) else None
    return names | ({"taught": read_record(labelled)["class_shares"]} if labelled else {})


def _encoder_rows(columns: dict, step: Step, store: Store) -> list[dict]:
    """Return the rows of a pre-trained encoder: its held-out loss and accuracy; none if too little text was held out."""
    record, settings = read_record(store.open(step.digest)), step.settings
    level = record["reading"]
    if level is None:
        return []
    columns |= {"recipe": "start", "size": settings["size"], "seed": settings.get("seed", 0), "split": "heldout"}
    columns |= {"n": level["masked_pieces"], "n_params": record["n_params"], "rate": settings.get("rate")}
    columns |= {"tokens": record["tokens"], "collapsed": record["plateau"], "digest": step.digest}
    return [columns | {"metric": metric, "value": value} for metric, value in level.items() if metric != "masked_pieces"]


def _search_rows(student: Student, model: dict[str, Any]) -> list[dict]:
    """Return a row for each candidate of a student's last search: the settings that were searched, and its result on dev."""
    rows = []
    for tried in model["searched"] or ():
        searched = {key: tried[key] for key in ("rate", "batch", "epochs") if key in tried}
        rows.append(
            {"recipe": student.recipe, "size": student.size, "corpus": student.corpus}
            | searched
            | {
                "chosen": all(model.get(key) == value for key, value in searched.items()),
                "dev_accuracy": tried["dev"] and tried["dev"]["accuracy"],
                "collapsed": tried["collapsed"],
                "diverged": tried["diverged"],
            }
        )
    return rows


def _predictions(folder: Path, digest: str, split: str) -> pa.Table:
    """Return the predictions and logits of an evaluation on a split."""
    logits, labels = np.load(folder / f"{split}.logits.npy"), np.load(folder / f"{split}.labels.npy")
    columns = {"digest": _repeated(digest, len(labels)), "split": _repeated(split, len(labels))}
    columns |= _items(labels, logits.argmax(1))
    columns["logits"] = _rows(logits)
    return pa.table(columns).unify_dictionaries()


def _cost(digest: str, store: Store) -> dict[str, Any]:
    manifest = store.manifest(digest)
    record = read_record(store.open(digest)) if "record.json" in manifest["files"] else {}
    tokens = record.get("tokens", 0) if manifest["stage"] not in ("search", "evaluate") else 0  # counted with a parent
    columns = {"digest": digest} | {k: manifest[k] for k in ("stage", "label", "seconds", "flops")}
    return columns | {"tokens": tokens, "family": digest in store.released()}


def _devices(plan: Plan, store: Store) -> list[str]:
    """Return the names of the GPUs that computed steps of the plan, also on another machine; released artifacts do not count."""
    manifests = map(store.manifest, (store.digests() - store.released()) & plan.steps.keys())
    return sorted({m["device"] for m in manifests if m.get("device")})


def environment(plan: Plan, computed: int, reused: int, seconds: float) -> dict:
    """Return the record of a run: command, commit, versions, machine, and what was computed."""
    names = ("pdstudy", "torch", "transformers", "tokenizers", "accelerate", "datasets", "numpy", "pandas", "scipy")
    from_shell, arguments = "pdstudy" in sys.argv[0], map(_without_folders, sys.argv[1:])
    return {
        "command": " ".join(["python -m pdstudy", *arguments]) if from_shell else "run_study(study)",
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
    """Return a word of the command line without this machine's folders: a path relative to the workspace, or its last part."""
    path = Path(word)
    if not path.is_absolute():
        return word
    return str(path.relative_to(paths.ROOT)) if path.is_relative_to(paths.ROOT) else path.name
