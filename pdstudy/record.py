"""What ran, where: the record that stands beside every result, so that no number loses its maker."""

import contextlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pdstudy.steps import Plan
from pdstudy.storage import paths


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


def commit() -> str:
    """Return the checkout's commit, marked when files differ from it, or "unknown" outside a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(paths.ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "+changes" if git("status", "--porcelain", "--", "pdstudy", "params") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """Return the processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
