"""Loads the results of a study for notebooks, claims and figures. `run/result_tables.py` writes them.

`metrics.parquet`: one row per evaluated model, split and metric; the same bytes however often a run was interrupted.
`costs.parquet`: what depends on the machine, such as seconds; `load_results` joins it. `predictions.parquet`: the prediction of
every model for every text of dev and test, without the texts, for tests over items. `tried.parquet`, in studies that gave advice:
the predictions on dev at every learning rate that was tried.
"""

import difflib
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
CLAIMS = "claims.json"  # the verdicts

COLUMNS = {  # of metrics.parquet: name -> Arrow type
    "study": "string",
    "task": "string",
    "recipe": "string",  # a recipe, "teacher", "Linear", "Linear, taught", "majority" or "start" (a pre-trained encoder)
    "size": "string",
    "seed": "int64",
    "curve": "string",  # the learning curve of which this is a point, transfer or labels, or null
    "texts": "int64",  # the number of training texts of that point
    "domain": "string",  # the corpus of D_T, null for the study's own
    "corpus": "string",  # the D_LM of its encoder, null for the study's own
    "split": "string",  # dev, test or heldout
    "metric": "string",
    "value": "double",
    "n": "int64",  # number of texts, or of masked word pieces for a start
    "n_params": "int64",
    "rate": "double",  # the learning rate, null if none was searched; of a linear model its C
    "collapsed": "bool",  # not better than the majority class on dev
    "tokens": "int64",  # word pieces, without padding, in the last stage of training
    "digest": "string",  # of the model
}

# Pandas tables are made by pyarrow, which is imported where it is used, because much code that imports this module needs neither.


def accuracies(table, split: str = "test"):
    """Return the rows of a table of metrics that are accuracies on a split."""
    return table[(table.split == split) & (table.metric == "accuracy")]


def load_results(study: str | Path):
    """Return the metrics of a study as a pandas table: one row per model, split and metric, with its seconds.

    `study` is a name in outputs/ or a folder. Points of learning curves are in `load_curves`, students on other transfer
    sets in `load_domains`, those pre-trained on another D_LM in `load_compound`. Raises FileNotFoundError with the command
    that computes the results.
    """
    table = _metrics(study)
    return table[_own(table)].drop(columns=["curve", "texts", "domain", "corpus"]).reset_index(drop=True)


def load_students(study: str | Path):
    """Return every teacher and student, including those of curves, domains and corpora, as a pandas table, one row each."""
    table = accuracies(_metrics(study))
    columns = ["recipe", "size", "seed", "curve", "texts", "domain", "corpus", "n_params", "value", "collapsed", "digest"]
    return table.loc[~table.recipe.isin(["start", "majority"]), columns].reset_index(drop=True)


def load_domains(study: str | Path):
    """Return the students on other transfer sets like `load_results`, with `domain`, S and the share of unseen words."""
    table = _metrics(study)
    points, similarity = table[table.domain.notna()].drop(columns=["curve", "texts", "corpus"]), load_nearness(study)
    return points.merge(similarity[["corpus", "S", "unseen"]].rename(columns={"corpus": "domain"}), on="domain", how="left")


def load_compound(study: str | Path):
    """Return the students pre-trained on another D_LM, and their encoders, like `load_results`, with `corpus`."""
    table = _metrics(study)
    return table[table.corpus.notna()].drop(columns=["curve", "texts", "domain"]).reset_index(drop=True)


def load_curves(study: str | Path):
    """Return the learning curves like `load_results`, with `curve` and `texts`.

    The study's own students are the last points of the curves of their recipes and sizes.
    """
    import pyarrow as pa

    table, settings = _metrics(study), load_settings(study)
    own = table[_own(table)].drop(columns=["curve", "texts", "domain", "corpus"])
    table = table.drop(columns=["domain", "corpus"])
    points = table[table.curve.notna()]
    if points.empty:
        return points
    n_train = settings["splits"]["train"] or int(load_counts(study).loc["train", "kept"])
    ends = own.merge(points[["recipe", "size", "curve"]].drop_duplicates(), on=["recipe", "size"])
    ends["texts"] = ends.curve.map({"transfer": settings["transfer"]["texts"], "labels": n_train})
    ends = ends.merge(points[["recipe", "size", "seed", "curve"]].drop_duplicates())
    both = [pa.Table.from_pandas(t[[*table.columns]], preserve_index=False) for t in (points, ends)]
    return pa.concat_tables(both, promote_options="permissive").to_pandas()


def load_predictions(study: str | Path):
    """Return the predictions of every model as a pandas table: digest, split, item, label, predicted, logits.

    Raises FileNotFoundError with the command that computes them.
    """
    path = folder_of(study) / PREDICTIONS
    if not path.is_file():
        raise FileNotFoundError(
            f"{paths.scrub(str(path))} is missing: the predictions for every text are too large to be committed; "
            f"run: python -m pdstudy run params/{path.parent.name}.yaml"
        )
    return _parquet(path)


def load_searches(study: str | Path):
    """Return the learning rates tried on dev as a pandas table: recipe, size, rate, dev_accuracy, chosen, collapsed, diverged."""
    return _parquet(folder_of(study) / SEARCHES)


def load_tried(study: str | Path):
    """Return the predictions on dev at every learning rate as a pandas table, see `result_tables.search_predictions`; empty if not saved."""
    path = folder_of(study) / TRIED
    return _parquet(path) if path.is_file() else _table([], ["recipe", "size", "rate", "digest", "item", "label", "predicted"])


