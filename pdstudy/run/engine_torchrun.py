"""One model on many devices: the ranks of torchrun share every step of a pre-training.

Rank 0 runs the plan as ever and alone writes. Where it pre-trains, it first tells the others, who train along:
each reads its rows of the same global batch (stages.pretrain), and the gradients' mean is the batch's. Orders go
through torchrun's own key-value store, which a waiting rank can leave when it is asked to stop; a collective
that a dead rank never joins ends after TIMEOUT, and torchrun ends the rest at once.
"""

import contextlib
import itertools
import json
import os
import signal
import time
from concurrent.futures import Future
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import PartialState

from pdstudy.models.train import Diverged, Stopped, Watch
from pdstudy.run import execute
from pdstudy.run.engine_local import Crew
from pdstudy.run.scheduler import RunError
from pdstudy.run.worker import compute, stop_when
from pdstudy.storage.store import Store
from pdstudy.study.steps import Step

TIMEOUT = timedelta(minutes=3)  # of a collective: longer than any save of a checkpoint
SETTLE = timedelta(seconds=10)  # in which every rank must have ended a step that rank 0 has ended
LOOK = 0.2  # seconds between a waiting rank's looks at its orders and its own signals
END = b"end"


@contextlib.contextmanager
def lead():
    """Yield, on rank 0, the engine of a run whose pre-trainings all ranks share; dismiss the others at the end."""
    channel, n_ranks = join()
    orders = itertools.count()
    try:
        yield partial(RankCrew, channel=channel, n_ranks=n_ranks, orders=orders)
    finally:
        channel.set(f"order/{next(orders)}", END)
        dist.destroy_process_group()


def follow(store: Store) -> None:
    """Train along with rank 0 until it is done, on every other rank. Writes nothing."""
    channel, _ = join()
    rank, asked = PartialState().process_index, []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: asked.append(number))
    torch.set_num_threads(1)
    for n in itertools.count():
        order = _hear(channel, f"order/{n}", asked)
        if order in (None, END):
            break
        with contextlib.suppress(Stopped, Diverged, ValueError):  # every rank alike, and rank 0 reports it
            execute.assist(Step(**json.loads(order)), store, Watch(stop=lambda: bool(asked)))
        channel.set(f"ended/{n}/{rank}", b"")
    dist.destroy_process_group()


def join():
    """Return (the ranks' key-value store, their number) after all have met. No process started later is one of them."""
    channel, _, n_ranks = next(dist.rendezvous("env://"))
    PartialState(cpu=not torch.cuda.is_available(), timeout=TIMEOUT)  # without `cpu` each rank would train alone
    if PartialState().num_processes != n_ranks:
        raise RunError(f"torchrun started {n_ranks} ranks, but {PartialState().num_processes} met", False)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    return dist.PrefixStore("pdstudy", channel), n_ranks


def _hear(channel, key: str, asked: list) -> bytes | None:
    """Return what rank 0 has said under `key`, or None when this rank is asked to stop meanwhile."""
    while not asked:
        if channel.check([key]):
            return channel.get(key)
        time.sleep(LOOK)
    return None


class RankCrew:
    """Rank 0's workers: the local pool for most steps, and all ranks together for a pre-training, one at a time."""

    def __init__(self, store: Store, workers: int | None, logs: Path | None, tracker: str | None, channel, n_ranks, orders):
        self.pool = Crew(store, os.cpu_count() or 1 if workers is None else workers, logs, tracker)
        self.channel, self.n_ranks, self.orders = channel, n_ranks, orders
        self.store, self.workers, self.window, self.share = store, self.pool.workers, self.pool.window, self.pool.share

    def __enter__(self):
        self.pool.__enter__()
        stop_when(lambda: self.stopping)
        return self

    def __exit__(self, *error):
        self.pool.__exit__(*error)

    @property
    def stopping(self) -> bool:
        """Return whether a stop was asked for."""
        return self.pool.stopping

    def stop(self) -> None:
        """Ask every worker, and with the next training step every rank, to stop."""
        self.pool.stop()

    @property
    def deadline(self) -> float:
        """Return when workers that were asked to stop, and have not, are killed."""
        return self.pool.deadline

    def kill(self) -> None:
        """End the pool's workers now."""
        self.pool.kill()

    def log(self, step: Step) -> Path | None:
        """Return the path of a step's log, if there is one."""
        return self.pool.log(step)

    def outcome(self, future: Future):
        """Return what became of a step; see Crew.outcome."""
        return self.pool.outcome(future)

    def submit(self, step: Step) -> Future:
        """Return the future of a step: of the pool, or of all ranks, which have then ended it."""
        if step.stage != "pretrain":
            return self.pool.submit(step)
        called: list[int] = []
        job = (step, self.store, self.pool.shares, self.pool.logs, self.pool.tracker)
        future: Future = Future()
        future.set_result(compute(*job, before=lambda: called.append(self._call(step))))
        if called:
            self._settle(step, called[0])
        return future

    def _call(self, step: Step) -> int:
        """Tell the other ranks to train along; return the order's number."""
        n = next(self.orders)
        order = {k: getattr(step, k) for k in ("stage", "settings", "parents", "label")}
        self.channel.set(f"order/{n}", json.dumps(order).encode())
        return n

    def _settle(self, step: Step, n: int) -> None:
        """Wait until every rank has ended the step. Raises RunError: ranks in different steps would mix two models."""
        try:
            self.channel.wait([f"ended/{n}/{rank}" for rank in range(1, self.n_ranks)], SETTLE)
        except dist.DistError as error:
            reason = f"{step.label}: not every rank has ended it; the same command goes on from its last checkpoint"
            raise RunError(f"{reason} ({str(error).splitlines()[0]})", False) from None
