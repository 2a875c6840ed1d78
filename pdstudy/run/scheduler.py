"""Runs a plan: computes what the store lacks, parents first, the longest chains first.

A step that fails, or whose worker is killed, is tried once more; after that it blocks only the steps that need it. A full
disk ends the run, because every other step would fail too. Bad input texts end it as well; the steps of texts run first, so
this does not happen after hours of training. Two runs of one study share the work: a step is computed by the run that has
its lock.
"""

import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any

from pdstudy.run.engine_local import LocalEngine, signals
from pdstudy.run.estimate import cost, measured_speed, needed
from pdstudy.run.progress import PlainError, Progress, Stage
from pdstudy.run.worker import Failure, Interrupted, log_of, read_share
from pdstudy.storage import paths
from pdstudy.storage.store import Store
from pdstudy.study.steps import Plan, Step

POLL = 0.5  # seconds between checks of the workers' progress
MEASURE = 10.0  # seconds between measurements of the speed of finished steps
ATTEMPTS = 2  # a step whose worker was killed, or that failed for an unclear reason, is tried once more
TEXT = ("texts", "domain", "corpus", "fold", "tokenizer", "ids")  # stages of text: they run first, and bad input there ends the run
Engine = Callable[..., Any]  # (store, workers, logs, tracker) -> an object with the methods of LocalEngine


class RunError(PlainError):
    """Raised when steps failed; the message has a line for each. `bad_input` is true if the user's input is wrong."""

    def __init__(self, message: str, bad_input: bool):
        super().__init__(message)
        self.bad_input = bad_input


@dataclass
class Summary:
    """The numbers of steps, the seconds and the failures of a run."""

    computed: int = 0
    reused: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    blocked: int = 0  # steps that a failed one blocks


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
    """Compute the steps of `plan` that the store lacks; return the Summary. Raises Interrupted."""
    begun = time.monotonic()
    here = store.digests()
    todo = {d: s for d, s in plan.steps.items() if d not in here or store.find(d) is None}
    todo = needed(plan, todo)
    summary = Summary(reused=len(plan.steps) - len(todo))
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
    if todo:
        if engine is None and workers is None:
            workers = min(os.cpu_count() or 1, len(todo))
        with (engine or LocalEngine)(store, workers, logs, tracker) as opened, signals(opened):
            _run_steps(todo, opened, summary, listen, steps_of_shard(plan, shard))
    summary.seconds = time.monotonic() - begun
    listen(Progress(len(todo), len(todo) - len(summary.failures) - summary.blocked, share=1.0))
    return summary


def raise_failures(summary: Summary) -> None:
    """Raise RunError if a step failed: a line for each failed step, and the number of steps that they block."""
    lines = [f"{f.step.label}: {f.reason}" + (f"; see {paths.scrub(str(f.log))}" if f.log else "") for f in summary.failures]
    if summary.blocked:
        lines.append(f"{summary.blocked} steps wait for these; the others are done. The same command tries again.")
    if lines:
        raise RunError("\n".join(lines), any(f.bad_input for f in summary.failures))


def steps_of_shard(plan: Plan, shard: tuple[int, int] | None) -> set[str]:
    """Return the digests of the steps that shard (i, n) computes first: every n-th of each stage; all without a shard."""
    i, n = shard or (0, 1)
    return {s.digest for stage in plan.counts() for s in plan.of_stage(stage)[i::n]}


