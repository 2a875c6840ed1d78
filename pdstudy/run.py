"""Runs a plan: computes what the store lacks, parents first, in a local pool of processes.

Small models leave a second thread idle, so the pool runs one thread a process and as many processes as there
are cores. A worker that is killed costs its step one retry; a step that fails stops only those that need it.
Whoever holds a step's lock computes it: two runs of one study share the work.
"""

import contextlib
import ctypes
import json
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pdstudy import paths, results
from pdstudy.estimate import cost, measured_speed, needed
from pdstudy.params import Study
from pdstudy.plan import Plan, Step, make
from pdstudy.store import Store

POLL = 0.5  # seconds between looks at the workers' progress
ATTEMPTS = 2  # a killed worker's step is tried once more


class RunError(RuntimeError):
    """Raised when steps failed; the message names each with its reason. `bad_input` says whose fault it was."""

    def __init__(self, message: str, bad_input: bool):
        super().__init__(message)
        self.bad_input = bad_input


class Interrupted(RuntimeError):
    """Raised after a request to stop: finished steps are kept, long ones have saved their state."""


@dataclass
class Failure:
    """One step that failed: what it was and why."""

    step: Step
    reason: str
    trace: str
    bad_input: bool


@dataclass
class Progress:
    """What is done, told to whoever listens: counts, the running steps' labels, the seconds left."""

    total: int
    done: int = 0
    running: tuple[str, ...] = ()
    seconds_left: float = 0.0
    share: float = 0.0  # of the work, by estimated cost


@dataclass
class Summary:
    """What a run did."""

    computed: int = 0
    reused: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    blocked: int = 0  # steps whose parents failed


def run_study(
    study: Study,
    workers: int | None = None,
    listen: Callable[[Progress], None] | None = None,
    store: Store | None = None,
    tracker: str | None = None,
):
    """Return the study's metrics as a pandas table, after computing what the store lacks.

    `workers` is the number of processes (None: one a core; 0: in this process). Raises RunError when a step
    failed, after everything that does not need it is done and the results so far are written.
    """
    plan, store = make(study), store or Store()
    folder = writable(study)
    summary = run(plan, store, workers, listen or notebook_line(), folder / "logs", tracker)
    results.write(plan, store, environment(plan, summary))
    if summary.failures:
        raise RunError(describe(summary), any(f.bad_input for f in summary.failures))
    return results.load_results(study.name)


