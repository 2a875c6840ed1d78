"""What a long corpus costs: text to word pieces, and reading them in training, for 1, 10 and 100 million pieces.

The text is the IMDb reviews of the released family, gone through as often as it takes. Each length is done in a process of
its own: the Parquet file is cut into word pieces, as the step `ids` does; 500 batches of 32 rows of 64 are drawn and masked; 60
steps of a 2/128 are trained on them. Seconds are for a million pieces, best of three; memory is what the process held
at most, beyond what it held before.

Run:  python benchmarks/corpus.py           (about ten minutes on 2 quiet cores)
Writes benchmarks/results/corpus.json.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import side_by_side
import torch
from pretraining_speed import inputs_of

from pdstudy import stages
from pdstudy.data import tokenizer as wordpieces
from pdstudy.data.batches import MASKING, Ids, Rows, stream
from pdstudy.data.masking import mask_rows
from pdstudy.models import encoder
from pdstudy.run import result_tables
from pdstudy.run.inputs import Lines
from pdstudy.sizes import Size
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import Study

OUT = side_by_side.RESULTS / "corpus.json"
MILLIONS = (1, 10, 100)
TIMES, BATCHES, STEPS = 3, 500, 60
FLAT = 1.2  # the dearest million costs at most so many times as much as the cheapest


def peak_mb() -> float:
    """Return the MB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def text(inputs, pieces: float, path: Path) -> None:
    """Write the reviews as often as it takes to have so many pieces, as the step `texts` does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pdstudy.run.text_steps import ROWS

    store, manifest = inputs.store, inputs.store.manifest(inputs.step.parents["ids"])
    file = pq.ParquetFile(store.open(manifest["parents"]["texts"]) / "corpus.parquet")
    there = len(inputs.ids("corpus").flat) / file.metadata.num_rows  # pieces in a review
    left = round(pieces / there)
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        while left:
            for batch in file.iter_batches(ROWS, columns=["text"]):
                writer.write_table(pa.Table.from_batches([batch.slice(0, left)]).cast(writer.schema), row_group_size=ROWS)
                left -= min(left, len(batch))


def seconds(work) -> float:
    """Return the least seconds of several goes."""
    times = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def one(path: Path) -> dict:
    """Return what the text at `path` costs."""
    inputs = inputs_of("2/128")
    folder = inputs.store.open(inputs.store.manifest(inputs.step.parents["ids"])["parents"]["tokenizer"])
    tokenizer, vocabulary = wordpieces.open_tokenizer(folder)
    wordpieces.encode_texts(tokenizer, vocabulary, ["one text"], None)
    before = peak_mb()
    cut = seconds(lambda: wordpieces.write_texts(path.parent, "corpus", tokenizer, vocabulary, Lines(path).batches(), None))
    ids, cutting = Ids.load(path.parent, "corpus"), peak_mb() - before
    before, n = peak_mb(), len(ids.flat)

    def draw():
        rows = Rows(ids.flat, 64, 0, vocabulary)
        for step in range(BATCHES):
            mask_rows(rows.batch(step, 32), 0.3, vocabulary, stream(0, MASKING, step))

    drawn, drawing = seconds(draw), peak_mb() - before
    torch.set_num_threads(1)
    settings = inputs.step.settings | {"tokens": STEPS * 32 * 64, "precision": "fp32"}
    corpus = stages.RunningText(ids.flat, wordpieces.continues(tokenizer))
    counts = np.bincount(ids.flat[:1_000_000], minlength=vocabulary.size)
    reader = encoder.new_masked_lm(encoder.bert_config(Size(2, 128), vocabulary.size, 0.03, dropout=0.0), 0, unigram=counts)
    trained = seconds(lambda: stages.pretrain(reader, corpus, settings, vocabulary))
    per = 1e6 / (32 * 64)
    row = {"pieces": n, "cut, s a million": cut * 1e6 / n, "drawn, s a million": drawn / BATCHES * per}
    row |= {"trained, s a million": trained / STEPS * per, "cut, MB": cutting, "drawn, MB": drawing}
    return {k: v if k == "pieces" else round(v, 3) for k, v in row.items()}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--millions", nargs="+", type=float, default=MILLIONS)
    words.add_argument("--text", type=Path, help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.text:
        print(json.dumps(one(asked.text)))
        return
    inputs, rows = inputs_of("2/128"), []
    for millions in asked.millions:
        with tempfile.TemporaryDirectory(dir=Store().root) as place:
            path = Path(place) / "corpus.parquet"
            text(inputs, millions * 1e6, path)
            done = subprocess.run([sys.executable, __file__, "--text", str(path)], capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    kinds = [k for k in rows[0] if k.endswith("a million")]
    spread = {k: round(max(r[k] for r in rows) / min(r[k] for r in rows), 2) for k in kinds}
    print(f"dearest against cheapest: {spread}; flat is up to {FLAT}")
    made = result_tables.environment(plan.make(Study.read("quick")), 0, 0, 0.0)
    record = {"command": "python benchmarks/corpus.py", "lengths": rows, "dearest against cheapest": spread}
    OUT.write_text(json.dumps(record | {k: made[k] for k in ("commit", "date", "versions", "machine")}, indent=1) + "\n")


if __name__ == "__main__":
    main()
