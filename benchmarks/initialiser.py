"""Which initialiser's scale does Basic training want at each width? Dev accuracy, never test.

BERT's 0.02 was made for width 768; a narrow model started there hardly moves. The scale found here is fixed
in the params files for every recipe, so that no arm is started worse than another.

Run:  python benchmarks/initialiser.py            (about 10 minutes on 2 quiet cores)
Writes benchmarks/results/initialiser.json.
"""

import itertools
import json
import multiprocessing
from pathlib import Path

import numpy as np
import torch

from pdstudy import stages
from pdstudy.models import encoder
from pdstudy.models.train import Watch
from pdstudy.run import execute, model_steps, result_tables
from pdstudy.sizes import Size
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import Study

SIZES = ("2/128", "2/256")
SCALES = (0.02, 0.04, 0.08)
RATES = (4e-4, 1e-3)
SEEDS = (0, 1)
OUT = Path(__file__).parent / "results" / "initialiser.json"


def one(job: tuple[str, float, float, int]) -> dict:
    """Return the dev accuracy of one Basic training."""
    size, scale, rate, seed = job
    torch.set_num_threads(1)
    study, store, steps = _texts()
    inputs = model_steps.Inputs(steps.Step("finetune", {}, {"ids": steps[-1].digest}, ""), store)
    settings = study.finetune.model_dump() | {"rate": rate, "seed": seed, "precision": study.resolved_precision()}
    config = encoder.bert_config(Size.parse(size), inputs.vocabulary().size, scale, study.dropout)
    model = encoder.new_classifier(config, seed)
    outcome = stages.finetune(model, inputs.labelled("train"), inputs.labelled("dev"), settings, inputs.vocabulary())
    return {"size": size, "scale": scale, "rate": rate, "seed": seed, "dev_accuracy": outcome.dev["accuracy"]}


def _texts():
    study = Study.read("quick")
    steps = [s for s in plan.make(study).steps.values() if s.stage in ("texts", "tokenizer") or s.settings.get("of") == "task"]
    return study, Store(), steps


def main() -> None:
    study, store, steps = _texts()
    for step in steps:
        if store.find(step.digest) is None:
            execute.execute(step, store, Watch())
    jobs = list(itertools.product(SIZES, SCALES, RATES, SEEDS))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        runs = pool.map(one, jobs, chunksize=1)
    best = {}
    print(f"{'size':8}{'scale':>8}{'best rate':>11}{'dev accuracy':>14}   (mean of {len(SEEDS)} seeds)")
    for size, scale in itertools.product(SIZES, SCALES):
        means = {
            r: np.mean([x["dev_accuracy"] for x in runs if (x["size"], x["scale"], x["rate"]) == (size, scale, r)]) for r in RATES
        }
        rate = max(means, key=means.get)
        print(f"{size:8}{scale:8g}{rate:11g}{means[rate]:14.1%}")
        best.setdefault(Size.parse(size).hidden, []).append((float(means[rate]), scale))
    chosen = {str(width): max(rows)[1] for width, rows in best.items()}
    print("chosen:", chosen)
    made = result_tables.environment(plan.make(study), 0, 0, 0.0)
    made_by = {k: made[k] for k in ("commit", "date", "versions", "machine", "precision")}
    OUT.write_text(
        json.dumps({"command": "python benchmarks/initialiser.py", "chosen": chosen, "runs": runs} | made_by, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
