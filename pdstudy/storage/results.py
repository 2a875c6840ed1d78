"""The study's results on disk: what every notebook and claim reads, and nothing else. result_tables.py writes them.

`metrics.parquet` holds what the method gave: one row per evaluated model, split and metric. It is the same,
byte for byte, however often a run was killed and wherever it continued. What a machine took, seconds, is
beside it in `costs.parquet`; `load_results` joins the two. `predictions.parquet` holds every model's
answer to every text of dev and test (no text), for tests over items. `tried.parquet`, in studies that gave advice,
holds the answers on dev of every learning rate that was tried.
"""

import json
from pathlib import Path
from typing import Any

from pdstudy.storage import paths

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

COLUMNS = {  # of metrics.parquet: name -> arrow's type
    "study": "string",
    "task": "string",
    "recipe": "string",  # a recipe, "teacher", "majority" or "start" (a pre-trained encoder)
    "size": "string",
    "seed": "int64",
    "curve": "string",  # null, or the learning curve that this is a point of: transfer or labels,
    "texts": "int64",  # and how many texts it was trained on
    "domain": "string",  # the corpus that D_T was taken from, null where it is the study's own
    "corpus": "string",  # the D_LM that its start has read, null where it is the study's own
    "split": "string",  # dev, test or heldout
    "metric": "string",
    "value": "double",
    "n": "int64",  # texts, or masked pieces of a start
    "n_params": "int64",
    "rate": "double",  # the learning rate used, null where none was searched
    "collapsed": "bool",  # no better than the majority class on dev
    "tokens": "int64",  # real pieces read in the model's last stage
    "digest": "string",  # of the model
}


def load_classes(study: str | Path) -> dict[str, Any]:
    """Return the classes' names and counts by split; see `result_tables.classes`."""
    return json.loads((folder_of(study) / CLASSES).read_text())


def load_counts(study: str | Path):
    """Return the counts of a study's texts as a pandas table, one row a kind of text; see `result_tables.counts`."""
    found = json.loads((folder_of(study) / TEXTS).read_text())
    columns = dict.fromkeys(name for count in found.values() for name in count)
    table = _frame({"text": list(found)} | {name: [count.get(name) for count in found.values()] for name in columns})
    return table.set_index("text").rename_axis(None).astype("Int64")


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
    return {size: found["p50"] for size, found in load_speeds(study).items()}


def load_speeds(study: str | Path) -> dict[str, dict[str, Any]]:
    """Return all that was measured of each size's speed on the machine that ran the study; empty where not measured."""
    path = folder_of(study) / LATENCY
    return json.loads(path.read_text())["sizes"] if path.is_file() else {}


def latency_table(study: str | Path):
    """Return what was measured of each size's speed as a pandas table, the stated lengths in the columns' names."""
    sizes = json.loads((folder_of(study) / LATENCY).read_text())["sizes"]
    rows = [
        {"size": size, "p50, ms": m["p50"], "p95, ms": m["p95"]}
        | {f"p50 at {fixed['length']} pieces, ms": fixed["p50"] for fixed in m["fixed"]}
        | {f"texts a second, {m['batch']} at once": m["throughput"], "peak memory, MB": m["memory"]}
        for size, m in sizes.items()
    ]
    return _rows(rows).set_index("size").rename_axis(None).round(2)


def load_domains(study: str | Path):
    """Return the students on other transfer sets in the form of `load_results`, with `domain` and its S and unseen words."""
    table = _metrics(study)
    points, near = table[table.domain.notna()].drop(columns=["curve", "texts", "corpus"]), load_nearness(study)
    return points.merge(near[["corpus", "S", "unseen"]].rename(columns={"corpus": "domain"}), on="domain", how="left")


def load_nearness(study: str | Path):
    """Return how near each other transfer set is to D_L as a pandas table: corpus, texts, words, S, unseen; see `result_tables.domains`."""
    path = folder_of(study) / DOMAINS
    columns = ["corpus", "texts", "words", "S", "unseen", "repeats", "words a text"]
    rows = json.loads(path.read_text()) if path.is_file() else []
    return _rows(rows) if rows else _frame({c: [] for c in columns})


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
    import pyarrow as pa

    both = [pa.Table.from_pandas(t[[*table.columns]], preserve_index=False) for t in (points, ends)]
    return pa.concat_tables(both, promote_options="permissive").to_pandas()


def _metrics(study: str | Path):
    folder = folder_of(study)
    table = _parquet(folder / METRICS)
    table = table.assign(**{c: None for c in COLUMNS if c not in table})  # of a table written before there was that column
    costs = _parquet(folder / COSTS) if (folder / COSTS).is_file() else None
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
    return _parquet(path)


def load_searches(study: str | Path):
    """Return every rate that was tried on dev as a pandas table: recipe, size, rate, dev_accuracy, chosen, collapsed, diverged."""
    return _parquet(folder_of(study) / SEARCHES)


def load_tried(study: str | Path):
    """Return the answers on dev of every rate that was tried as a pandas table, see `tried`; empty where none are kept."""
    path = folder_of(study) / TRIED
    columns = ("recipe", "size", "rate", "digest", "item", "label", "predicted")
    return _parquet(path) if path.is_file() else _frame({name: [] for name in columns})


def load_costs(study: str | Path):
    """Return what each step took as a pandas table: digest, stage, label, seconds, tokens, flops."""
    return _parquet(folder_of(study) / COSTS)


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


# pyarrow is imported where it is used: whoever wants a name of the package should not wait for it.


def _parquet(path: Path):
    """Return a Parquet file as a pandas table."""
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pandas()


def _frame(columns: dict[str, list]):
    """Return columns as a pandas table."""
    import pyarrow as pa

    return pa.table(columns).to_pandas()


def _rows(rows: list[dict[str, Any]]):
    """Return rows as a pandas table."""
    import pyarrow as pa

    return pa.Table.from_pylist(rows).to_pandas()
