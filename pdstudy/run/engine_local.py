"""The workers: how one step is computed in a process of its own, and how all of them stop.

Small models leave a second thread idle, so each worker has one thread and there are as many as cores. Each is
a pool of its own, so that its death costs no step but the one it was at, and that one is known. A worker ends
when its parent does, stops at a safe point when asked, and owns no queue that its death could block: progress
goes through small files.
"""

import contextlib
import ctypes
import math
import multiprocessing
import os
import shutil
import signal
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from pathlib import Path

from pdstudy.run.worker import GRACE, Interrupted, compute, log_of, open_shares, read_share, stop_when
from pdstudy.storage.store import Store
from pdstudy.study.steps import Step


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
