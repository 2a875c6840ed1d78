"""By how many texts the two keys of repeats differ: that of the public tasks, and that of files of one's own.

python benchmarks/repeat_keys.py [FOLDER]

The public tasks whose data is at hand are cleaned with both; with a FOLDER that `plain_tasks.py` wrote, books, rte and products too.
"""

import sys
from pathlib import Path

from pdstudy.data import cleaning, repeats, sources
from pdstudy.data.formats import TextError
from pdstudy.data.tasks import TASKS, Files, Task

PUBLIC = {"movies": {"dev": 1000, "test": 2530}, "sst2": {"dev": 1000}, "rte-snli": {"dev": 300}}
PLAIN = {
    "books": ("books_train.csv", "books_test.csv", "books_unlabelled.txt", ("review",), "rating"),
    "rte": ("rte_train.tsv", "rte_test.tsv", "rte_unlabelled.tsv", ("sentence1", "sentence2"), "label"),
    "products": ("products_train.jsonl", "products_test.jsonl", "products_unlabelled.txt", ("text",), "domain"),
}


def compare(name: str, task: Task, splits: dict[str, int]) -> None:
    """Print what is kept with each key, and whether the splits are the same."""
    raw, by_key = sources.read(task), {}
    for key in (repeats.loose_key, repeats.key):
        raw.key = key
        by_key[key.__name__] = texts = cleaning.build(raw, splits, None, 0.02, 0)
        n_texts = {part: counts["kept"] for part, counts in texts.counts.items() if "kept" in counts}
        print(f"{name:9} {key.__name__:9}", ", ".join(f"{part} {n:,}" for part, n in n_texts.items()))
    one, other = by_key.values()
    print(f"{name:9} same splits: " + ", ".join(f"{s} {one.labelled[s] == other.labelled[s]}" for s in ("train", "dev", "test")))


if __name__ == "__main__":
    for name, splits in PUBLIC.items():
        try:
            compare(name, TASKS[name], splits)
        except TextError as error:
            print(f"{name:9} {error}")
    for name, (train, test, more, text, label) in PLAIN.items() if len(sys.argv) > 1 else ():
        folder = Path(sys.argv[1])
        files = Files(str(folder / train), test=str(folder / test), transfer=(str(folder / more),), text=text, label=label)
        compare(name, Task(name, "", files, (), "", "", ""), {"dev": 300})
