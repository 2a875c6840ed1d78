"""What ran, where: the record that stands beside every result, so that no number loses its maker."""

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pdstudy.machine import commit, processor
from pdstudy.storage import paths
from pdstudy.study.steps import Plan


def environment(plan: Plan, computed: int, reused: int, seconds: float) -> dict:
    """Return the record of a run: command, commit, versions, machine, and what was computed."""
    names = ("pdstudy", "torch", "transformers", "tokenizers", "accelerate", "datasets", "numpy", "pandas", "scipy")
    return {
        "command": " ".join(["python -m pdstudy", *map(_shown, sys.argv[1:])]) if "pdstudy" in sys.argv[0] else "run_study(study)",
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "machine": {"system": platform.system(), "processor": processor(), "cores": os.cpu_count(), "threads_per_step": 1},
        "precision": plan.study.resolved_precision(),
        "steps": {"asked": plan.asked, "distinct": len(plan.steps), "computed": computed, "reused": reused},
        "seconds": round(seconds, 1),
    }


def _shown(word: str) -> str:
    """Return a word of the command line without this machine's folders: a path in the checkout from there, others by name."""
    path = Path(word)
    if not path.is_absolute():
        return word
    return str(path.relative_to(paths.ROOT)) if path.is_relative_to(paths.ROOT) else path.name
