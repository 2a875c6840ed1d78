"""What lets a compact BERT read on a small budget? One change at a time from the budget recipe, equal text.

Every variant reads the same number of pieces. Shown are the held-out MLM loss along the way, the seconds to
leave the plateau, and what the reading is worth to a classifier: a linear probe on the frozen [CLS] vector
(five folds of the training labels) and dev accuracy after fine-tuning at one fixed rate. Never test.

Run:  python benchmarks/pretraining_budget.py 2/128 --pieces 1.5e6   (about 35 minutes on 2 quiet cores)
      python benchmarks/pretraining_budget.py 4/256 --pieces 1e6     (about 35 minutes)
      python benchmarks/pretraining_budget.py --write                (only the page)
Goes on where it was stopped. Writes benchmarks/results/pretraining_budget.json and docs/pretraining_budget.md.
"""

import argparse
import itertools
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import torch

from pdstudy import stages
from pdstudy.data import batches
from pdstudy.data.batches import Ids, Rows, padded
from pdstudy.machine import best_precision
from pdstudy.models import encoder, evaluate
from pdstudy.models.train import Schedule, Watch
from pdstudy.run import execute, model_steps, result_tables
from pdstudy.sizes import Size
from pdstudy.storage import paths
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import Study
from pdstudy.study.steps import Plan, Step

OUT = Path(__file__).parent / "results" / "pretraining_budget.json"
PAGE = paths.ROOT / "docs" / "pretraining_budget.md"
FIGURE = paths.ROOT / "docs" / "pretraining_budget.png"
KEYS = ("size", "pieces", "variant")
POINTS = 10  # held-out measurements along a run
FINETUNE_RATE = 3e-4  # fixed for all, so that no variant is searched more than another
SEEDS = {"2/128": (0, 1), "4/128": (0,), "6/128": (0,), "4/256": (0,)}  # of fine-tuning

BERT = {"words": "random", "positions": "random", "optimiser": "adamw", "mask": 0.15, "cls_words": 0.0}
VARIANTS = {  # name -> what differs from the budget recipe
    "budget recipe": {},
    "BERT's recipe, initialiser 0.02": BERT | {"init_std": 0.02, "rate": 1e-3},
    "BERT's recipe, initialiser 0.06": BERT | {"init_std": 0.06, "rate": 1e-3},
    "BERT's recipe, initialiser 0.06, rate x 2": BERT | {"init_std": 0.06, "rate": 2e-3},
    "words start at random": {"words": "random"},
    "positions start at random": {"positions": "random"},
    "AdamW for all": {"optimiser": "adamw"},
    "no task for [CLS]": {"cls_words": 0.0},
    "[CLS] task x 2": {"cls_words": 1.0},
    "15 % masked": {"mask": 0.15},
    "45 % masked": {"mask": 0.45},
    "whole words masked": {"whole_words": True},
    "rows of 128": {"row": 128, "batch": 16},
    "rows of 32": {"row": 32, "batch": 64},
    "batch x 2": {"batch": 64},
    "batch / 2": {"batch": 16},
    "initialiser 0.02": {"init_std": 0.02},
    "initialiser 0.06": {"init_std": 0.06},
    "words louder x 2": {"words_std": 0.12},
    "words softer / 2": {"words_std": 0.03},
    "pairs at most 1 apart": {"window": 1},
    "pairs at most 8 apart": {"window": 8},
    "rate x 2": {"rate": 2.0},  # of the size's own
    "rate / 2": {"rate": 0.5},
    "Muon's rate x 2": {"muon_rate": 2.0},
    "Muon's rate / 2": {"muon_rate": 0.5},
    "rate x 1.5": {"rate": 1.5},
    "Muon's rate / 1.5": {"muon_rate": 2 / 3},
    "rate x 1.5, Muon's / 1.5": {"rate": 1.5, "muon_rate": 2 / 3},
    "rate x 2, Muon's / 1.5": {"rate": 2.0, "muon_rate": 2 / 3},
    "vocabulary 4,096": {"vocabulary": 4096},
    "vocabulary 16,384": {"vocabulary": 16384},
    "vocabulary 30,522": {"vocabulary": 30522},
    "grown from half the layers": {"grown": True},
    "rows of 32, then of 128": {"first": {"row": 32, "batch": 64}, "row": 128, "batch": 16},
    "no row crosses documents": {"rows": "apart"},
    "easy rows first": {"rows": "easy"},
    "longer warm-up, 15 %": {"warmup": 0.15},
    "the rate stays, then falls": {"stays": 0.7},  # for so much of the steps
    "bf16": {"precision": "bf16"},
}
SIZED = ("budget recipe", "rate x 1.5", "Muon's rate / 1.5", "rate x 1.5, Muon's / 1.5", "rate x 2, Muon's / 1.5")  # rates by size
DEEP = (  # the variants worth their time at 4/256
    "budget recipe", "BERT's recipe, initialiser 0.02", "BERT's recipe, initialiser 0.06", "words start at random",
    "no task for [CLS]", "AdamW for all", "Muon's rate / 2", "grown from half the layers",
)  # fmt: skip


