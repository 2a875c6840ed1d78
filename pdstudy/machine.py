"""This machine: the processor, its fastest precision, and the commit of the checkout."""

import contextlib
import platform
import subprocess
from pathlib import Path

from pdstudy.storage import paths


def best_precision(processor: Path = Path("/proc/cpuinfo")) -> str:
    """Return "bf16" if the processor multiplies matrices fastest in bf16, else "fp32". Does not import torch.

    Intel needs AMX: with AVX-512 alone, bf16 is half as fast as fp32 (`python benchmarks/precision.py`). AMD's AVX-512 is faster.
    """
    try:
        flags = processor.read_text()
    except OSError:
        return "fp32"
    return "bf16" if "amx_bf16" in flags or ("AuthenticAMD" in flags and "avx512_bf16" in flags) else "fp32"


def commit() -> str:
    """Return the commit of the checkout, with "+changes" if pdstudy/ or params/ differ from it, or "unknown" outside a checkout."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(paths.ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - fixed words

    try:
        changed = git("status", "--porcelain", "--", "pdstudy", "params")
        return git("rev-parse", "--short=12", "HEAD") + "+changes" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """Return the name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