def _run_steps(
    todo: dict[str, Step], engine: LocalEngine, summary: Summary, listen: Callable[[Progress], None], mine: set[str]
) -> None:
    """Submit steps until every step of `todo` is done, failed or blocked by a failed one; those in `mine` go first."""
    waiting = {d: {p for p in s.parents.values() if p in todo} for d, s in todo.items()}  # missing parents by step
    children = defaultdict(list)
    for digest, parents in waiting.items():
        for parent in parents:
            children[parent].append(digest)
    chain = _chain_costs(todo)

    def order(digest: str) -> tuple:
        return digest not in mine, todo[digest].stage not in TEXT, -chain[digest], digest

    ready = [order(d) for d, parents in waiting.items() if not parents]
    heapify(ready)
    attempts = dict.fromkeys(todo, 0)
    running: dict[Future, str] = {}
    costs, n_steps = _costs(todo, engine.store), Counter(s.stage for s in todo.values())
    done, begun, measured = set(), time.monotonic(), time.monotonic()
    failed, blocked, ended = set(), set(), Counter()
    later: dict[str, float] = {}  # steps that another run computes, with the time to try them again

    def report() -> None:
        nonlocal costs, measured
        if done and time.monotonic() - measured > MEASURE:  # steps that ended say how fast the others will be
            costs, measured = _costs(todo, engine.store), time.monotonic()
        done_cost, total = sum(costs[d] for d in done), sum(costs.values())
        done_cost += sum(costs[d] * read_share(engine.shares, d) for d in running.values())
        share = min(1.0, done_cost / total)
        elapsed = time.monotonic() - begun
        left = (total - done_cost) / max(1, engine.workers) if share < 0.05 else elapsed * (1 - share) / share
        steps = [todo[d] for d in running.values()]
        stages = [Stage(s, n, ended[s], tuple(step.label for step in steps if step.stage == s)) for s, n in n_steps.items()]
        labels = tuple(step.label for step in steps)
        listen(Progress(len(todo), ended.total(), labels, left, share, tuple(stages), engine.stopping))

    while ready or later or running:
        for digest in [d for d, when in later.items() if when <= time.monotonic()]:
            del later[digest]
            heappush(ready, order(digest))
        while ready and len(running) < engine.window:
            digest = heappop(ready)[-1]
            del waiting[digest]
            running[engine.submit(todo[digest])] = digest
        if time.monotonic() > engine.deadline:
            engine.kill()
        if not running:  # another run computes everything that is left
            time.sleep(POLL)
        for future in wait(running, timeout=POLL, return_when=FIRST_COMPLETED).done:
            digest = running.pop(future)
            step, outcome = todo[digest], engine.outcome(future)
            if outcome == "busy":
                waiting[digest], later[digest] = set(), time.monotonic() + 2.0
                continue
            if outcome == "stopped":
                continue
            if outcome == "killed":
                reason = "its process was killed twice; perhaps memory ran out: try fewer --workers"
                if Path(sys.argv[0]).suffix == ".py" and not sys.modules["__main__"].__spec__:  # a script: every worker imports it
                    reason += '. A script must call run_study under `if __name__ == "__main__":`'
                outcome = Failure(step, reason, "", bad_input=False, log=log_of(step, engine.logs))
            if isinstance(outcome, Failure):
                attempts[digest] += 1
                if outcome.again and attempts[digest] < ATTEMPTS:
                    waiting[digest] = set()
                    heappush(ready, order(digest))
                    continue
                summary.failures.append(outcome)
                ended[step.stage] += 1
                failed.add(digest)
                blocked |= _descendants(failed, todo)
                if outcome.disk_full or (outcome.bad_input and step.stage in TEXT):  # see the module's docstring
                    blocked |= set(waiting)
                    for queue in (waiting, ready, later):
                        queue.clear()
                summary.blocked = len(blocked)
                continue
            done.add(digest)
            if outcome == "found":
                summary.reused += 1
            else:
                summary.computed += 1
            ended[step.stage] += 1
            for child in waiting.keys() & children[digest]:
                waiting[child].discard(digest)
                if not waiting[child]:
                    heappush(ready, order(child))
        if engine.stopping and not running:
            report()
            raise Interrupted("stopped; finished steps are in the store, and the same command continues from there")
        if engine.stopping:
            ready.clear()
            later.clear()
        report()


def _costs(steps: dict[str, Step], store: Store) -> dict[str, float]:
    """Return the seconds that each step will take, from the speed of those in the store."""
    speed = measured_speed(store)
    return {digest: cost(step, speed) for digest, step in steps.items()}


def _chain_costs(todo: dict[str, Step]) -> dict[str, float]:
    """Return for each step the cost of the longest chain of steps that begins with it."""
    chain = {d: s.flops + 1e9 for d, s in todo.items()}
    for digest in reversed(todo):
        for parent in todo[digest].parents.values():
            if parent in chain:
                chain[parent] = max(chain[parent], todo[parent].flops + 1e9 + chain[digest])
    return chain


def _descendants(failed: set[str], todo: dict[str, Step]) -> set[str]:
    """Return the steps that need a failed one."""
    blocked = set(failed)
    for digest, step in todo.items():  # parents come first in a plan
        if blocked & set(step.parents.values()):
            blocked.add(digest)
    return blocked - failed