def steps_of(size: Size, change: dict, pieces: float) -> Plan:
    """Return the plan that makes the texts, word pieces and word vectors of one variant, and its pre-train step."""
    study = Study.read("zoo")
    own = study.pretraining(size).model_dump() | {"tokens": pieces}
    for key in ("rate", "muon_rate"):
        if change.get(key, 0) >= 0.5:  # a factor
            change = change | {key: own[key] * change[key]}
    fields = study.model_dump() | {"sizes": [str(size)], "pretrain_by_size": {}, "teacher": {"size": str(size), "folder": None}}
    fields["pretrain"] = own | {k: v for k, v in change.items() if k in own and k != "precision"}
    fields["precision"] = change.get("precision", best_precision())
    fields["tokenizer"] = {"vocabulary": change.get("vocabulary", study.tokenizer.vocabulary), "folder": None}
    study = Study(**fields)
    made = plan.make(study)
    return made


def prepare(jobs: list[tuple[str, str, float]]) -> None:
    """Make every text, tokenizer and word vector that the variants read, once."""
    store = Store(families=())
    for size, name, pieces in jobs:
        for step in steps_of(Size.parse(size), VARIANTS[name], pieces).steps.values():
            if step.stage in ("texts", "tokenizer", "ids", "words") and store.find(step.digest) is None:
                execute.execute(step, store, Watch())


