"""Studies made by hand: students that are right on given shares of the texts, written as results."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pdstudy.analysis.evidence import Arm
from pdstudy.recipes import LINEARS
from pdstudy.run import result_tables
from pdstudy.sizes import Size
from pdstudy.storage import results

N_ITEMS = 400
SEEDS = [0, 1, 2]
NEAR = {"a": 0.9, "b": 0.7, "c": 0.4}  # S of three transfer sets
LATENCY = {"2/64": 1.0, "4/64": 2.0, "6/64": 3.2, "2/128": 1.3, "4/128": 3.0, "6/128": 4.6}  # 6/64 and 4/128 match


def write(folder: Path, shares: dict, sizes=("2/64", "2/128"), missing=(), n_items=N_ITEMS, noise=0.05, **settings) -> str:
    """Return the folder of a study in which each arm, or (recipe, size), is right on a given share of the texts."""
    rng = np.random.default_rng(0)
    difficulty = rng.random(n_items)  # shared: hard texts are hard for every student
    metrics, parts = [], []
    for arm, share in shares.items():
        arm = arm if isinstance(arm, Arm) else Arm(*arm)
        for seed in SEEDS if arm.recipe not in ("teacher", *LINEARS) else [0]:
            if (arm.recipe, arm.size, seed) in missing:
                continue
            right = difficulty + rng.normal(0, noise, n_items) < share
            digest = f"{arm}-{seed}"
            n_params = 1000 if arm.recipe in LINEARS else Size.parse(arm.size).n_params(2048)
            row = {"study": "x", "task": "movies", "recipe": arm.recipe, "size": arm.size, "seed": seed, "split": "test"}
            curve = "labels" if arm.recipe in ("PF", "Basic", *LINEARS) else "transfer"
            row |= {"curve": curve if arm.texts else None, "texts": arm.texts, "domain": arm.domain, "corpus": arm.corpus}
            row |= {"metric": "accuracy", "value": right.mean(), "n": n_items, "n_params": n_params}
            row |= {"rate": 1e-3, "collapsed": False, "tokens": 1, "digest": digest}
            metrics += [row, row | {"split": "dev"}]
            label = np.zeros(n_items, dtype=np.int16)
            columns = {"digest": [digest] * n_items, "split": ["test"] * n_items, "item": np.arange(n_items), "label": label}
            parts.append(pa.table(columns | {"predicted": (~right).astype(np.int16)}))
    pq.write_table(pa.Table.from_pylist(metrics, schema=result_tables.schema()), folder / results.METRICS)
    pq.write_table(pa.concat_tables(parts), folder / results.PREDICTIONS)
    recipes = [r for r in dict.fromkeys(row["recipe"] for row in metrics) if r not in ("teacher", *LINEARS)]
    params = {"sizes": list(sizes), "seeds": SEEDS, "recipes": recipes, "curves": {"transfer": []}} | settings
    (folder / results.PARAMS).write_text(json.dumps(params))
    return str(folder)


def both(recipe: str, share: float) -> dict[tuple[str, str], float]:
    """Return one share for both sizes."""
    return {(recipe, size): share for size in ("2/64", "2/128")}


def world(turn) -> dict[Arm, float]:
    """Return the shares of a study in which the paper is right about everything; `turn` may change each."""
    depth, shares = {2: 0.0, 4: 0.05, 6: 0.06}, {}

    def wide(size):
        return 0.01 * (size.hidden == 128)

    for size in map(Size.parse, LATENCY):
        s, read = str(size), depth[size.layers] + wide(size)
        shares |= {
            Arm("PD", s): 0.80 + read,
            Arm("PF", s): 0.70 + read,
            Arm("Distillation", s): 0.65 + wide(size),
            Arm("Basic", s): 0.60,
        }
        shares |= {Arm("PD", s, corpus="transfer"): 0.75 + read, Arm("PD", s, corpus="news"): 0.77 + read}
        shares |= {Arm("PF", s, corpus="transfer"): 0.68 + read, Arm("PD (embeddings)", s): 0.65 + 5 * wide(size)}
        if size.layers < 6:
            shares[Arm("PD (truncated)", s)] = 0.80 + read - {2: 0.06, 4: 0.02}[size.layers]
    for n in (500, 1000):
        shares |= {Arm("PD", "2/64", n): 0.76 + n / 1e5, Arm("Distillation", "2/64", n): 0.55 + n / 1e5}
    for n in (250, 500):
        shares |= {Arm("PF", "2/64", n): 0.5 + n / 1e4, Arm("Linear", "linear", n): 0.48}
    for name, pd, distilled, tuned in (("a", 0.80, 0.66, 0.80), ("b", 0.79, 0.62, 0.80), ("c", 0.70, 0.56, 0.76)):
        shares |= {Arm(r, "2/64", domain=name): v for r, v in (("PD", pd), ("Distillation", distilled), ("PD-F", tuned))}
    return {arm: turn(share) for arm, share in shares.items()}


def complete_study(folder: Path, turn=lambda share: share) -> str:
    """Return the folder of a study that measured everything."""
    some = {"PD-F": ["2/64"], "PD (truncated)": ["2/64", "4/64", "2/128", "4/128"]}
    more = {"curves": {"transfer": [500, 1000]}, "compound": {"corpora": ["transfer", "news"]}}
    more |= {"transfer": {"texts": 2000}, "splits": {"train": 1000}}
    shares = world(turn) | {Arm("teacher", "6/128"): 0.9}
    shares |= {Arm(name, "linear"): turn(share) for name, share in zip(LINEARS, (0.5, 0.6), strict=True)}
    write(folder, shares, tuple(LATENCY), n_items=15_000, noise=0.01, recipe_sizes=some, **more)
    columns = {"texts": 9, "words": 9, "unseen": 0.1, "repeats": 0, "words a text": 9.0}
    (folder / results.DOMAINS).write_text(json.dumps([{"corpus": name, "S": s} | columns for name, s in NEAR.items()]))
    (folder / results.LATENCY).write_text(json.dumps({"sizes": {size: {"p50": ms} for size, ms in LATENCY.items()}}))
    (folder / results.TEXTS).write_text(json.dumps({"train": {"kept": 1000}}))
    return str(folder)
