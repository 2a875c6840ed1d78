"""The study's results on disk: what every notebook and claim reads, and nothing else.

`metrics.parquet` holds what the method gave: one row per evaluated model, split and metric. It is the same,
byte for byte, however often a run was killed and wherever it continued. What a machine took, seconds, is
beside it in `costs.parquet`; `load_results` joins the two. `predictions.parquet` holds every model's
answer to every text of dev and test (no text), for tests over items.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pdstudy import paths
from pdstudy.disk import whole
from pdstudy.plan import Plan
from pdstudy.store import Store

METRICS = "metrics.parquet"
COSTS = "costs.parquet"
PREDICTIONS = "predictions.parquet"
SEARCHES = "searches.parquet"
ENVIRONMENT = "environment.json"
PARAMS = "study.json"
TEXTS = "texts.json"
CLASSES = "classes.json"

COLUMNS = pa.schema(
    [
        ("study", pa.string()),
        ("task", pa.string()),
        ("recipe", pa.string()),  # a recipe, "teacher", "majority" or "start" (a pre-trained encoder)
        ("size", pa.string()),
        ("seed", pa.int64()),
        ("curve", pa.string()),  # null, or the learning curve that this is a point of: transfer or labels,
        ("texts", pa.int64()),  # and how many texts it was trained on
        ("split", pa.string()),  # dev, test or heldout
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("n", pa.int64()),  # texts, or masked pieces of a start
        ("n_params", pa.int64()),
        ("rate", pa.float64()),  # the learning rate used, null where none was searched
        ("collapsed", pa.bool_()),  # no better than the majority class on dev
        ("tokens", pa.int64()),  # real pieces read in the model's last stage
        ("digest", pa.string()),  # of the model
    ]
)


def collect(plan: Plan, store: Store) -> dict[str, pa.Table]:
    """Return the tables of every student that is in the store: metrics, predictions, costs."""
    here = store.here()
    rows, items, searched = [], [], []
    base = {"study": plan.study.name, "task": plan.study.resolved_task().name}
    for step in (*plan.of_stage("pretrain"), *plan.of_stage("adopt")):
        if step.digest in here:
            rows += _start_rows(base, step, store)
    majority_done, told = False, set()  # the teacher may be a student too: one model, one set of answers
    for student in plan.students:
        if student.evaluation not in here:
            continue
        folder = store.open(student.evaluation)
        record = json.loads((folder / "record.json").read_text())
        who = base | {"recipe": student.recipe, "size": student.size, "seed": student.seed, "digest": student.model}
        who |= {"curve": student.curve, "texts": student.texts}
        made = record["model"]
        who |= {k: made[k] for k in ("n_params", "rate", "collapsed", "tokens")}
        searched += [
            {"recipe": student.recipe, "size": student.size, "rate": tried["rate"]}
            | ({"batch": tried["batch"]} if "batch" in tried else {})
            | {
                "chosen": tried["rate"] == made["rate"] and tried.get("batch") == made.get("batch"),
                "dev_accuracy": tried["dev"] and tried["dev"]["accuracy"],
                "collapsed": tried["collapsed"],
                "diverged": tried["diverged"],
            }
            for tried in (made["searched"] or () if student.curve is None else ())
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
    return {
        METRICS: pa.Table.from_pylist(rows, schema=COLUMNS),
        SEARCHES: pa.Table.from_pylist(searched),
        PREDICTIONS: pa.concat_tables(items) if items else pa.table({}),
        COSTS: pa.Table.from_pylist([_cost(s.digest, store) for s in plan.steps.values() if s.digest in here]),
    }


def write(plan: Plan, store: Store, environment: dict[str, Any]) -> Path:
    """Return the study's folder after writing its tables, parameters and environment, each atomically."""
    folder = paths.study_folder(plan.study.name)
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in collect(plan, store).items():
        with whole(folder / name) as new:
            pq.write_table(table, new, compression="zstd")
    if environment["steps"]["computed"] == 0 and (folder / ENVIRONMENT).is_file():
        environment = json.loads((folder / ENVIRONMENT).read_text())  # the record of the run that made the numbers
    written = {ENVIRONMENT: environment, PARAMS: plan.study.model_dump(mode="json"), TEXTS: counts(plan, store)}
    if found := classes(plan, store):  # else the texts were cleaned away, and what was written of them holds
        written[CLASSES] = found
    for name, value in written.items():
        with whole(folder / name) as new:
            new.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    return folder


def counts(plan: Plan, store: Store) -> dict[str, dict[str, int]]:
    """Return what became of each kind of text: read, left out and why, kept; pieces, unknown pieces, texts cut short."""
    here, found = store.here(), {}
    for step in plan.of_stage("texts"):
        if step.digest in here:
            found |= json.loads((store.open(step.digest) / "record.json").read_text())["counts"]
    names = {"transfer": "D_T", "corpus": "D_LM"}
    for step in plan.of_stage("ids"):
        if step.digest in here:
            for name, count in json.loads((store.open(step.digest) / "record.json").read_text())["counts"].items():
                kept = {k: count[k] for k in ("pieces", "unknown", "truncated")}
                found[names.get(name, name)] = found.get(names.get(name, name), {}) | kept
    return found


