"""Executes one step: opens its parents, calls the function of its stage, and writes its artifact into the store."""

import importlib.metadata
import json
import platform
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch

from pdstudy.models.train import Watch, device
from pdstudy.run import label_steps, model_steps, teacher_steps, text_steps
from pdstudy.run.inputs import Inputs
from pdstudy.run.student_steps import search, train_student
from pdstudy.storage.store import Store
from pdstudy.study.steps import VERSION, Step

LONG = ("pretrain", "tune")  # stages that keep checkpoints


def execute(step: Step, store: Store, watch: Watch) -> Path:
    """Compute one step and return the folder of its artifact."""
    inputs = Inputs(step, store)
    checkpoints = store.checkpoints(step.digest) if step.stage in LONG else None
    watch.checkpoints = checkpoints

    def fill(folder: Path) -> dict[str, Any]:
        begun = time.monotonic()
        record = STAGES[step.stage](step, inputs, folder, watch)
        if record:
            (folder / "record.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        return {
            "label": step.label,
            "version": VERSION[step.stage],  # so that the digest can be computed from the manifest
            "settings": step.settings,
            "parents": step.parents,
            "versions": versions(),
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            **({"device": torch.cuda.get_device_name()} if device().type == "cuda" else {}),
            "flops": step.flops,
            "seconds": round(record.get("seconds", time.monotonic() - begun), 2),
        }

    folder = store.write(step.stage, step.digest, fill)
    if checkpoints is not None:
        checkpoints.drop()
    return folder


def assist(step: Step, store: Store, watch: Watch) -> None:
    """Train along with rank 0, which executes the same step; write nothing."""
    watch.checkpoints = store.checkpoints(step.digest)
    model_steps.train_encoder(step, Inputs(step, store), watch)


@cache  # reading a package's metadata takes milliseconds
def versions() -> dict[str, str]:
    """Return the versions of the libraries that can change a result."""
    return {name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}


STAGES = {
    "texts": text_steps.texts,
    "domain": text_steps.domain,
    "corpus": text_steps.corpus,
    "fold": text_steps.fold,
    "tokenizer": text_steps.tokenizer,
    "ids": text_steps.ids,
    "words": text_steps.words,
    "pretrain": model_steps.pretrain,
    "adopt": model_steps.adopt,
    "given": model_steps.given,
    "finetune": train_student,
    "distill": train_student,
    "search": search,
    "label": label_steps.label,
    "part": label_steps.part,
    "mean": label_steps.mean,
    "evaluate": label_steps.evaluation,
    "outside": teacher_steps.outside,
    "tune": teacher_steps.tune,
    "choose": teacher_steps.choose,
    "file": teacher_steps.file,
    "linear": teacher_steps.linear_model,
}
