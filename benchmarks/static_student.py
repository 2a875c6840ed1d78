"""A student without attention: word and word-pair vectors, pooled, one hidden layer; taught on D_T with the teacher's soft labels.

The question is whether such a student, "0/64", earns a place between the linear model and 2/128. All arms learn from the same soft labels of
the same texts (the released ones of mpnet, movies), the rate is chosen on dev from two, the linear model's C from five, and test is read once.
The students of `outputs/published/desk-mpnet` learned from the same labels of the first 60,000 texts.

Run:  python benchmarks/static_student.py        (some minutes on one core)
Writes benchmarks/results/static_student.json.
"""

import json
import time
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from pdstudy.models import linear
from pdstudy.models.train import Watch
from pdstudy.run import execute, result_tables
from pdstudy.run.inputs import Inputs
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import Study

OUT = Path(__file__).parent / "results" / "static_student.json"
TEXTS, SEEDS, RATES = (60_000, 200_000), (0, 1, 2), (0.001, 0.003)
WIDTH, HIDDEN, EPOCHS, BATCH = 64, 128, 3, 64
GRAMS = {"words": (1, 1, 20_000), "words and pairs": (1, 2, 30_000)}  # shortest, longest, how many of the most frequent


class Static(nn.Module):
    """Vectors of n-grams, their mean, one hidden layer with GELU, logits."""

    def __init__(self, n_grams: int, n_classes: int):
        super().__init__()
        self.vectors = nn.EmbeddingBag(n_grams, WIDTH, mode="mean", sparse=True)
        nn.init.normal_(self.vectors.weight, std=0.1)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, n_classes))

    def forward(self, grams: Tensor, starts: Tensor) -> Tensor:
        return self.head(self.vectors(grams, starts))


def rows(x, which: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the n-grams of texts one after another, and where each text begins."""
    part = x[which]
    return torch.from_numpy(part.indices.astype(np.int64)), torch.from_numpy(part.indptr[:-1].astype(np.int64))


def train(x, targets: np.ndarray, rate: float, seed: int) -> Static:
    """Return a static student taught for EPOCHS passes, the rate decaying to zero."""
    torch.manual_seed(seed)
    model, order = Static(x.shape[1], targets.shape[1]), np.random.default_rng(seed)
    optimisers = [torch.optim.SparseAdam(model.vectors.parameters(), lr=rate), torch.optim.AdamW(model.head.parameters(), lr=rate)]
    steps, step, goal = EPOCHS * (len(targets) // BATCH), 0, torch.from_numpy(targets.astype(np.float32))
    for _ in range(EPOCHS):
        for which in order.permutation(len(targets))[: len(targets) // BATCH * BATCH].reshape(-1, BATCH):
            for optimiser in optimisers:
                optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
                optimiser.zero_grad()
            nn.functional.cross_entropy(model(*rows(x, which)), goal[which]).backward()
            for optimiser in optimisers:
                optimiser.step()
            step += 1
    return model.eval()


@torch.no_grad()
def correct(model: Static, x, classes: np.ndarray) -> float:
    """Return the accuracy in percent."""
    return float((model(*rows(x, np.arange(len(classes)))).argmax(1).numpy() == classes).mean() * 100)


def main() -> None:
    """Train every arm and write the record."""
    torch.set_num_threads(1)
    store, made = Store(), plan.make(Study.read("desk-mpnet"))
    step = next(s for s in made.of_stage("linear") if "label" in s.parents)
    if store.find(step.parents["texts"]) is None:  # the soft labels are released
        execute.execute(made.steps[step.parents["texts"]], store, Watch())
    inputs, arms = Inputs(step, store), []
    logits = np.load(inputs.folder("label") / "logits.npy")
    texts = {split: inputs.texts(split) for split in ("transfer", "dev", "test")}
    classes = {split: inputs.labelled(split).labels for split in ("dev", "test")}
    for n in TEXTS:
        targets = softmax(logits[:n].astype(np.float64), axis=1)
        begun = time.perf_counter()
        model, record, _ = linear.fit(texts["transfer"][:n], targets, targets.shape[1], texts["dev"], classes["dev"])
        seconds = time.perf_counter() - begun
        test = float((model.logits(texts["test"]).argmax(1) == classes["test"]).mean() * 100)
        arms.append({"arm": "linear, taught", "texts": n, "test": [round(test, 2)], "mb": round(model.n_params * 4 / 1e6, 1)})
        arms[-1] |= {"seconds": round(seconds, 1), "C": record["C"]}
        print(arms[-1], flush=True)
        for name, (shortest, longest, most) in GRAMS.items():
            from sklearn.feature_extraction.text import CountVectorizer

            counter = CountVectorizer(ngram_range=(shortest, longest), max_features=most, binary=True)
            x = {"transfer": counter.fit_transform(texts["transfer"][:n])} | {
                s: counter.transform(texts[s]) for s in ("dev", "test")
            }
            begun = time.perf_counter()
            tried = {rate: train(x["transfer"], targets, rate, SEEDS[0]) for rate in RATES}
            seconds = (time.perf_counter() - begun) / len(RATES)
            dev = {rate: correct(m, x["dev"], classes["dev"]) for rate, m in tried.items()}
            rate = max(RATES, key=lambda r: (dev[r], -r))
            models = [tried[rate], *(train(x["transfer"], targets, rate, seed) for seed in SEEDS[1:])]
            n_params = sum(p.numel() for p in models[0].parameters())
            scores = [round(correct(m, x["test"], classes["test"]), 2) for m in models]
            arms.append({"arm": f"static, {name}", "texts": n, "test": scores, "mb": round(n_params * 4 / 1e6, 1)})
            arms[-1] |= {"seconds": round(seconds, 1), "rate": rate, "dev": {str(k): round(v, 2) for k, v in dev.items()}}
            print(arms[-1], flush=True)
    made_by = result_tables.environment(made, 0, 0, 0.0)
    place = {k: made_by[k] for k in ("commit", "date", "versions", "machine")}
    OUT.write_text(json.dumps({"command": "python benchmarks/static_student.py", "arms": arms} | place, indent=1) + "\n")


if __name__ == "__main__":
    main()