def classes(plan: Plan, store: Store) -> dict[str, Any]:
    """Return the classes' names, and how many texts of each stand in each split: {"labels": [...], "classes": {split: [...]}}."""
    (texts,) = plan.of_stage("texts")
    if not (folder := store.find(texts.digest)):
        return {}
    record = json.loads((folder / "record.json").read_text())
    return {key: record[key] for key in ("labels", "classes")}


def load_classes(study: str | Path) -> dict[str, Any]:
    """Return the classes' names and counts by split; see `classes`."""
    return json.loads((folder_of(study) / CLASSES).read_text())


def load_counts(study: str | Path):
    """Return the counts of a study's texts as a pandas table, one row a kind of text; see `counts`."""
    found = json.loads((folder_of(study) / TEXTS).read_text())
    columns = dict.fromkeys(name for count in found.values() for name in count)
    table = pa.table({"text": list(found)} | {name: [count.get(name) for count in found.values()] for name in columns})
    return table.to_pandas().set_index("text").rename_axis(None).astype("Int64")


def load_results(study: str | Path):
    """Return a study's metrics as a pandas table, one row per model, split and metric, with its seconds.

    `study` is a name under outputs/ or a folder. Points of learning curves are apart, in `load_curves`. Raises
    FileNotFoundError with the command that makes it.
    """
    table = _metrics(study)
    return table[table.curve.isna()].drop(columns=["curve", "texts"]).reset_index(drop=True)


def load_curves(study: str | Path):
    """Return the learning curves as a pandas table, in the form of `load_results`, with `curve` and `texts`.

    The study's own students are the last points of the curves of their recipes and sizes.
    """
    table, settings = _metrics(study), load_settings(study)
    points = table[table.curve.notna()]
    if points.empty:
        return points
    n_train = load_counts(study).loc["train", "kept"]
    whole = {"transfer": settings["transfer"]["texts"], "labels": settings["splits"]["train"] or int(n_train)}
    own, kinds = table[table.curve.isna()], points[["recipe", "size", "curve"]].drop_duplicates()
    ends = own.drop(columns=["curve", "texts"]).merge(kinds, on=["recipe", "size"])
    ends["texts"] = ends.curve.map(whole)
    ends = ends.merge(points[["recipe", "size", "seed", "curve"]].drop_duplicates())
    both = [pa.Table.from_pandas(t[[*table.columns]], preserve_index=False) for t in (points, ends)]
    return pa.concat_tables(both, promote_options="permissive").to_pandas()


def _metrics(study: str | Path):
    folder = folder_of(study)
    table = pq.read_table(folder / METRICS).to_pandas()
    costs = pq.read_table(folder / COSTS).to_pandas() if (folder / COSTS).is_file() else None
    if costs is not None:
        table = table.merge(costs[["digest", "seconds"]], on="digest", how="left")
    return table


def load_predictions(study: str | Path):
    """Return every answer of every model as a pandas table: digest, split, item, label, predicted, logits."""
    return pq.read_table(folder_of(study) / PREDICTIONS).to_pandas()


def load_searches(study: str | Path):
    """Return every rate that was tried on dev as a pandas table: recipe, size, rate, dev_accuracy, chosen, collapsed, diverged."""
    return pq.read_table(folder_of(study) / SEARCHES).to_pandas()


def load_costs(study: str | Path):
    """Return what each step took as a pandas table: digest, stage, label, seconds, tokens, flops."""
    return pq.read_table(folder_of(study) / COSTS).to_pandas()


def load_settings(study: str | Path) -> dict[str, Any]:
    """Return the settings that a study's results were made with."""
    return json.loads((folder_of(study) / PARAMS).read_text())


def load_environment(study: str | Path) -> dict[str, Any]:
    """Return the record of versions, commit and machine of a study's last run."""
    return json.loads((folder_of(study) / ENVIRONMENT).read_text())


def provenance(study: str | Path) -> str:
    """Return one line: command, commit, date, versions, machine, precision of the run that wrote the results."""
    e = load_environment(study)
    v, m = e["versions"], e["machine"]
    return (
        f"{e['command']} · commit {e['commit']} · {e['date']} · torch {v['torch']}, transformers {v['transformers']}, "
        f"pdstudy {v['pdstudy']} · {m['processor']}, {m['cores']} cores · {e['precision']}"
    )


def folder_of(study: str | Path) -> Path:
    """Return the folder of a study's results, given its name or the folder. Raises FileNotFoundError with the cure."""
    folder = Path(study) if Path(study).is_dir() else paths.study_folder(str(study))
    if not (folder / METRICS).is_file():
        raise FileNotFoundError(
            f"{paths.scrub(str(folder))}: no {METRICS} there; run: python -m pdstudy run params/{folder.name}.yaml"
        )
    return folder


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
    return {"digest": digest} | kept | {"family": digest in store.released()}
