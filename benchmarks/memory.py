"""The most memory that a command and all its processes hold at once.

Shared pages count once: the figure is the sum of the processes' proportional set sizes, read every second (Linux).

Run:  python benchmarks/memory.py NAME COMMAND...      for example
      python benchmarks/memory.py "make study" make study
Writes the row NAME of benchmarks/results/memory.json.
"""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

from pdstudy import machine

OUT = Path(__file__).parent / "results" / "memory.json"
EVERY = 1.0  # seconds


def held(root: psutil.Process) -> int:
    """Return the bytes that a process and its descendants hold now."""
    total = 0
    for process in (root, *root.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it ended in between
            continue
    return total


def main() -> None:
    """Run the command and write its row."""
    name, words = sys.argv[1], sys.argv[2:]
    begun, peak, n_readings = time.monotonic(), 0, 0
    process = subprocess.Popen(words)
    while process.poll() is None:
        try:
            peak, n_readings = max(peak, held(psutil.Process(process.pid))), n_readings + 1
        except psutil.Error:
            break
        time.sleep(EVERY)
    if process.wait():
        sys.exit(f"the command ended with {process.returncode}; no row is written")
    words = [Path(word).name if Path(word).is_absolute() else word for word in words]
    row = {"command": " ".join(words), "peak_gib": round(peak / 2**30, 2), "seconds": round(time.monotonic() - begun, 1)}
    row |= {"readings": n_readings, "commit": machine.commit(), "date": f"{datetime.now(UTC):%Y-%m-%d}", "torch": torch.__version__}
    row |= {"machine": machine.processor()}
    rows = json.loads(OUT.read_text()) if OUT.exists() else {}
    OUT.write_text(json.dumps(rows | {name: row}, indent=1) + "\n")
    print(row)


if __name__ == "__main__":
    main()