def load_costs(study: str | Path):
    """Return what each step cost as a pandas table: digest, stage, label, seconds, tokens, flops."""
    return _parquet(folder_of(study) / COSTS)


def load_nearness(study: str | Path):
    """Return how similar other transfer sets are to D_L as a pandas table: corpus, texts, words, S, unseen; see `result_tables.domains`."""
    path = folder_of(study) / DOMAINS
    return _table(_json(path) if path.is_file() else [], ["corpus", "texts", "words", "S", "unseen", "repeats", "words a text"])


def load_classes(study: str | Path) -> dict[str, Any]:
    """Return the names of the classes and their counts by split; see `result_tables.classes`."""
    return _json(folder_of(study) / CLASSES)


def load_counts(study: str | Path):
    """Return the counts of a study's texts as a pandas table, one row per kind of text; see `result_tables.counts`."""
    counts = _json(folder_of(study) / TEXTS)
    columns = dict.fromkeys(name for count in counts.values() for name in count)
    rows = [{"text": text} | {name: count.get(name) for name in columns} for text, count in counts.items()]
    return _table(rows).set_index("text").rename_axis(None).astype("Int64")


def load_speeds(study: str | Path) -> dict[str, dict[str, Any]]:
    """Return all measurements of speed by size, from the machine that ran the study; empty if not measured."""
    path = folder_of(study) / LATENCY
    return _json(path)["sizes"] if path.is_file() else {}


def load_latency(study: str | Path) -> dict[str, float]:
    """Return the median milliseconds per text by size; empty if not measured."""
    return {size: speed["p50"] for size, speed in load_speeds(study).items()}


def latency_table(study: str | Path):
    """Return the measurements of speed as a pandas table, one row per size; the fixed lengths are in the column names."""
    rows = [
        {"size": size, "p50, ms": m["p50"], "p95, ms": m["p95"]}
        | {f"p50 at {fixed['length']} pieces, ms": fixed["p50"] for fixed in m["fixed"]}
        | {f"texts a second, {m['batch']} at once": m["throughput"], "peak memory, MB": m["memory"]}
        for size, m in load_speeds(study).items()
    ]
    table = _table(rows).set_index("size").rename_axis(None).round(2)
    return table.astype(object).where(table.notna(), "-")  # the linear model is not measured at fixed lengths


def load_settings(study: str | Path) -> dict[str, Any]:
    """Return the settings of a study's results."""
    return _json(folder_of(study) / PARAMS)


def load_environment(study: str | Path) -> dict[str, Any]:
    """Return the versions, commit and machine of a study's last run."""
    return _json(folder_of(study) / ENVIRONMENT)


def provenance(study: str | Path) -> str:
    """Return one line about the run that wrote the results: command, commit, date, versions, machine, precision."""
    e = load_environment(study)
    v, m = e["versions"], e["machine"]
    trained_on = "".join(f"{device}, reported on " for device in e.get("devices", ()))
    return (
        f"{e['command']} · commit {e['commit']} · {e['date']} · torch {v['torch']}, transformers {v['transformers']}, "
        f"pdstudy {v['pdstudy']} · {trained_on}{m['processor']}, {m['cores']} cores · {e['precision']}"
    )


def dates(study: str | Path) -> tuple[int, ...]:
    """Return when each file that verdicts are made from last changed, in nanoseconds."""
    files = (folder_of(study) / name for name in (METRICS, PREDICTIONS, PARAMS, DOMAINS, LATENCY))
    return tuple(file.stat().st_mtime_ns if file.is_file() else 0 for file in files)


def folder_of(study: str | Path) -> Path:
    """Return the folder of a study's results, given its name or the folder. Raises FileNotFoundError with the command to run."""
    folder = paths.study_folder(str(study))
    if not (folder / METRICS).is_file() and Path(study).is_dir():
        folder = Path(study)
    if not (folder / METRICS).is_file():
        known = [path.parent.name for path in paths.OUTPUTS.glob(f"*/{METRICS}")]
        hint = "".join(f"did you mean {name!r}? Otherwise " for name in difflib.get_close_matches(folder.name, known, n=1))
        command = f"python -m pdstudy run {paths.params_argument(folder.name)}"
        raise FileNotFoundError(f"{paths.scrub(str(folder))}: no {METRICS} there; {hint}run: {command}")
    return folder


def _metrics(study: str | Path):
    """Return all metrics with seconds; columns that an older table lacks are added."""
    folder = folder_of(study)
    table = _parquet(folder / METRICS)
    table = table.assign(**{c: None for c in COLUMNS if c not in table})
    if (folder / COSTS).is_file():
        table = table.merge(_parquet(folder / COSTS)[["digest", "seconds"]], on="digest", how="left")
    return table


def _own(table):
    """Return which rows are of the study's main students: with all its texts, its own D_T and its own D_LM."""
    return table.curve.isna() & table.domain.isna() & table.corpus.isna()


def _json(path: Path):
    return json.loads(path.read_text())


def _parquet(path: Path):
    """Return a Parquet file as a pandas table."""
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pandas()


def _table(rows: list[dict[str, Any]], columns: list[str] | None = None):
    """Return rows as a pandas table, with `columns` if there are no rows."""
    import pyarrow as pa

    return (pa.Table.from_pylist(rows) if rows else pa.table({c: [] for c in columns or []})).to_pandas()
