"""This machine: its processor, what that multiplies fastest, and the checkout's commit."""

import contextlib
import platform
import subprocess
from pathlib import Path

from pdstudy.storage import paths


def best_precision(processor: Path = Path("/proc/cpuinfo")) -> str:
    """Return "bf16" where the processor multiplies that fastest, else "fp32". Reads no torch.

    Intel's tiles (AMX) do; its AVX-512 products alone run at half the speed of fp32 (`python benchmarks/precision.py`).
    AMD's are another make.
    """
    try:
        told = processor.read_text()
    except OSError:
        return "fp32"
    return "bf16" if "amx_bf16" in told or ("AuthenticAMD" in told and "avx512_bf16" in told) else "fp32"


def commit() -> str:
    """Return the checkout's commit, marked when files differ from it, or "unknown" outside a checkout."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(paths.ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - fixed words

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
