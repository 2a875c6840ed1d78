"""The Ray engine: steps as tasks of a Ray cluster, on many machines.

Artifacts go through the store, in a folder that every node shares; Ray carries a step's settings to a node and one word
back. So any node may die at any time, and a run resumes from the store whatever the engine.

The scheduler submits a step when its parents are done. It does not give Ray the graph of steps, because Ray runs ready tasks
in the order of submission, while a study ends soonest when the longest chain goes first.
"""

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from filelock import FileLock, Timeout

from pdstudy.run.scheduler import RunError
from pdstudy.run.worker import GRACE, Failure, compute, open_shares, set_stop_check
from pdstudy.sizes import Size
from pdstudy.storage.store import Store
from pdstudy.study.steps import Step

AHEAD = 2  # steps submitted per slot, so that no slot waits for the driver and an autoscaler sees the demand
ANSWER = 5.0  # seconds in which a Ray must answer at its address
LOOK = 5.0  # seconds between queries of the cluster's size
# Stages that do not use a GPU; a search seldom trains.
ON_CPU = ("texts", "fold", "tokenizer", "ids", "search", "given")
WHOLE_GPU = 12 * 768  # layers x hidden of the model that gets a GPU of its own
OBJECTS = 80 * 2**20  # bytes of Ray's object store, near the minimum: no data goes through it
STOP, LOCK = "stop", "driver.lock"  # in the folder of progress files


class RayEngine:
    """The workers of a Ray cluster, or of a Ray that is started here, on loopback, and shut down with the run."""

    def __init__(self, store: Store, workers: int | None, logs: Path | None, tracker: str | None, address: str | None = None):
        self.store, self.limit, self.logs, self.tracker, self.address = store, workers, logs, tracker, address
        self.stopping = False
        self.deadline = math.inf  # when tasks that were asked to stop are killed
        self.jobs: dict[Future, tuple[Step, object]] = {}  # the step and Ray's reference to its task
        self.queried = (-math.inf, {})  # when the cluster was last queried, and its resources

    def __enter__(self):
        self.ray = connect(self.address, self.limit)
        self.shares = open_shares(self.store)
        self.lock = FileLock(self.shares / LOCK)  # a node that can acquire it too has a file system without working locks
        self.lock.acquire()
        self.task = self.ray.remote(max_retries=0, num_cpus=1)(work)  # the scheduler retries
        return self

    def __exit__(self, *error):
        self.ray.shutdown()
        self.lock.release()
        for path in sorted(self.shares.iterdir()):
            path.unlink()
        self.shares.rmdir()

    @property
    def resources(self) -> dict[str, float]:
        """Return the cluster's current resources; nodes may join and leave."""
        if time.monotonic() - self.queried[0] > LOOK:
            self.queried = time.monotonic(), self.ray.cluster_resources()
        return self.queried[1]

    @property
    def workers(self) -> int:
        """Return how many steps can run at a time."""
        slots = max(1, int(self.resources.get("CPU", 1)))
        return slots if self.limit is None else max(1, min(slots, self.limit))

    @property
    def window(self) -> int:
        """Return how many steps to submit at a time."""
        return self.workers if self.limit is not None else AHEAD * self.workers

    def submit(self, step: Step) -> Future:
        """Return the future of a step, given to Ray."""
        gpus = gpu_share(step) if self.resources.get("GPU") else 0
        task = self.task.options(num_gpus=gpus, name=step.label)
        ref = task.remote(step, self.store, self.shares, self.logs, self.tracker)
        future = ref.future()
        self.jobs[future] = step, ref
        return future

    def outcome(self, future: Future):
        """Return the outcome of a step; see LocalEngine.outcome."""
        from ray import exceptions as ray

        step, _ = self.jobs.pop(future)
        error = future.exception()
        if error is None:
            return "killed" if future.result() == "stopped" and not self.stopping else future.result()
        if isinstance(error, ray.NodeDiedError):  # not the step's fault: submitted again without a limit
            return "busy"
        if isinstance(error, (ray.WorkerCrashedError, ray.OutOfMemoryError, ray.LocalRayletDiedError)):
            return "killed"
        if isinstance(error, ray.TaskCancelledError):
            return "stopped"
        return Failure(step, f"Ray could not run it: {str(error).strip().splitlines()[-1]}", str(error), bad_input=False)

    def stop(self) -> None:
        """Ask every worker to stop at its next safe point and cancel steps that have not begun. A second call kills them."""
        if self.stopping:
            self.deadline = 0.0
            return
        self.stopping, self.deadline = True, time.monotonic() + GRACE

        def cancel_waiting() -> None:  # in a thread: Ray takes locks, and a signal handler may not
            (self.shares / STOP).touch()
            for step, ref in list(self.jobs.values()):
                if not (self.shares / step.digest).exists():
                    with contextlib.suppress(Exception):  # it has ended
                        self.ray.cancel(ref)

        threading.Thread(target=cancel_waiting, daemon=True).start()

    def kill(self) -> None:
        """Kill every task now. Finished steps are in the store."""
        for _, ref in list(self.jobs.values()):
            with contextlib.suppress(Exception):  # it has ended
                self.ray.cancel(ref, force=True)


