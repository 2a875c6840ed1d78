"""Runs a plan: computes what the store lacks, parents first, the longest chains first.

A step that fails, or whose worker is killed, is tried once more; then it stops only those that need it. A full
disk stops all, for all would end on it; and so does text that is not what was asked for, which is looked at first. Whoever holds a step's lock computes it: two runs of one study share
the work.
"""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any

from pdstudy.run.engine_local import Crew, signals
from pdstudy.run.estimate import cost, measured_speed, needed
from pdstudy.run.progress import Progress, Stage, Told
from pdstudy.run.worker import Failure, Interrupted
from pdstudy.storage import paths
from pdstudy.storage.store import Store
from pdstudy.study.steps import Plan, Step

POLL = 0.5  # seconds between looks at the workers' progress
ATTEMPTS = 2  # a step whose worker was killed, or that failed for no certain reason, is tried once more
TEXT = ("texts", "domain", "corpus", "tokenizer", "ids")  # stages of text alone: first of all, and what is wrong there ends the run
Engine = Callable[..., Any]  # (store, workers, logs, tracker) -> workers with the methods of crew.Crew


class RunError(Told):
    """Raised when steps failed; the message names each with its reason. `bad_input` says whose fault it was."""

    def __init__(self, message: str, bad_input: bool):
        super().__init__(message)
        self.bad_input = bad_input


@dataclass
class Summary:
    """What a run did."""

    computed: int = 0
    reused: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    blocked: int = 0  # steps whose parents failed


def run(
    plan: Plan,
    store: Store,
    workers: int | None = None,
    listen: Callable[[Progress], None] = lambda progress: None,
    logs: Path | None = None,
    tracker: str | None = None,
    engine: Engine | None = None,
    shard: tuple[int, int] | None = None,
) -> Summary:
    """Compute the steps of `plan` that the store lacks and return what was done. Raises Interrupted."""
    begun = time.monotonic()
    here = store.here()
    todo = {d: s for d, s in plan.steps.items() if d not in here or store.find(d) is None}
    todo = needed(plan, todo)
    summary = Summary(reused=len(plan.steps) - len(todo))
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
    if todo:
        crew = (engine or Crew)(store, _processes(workers, len(todo)) if engine is None else workers, logs, tracker)
        with crew, signals(crew):
            _drive(todo, crew, summary, listen, own(plan, shard))
    summary.seconds = time.monotonic() - begun
    listen(Progress(len(todo), len(todo) - len(summary.failures) - summary.blocked, share=1.0))
    return summary


def describe(summary: Summary) -> str:
    """Return one line a failed step, and how many wait for them."""
    lines = [f"{f.step.label}: {f.reason}" + (f"; see {paths.scrub(str(f.log))}" if f.log else "") for f in summary.failures]
    if summary.blocked:
        lines.append(f"{summary.blocked} steps wait for these; the others are done. The same command tries again.")
    return "\n".join(lines)


def _processes(workers: int | None, steps: int) -> int:
    return min(os.cpu_count() or 1, steps) if workers is None else workers


def own(plan: Plan, shard: tuple[int, int] | None) -> set[str]:
    """Return the steps that shard (i, n) computes before it helps with others': every n-th of each stage; all without one."""
    i, n = shard or (0, 1)
    return {s.digest for stage in plan.counts() for s in plan.of_stage(stage)[i::n]}


