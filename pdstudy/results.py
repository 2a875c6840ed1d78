"""The study's results on disk: what every notebook and claim reads, and nothing else.

`metrics.parquet` holds what the method gave: one row per evaluated model, split and metric. It is the same,
byte for byte, however often a run was killed and wherever it continued. What a machine took, seconds, is
beside it in `costs.parquet`; `load_results` joins the two. `predictions.parquet` holds every model's
answer to every text of dev and test (no text), for tests over items. `tried.parquet`, in studies that gave advice,
holds the answers on dev of every learning rate that was tried.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pdstudy import paths
from pdstudy.disk import whole
from pdstudy.plan import judged, search_of
from pdstudy.steps import Plan
from pdstudy.store import Store

METRICS = "metrics.parquet"
COSTS = "costs.parquet"
PREDICTIONS = "predictions.parquet"
SEARCHES = "searches.parquet"
TRIED = "tried.parquet"
ENVIRONMENT = "environment.json"
PARAMS = "study.json"
TEXTS = "texts.json"
DOMAINS = "domains.json"
LATENCY = "latency.json"  # milliseconds by size, measured on this machine
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
        ("domain", pa.string()),  # the corpus that D_T was taken from, null where it is the study's own
        ("corpus", pa.string()),  # the D_LM that its start has read, null where it is the study's own
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
        METRICS: pa.Table.from_pylist(rows, schema=COLUMNS),
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

    `study` is a name under outputs/ or a folder. Points of learning curves are apart, in `load_curves`, students on other
    transfer sets in `load_domains`, those whose start has read another D_LM in `load_compound`. Raises
    FileNotFoundError with the command that makes it.
    """
    table = _metrics(study)
    return table[_own(table)].drop(columns=["curve", "texts", "domain", "corpus"]).reset_index(drop=True)


def _own(table):
    """Return which rows are the study's own students: trained on its texts, begun from what has read its D_LM."""
    return table.curve.isna() & table.domain.isna() & table.corpus.isna()


def load_students(study: str | Path):
    """Return every trained student, the study's own and all points, as a pandas table, one row each: what tells it from the others."""
    table = _metrics(study)
    found = table[(table.split == "test") & (table.metric == "accuracy") & ~table.recipe.isin(["start", "majority"])]
    return found[
        ["recipe", "size", "seed", "curve", "texts", "domain", "corpus", "n_params", "value", "collapsed", "digest"]
    ].reset_index(drop=True)


def load_latency(study: str | Path) -> dict[str, float]:
    """Return the median milliseconds for one text by size, as measured on the machine that ran the study; empty where not measured."""
    path = folder_of(study) / LATENCY
    sizes = json.loads(path.read_text())["sizes"] if path.is_file() else {}
    return {size: found["p50"] for size, found in sizes.items()}


def latency_table(study: str | Path):
    """Return what was measured of each size's speed as a pandas table, the stated lengths in the columns' names."""
    sizes = json.loads((folder_of(study) / LATENCY).read_text())["sizes"]
    rows = [
        {"size": size, "p50, ms": m["p50"], "p95, ms": m["p95"]}
        | {f"p50 at {fixed['length']} pieces, ms": fixed["p50"] for fixed in m["fixed"]}
        | {f"texts a second, {m['batch']} at once": m["throughput"], "peak memory, MB": m["memory"]}
        for size, m in sizes.items()
    ]
    return pa.Table.from_pylist(rows).to_pandas().set_index("size").rename_axis(None).round(2)


def load_domains(study: str | Path):
    """Return the students on other transfer sets in the form of `load_results`, with `domain` and its S and unseen words."""
    table = _metrics(study)
    points, near = table[table.domain.notna()].drop(columns=["curve", "texts", "corpus"]), load_nearness(study)
    return points.merge(near[["corpus", "S", "unseen"]].rename(columns={"corpus": "domain"}), on="domain", how="left")


def load_nearness(study: str | Path):
    """Return how near each other transfer set is to D_L as a pandas table: corpus, texts, words, S, unseen; see `domains`."""
    path = folder_of(study) / DOMAINS
    columns = ["corpus", "texts", "words", "S", "unseen", "repeats", "words a text"]
    rows = json.loads(path.read_text()) if path.is_file() else []
    return pa.Table.from_pylist(rows).to_pandas() if rows else pa.table({c: [] for c in columns}).to_pandas()


def load_compound(study: str | Path):
    """Return the students whose start has read another D_LM, and these starts, in the form of `load_results`, with `corpus`."""
    table = _metrics(study)
    return table[table.corpus.notna()].drop(columns=["curve", "texts", "domain"]).reset_index(drop=True)


def load_curves(study: str | Path):
    """Return the learning curves as a pandas table, in the form of `load_results`, with `curve` and `texts`.

    The study's own students are the last points of the curves of their recipes and sizes.
    """
    table, settings = _metrics(study), load_settings(study)
    own = table[_own(table)]
    table = table.drop(columns=["domain", "corpus"])
    points = table[table.curve.notna()]
    if points.empty:
        return points
    n_train = load_counts(study).loc["train", "kept"]
    whole = {"transfer": settings["transfer"]["texts"], "labels": settings["splits"]["train"] or int(n_train)}
    kinds = points[["recipe", "size", "curve"]].drop_duplicates()
    ends = own.drop(columns=["curve", "texts", "domain", "corpus"]).merge(kinds, on=["recipe", "size"])
    ends["texts"] = ends.curve.map(whole)
    ends = ends.merge(points[["recipe", "size", "seed", "curve"]].drop_duplicates())
    both = [pa.Table.from_pandas(t[[*table.columns]], preserve_index=False) for t in (points, ends)]
    return pa.concat_tables(both, promote_options="permissive").to_pandas()


def _metrics(study: str | Path):
    folder = folder_of(study)
    table = pq.read_table(folder / METRICS).to_pandas()
    table = table.assign(**{c: None for c in COLUMNS.names if c not in table})  # of a table written before there was that column
    costs = pq.read_table(folder / COSTS).to_pandas() if (folder / COSTS).is_file() else None
    if costs is not None:
        table = table.merge(costs[["digest", "seconds"]], on="digest", how="left")
    return table


def load_predictions(study: str | Path):
    """Return every answer of every model as a pandas table: digest, split, item, label, predicted, logits."""
    path = folder_of(study) / PREDICTIONS
    if not path.is_file():
        raise FileNotFoundError(
            f"{paths.scrub(str(path))} is not there: the answers to every text are too large to be committed; "
            f"run: python -m pdstudy run params/{path.parent.name}.yaml"
        )
    return pq.read_table(path).to_pandas()


def load_searches(study: str | Path):
    """Return every rate that was tried on dev as a pandas table: recipe, size, rate, dev_accuracy, chosen, collapsed, diverged."""
    return pq.read_table(folder_of(study) / SEARCHES).to_pandas()


def load_tried(study: str | Path):
    """Return the answers on dev of every rate that was tried as a pandas table, see `tried`; empty where none are kept."""
    path = folder_of(study) / TRIED
    columns = ("recipe", "size", "rate", "digest", "item", "label", "predicted")
    return (pq.read_table(path) if path.is_file() else pa.table({name: [] for name in columns})).to_pandas()


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
    record = json.loads((store.open(digest) / "record.json").read_text()) if "record.json" in manifest["files"] else {}
    tokens = record.get("tokens", 0) if manifest["stage"] not in ("search", "evaluate") else 0  # theirs are a parent's
    return {"digest": digest} | kept | {"tokens": tokens, "family": digest in store.released()}
