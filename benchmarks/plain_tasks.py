"""Three tasks as the plain files that an engineer has, from a mirror of public data: what `init`, `advise`, `export` and `predict` are shown on.

python benchmarks/plain_tasks.py MIRROR FOLDER

`books` is a CSV of book reviews with unlabelled ones as lines of text, `rte` a TSV of pairs, `products` JSON lines of reviews whose
label is one of ten kinds of product. `movies` are the texts of `params/teacher-movies.yaml` as CSV files, with 60,000 unlabelled sentences. `domains/` has a file of texts for each of the sixteen domains but books, what
`benchmarks/reviews16.yaml` asks for. `sentences` is a CSV of some 300,000 sentences of film reviews with the review's label, for measurements of
memory. MIRROR holds `reviews16`, `rte` and `imdb`, `<name>/<split>.parquet` each.
"""

import json
import sys
from pathlib import Path

import pandas as pd

from pdstudy.models.train import Watch
from pdstudy.run.execute import execute
from pdstudy.storage.store import Store
from pdstudy.study.plan import make
from pdstudy.study.settings import Study

KINDS = [
    "apparel",
    "baby",
    "books",
    "camera_photo",
    "dvd",
    "health_personal_care",
    "kitchen_housewares",
    "music",
    "sports_outdoors",
    "toys_games",
]


def books(mirror: Path, folder: Path) -> None:
    for split in ("train", "test"):
        table = pd.read_parquet(mirror / "reviews16" / f"{split}.parquet").query("domain == 'books'")
        answers = table.label.map({0: "negative", 1: "positive"})
        pd.DataFrame({"review": table.text, "rating": answers}).to_csv(folder / f"books_{split}.csv", index=False)
    lines(mirror, ["books"], folder / "books_unlabelled.txt")


def rte(mirror: Path, folder: Path) -> None:
    for split, name in (("train", "train"), ("validation", "test"), ("unlabelled", "unlabelled")):
        table = pd.read_parquet(mirror / "rte" / f"{split}.parquet")
        pairs = table[["sentence1", "sentence2"]].replace(r"\s+", " ", regex=True)
        if split != "unlabelled":
            pairs["label"] = table.label.map({0: "entailment", 1: "not_entailment"})
        with (folder / f"rte_{name}.tsv").open("w", encoding="utf-8") as file:  # a TSV has no quotes: every line a row
            file.writelines("\t".join(map(str, row)) + "\n" for row in [pairs.columns, *pairs.to_numpy()])


def products(mirror: Path, folder: Path) -> None:
    for split in ("train", "test"):
        table = pd.read_parquet(mirror / "reviews16" / f"{split}.parquet").query("domain in @KINDS")
        table[["text", "domain"]].to_json(folder / f"products_{split}.jsonl", orient="records", lines=True, force_ascii=False)
    lines(mirror, KINDS, folder / "products_unlabelled.txt")


def domains(mirror: Path, folder: Path) -> None:
    (folder / "domains").mkdir(exist_ok=True)
    for name in sorted(set(pd.read_parquet(mirror / "reviews16" / "unlabelled.parquet").domain) - {"books"}):
        lines(mirror, [name], folder / "domains" / f"{name}.txt", ("unlabelled", "train"))  # many reviews stand there twice


def sentences(mirror: Path, folder: Path) -> None:
    table = pd.read_parquet(mirror / "imdb" / "train.parquet")
    rows = table.assign(text=table.text.str.replace("<br />", " ").str.split(r"(?<=[.!?])\s+", regex=True)).explode(
        "text", ignore_index=True
    )
    rows = rows[rows.text.str.len() > 20].replace({"label": {0: "negative", 1: "positive"}})
    rows[["text", "label"]].to_csv(folder / "sentences.csv", index=False)


def movies(mirror: Path, folder: Path) -> None:
    study, store = Study.read("teacher-movies"), Store()
    (step,) = make(study).of_stage("texts")
    texts = store.find(step.digest) or execute(step, store, Watch())
    labels = json.loads((texts / "record.json").read_text())["labels"]
    for split in ("train", "dev", "test"):
        table = pd.read_parquet(texts / f"{split}.parquet")[: study.splits.train if split == "train" else None]
        answers = table.label.map(dict(enumerate(labels)))
        pd.DataFrame({"text": table.text, "label": answers}).to_csv(folder / f"movies_{split}.csv", index=False)
    sentences = pd.read_parquet(texts / "transfer.parquet").text[: study.transfer.texts]
    (folder / "movies_unlabelled.txt").write_text("\n".join(sentences) + "\n", encoding="utf-8")


def lines(mirror: Path, kinds: list[str], path: Path, splits: tuple[str, ...] = ("unlabelled",)) -> None:
    tables = [pd.read_parquet(mirror / "reviews16" / f"{split}.parquet") for split in splits]
    texts = pd.concat(tables).query("domain in @kinds").text
    path.write_text("\n".join(" ".join(text.split()) for text in texts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    mirror, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for write in (books, rte, products, movies, domains, sentences):
        write(mirror, folder)
