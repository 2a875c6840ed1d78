"""What do unbalanced transfer texts cost a student, and how much of it does `distill.match_classes` return?

The transfer texts of movies are drawn by the teacher's labels (mpnet, released) so that a given share of them is positive; half of D_L and
of test is. A student is distilled on them, and its bias is shifted or not; the difference is paired by seed and test text. The rate is
chosen on dev from two, for each arm, so the two arms may be of different rates. Texts, seeds and updates are equal for all shares.

Run:  python benchmarks/class_shares.py          (some minutes on one core)
Writes benchmarks/results/class_shares.json.
"""

import json
from pathlib import Path

import numpy as np
import torch

from pdstudy import stages
from pdstudy.analysis import stats
from pdstudy.analysis.stats import POINTS
from pdstudy.data.batches import Ids
from pdstudy.models import encoder, inference
from pdstudy.models.train import Watch
from pdstudy.models.weights import copy_weights
from pdstudy.run import execute, result_tables
from pdstudy.run.inputs import Inputs
from pdstudy.sizes import Size
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import Study

OUT = Path(__file__).parent / "results" / "class_shares.json"
SIZE, TEXTS, SEEDS, RATES, SHARES = "2/128", 20_000, (0, 1, 2), (0.0003, 0.001), (0.5, 0.65, 0.8, 0.9)


def drawn(positive: np.ndarray, share: float) -> np.ndarray:
    """Return the indices of TEXTS transfer texts, in their order, `share` of them positive: the first of each class."""
    n = round(share * TEXTS)
    return np.sort(np.concatenate([np.flatnonzero(positive)[:n], np.flatnonzero(~positive)[: TEXTS - n]]))


def taken(texts: Ids, which: np.ndarray) -> Ids:
    """Return some of the texts."""
    flat = [texts.flat[texts.starts[i] : texts.starts[i + 1]] for i in which]
    return Ids(np.concatenate(flat), np.concatenate([[0], np.cumsum([len(f) for f in flat])]))


def main() -> None:
    """Train the students and write the record."""
    torch.set_num_threads(1)
    store, made = Store(), plan.make(Study.read("desk-mpnet"))
    step = next(s for s in made.of_stage("distill") if s.label.startswith(f"PD {SIZE} s0 distill rate"))
    for digest in (
        made.steps[step.parents["ids"]].parents["texts"],
        made.steps[step.parents["ids"]].parents["tokenizer"],
        step.parents["ids"],
    ):
        if store.find(digest) is None:  # the start and the soft labels are released
            execute.execute(made.steps[digest], store, Watch())
    inputs = Inputs(step, store)
    vocabulary, train, dev, test = inputs.vocabulary(), *map(inputs.labelled, ("train", "dev", "test"))
    logits = np.load(inputs.folder("label") / "logits.npy").astype(np.float32)
    transfer = inputs.texts("transfer", len(logits))
    positive = logits.argmax(1) == 1

    def right(model: encoder.Classifier, split) -> np.ndarray:
        return (inference.logits(model, split.ids, vocabulary.pad, "fp32").argmax(1) == split.labels).astype(float)

    rows = []
    for share in SHARES:
        which = drawn(positive, share)
        texts, soft = taken(transfer, which), logits[which]

        def student(rate: float, seed: int, texts=texts, soft=soft) -> dict[str, dict[str, np.ndarray]]:
            """Return the right answers on dev and test of one student, by arm."""
            s = step.settings | {"rate": rate, "seed": seed}
            model = encoder.new_classifier(
                encoder.bert_config(Size.parse(SIZE), vocabulary.size, s["init_std"], s["dropout"]), seed
            )
            copy_weights(model, s["start"], inputs.folder("start"))
            stages.distill(model, texts, soft, dev, s, vocabulary)
            arms = {"as taught": {"dev": right(model, dev), "test": right(model, test)}}
            stages.match_classes(model, train, vocabulary, "fp32")
            return arms | {"matched": {"dev": right(model, dev), "test": right(model, test)}}

        tried = {rate: student(rate, SEEDS[0]) for rate in RATES}
        best = {arm: max(RATES, key=lambda r, arm=arm: (tried[r][arm]["dev"].mean(), -r)) for arm in ("as taught", "matched")}
        more = {(rate, seed): student(rate, seed) for rate in set(best.values()) for seed in SEEDS[1:]}
        answers = {arm: np.stack([tried[r][arm]["test"], *(more[r, s][arm]["test"] for s in SEEDS[1:])]) for arm, r in best.items()}
        gain = stats.crossed_effect(answers["matched"] - answers["as taught"]).scaled(POINTS)
        rows.append(
            {
                "positive": share,
                "rates": best,
                "gain": round(gain.estimate, 2),
                "low": round(gain.low, 2),
                "high": round(gain.high, 2),
            }
            | {arm: round(float(a.mean()) * POINTS, 2) for arm, a in answers.items()}
        )
        print(rows[-1], flush=True)
    made_by = result_tables.environment(made, 0, 0, 0.0)
    facts = {"command": "python benchmarks/class_shares.py", "size": SIZE, "transfer_texts": TEXTS, "seeds": len(SEEDS)}
    record = facts | {"items": len(test.labels), "rows": rows} | {k: made_by[k] for k in ("commit", "date", "versions", "machine")}
    OUT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
