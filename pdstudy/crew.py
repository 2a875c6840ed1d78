"""The workers: how one step is computed in a process of its own, and how all of them stop.

Small models leave a second thread idle, so each worker has one thread and there are as many as cores. Each is
a pool of its own, so that its death costs no step but the one it was at, and that one is known. A worker ends
when its parent does, stops at a safe point when asked, and owns no queue that its death could block: progress
goes through small files.
"""

import contextlib
import ctypes
import json
import math
import multiprocessing
import os
import shutil
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

from pdstudy.progress import Told
from pdstudy.storage import files, paths
from pdstudy.storage.store import Store
from pdstudy.study.steps import Step

GRACE = 20.0  # seconds that a step may take to its next safe point before it is killed


class Interrupted(Told):
    """Raised after a request to stop: finished steps are kept, long ones have saved their state."""


@dataclass
class Failure:
    """One step that failed: what it was, why, where its log is, and whether a second try could end otherwise."""

    step: Step
    reason: str
    trace: str
    bad_input: bool
    log: Path | None = None
    again: bool = True
    disk_full: bool = False


class Crew:
    """The workers: processes that are replaced when they are killed, or this process itself."""

    def __init__(self, store: Store, workers: int, logs: Path | None, tracker: str | None):
        self.store, self.workers, self.logs, self.tracker = store, workers, logs, tracker
        self.stopping = False
        self.deadline = math.inf  # when those that were asked to stop, and have not, are killed
        self.shares: Path | None = None
        self.idle: list[ProcessPoolExecutor] = []
        self.busy: dict[Future, ProcessPoolExecutor] = {}

    def __enter__(self):
        self.shares = open_shares(self.store)
        return self

    def __exit__(self, *error):
        if self.stopping:  # every step has answered; a worker's own farewell may take longer than a stop should
            self.kill()
        for pool in (*self.idle, *self.busy.values()):
            pool.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self.shares, ignore_errors=True)

    @property
    def window(self) -> int:
        """Return how many steps are worth submitting at a time."""
        return max(1, self.workers)

    def submit(self, step: Step) -> Future:
        """Return the future of a step, given to a worker or, without workers, computed now."""
        job = (step, self.store, self.shares, self.logs, self.tracker)
        if self.workers == 0:
            future: Future = Future()
            future.set_result(compute(*job))
            return future
        with _deaf():
            pool = self.idle.pop() if self.idle else _hired()
            try:
                future = pool.submit(compute, *job)
            except BrokenProcessPool:  # it was killed while it had nothing to do
                pool.shutdown(wait=False)
                pool = _hired()
                future = pool.submit(compute, *job)
        self.busy[future] = pool
        return future

    def outcome(self, future: Future):
        """Return what became of a step: "done", "busy", "stopped", "killed" or a Failure."""
        pool, error = self.busy.pop(future, None), future.exception()
        if isinstance(error, BrokenProcessPool) or (error is None and future.result() == "stopped" and not self.stopping):
            if pool is not None:  # dead, or told to stop by somebody else and good for no other step
                pool.shutdown(wait=False)
            return "killed"
        if pool is not None:
            self.idle.append(pool)
        if error is not None:
            raise error
        return future.result()

    def log(self, step: Step) -> Path | None:
        """Return the path of a step's log, if there is one."""
        return log_of(step, self.logs)

    def share(self, digest: str) -> float:
        """Return how much of a running step is done, 0 to 1."""
        return read_share(self.shares, digest)

    def stop(self) -> None:
        """Ask every worker to stop at its next safe point; asked twice, do not wait for it."""
        if self.stopping:
            self.kill()
        else:
            self.stopping, self.deadline = True, time.monotonic() + GRACE
            for process in self._processes():
                with contextlib.suppress(ProcessLookupError, TypeError):
                    os.kill(process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End every worker now. What it had finished is in the store."""
        for process in self._processes():
            with contextlib.suppress(ValueError):  # it is gone already
                process.kill()

    def _processes(self) -> list:
        return [p for pool in (*self.idle, *self.busy.values()) for p in list((pool._processes or {}).values())]


@contextlib.contextmanager
def signals(crew: Crew):
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
        stop_when(lambda: crew.stopping)
    try:
        yield
    except Interrupted as error:
        error.signal = caught[0] if caught else signal.SIGTERM
        raise
    finally:
        stop_when(lambda: False)
        for number, handler in old.items():
            signal.signal(number, handler)


_STOP = {"asked": lambda: False}  # how a step in this process learns that it should stop


def _hired() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # fork and torch's threads do not mix
    return ProcessPoolExecutor(1, context, initializer=_begin, initargs=(os.getpid(),))


@contextlib.contextmanager
def _deaf():
    """Hold Ctrl-C back while a worker starts: a terminal sends it to all, and one that is not yet ready would die of it."""
    resource_tracker.ensure_running()  # it unblocks Ctrl-C when it starts, so not in between
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop_when(asked: Callable[[], bool]) -> None:
    """Say how a step that is computed in this process learns that it should stop."""
    _STOP["asked"] = asked


def open_shares(store: Store) -> Path:
    """Return a new folder for the progress of this run's steps, after removing those of killed runs of this machine."""
    mine = f"progress-{socket.gethostname()}-"
    for left in (store.root / "work").glob(f"{mine}*"):
        try:
            os.kill(int(left.name.removeprefix(mine)), 0)  # asks only whether it lives
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
    folder = store.root / "work" / f"{mine}{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_share(shares: Path, digest: str) -> float:
    """Return how much of a running step is done, 0 to 1."""
    try:
        return float((shares / digest).read_text() or 0)
    except (OSError, ValueError):
        return 0.0


def log_name(step: Step) -> str:
    """Return the name of a step's log, without its ending."""
    return f"{step.label.replace('/', '-').replace(' ', '_')}-{step.digest[:6]}"


def log_of(step: Step, logs: Path | None) -> Path | None:
    """Return the path of a step's log, if there is one."""
    path = None if logs is None else logs / f"{log_name(step)}.jsonl"
    return path if path and path.is_file() else None


def _begin(parent: int) -> None:
    """Prepare a worker: no Ctrl-C of its own, and an end when it is asked to and when its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    stop_when(asked.is_set)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: Linux ends us with our parent

    def watch() -> None:  # elsewhere, look
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def compute(
    step: Step, store: Store, shares: Path, logs: Path | None, tracker: str | None, before: Callable[[], None] = lambda: None
) -> "str | Failure":
    """Compute one step in a worker: return "done", "found" when another run has made it, "busy" when one is at it, "stopped", or a Failure."""
    import torch

    from pdstudy.models.train import Stopped, Watch
    from pdstudy.work import execute

    # One thread everywhere: the order of sums, and so every bit of a result, is the same in any pool.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    name = log_name(step)
    try:
        with store.lock(step.digest, wait=False) as mine:
            if not mine:
                return "busy"
            if store.find(step.digest) is not None:  # another run was faster
                return "found"
            before()
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
    except Stopped:
        return "stopped"
    except Exception as error:  # whatever it was, it is reported and the others go on
        return _failure(step, error, store, None if logs is None else logs / f"{name}.error.txt")
    finally:
        torch.set_num_threads(threads)


def _failure(step: Step, error: Exception, store: Store, log: Path | None) -> Failure:
    """Return what went wrong, its trace written to `log`. Bad input and divergence end the same way every time."""
    from pdstudy.models.train import Diverged

    trace = traceback.format_exc()
    if files.is_full(error):
        reason = paths.scrub(files.full(store.root, step.room, error))
        return Failure(step, reason, trace, bad_input=False, again=False, disk_full=True)
    if log is not None:
        try:
            with files.whole(log) as new:
                new.write_text(paths.scrub(trace))
        except OSError:
            log = None
    plain = isinstance(error, ValueError | Diverged)
    reason = paths.scrub(f"{error}" if plain else f"{type(error).__name__}: {error}")
    return Failure(step, reason, trace, isinstance(error, ValueError), log, again=not plain)