def _drive(todo: dict[str, Step], crew: Crew, summary: Summary, listen: Callable[[Progress], None], mine: set[str]) -> None:
    """Keep the crew busy until every step of `todo` is done, failed or waits for a failed one; `mine` go first."""
    waiting = {d: {p for p in s.parents.values() if p in todo} for d, s in todo.items()}  # not begun: parents not made
    children = defaultdict(list)
    for digest, parents in waiting.items():
        for parent in parents:
            children[parent].append(digest)
    urgent = _urgency(todo)

    def turn(digest: str) -> tuple:
        return digest not in mine, todo[digest].stage not in TEXT, -urgent[digest], digest

    ready = [turn(d) for d, parents in waiting.items() if not parents]
    heapify(ready)
    attempts = dict.fromkeys(todo, 0)
    running: dict[Future, str] = {}
    speed, spent, begun = measured_speed(crew.store), 0.0, time.monotonic()
    costs, steps = {d: cost(s, speed) for d, s in todo.items()}, Counter(s.stage for s in todo.values())
    total, failed, lost, ended = sum(costs.values()), set(), set(), Counter()
    later: dict[str, float] = {}  # steps that another run computes just now: when to look again

    def tell() -> None:
        part = sum(costs[d] * crew.share(d) for d in running.values())
        share = min(1.0, (spent + part) / total)
        elapsed = time.monotonic() - begun
        left = (total - spent - part) / max(1, crew.workers) if share < 0.05 else elapsed * (1 - share) / share
        now = [todo[d] for d in running.values()]
        stages = [Stage(s, n, ended[s], tuple(step.label for step in now if step.stage == s)) for s, n in steps.items()]
        labels = tuple(step.label for step in now)
        listen(Progress(len(todo), ended.total(), labels, left, share, tuple(stages), crew.stopping))

    while ready or later or running:
        for digest in [d for d, when in later.items() if when <= time.monotonic()]:
            del later[digest]
            heappush(ready, turn(digest))
        while ready and len(running) < crew.window:
            digest = heappop(ready)[-1]
            del waiting[digest]
            running[crew.submit(todo[digest])] = digest
        if time.monotonic() > crew.deadline:
            crew.kill()
        if not running:  # all that is left is being computed by another run
            time.sleep(POLL)
        finished, _ = wait(running, timeout=POLL, return_when=FIRST_COMPLETED)
        for future in finished:
            digest = running.pop(future)
            outcome = crew.outcome(future)
            if outcome == "busy":
                waiting[digest], later[digest] = set(), time.monotonic() + 2.0
                continue
            if outcome == "stopped":
                continue
            if outcome == "killed":
                reason = "its process was killed twice; perhaps memory ran out: try fewer --workers"
                outcome = Failure(todo[digest], reason, "", bad_input=False, log=crew.log(todo[digest]))
            if isinstance(outcome, Failure):
                attempts[digest] += 1
                if outcome.again and attempts[digest] < ATTEMPTS:
                    waiting[digest] = set()
                    heappush(ready, turn(digest))
                    continue
                summary.failures.append(outcome)
                ended[todo[digest].stage] += 1
                failed.add(digest)
                lost |= _descendants(failed, todo)
                # On a full disk nothing else would fit; of wrong text nobody wants to hear after hours of training.
                if outcome.disk_full or (outcome.bad_input and todo[digest].stage in TEXT):
                    lost |= set(waiting)
                    for queue in (waiting, ready, later):
                        queue.clear()
                summary.blocked = len(lost)
                continue
            spent += costs[digest]
            if outcome == "found":
                summary.reused += 1
            else:
                summary.computed += 1
            ended[todo[digest].stage] += 1
            for child in waiting.keys() & children[digest]:
                waiting[child].discard(digest)
                if not waiting[child]:
                    heappush(ready, turn(child))
        if crew.stopping and not running:
            tell()
            raise Interrupted("stopped; what was finished is kept, and the same command goes on from there")
        if crew.stopping:
            ready.clear()
            later.clear()
        tell()


def _urgency(todo: dict[str, Step]) -> dict[str, float]:
    """Return, for each step, the cost of the longest chain that begins with it: what is longest goes first."""
    rank = {d: s.flops + 1e9 for d, s in todo.items()}
    for digest in reversed(todo):
        for parent in todo[digest].parents.values():
            if parent in rank:
                rank[parent] = max(rank[parent], todo[parent].flops + 1e9 + rank[digest])
    return rank


def _descendants(failed: set[str], todo: dict[str, Step]) -> set[str]:
    lost = set(failed)
    for digest, step in todo.items():  # parents come first in a plan
        if lost & set(step.parents.values()):
            lost.add(digest)
    return lost - failed