def one(job: tuple[str, str, float]) -> dict:
    """Return one variant's curve and worth."""
    torch.set_num_threads(1)
    size_text, name, pieces = job
    size, store = Size.parse(size_text), Store(families=())
    made = steps_of(size, VARIANTS[name], pieces)
    step = made.of_stage("pretrain")[0]
    inputs = model_steps.Inputs(step, store)
    task = model_steps.Inputs(next(s for s in made.of_stage("finetune")), store)
    model, config, s = start(step, inputs, size)
    curve: list[dict] = []
    heldout, vocabulary = np.array(inputs.ids("heldout").flat), inputs.vocabulary()
    unigram = np.load(inputs.folder("ids") / "corpus.counts.npy")
    text = arranged(inputs.ids("corpus"), s, vocabulary, unigram, VARIANTS[name].get("rows"))
    corpus = stages.RunningText(text, np.load(inputs.folder("ids") / "continues.npy"))
    if stays := VARIANTS[name].get("stays"):
        Schedule.factor = lambda self, step: min((step + 1) / (self.warmup * self.steps), 1, (1 - step / self.steps) / (1 - stays))
    aside = 0.0

    def look(share: float) -> None:
        nonlocal aside
        if share < (len(curve) + 1) / POINTS:
            return
        begun = time.process_time()
        level = evaluate.heldout_mlm(model, heldout, vocabulary, unigram, s["precision"])
        model.train()
        curve.append({"share": round(share, 3), "seconds": round(begun - start_time - aside, 1), "loss": level["mlm_loss"]})
        aside += time.process_time() - begun

    start_time = time.process_time()
    if VARIANTS[name].get("grown"):
        half = Size(size.layers // 2, size.hidden)
        small, _, _ = start(step, inputs, half)
        stages.pretrain(small, corpus, s | {"tokens": pieces / 2}, vocabulary, Watch())
        stack(small, model)
        s = s | {"tokens": pieces / 2}
    if first := VARIANTS[name].get("first"):
        stages.pretrain(model, corpus, s | first | {"tokens": pieces / 2}, vocabulary, Watch())
        s = s | {"tokens": pieces / 2}
    stages.pretrain(model, corpus, s, vocabulary, Watch(progress=look, log_every=20))
    level = evaluate.heldout_mlm(model, heldout, vocabulary, unigram, s["precision"])
    train, dev = task.labelled("train"), task.labelled("dev")
    return {
        "size": size_text,
        "variant": name,
        "pieces": pieces,
        "settings": step.settings,
        "curve": curve,
        "reading": level,
        "probe": probe(model, train, vocabulary.pad),
        "dev": [finetuned(model, config, train, dev, made.study, vocabulary, seed) for seed in SEEDS[size_text]],
    }


def arranged(ids: Ids, s: dict, vocabulary, unigram: np.ndarray, rows: str | None) -> np.ndarray:
    """Return the running text, changed so that the rows that are read are `rows`: "apart", of one document each, or "easy"
    ones first, by the mean unigram loss of their pieces; None changes nothing.
    """
    text, width = np.array(ids.flat), s["row"] - 1
    if rows is None:
        return text
    order, shift = Rows(text, s["row"], s["seed"], vocabulary)._epoch(0)
    places = shift + order[: round(s["tokens"] / s["row"])] * width  # where the rows that will be read begin
    if rows == "apart":
        begins = np.concatenate([np.arange(a, b - width + 1, width) for a, b in itertools.pairwise(ids.starts)])
        begins = np.random.default_rng(0).choice(begins, len(places), replace=False)
    else:
        hard = -np.log((unigram + 1) / (unigram + 1).sum())
        begins = places[np.argsort([hard[text[a : a + width]].mean() for a in places], kind="stable")]
    changed = text.copy()
    for place, begin in zip(places, begins, strict=True):
        changed[place : place + width] = text[begin : begin + width]
    return changed


def start(step: Step, inputs: model_steps.Inputs, size: Size):
    """Return (reader, its configuration, settings) as the pre-train step begins, at this size."""
    s = step.settings
    config = encoder.bert_config(size, inputs.vocabulary().size, s["init_std"], dropout=0.0)
    words = np.load(inputs.folder("words") / "words.npy") * s["words_std"] if "words" in step.parents else None
    unigram = np.load(inputs.folder("ids") / "corpus.counts.npy") if s["cls_words"] else None
    return encoder.new_masked_lm(config, s["seed"], s["positions"], words, unigram), config, s


def stack(small: encoder.MaskedLanguageModel, deep: encoder.MaskedLanguageModel) -> None:
    """Put the small model's layers twice above each other into the deep one (Gong et al., 2019)."""
    n = len(small.bert.bert.encoder.layer)
    weights = small.state_dict()
    for i in range(n):
        marks = f"bert.bert.encoder.layer.{i}."
        weights |= {
            k.replace(marks, f"bert.bert.encoder.layer.{i + n}."): v for k, v in list(weights.items()) if k.startswith(marks)
        }
    deep.load_state_dict(weights)


@torch.inference_mode()
def probe(model: encoder.MaskedLanguageModel, train: batches.Labelled, pad: int) -> float:
    """Return the five-fold accuracy of a linear classifier on the frozen [CLS] vectors of the training texts."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model.eval()
    vectors = [
        first_vectors(model, train.ids, np.arange(i, min(i + 256, len(train.ids))), pad) for i in range(0, len(train.ids), 256)
    ]
    classifier = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=(10, 100, 1000, 10_000)))
    return float(cross_val_score(classifier, np.concatenate(vectors), train.labels, cv=5).mean())


def first_vectors(model: encoder.MaskedLanguageModel, ids: Ids, index: np.ndarray, pad: int) -> np.ndarray:
    pieces, mask, _ = padded(ids, index, pad)
    mask = None if mask is None else torch.from_numpy(mask)
    return encoder.encode(model.bert.bert, torch.from_numpy(pieces), mask).numpy()


def finetuned(reader, config, train, dev, study: Study, vocabulary, seed: int) -> float:
    """Return dev accuracy after fine-tuning the reader at the fixed rate."""
    size = encoder.size_of(config)
    fresh = encoder.bert_config(size, vocabulary.size, study.init_std[str(size.hidden)], study.dropout)
    student = encoder.new_classifier(fresh, seed)
    student.bert.load_state_dict({k: v for k, v in reader.state().items() if not k.startswith("cls.")}, strict=False)
    settings = study.finetune.model_dump() | {"rate": FINETUNE_RATE, "seed": seed, "precision": study.resolved_precision()}
    return stages.finetune(student, train, dev, settings, vocabulary).dev["accuracy"]


def load() -> dict:
    """Return what has been measured so far."""
    return json.loads(OUT.read_text()) if OUT.exists() else {"runs": []}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", nargs="?", choices=sorted(SEEDS))
    parser.add_argument("--pieces", type=float, default=3e6)
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="only write the page from the results")
    options = parser.parse_args()
    if options.size and not options.write:
        measure(options)
    from pretraining_budget_page import write

    write(load(), PAGE, FIGURE)


def measure(options: argparse.Namespace) -> None:
    """Run what is missing, two at a time, and keep each result as it comes."""
    names = options.only or (list(VARIANTS) if options.size == "2/128" else DEEP)
    jobs = [
        (options.size, name, options.pieces) for name in names if options.size != "2/128" or name != "grown from half the layers"
    ]
    prepare(jobs)
    known = load()
    done = {(r["size"], r["variant"], r["pieces"], json.dumps(r["settings"], sort_keys=True)) for r in known["runs"]}
    todo = []
    for job in jobs:
        settings = steps_of(Size.parse(job[0]), VARIANTS[job[1]], job[2]).of_stage("pretrain")[0].settings
        if (*job, json.dumps(settings, sort_keys=True)) not in done:
            todo.append(job)
    with multiprocessing.get_context("spawn").Pool(options.workers, maxtasksperchild=1) as pool:
        for run in pool.imap_unordered(one, todo, chunksize=1):
            print(
                f"{run['size']:7}{run['variant']:45} loss {run['reading']['mlm_loss']:.3f}  probe {run['probe']:.1%}  "
                f"dev {np.mean(run['dev']):.1%}  {run['curve'][-1]['seconds']:.0f} s",
                flush=True,
            )
            known = load()
            same = [run[k] for k in KEYS]
            known["runs"] = [r for r in known["runs"] if [r[k] for k in KEYS] != same] + [run]
            made = result_tables.environment(steps_of(Size.parse(run["size"]), {}, run["pieces"]), 0, 0, 0.0)
            run |= {k: made[k] for k in ("commit", "date", "versions", "machine", "precision")}
            OUT.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