def run(
    plan: Plan,
    store: Store,
    workers: int | None = None,
    listen: Callable[[Progress], None] = lambda progress: None,
    logs: Path | None = None,
    tracker: str | None = None,
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
        crew = _Crew(store, _processes(workers, len(todo)), logs, tracker)
        with crew, _signals(crew):
            _drive(plan, todo, crew, summary, listen)
    summary.seconds = time.monotonic() - begun
    listen(Progress(len(todo), summary.computed, share=1.0))
    return summary


def describe(summary: Summary) -> str:
    """Return one line a failed step, and how many wait for them."""
    lines = [f"{f.step.label}: {f.reason}" for f in summary.failures]
    if summary.blocked:
        lines.append(f"{summary.blocked} steps wait for these; the others are done. The same command tries again.")
    return "\n".join(lines)


def environment(plan: Plan, summary: Summary) -> dict:
    """Return the record of a run: command, commit, versions, machine, and what was computed."""
    from importlib.metadata import version

    names = ("pdstudy", "torch", "transformers", "tokenizers", "accelerate", "datasets", "numpy", "pandas", "scipy")
    return {
        "command": paths.scrub(" ".join(["python -m pdstudy", *sys.argv[1:]]) if "pdstudy" in sys.argv[0] else "run_study(study)"),
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "machine": {"system": platform.system(), "processor": processor(), "cores": os.cpu_count(), "threads_per_step": 1},
        "precision": plan.study.resolved_precision(),
        "steps": {"asked": plan.asked, "distinct": len(plan.steps), "computed": summary.computed, "reused": summary.reused},
        "seconds": round(summary.seconds, 1),
    }


def commit() -> str:
    """Return the checkout's commit, marked when files differ from it, or "unknown" outside a checkout."""
    import subprocess

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(paths.ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if git("status", "--porcelain", "--", "pdstudy", "params") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """Return the processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def writable(study: Study) -> Path:
    """Return the study's folder, made if need be. Raises RunError before anything is trained where it cannot be written."""
    folder = paths.study_folder(study.name)
    probe = folder / ".writable"
    try:
        for place in (folder, paths.STORE):
            place.mkdir(parents=True, exist_ok=True)
            probe = place / ".writable"
            probe.write_text("")
            probe.unlink()
    except OSError as error:
        place = paths.scrub(str(probe.parent))
        raise RunError(f"{place} cannot be written ({error.strerror}); free it or set PDSTUDY_OUTPUTS to another folder", True) from None
    return folder


def notebook_line() -> Callable[[Progress], None]:
    """Return a listener that keeps one line up to date in a notebook, and does nothing elsewhere."""
    shell = sys.modules.get("IPython")
    if shell is None or getattr(shell.get_ipython(), "kernel", None) is None:
        return lambda progress: None
    from IPython.display import display

    handle, last = display({"text/plain": "planning"}, raw=True, display_id=True), [0.0]

    def show(progress: Progress) -> None:
        if time.monotonic() - last[0] > 5 or progress.done == progress.total:
            last[0] = time.monotonic()
            handle.update({"text/plain": line(progress)}, raw=True)

    return show


def line(progress: Progress) -> str:
    """Return a progress line: steps done, what is running, time left."""
    if progress.total == 0:
        return "nothing to compute: every step is in the store"
    if progress.done == progress.total:
        return f"{progress.done} of {progress.total} steps done"
    minutes, seconds = divmod(round(progress.seconds_left), 60)
    return f"{progress.done} of {progress.total} steps, about {minutes}:{seconds:02d} left; now {', '.join(progress.running) or 'starting'}"


def _processes(workers: int | None, steps: int) -> int:
    return min(os.cpu_count() or 1, steps) if workers is None else workers


def _drive(plan: Plan, todo: dict[str, Step], crew: "_Crew", summary: Summary, listen: Callable[[Progress], None]) -> None:
    """Keep the crew busy until every step of `todo` is done, failed or waits for a failed one."""
    waiting = {d: {p for p in s.parents.values() if p in todo} for d, s in todo.items()}
    urgent = _urgency(todo)
    attempts = dict.fromkeys(todo, 0)
    running: dict[Future, str] = {}
    speed, spent, begun = measured_speed(crew.store), 0.0, time.monotonic()
    costs = {d: cost(s, speed) for d, s in todo.items()}
    total, failed = sum(costs.values()), set()
    later: dict[str, float] = {}  # steps that another run computes just now: when to look again

    def tell() -> None:
        part = sum(costs[d] * crew.share(d) for d in running.values())
        share = min(1.0, (spent + part) / total)
        elapsed = time.monotonic() - begun
        left = (total - spent - part) / max(1, crew.workers) if share < 0.05 else elapsed * (1 - share) / share
        done = summary.computed + len(summary.failures)
        listen(Progress(len(todo), done, tuple(todo[d].label for d in running.values()), left, share))

    while waiting or running:
        now = time.monotonic()
        ready = sorted((d for d, parents in waiting.items() if not parents and later.get(d, 0) <= now), key=lambda d: -urgent[d])
        for digest in ready[: max(0, max(1, crew.workers) - len(running))]:
            del waiting[digest]
            running[crew.submit(todo[digest])] = digest
        if not running and not ready and not later:
            break
        finished, _ = wait(running, timeout=POLL, return_when=FIRST_COMPLETED)
        for future in finished:
            digest = running.pop(future)
            outcome = crew.outcome(future)
            if outcome == "busy":
                waiting[digest], later[digest] = set(), time.monotonic() + 2.0
                continue
            later.pop(digest, None)
            if outcome == "killed":
                attempts[digest] += 1
                if attempts[digest] < ATTEMPTS:
                    waiting[digest] = set()
                    continue
                reason = "its process was killed twice; perhaps memory ran out: try fewer --workers"
                outcome = Failure(todo[digest], reason, "", bad_input=False)
            if isinstance(outcome, Failure):
                summary.failures.append(outcome)
                failed.add(digest)
                lost = _descendants(failed, todo)
                summary.blocked = len(lost)
                for d in lost:
                    waiting.pop(d, None)
                continue
            spent += costs[digest]
            summary.computed += 1
            for parents in waiting.values():
                parents.discard(digest)
        if crew.stopping and not running:
            raise Interrupted("stopped; what was finished is kept, and the same command goes on from there")
        if crew.stopping:
            waiting.clear()
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


class _Crew:
    """The workers: a pool of processes that is made again when one of them is killed, or this process itself."""

    def __init__(self, store: Store, workers: int, logs: Path | None, tracker: str | None):
        self.store, self.workers, self.logs, self.tracker = store, workers, logs, tracker
        self.stopping = False
        self.shares = store.root / "work" / f"progress-{os.getpid()}"
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self):
        self.shares.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *error):
        import shutil

        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self.shares, ignore_errors=True)

    def submit(self, step: Step) -> Future:
        job = (step, self.store, self.shares, self.logs, self.tracker)
        if self.workers == 0:
            future: Future = Future()
            future.set_result(_work(*job))
            return future
        if self.pool is None:
            context = multiprocessing.get_context("spawn")  # fork and torch's threads do not mix
            self.pool = ProcessPoolExecutor(self.workers, context, initializer=_begin, initargs=(os.getpid(),))
        try:
            return self.pool.submit(_work, *job)
        except BrokenProcessPool as error:
            future = Future()
            future.set_exception(error)
            return future

    def outcome(self, future: Future):
        """Return what became of a step: "done", "busy", "killed" or a Failure."""
        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, BrokenProcessPool):
            if self.pool is not None:
                self.pool.shutdown(wait=False, cancel_futures=True)
                self.pool = None
            return "killed"
        raise error

    def share(self, digest: str) -> float:
        """Return how much of a running step is done, 0 to 1."""
        try:
            return float((self.shares / digest).read_text() or 0)
        except (OSError, ValueError):
            return 0.0

    def stop(self) -> None:
        """Ask every worker to stop at its next safe point."""
        self.stopping = True
        for process in list((self.pool._processes or {}).values()) if self.pool else ():
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.kill(process.pid, signal.SIGTERM)


