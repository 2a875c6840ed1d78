"""What a plan still needs, and how long it will take, from what the store has seen."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from pdstudy.storage.store import Store
from pdstudy.study.plan import MEAN_PIECES
from pdstudy.study.steps import Plan, Step

FLOPS_PER_SECOND = 60e9  # one thread, before anything was measured here
# One GPU in bf16 with small models: both assumed, neither was measured for this package.
GPU_FLOPS_PER_SECOND = 20e12
UPDATES_PER_SECOND = 60.0  # of a small model, however little it computes: what launching its kernels costs
FIXED_SECONDS = 1.0  # of every step
SHORTEST = 5.0  # seconds; shorter steps are mostly start-up and say little about speed


class Work(NamedTuple):
    """What a step asks for, about: updates of the weights, pieces read, floating-point operations."""

    updates: float
    pieces: float
    flops: float


class Device(NamedTuple):
    """What computes: its name, how many steps at once, and operations and updates a second of each where none was measured."""

    name: str
    workers: int
    speed: float
    updates: float = float("inf")


def device(speed: float | None = None) -> Device:
    """Return this machine's device, or with `speed`, in operations a second, one that is not at hand. Loads no torch."""
    if speed is not None:
        return Device(
            f"a device of {speed:.0e} operations a second and {UPDATES_PER_SECOND:.0f} updates", 1, speed, UPDATES_PER_SECOND
        )
    if n := len(list(Path("/dev").glob("nvidia[0-9]*"))):
        assumed = (
            f"{GPU_FLOPS_PER_SECOND:.0e} operations and {UPDATES_PER_SECOND:.0f} updates a second, assumed where none was measured"
        )
        return Device(f"{n} GPU ({assumed})", n, GPU_FLOPS_PER_SECOND, UPDATES_PER_SECOND)
    cores = os.cpu_count() or 1
    return Device(f"{cores} cores", cores, FLOPS_PER_SECOND)


def work(step: Step) -> Work:
    """Return what one step asks for; texts of D_L and D_T are counted with their mean length, repeats and padding apart."""
    s = step.settings
    if step.stage == "pretrain":
        return Work(s["tokens"] / (s["batch"] * s["row"]), s["tokens"], step.flops)
    if step.stage in ("finetune", "distill"):
        read = step.texts * s["epochs"]
        batch = min(s["batch"]) if isinstance(s["batch"], list) else s["batch"]  # the search's winner is not known yet
        return Work(read / batch, read * MEAN_PIECES, step.flops)
    return Work(0, s["texts"] * MEAN_PIECES if step.stage == "label" else 0, step.flops)


def needed(plan: Plan, missing: dict[str, Step]) -> dict[str, Step]:
    """Return those missing steps that a student or another needed step asks for, in the plan's order.

    A candidate whose search is done is not computed again only because it was cleaned away.
    """
    children: dict[str, set[str]] = {}
    for digest, step in plan.steps.items():
        for parent in step.parents.values():
            children.setdefault(parent, set()).add(digest)
    wanted: set[str] = set()
    for digest in reversed(plan.steps):  # children come after their parents
        if digest in missing and (digest not in children or children[digest] & wanted):
            wanted.add(digest)
    return {d: s for d, s in plan.steps.items() if d in wanted}


def estimate(steps: list[Step], store: Store, workers: int) -> float:
    """Return the seconds that `steps` will take, from the speed of those in the store."""
    speed = measured_speed(store)
    return sum(cost(s, speed) for s in steps) / max(1, workers)


def by_stage(plan: Plan, store: Store, on: Device, measured: bool = True) -> list[dict]:
    """Return one row a stage: steps, how many are cached, how many to do, what those ask for, and about how many seconds.

    Seconds come from what the store has seen of a stage, unless `measured` is false: then from the device's speed alone.
    """
    here, speed = store.here(), measured_speed(store) if measured else {}
    todo = needed(plan, {d: s for d, s in plan.steps.items() if d not in here})
    rows = []
    for stage, count in plan.counts().items():
        rest = [s for s in todo.values() if s.stage == stage]
        cached = sum(s.digest in here for s in plan.of_stage(stage))
        floor = 0.0 if stage in speed else 1 / on.updates
        seconds = sum(max(cost(s, speed, on.speed), work(s).updates * floor) for s in rest) / on.workers
        asked = {k: sum(getattr(work(s), k) for s in rest) for k in Work._fields}
        rows.append({"stage": stage, "steps": count, "cached": cached, "to do": len(rest), "seconds": seconds} | asked)
    return rows


def measured_speed(store: Store) -> dict[str, float]:
    """Return floating-point operations a second by stage, from the newest artifacts of each."""
    speed = {}
    for stage in ("pretrain", "finetune", "distill", "label"):
        newest = sorted((store.root / stage).glob("*/manifest.json"), key=lambda p: p.stat().st_mtime)[-20:]
        records = [r for r in map(_record, newest) if r.get("seconds", 0) > SHORTEST]
        seconds = sum(r["seconds"] for r in records)
        if seconds > 0:
            speed[stage] = max(1e6, sum(r["flops"] for r in records) / seconds)
    return speed


def _record(manifest: Path) -> dict:
    """Return a manifest, or nothing where it is damaged: an estimate is no reason to fail."""
    try:
        return json.loads(manifest.read_text())
    except (OSError, ValueError):
        return {}


def cost(step: Step, speed: dict[str, float], unmeasured: float = FLOPS_PER_SECOND) -> float:
    """Return the seconds that one step will take on one thread, or on what computes `unmeasured` operations a second."""
    return FIXED_SECONDS + step.flops / speed.get(step.stage, unmeasured)
