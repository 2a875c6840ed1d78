"""What a plan still needs, and how long it will take, from what the store has seen."""

import json
from pathlib import Path

from pdstudy.steps import Plan, Step
from pdstudy.store import Store

FLOPS_PER_SECOND = 60e9  # one thread, before anything was measured here
FIXED_SECONDS = 1.0  # of every step
SHORTEST = 5.0  # seconds; shorter steps are mostly start-up and say little about speed


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


def by_stage(plan: Plan, store: Store, workers: int) -> list[dict]:
    """Return one row a stage: steps, how many are cached, how many to do, and about how many seconds those take."""
    here = store.here()
    todo = needed(plan, {d: s for d, s in plan.steps.items() if d not in here})
    rows = []
    for stage, count in plan.counts().items():
        rest = [s for s in todo.values() if s.stage == stage]
        cached = sum(s.digest in here for s in plan.of_stage(stage))
        rows.append(
            {"stage": stage, "steps": count, "cached": cached, "to do": len(rest), "seconds": estimate(rest, store, workers)}
        )
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


def cost(step: Step, speed: dict[str, float]) -> float:
    """Return the seconds that one step will take on one thread."""
    return FIXED_SECONDS + step.flops / speed.get(step.stage, FLOPS_PER_SECOND)
