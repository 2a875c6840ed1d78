"""Exported students in a clean environment: do they open and answer there as here, and what does 8-bit cost?

python benchmarks/exported.py books=outputs/tasks/model-books,outputs/tasks/books_test.csv,review ...

For each `name=folder,file,column[,column]` this labels the file with `python -m pdstudy predict`, then asks the same folder
the same texts with transformers alone, in a new virtual environment that holds torch, transformers and pandas, and no pdstudy.
Writes benchmarks/results/exported.json; the folder's own export.json tells of its engines.
"""

import csv
import json
import subprocess
import sys
import tempfile
import venv
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pdstudy import machine

ROOT = Path(__file__).resolve().parent.parent

CLEAN = r"""
import csv, importlib.util, json, sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

assert importlib.util.find_spec("pdstudy") is None
folder, file, *columns = sys.argv[1:]
with open(file, newline="", encoding="utf-8") as lines:
    rows = list(csv.DictReader(lines))
tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
same, off = 0, 0.0
for row in rows:
    with torch.no_grad():
        cut = tokenizer(*(row[c] for c in columns), truncation=True, return_tensors="pt")
        share = model(**cut).logits.double().softmax(-1)[0]
    best = int(share.argmax())
    same += model.config.id2label[best] == row["label"]
    off = max(off, abs(float(share[best]) - float(row["probability"])))
print(json.dumps({"texts": len(rows), "same_labels": same, "largest_probability_difference": off}))
"""


def clean_python(folder: Path) -> Path:
    """Return the Python of a new environment with the torch and transformers of this one, and no pdstudy."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    wanted = [f"torch=={version('torch').split('+')[0]}", f"transformers=={version('transformers')}"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints-cpu.txt", *wanted], check=True)
    return python


def asked(python: Path, folder: Path, file: Path, columns: list[str]) -> dict:
    """Return how the folder's answers to a file there differ from `predict`'s here."""
    with tempfile.TemporaryDirectory() as scratch:
        labelled = Path(scratch) / "labelled.csv"
        words = [w for c in columns for w in ("--text", c)] if file.suffix != ".txt" else []
        run = [sys.executable, "-m", "pdstudy", "predict", folder, file, *words, "--to", labelled]
        subprocess.run([str(w) for w in run], check=True, cwd=ROOT)
        with labelled.open(newline="", encoding="utf-8") as lines:
            names = next(csv.reader(lines))
        columns = columns if set(columns) <= set(names) else [names[0]]
        done = subprocess.run(
            [python, "-I", "-c", CLEAN, folder, labelled, *columns], check=True, cwd=scratch, capture_output=True, text=True
        )
    return json.loads(done.stdout)


def main(tasks: list[str]) -> None:
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        python = clean_python(Path(scratch))
        for task in tasks:
            name, place = task.split("=", 1)
            folder, file, *columns = place.split(",")
            folder, file = Path(folder).resolve(), Path(file).resolve()
            facts = json.loads((folder / "export.json").read_text())
            engines = [
                {k: e[k] for k in ("engine", "precision", "bytes", "largest_difference", "same_answers", "accuracy")}
                | {"p50_ms": e["latency"]["p50"]}
                for e in facts["engines"]
            ]
            rows[name] = {"student": facts["student"], "test": facts["test"]["n"]} | asked(python, folder, file, columns)
            rows[name]["engines"] = engines
            print(name, json.dumps(rows[name]), flush=True)
    record = {
        "command": "python benchmarks/exported.py " + " ".join(t.split("=")[0] + "=..." for t in tasks),
        "commit": machine.commit(),
    }
    record |= {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "processor": machine.processor()}
    record |= {"versions": {n: version(n) for n in ("torch", "transformers", "onnxruntime")}, "tasks": rows}
    (ROOT / "benchmarks" / "results" / "exported.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
