"""Which steps of a plan remain, and how long they will take, from the speed of those in the store."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from pdstudy.machine import best_precision
from pdstudy.storage.store import Store
from pdstudy.study.steps import Plan, Step

FLOPS_PER_SECOND = 60e9  # one thread, until steps were measured on this machine
# Times that in bf16 where the processor is fast in it: for a large teacher (python benchmarks/large_teacher.py), and for students.
IN_BF16 = {"tune": 4.0, "part": 4.0, "finetune": 1.6, "distill": 1.6}
# One GPU in bf16 with small models: both are assumptions, not measurements.
GPU_FLOPS_PER_SECOND = 20e12
UPDATES_PER_SECOND = 60.0  # of a small model: launching its kernels limits this
FIXED_SECONDS = 1.0  # of every step
SHORTEST = 5.0  # seconds; start-up dominates shorter steps
ALIKE = {"finetune": "distill", "distill": "finetune", "search": "distill"}  # stages whose speeds are nearly equal


class Work(NamedTuple):
    """The approximate work of a step: updates of the weights, word pieces, floating-point operations."""

    updates: float
    pieces: float
    flops: float


class Device(NamedTuple):
    """A machine: its name, how many steps it runs at once, and its assumed operations and updates a second."""

    name: str
    workers: int
    speed: float
    updates: float = float("inf")


def device(speed: float | None = None) -> Device:
    """Return this machine's device, or an imaginary one of `speed` operations a second. Does not load torch."""
    updates = UPDATES_PER_SECOND
    if speed is not None:
        return Device(f"a device of {speed:.0e} operations a second and {updates:.0f} updates", 1, speed, updates)
    if n := len(list(Path("/dev").glob("nvidia[0-9]*"))):
        assumed = f"{GPU_FLOPS_PER_SECOND:.0e} operations and {updates:.0f} updates a second, assumed where none was measured"
        return Device(f"{n} GPU ({assumed})", n, GPU_FLOPS_PER_SECOND, updates)
    cores = os.cpu_count() or 1
    return Device(f"{cores} cores", cores, FLOPS_PER_SECOND)


def work(step: Step) -> Work:
    """Return the work of one step. Texts of D_L and D_T count with their mean length, without padding."""
    s = step.settings
    if step.stage == "pretrain":
        return Work(s["tokens"] / (s["batch"] * s["row"]), s["tokens"], step.flops)
    if step.stage in ("finetune", "distill"):
        n_texts = step.texts * (max(s["epochs"]) if isinstance(s["epochs"], list) else s["epochs"])
        batch = min(s["batch"]) if isinstance(s["batch"], list) else s["batch"]  # the search has not chosen yet
        return Work(n_texts / batch, n_texts * step.pieces, step.flops)
    return Work(0, s["texts"] * step.pieces if step.stage in ("label", "part") else 0, step.flops)


def needed(plan: Plan, missing: dict[str, Step]) -> dict[str, Step]:
    """Return the missing steps that a student or another needed step requires, in the plan's order.

    So a candidate that was removed from the store is not computed again if its search is done.
    """
    children: dict[str, set[str]] = {}
    for digest, step in plan.steps.items():
        for parent in step.parents.values():
            children.setdefault(parent, set()).add(digest)
    required: set[str] = set()
    for digest in reversed(plan.steps):  # children come after their parents
        if digest in missing and (digest not in children or children[digest] & required):
            required.add(digest)
    return {d: s for d, s in plan.steps.items() if d in required}


def estimate(steps: list[Step], store: Store, workers: int) -> float:
    """Return the seconds that `steps` will take, from the speed of those in the store."""
    speed = measured_speed(store)
    return sum(cost(s, speed) for s in steps) / max(1, workers)


def by_stage(plan: Plan, store: Store, on: Device, measured: bool = True) -> list[dict]:
    """Return one row per stage: steps, cached and remaining ones, the remaining work, and the estimated seconds.

    Seconds come from the speed of the stage's steps in the store; with `measured` false, from the device's speed only.
    """
    here, speed = store.digests(), measured_speed(store) if measured else {}
    todo = needed(plan, {d: s for d, s in plan.steps.items() if d not in here})
    rows = []
    for stage, count in plan.counts().items():
        remaining = [s for s in todo.values() if s.stage == stage]
        cached = sum(s.digest in here for s in plan.of_stage(stage))
        floor = 0.0 if stage in speed else 1 / on.updates
        seconds = sum(max(cost(s, speed, on.speed), work(s).updates * floor) for s in remaining) / on.workers
        total = {k: sum(getattr(work(s), k) for s in remaining) for k in Work._fields}
        rows.append({"stage": stage, "steps": count, "cached": cached, "to do": len(remaining), "seconds": seconds} | total)
    return rows


def measured_speed(store: Store) -> dict[str, float]:
    """Return floating-point operations a second by stage, from the newest artifacts of each."""
    speed = {}
    for stage in ("pretrain", "finetune", "distill", "label", "tune", "part"):
        newest = sorted((store.root / stage).glob("*/manifest.json"), key=lambda p: p.stat().st_mtime)[-20:]
        records = [r for r in map(_record, newest) if r.get("seconds", 0) > SHORTEST]
        seconds = sum(r["seconds"] for r in records)
        if seconds > 0:
            speed[stage] = max(1e6, sum(r["flops"] for r in records) / seconds)
    return speed


def _record(manifest: Path) -> dict:
    """Return a manifest, or an empty one where it is damaged: an estimate should not fail."""
    try:
        return json.loads(manifest.read_text())
    except (OSError, ValueError):
        return {}


def cost(step: Step, speed: dict[str, float], unmeasured: float = FLOPS_PER_SECOND) -> float:
    """Return the seconds of one step; a stage without a measured speed has that of a stage ALIKE, or `unmeasured` operations a second."""
    if unmeasured == FLOPS_PER_SECOND and step.settings.get("precision") == best_precision() == "bf16":
        unmeasured *= IN_BF16.get(step.stage, 1.0)
    return FIXED_SECONDS + step.flops / (speed.get(step.stage) or speed.get(ALIKE.get(step.stage)) or unmeasured)