@contextlib.contextmanager
def _signals(crew: _Crew):
    """Turn SIGTERM and Ctrl-C into a request to stop, while the crew works. The handler only sets a flag."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def handle(number, frame):
        caught.append(number)
        crew.stop()

    old = {s: signal.signal(s, handle) for s in (signal.SIGTERM, signal.SIGINT)}
    if crew.workers == 0:
        _STOP["asked"] = lambda: crew.stopping
    try:
        yield
    except Interrupted as error:
        error.signal = caught[0] if caught else signal.SIGTERM
        raise
    finally:
        _STOP["asked"] = lambda: False
        for number, handler in old.items():
            signal.signal(number, handler)


_STOP = {"asked": lambda: False}  # how a step in this process learns that it should stop


def _begin(parent: int) -> None:
    """Prepare a worker: no Ctrl-C of its own, and an end when its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    _STOP["asked"] = asked.is_set
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: Linux ends us with our parent

    def watch() -> None:  # elsewhere, look
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(step: Step, store: Store, shares: Path, logs: Path | None, tracker: str | None) -> "str | Failure":
    """Compute one step in a worker: return "done", "busy" when another run holds it, or a Failure."""
    import torch

    from pdstudy.train import Stopped, Watch
    from pdstudy.work import execute

    # One thread everywhere: the order of sums, and so every bit of a result, is the same in any pool.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    name = f"{step.label.replace('/', '-').replace(' ', '_')}-{step.digest[:6]}"
    try:
        with store.lock(step.digest) as mine:
            if not mine:
                return "busy"
            if store.find(step.digest) is not None:  # another run was faster
                return "done"
            if logs is None:
                execute(step, store, Watch(stop=_STOP["asked"]))
                return "done"
            with (logs / f"{name}.jsonl").open("a", buffering=1) as log:
                watch = Watch(
                    log=lambda record: log.write(json.dumps(record) + "\n"),
                    progress=lambda share: (shares / step.digest).write_text(f"{share:.4f}") and None,
                    stop=_STOP["asked"],
                    tracker=tracker,
                    tracker_folder=logs,
                    label=name,
                )
                execute(step, store, watch)
        return "done"
    except Stopped as error:
        return Failure(step, str(error), "", bad_input=False)
    except Exception as error:  # whatever it was, it is reported and the others go on
        trace = traceback.format_exc()
        if logs is not None:
            with contextlib.suppress(OSError):
                (logs / f"{name}.error.txt").write_text(paths.scrub(trace))
        reason = paths.scrub(f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")
        return Failure(step, reason, trace, bad_input=isinstance(error, ValueError))
    finally:
        torch.set_num_threads(threads)
