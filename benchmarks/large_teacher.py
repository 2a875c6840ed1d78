"""What a teacher of BERT-Base's size costs: seconds and peak memory of fine-tuning it and of labelling with it.

The model of `params/teacher-movies.yaml` (mpnet, 12/768), the texts of its D_L and D_T. Each way is a process of its own: one thread,
two threads, and for labelling two processes of one thread, which is how a study's two workers share the parts of D_T.

Run:  python benchmarks/large_teacher.py      (ten minutes on 2 quiet cores; PDSTUDY_WHEELS is the folder of the model's five wheels)
Writes benchmarks/results/large_teacher.json.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from pdstudy.data import mirror
from pdstudy.models import teachers
from pdstudy.models.train import Watch
from pdstudy.run import execute, result_tables
from pdstudy.run.inputs import Inputs
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import Study

OUT = Path(__file__).parent / "results" / "large_teacher.json"
STEPS, TEXTS = 40, 4000
WAYS = {  # name -> (stage, threads, processes)
    "fine-tune, one thread": ("tune", 1, 1),
    "fine-tune, two threads": ("tune", 2, 1),
    "label, one process of one thread": ("label", 1, 1),
    "label, one process of two threads": ("label", 2, 1),
    "label, two processes of one thread": ("label", 1, 2),
}


def text_inputs(study: Study) -> tuple[Inputs, dict]:
    """Return the opened texts of the study, computed if need be, and the settings of fine-tuning."""
    store, made = Store(), plan.make(study)
    (step,) = made.of_stage("tune")
    texts = made.steps[step.parents["texts"]]
    if store.find(texts.digest) is None:
        execute.execute(texts, store, Watch())
    return Inputs(step, store), step.settings


def run(stage: str, threads: int, first: int, precision: str | None) -> dict:
    """Return the seconds of one process's work, without opening files, and its peak memory in MB."""
    torch.set_num_threads(threads)
    study = Study.read("teacher-movies")
    inputs, settings = text_inputs(study)
    settings = settings | ({"precision": precision} if precision else {})
    model = teachers.open_model(mirror.model_folder(study.teacher.folder), ["negative", "positive"])
    if stage == "tune":
        n = STEPS * settings["batch"]
        texts, classes = inputs.texts("train", n), inputs.labelled("train", n).labels
        work = lambda: teachers.finetune(model, texts, classes, settings | {"epochs": 1})  # noqa: E731
    else:
        texts = inputs.texts("transfer", first + TEXTS)[first:]
        work = lambda: teachers.logits(model, texts, settings["max_length"], settings["precision"])  # noqa: E731
    begun = time.perf_counter()
    work()
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": round(seconds, 2), "texts": len(texts), "peak_mb": round(peak), "precision": settings["precision"]}


def main() -> None:
    """Run every way and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="Default: that of the params file.")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        stage, threads, first = asked.one
        print(json.dumps(run(stage, int(threads), int(first), asked.precision)))
        return
    study, rows = Study.read("teacher-movies"), []
    text_inputs(study)
    for name, (stage, threads, processes) in WAYS.items():
        same = [sys.executable, __file__, *(["--precision", asked.precision] if asked.precision else [])]
        words = [[*same, "--one", stage, str(threads), str(i * TEXTS)] for i in range(processes)]
        started = [subprocess.Popen(w, stdout=subprocess.PIPE, text=True) for w in words]
        runs = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
        row = {"way": name, "threads": threads, "processes": processes, "precision": runs[0]["precision"]}
        row |= {"texts": sum(r["texts"] for r in runs), "seconds": max(r["seconds"] for r in runs)}
        row |= {"texts_a_second": round(row["texts"] / row["seconds"], 1), "peak_mb": max(r["peak_mb"] for r in runs)}
        rows.append(row)
        print(row, flush=True)
    made = result_tables.environment(plan.make(study), 0, 0, 0.0)
    place = {k: made[k] for k in ("commit", "date", "versions", "machine")}
    OUT.write_text(json.dumps({"model": study.teacher.folder, "ways": rows} | place, indent=1) + "\n")


if __name__ == "__main__":
    main()
