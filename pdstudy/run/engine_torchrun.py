"""One model on many devices: the ranks of torchrun share every step of a pre-training.

Rank 0 runs the plan and is the only one that writes. Before it pre-trains, it sends an order to the other ranks, which train
along: each computes its rows of the global batch (stages.pretrain), and the mean of the ranks' gradients is that of the
batch. Orders go through torchrun's key-value store, so that a waiting rank can be stopped. A collective that a dead rank
never joins ends after TIMEOUT, and torchrun then ends all ranks.
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
from pdstudy.run.engine_local import LocalEngine, completed
from pdstudy.run.scheduler import RunError
from pdstudy.run.worker import compute, set_stop_check
from pdstudy.storage.store import Store
from pdstudy.study.steps import Step

TIMEOUT = timedelta(minutes=3)  # of a collective: longer than saving a checkpoint
SETTLE = timedelta(seconds=10)  # every rank must have ended a step this soon after rank 0
LOOK = 0.2  # seconds between a waiting rank's checks for orders and signals
END = b"end"


@contextlib.contextmanager
def lead():
    """Yield, on rank 0, the engine of a run whose pre-trainings all ranks share; end the other ranks afterwards."""
    channel, n_ranks = join()
    orders = itertools.count()
    try:
        yield partial(TorchrunEngine, channel=channel, n_ranks=n_ranks, orders=orders)
    finally:
        channel.set(f"order/{next(orders)}", END)
        dist.destroy_process_group()


def follow(store: Store) -> None:
    """Train along with rank 0 until it ends the run, on every other rank. Writes nothing."""
    channel, _ = join()
    rank, signals = PartialState().process_index, []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: signals.append(number))
    torch.set_num_threads(1)
    for n in itertools.count():
        order = _wait_for_order(channel, f"order/{n}", signals)
        if order in (None, END):
            break
        with contextlib.suppress(Stopped, Diverged, ValueError):  # raised on every rank, and rank 0 reports it
            execute.assist(Step(**json.loads(order)), store, Watch(stop=lambda: bool(signals)))
        channel.set(f"ended/{n}/{rank}", b"")
    dist.destroy_process_group()


def join():
    """Return (the ranks' key-value store, the number of ranks) after all have connected.

    The environment variables of torchrun are removed, so that processes started later are not ranks.
    """
    channel, _, n_ranks = next(dist.rendezvous("env://"))
    PartialState(cpu=not torch.cuda.is_available(), timeout=TIMEOUT)  # without `cpu` each rank would train alone
    if PartialState().num_processes != n_ranks:
        raise RunError(f"torchrun started {n_ranks} ranks, but {PartialState().num_processes} connected", False)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    return dist.PrefixStore("pdstudy", channel), n_ranks


def _wait_for_order(channel, key: str, signals: list) -> bytes | None:
    """Return rank 0's order under `key`, or None when this rank receives a signal before."""
    while not signals:
        if channel.check([key]):
            return channel.get(key)
        time.sleep(LOOK)
    return None


class TorchrunEngine(LocalEngine):
    """Rank 0's engine: local workers for most steps, and all ranks together for a pre-training, one at a time."""

    def __init__(self, store: Store, workers: int | None, logs: Path | None, tracker: str | None, channel, n_ranks, orders):
        super().__init__(store, os.cpu_count() or 1 if workers is None else workers, logs, tracker)
        self.channel, self.n_ranks, self.orders = channel, n_ranks, orders

    def __enter__(self):
        set_stop_check(lambda: self.stopping)
        return super().__enter__()

    def submit(self, step: Step) -> Future:
        """Return the future of a step: of a worker, or, for a pre-training, completed on all ranks."""
        if step.stage != "pretrain":
            return super().submit(step)
        sent: list[int] = []
        job = (step, self.store, self.shares, self.logs, self.tracker)
        outcome = compute(*job, before=lambda: sent.append(self._send_order(step)))
        if sent:
            self._wait_for_ranks(step, sent[0])
        return completed(outcome)

    def _send_order(self, step: Step) -> int:
        """Tell the other ranks to train along; return the order's number."""
        n = next(self.orders)
        order = {k: getattr(step, k) for k in ("stage", "settings", "parents", "label")}
        self.channel.set(f"order/{n}", json.dumps(order).encode())
        return n

    def _wait_for_ranks(self, step: Step, n: int) -> None:
        """Wait until every rank has ended the step. Raises RunError: ranks in different steps would mix two models."""
        try:
            self.channel.wait([f"ended/{n}/{rank}" for rank in range(1, self.n_ranks)], SETTLE)
        except dist.DistError as error:
            reason = f"{step.label}: not every rank has ended it; the same command continues from its last checkpoint"
            raise RunError(f"{reason} ({str(error).splitlines()[0]})", False) from None