def gpu_share(step: Step) -> float:
    """Return the share of a GPU that a step takes, in eighths: small students share one, BERT-Base has its own."""
    if step.stage in ON_CPU:
        return 0.0
    size = Size.parse(step.settings["size"]) if "size" in step.settings else None
    return min(8, math.ceil(8 * size.layers * size.hidden / WHOLE_GPU)) / 8 if size else 1 / 8


def connect(address: str | None, workers: int | None):
    """Return the module `ray`, connected to the Ray at `address`, or to one started here. Raises RunError."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")  # with Ray's 15 a study would starve beside any other process
    if address is None or address.startswith(("127.", "localhost")):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # the only switch that keeps Ray's sockets on loopback
    try:
        import ray
    except ImportError:
        raise RunError("Ray is not installed; get it with: pip install -e '.[cluster]'", True) from None
    if ray.is_initialized():
        raise RunError("this process is connected to a Ray already; call ray.shutdown() first", True)
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if address is None:
        try:
            ray.init(address="local", num_cpus=workers or os.cpu_count(), object_store_memory=OBJECTS, **quiet)
        except Exception as error:  # Ray raises no narrower class; it waits 30 seconds for its start
            ray.shutdown()
            reason = str(error).strip().splitlines()[0]
            message = "Ray could not be started here; on a busy machine try again, or use the local engine"
            raise RunError(f"{message} ({reason})", False) from None
        return ray
    message = f"no Ray answers at {address}; start one there with `ray start --head`, or leave --address out to start one here"
    try:
        if address != "auto":  # Ray itself would wait for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), ANSWER).close()
        ray.init(address=address, **{k: v for k, v in quiet.items() if k != "include_dashboard"})
    except (OSError, ValueError, RuntimeError) as error:
        raise RunError(f"{message} ({str(error).strip().splitlines()[0]})", True) from None
    return ray


# Functions that run on the nodes


def work(step: Step, store: Store, shares: Path, logs: Path | None, tracker: str | None) -> "str | Failure":
    """Compute one step on a node and return its outcome; see worker.compute."""
    problem = store_problem(shares) or code_problem(step)
    if problem:
        return Failure(step, f"node {socket.gethostname()}: {problem}", "", bad_input=True)
    (shares / step.digest).touch()
    set_stop_check(_stop_check(shares))
    try:
        return compute(step, store, shares, logs, tracker)
    finally:
        (shares / step.digest).unlink(missing_ok=True)


@lru_cache(maxsize=8)
def store_problem(shares: Path) -> str | None:
    """Return why this node cannot share the driver's store, or None. Checked once a process."""
    if not shares.is_dir():
        return f"it does not see {shares.parent.parent}; set PDSTUDY_OUTPUTS to a folder that every node shares"
    try:
        with FileLock(shares / LOCK, timeout=0):
            return f"the file system of {shares.parent.parent} does not hold locks between nodes; mount it with them (NFS 4; Lustre: flock)"
    except Timeout:
        return None


def code_problem(step: Step) -> str | None:
    """Return a message where this node's pdstudy gives the step another digest than the driver's, else None."""
    rebuilt = replace(step)  # without the digest, which came with the step
    return None if rebuilt.digest == step.digest else "another version of pdstudy; install the same on every node"


def _stop_check(shares: Path) -> Callable[[], bool]:
    """Return a function that says whether the driver asked for a stop; it looks at most once a second."""
    last = [-math.inf, False]

    def stop_asked() -> bool:
        if time.monotonic() - last[0] > 1:
            last[:] = time.monotonic(), (shares / STOP).exists()
        return last[1]

    return stop_asked
