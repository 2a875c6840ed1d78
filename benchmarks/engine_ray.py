"""What does Ray cost a sweep of cheap steps? Overhead as a share of the work, and the driver's memory.

2,000 independent steps (or --steps) that each work for --milliseconds of processor time, through the same loop, locks and
writes as a study's. Overhead: wall time x workers over the wall time inside the steps' own work, less one; start-up of
Ray apart. On a machine that does other things meanwhile it comes out too large.

Run:  python benchmarks/engine_ray.py            (about 5 minutes on 2 quiet cores)
Writes benchmarks/results/engine_ray.json.
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pdstudy import machine as record
from pdstudy.run import scheduler
from pdstudy.run.engine_ray import RayEngine
from pdstudy.storage.store import Store
from pdstudy.study.steps import Step

OUT = Path(__file__).parent / "results" / "engine_ray.json"


def sweep(n: int, milliseconds: float) -> dict[str, Step]:
    """Return steps without parents: they are `given` ones whose folder says how long to work."""
    steps = [Step("given", {"number": i, "milliseconds": milliseconds}, {}, f"cheap {i}") for i in range(n)]
    return {s.digest: s for s in steps}


def busy(step: Step, store: Store, watch) -> None:
    """Work for the step's time and write its artifact, in place of work.execute."""

    def fill(folder: Path) -> dict:
        begun, until = time.monotonic(), time.process_time() + step.settings["milliseconds"] / 1e3
        while time.process_time() < until:
            sum(range(1000))
        (folder / "record.json").write_text("{}\n")
        return {"seconds": time.monotonic() - begun, "flops": 0.0}

    store.write(step.stage, step.digest, fill)


def megabytes() -> float:
    """Return the resident memory of this process just now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--milliseconds", type=float, default=250.0)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    todo, memory, done = sweep(asked.steps, asked.milliseconds), [], []
    with tempfile.TemporaryDirectory() as folder:
        ray = RayEngine(Store(Path(folder), families=()), asked.workers, None, None)
        with ray:
            ray.task = ray.ray.remote(max_retries=0, num_cpus=1)(cheap)
            warm = [ray.submit(s) for s in sweep(2 * asked.workers, 0.0).values()]
            assert [ray.outcome(f) for f in warm if f.result()] == ["done"] * len(warm)

            def listen(progress: scheduler.Progress) -> None:
                done.append(progress.done)
                memory.append(megabytes())

            summary, begun = scheduler.Summary(), time.monotonic()
            scheduler._run_steps(todo, ray, summary, listen, set(todo))
            seconds = time.monotonic() - begun
            work = sum(ray.store.manifest(d)["seconds"] for d in todo) / asked.workers
    assert summary.computed == asked.steps and not summary.failures, summary.failures[:1]
    tenth = next(m for d, m in zip(done, memory, strict=True) if d >= asked.steps // 10)
    rows = {
        "steps": asked.steps, "milliseconds": asked.milliseconds, "workers": asked.workers,
        "seconds": round(seconds, 2), "work_seconds": round(work, 2), "overhead": round(seconds / work - 1, 4),
        "overhead_ms_per_step": round(1e3 * (seconds - work) * asked.workers / asked.steps, 2),
        "driver_megabytes": {"after a tenth": round(tenth, 1), "at the end": round(memory[-1], 1)},
    }  # fmt: skip
    for name, value in rows.items():
        print(f"{name:22} {value}")
    machine = {"processor": record.processor(), "cores": os.cpu_count(), "python": platform.python_version(), "ray": version("ray")}
    made = {"commit": record.commit(), "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "machine": machine}
    OUT.write_text(json.dumps({"command": "python benchmarks/engine_ray.py"} | rows | made, indent=1) + "\n")


def cheap(step: Step, store: Store, shares: Path, logs: Path | None, tracker: str | None):
    """Do what a worker of Ray does, with cheap work in the place of training."""
    from pdstudy.run import engine_ray, execute

    execute.execute = busy
    return engine_ray.work(step, store, shares, logs, tracker)


if __name__ == "__main__":
    main()
