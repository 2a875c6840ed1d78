"""One step: open its parents, call its stage, write its artifact.

This is where stages, which know nothing of places, meet the store, which knows nothing of models.
"""

import importlib.metadata
import json
import platform
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch

from pdstudy.models.train import Watch
from pdstudy.run import text_steps
from pdstudy.run.inputs import Inputs
from pdstudy.run.model_steps import adopt, evaluation, given, label, pretrain, search, train_reader, train_student
from pdstudy.storage.store import Store
from pdstudy.study.steps import VERSION, Step

LONG = ("pretrain",)  # stages that keep checkpoints


def execute(step: Step, store: Store, watch: Watch) -> Path:
    """Compute one step and return its artifact's folder."""
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
            "version": VERSION[step.stage],  # with it, the manifest gives the digest again
            "settings": step.settings,
            "parents": step.parents,
            "versions": versions(),
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "flops": step.flops,
            "seconds": round(record.get("seconds", time.monotonic() - begun), 2),
        }

    folder = store.write(step.stage, step.digest, fill)
    if checkpoints is not None:
        checkpoints.drop()
    return folder


def assist(step: Step, store: Store, watch: Watch) -> None:
    """Train along with rank 0, which executes the same step, and write nothing."""
    watch.checkpoints = store.checkpoints(step.digest)
    train_reader(step, Inputs(step, store), watch)


@cache  # reading a package's metadata takes milliseconds
def versions() -> dict[str, str]:
    """Return the versions of the libraries that can change a number."""
    return {name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}


STAGES = {
    "texts": text_steps.texts,
    "domain": text_steps.domain,
    "corpus": text_steps.corpus,
    "tokenizer": text_steps.tokenizer,
    "ids": text_steps.ids,
    "words": text_steps.words,
    "pretrain": pretrain,
    "adopt": adopt,
    "given": given,
    "finetune": train_student,
    "distill": train_student,
    "search": search,
    "label": label,
    "evaluate": evaluation,
}
