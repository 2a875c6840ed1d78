"""What does the engine itself cost? 2,000 cheap steps through the plan, the store, the locks and the local pool.

A cheap step works a fixed time, writes a small artifact and does nothing else, so all that the run takes beyond the
steps' own seconds is the engine's: processes, messages, locks, manifests, files flushed to disk. Every tenth step
needs the ten before it, so the graph is not flat. Memory of this process and of the workers is read ten times.

Run:  python benchmarks/engine.py                 (about 9 minutes on 2 quiet cores)
Writes benchmarks/results/engine.json.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from pdstudy.run import execute, result_tables, scheduler
from pdstudy.storage.store import Store
from pdstudy.study.settings import Study
from pdstudy.study.steps import VERSION, Plan, Step

STEPS, SECONDS = 2000, 0.5
OUT = Path(__file__).parent / "results" / "engine.json"
VERSION["cheap"] = 1  # here, and in every worker, which imports this file too


def cheap(step, inputs, folder, watch) -> dict:
    """Work for a fixed time and return how long that was."""
    begun, x = time.perf_counter(), 1.0
    while time.perf_counter() - begun < step.settings["seconds"]:
        x = x * 1.000001 % 7
    (folder / "result.bin").write_bytes(bytes(1000))
    return {"result": x, "seconds": time.perf_counter() - begun}


execute.STAGES["cheap"] = cheap


def cheap_plan(steps: int, seconds: float) -> Plan:
    """Return a plan of cheap steps: tens that need nothing, each followed by one that needs them."""
    made, ten = Plan(Study.read("smoke")), []
    for i in range(steps):
        last = i % 11 == 10
        parents = {f"p{j}": digest for j, digest in enumerate(ten)} if last else {}
        ten = [] if last else ten
        digest = made.add(Step("cheap", {"number": i, "seconds": seconds}, parents, f"cheap {i}"))
        if not last:
            ten.append(digest)
    return made


@dataclass
class Memory:
    """Megabytes in use, read at ten moments of a run."""

    moments: list[dict] = field(default_factory=list)

    def look(self, progress) -> None:
        """Read this process and its workers, once every tenth of the steps."""
        if progress.done < len(self.moments) * progress.total / 10:
            return
        workers = [int(c) for t in Path("/proc/self/task").iterdir() for c in (t / "children").read_text().split()]
        workers = [pid for pid in workers if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        self.moments.append(
            {"steps": progress.done, "here": resident(os.getpid()), "largest worker": max(map(resident, workers), default=0)}
        )


def resident(pid: int) -> float:
    """Return the megabytes of a process that are in memory."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--steps", type=int, default=STEPS)
    words.add_argument("--seconds", type=float, default=SECONDS)
    words.add_argument("--workers", type=int, default=os.cpu_count())
    asked = words.parse_args()
    made, memory = cheap_plan(asked.steps, asked.seconds), Memory()
    with tempfile.TemporaryDirectory(dir=OUT.parent) as folder:  # on a disk, not in memory: flushing is part of the cost
        store = Store(Path(folder) / "store", families=())
        begun = time.monotonic()
        first = scheduler.run(cheap_plan(asked.workers, 0.0), Store(Path(folder) / "start", families=()), asked.workers)
        start = time.monotonic() - begun
        summary = scheduler.run(made, store, asked.workers, memory.look, Path(folder) / "logs")
        spent = sum(store.manifest(digest)["seconds"] for digest in made.steps)
        again = scheduler.run(made, store, asked.workers)
    assert (first.computed, summary.computed, again.computed) == (asked.workers, asked.steps, 0)
    wall = summary.seconds * asked.workers
    rows = {
        "steps": asked.steps,
        "workers": asked.workers,
        "work_seconds": round(spent, 1),
        "run_seconds": round(summary.seconds, 1),
        "start_seconds": round(start, 1),  # of which: starting Python and torch in the workers
        "overhead": round(wall / spent - 1, 4),
        "overhead_without_start": round((summary.seconds - start) * asked.workers / spent - 1, 4),
        "milliseconds_a_step": round(1000 * (wall - spent) / asked.steps, 2),
        "seconds_to_find_all_done": round(again.seconds, 2),
        "megabytes": [{k: round(v, 1) for k, v in moment.items()} for moment in memory.moments],
        "load_before": os.getloadavg()[0],
    }
    print(json.dumps(rows, indent=1))
    environment = result_tables.environment(made, 0, 0, 0.0)
    made_by = {k: environment[k] for k in ("commit", "date", "versions", "machine")}
    OUT.write_text(json.dumps({"command": "python benchmarks/engine.py", "pool": rows} | made_by, indent=1) + "\n")


if __name__ == "__main__":
    main()
