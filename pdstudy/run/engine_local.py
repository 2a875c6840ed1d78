"""The local engine: one process per running step on this machine.

Small models do not profit from a second thread, so each worker process has one thread and there are as many workers as cores.
Each worker is a process pool of its own: if it dies, only its step is lost, and it is clear which one. A worker ends with its
parent, and after SIGTERM it stops at the next safe point. Progress goes through small files, because a queue could block if a
worker dies.
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

from pdstudy.run.worker import GRACE, Interrupted, compute, open_shares, set_stop_check
from pdstudy.storage.store import Store
from pdstudy.study.steps import Step


class LocalEngine:
    """Worker processes, replaced when they are killed; with `workers` 0 steps run in this process.

    The scheduler uses `submit`, `outcome`, `stop`, `kill`, and the attributes `window`, `stopping`, `deadline`, `shares`.
    """

    def __init__(self, store: Store, workers: int, logs: Path | None, tracker: str | None):
        self.store, self.workers, self.logs, self.tracker = store, workers, logs, tracker
        self.stopping = False
        self.deadline = math.inf  # when workers that were asked to stop are killed
        self.shares: Path | None = None  # the folder of progress files
        self.idle: list[ProcessPoolExecutor] = []
        self.busy: dict[Future, ProcessPoolExecutor] = {}

    def __enter__(self):
        self.shares = open_shares(self.store)
        return self

    def __exit__(self, *error):
        # No step is lost: idle workers have nothing to save, and an interpreter with torch takes a second to shut down.
        _kill(self.idle)
        if self.stopping:
            self.kill()
        for pool in (*self.idle, *self.busy.values()):
            pool.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self.shares, ignore_errors=True)

    @property
    def window(self) -> int:
        """Return how many steps to submit at a time."""
        return max(1, self.workers)

    def submit(self, step: Step) -> Future:
        """Return the future of a step, given to a worker or, without workers, computed now."""
        job = (step, self.store, self.shares, self.logs, self.tracker)
        if self.workers == 0:
            return completed(compute(*job))
        with _sigint_blocked():
            pool = self.idle.pop() if self.idle else _start_worker()
            try:
                future = pool.submit(compute, *job)
            except BrokenProcessPool:  # it was killed while idle
                pool.shutdown(wait=False)
                pool = _start_worker()
                future = pool.submit(compute, *job)
        self.busy[future] = pool
        return future

    def outcome(self, future: Future):
        """Return the outcome of a step: as `worker.compute`, or "killed"."""
        pool, error = self.busy.pop(future, None), future.exception()
        if isinstance(error, BrokenProcessPool) or (error is None and future.result() == "stopped" and not self.stopping):
            if pool is not None:  # it is dead, or another process stopped it
                pool.shutdown(wait=False)
            return "killed"
        if pool is not None:
            self.idle.append(pool)
        if error is not None:
            raise error
        return future.result()

    def stop(self) -> None:
        """Ask every worker to stop at its next safe point. A second call kills them."""
        if self.stopping:
            self.kill()
        else:
            self.stopping, self.deadline = True, time.monotonic() + GRACE
            for process in _processes([*self.idle, *self.busy.values()]):
                with contextlib.suppress(ProcessLookupError, TypeError):
                    os.kill(process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill every worker now. Finished steps are in the store."""
        _kill([*self.idle, *self.busy.values()])


def _processes(pools: list[ProcessPoolExecutor]) -> list:
    return [p for pool in pools for p in list((pool._processes or {}).values())]


def _kill(pools: list[ProcessPoolExecutor]) -> None:
    for process in _processes(pools):
        with contextlib.suppress(ValueError):  # it has ended
            process.kill()


@contextlib.contextmanager
def signals(engine: LocalEngine):
    """Turn SIGTERM and Ctrl-C into `engine.stop()`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def handle(number, frame):
        caught.append(number)
        engine.stop()

    old = {s: signal.signal(s, handle) for s in (signal.SIGTERM, signal.SIGINT)}
    if engine.workers == 0:
        set_stop_check(lambda: engine.stopping)
    try:
        yield
    except Interrupted as error:
        error.signal = caught[0] if caught else signal.SIGTERM
        raise
    finally:
        set_stop_check(lambda: False)
        for number, handler in old.items():
            signal.signal(number, handler)


def completed(outcome) -> Future:
    """Return the future of a step that was computed already."""
    future: Future = Future()
    future.set_result(outcome)
    return future


def _start_worker() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    return ProcessPoolExecutor(1, context, initializer=_prepare_worker, initargs=(os.getpid(),))


@contextlib.contextmanager
def _sigint_blocked():
    """Block Ctrl-C while a worker starts: a terminal sends it to all processes, and it would kill a starting one."""
    resource_tracker.ensure_running()  # it unblocks Ctrl-C when it starts, so start it before
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_worker(parent: int) -> None:
    """Let a worker ignore Ctrl-C, stop on SIGTERM, and end with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    set_stop_check(stop.is_set)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: Linux kills it with its parent

    def watch_parent() -> None:  # for other systems
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch_parent, daemon=True).start()
