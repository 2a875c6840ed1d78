"""One step in a worker: how it is computed, what became of it, its log and progress, and how it learns that it should stop."""

import json
import os
import shutil
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pdstudy.run.progress import Told
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


_STOP = {"asked": lambda: False}  # how a step in this process learns that it should stop


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


def compute(
    step: Step, store: Store, shares: Path, logs: Path | None, tracker: str | None, before: Callable[[], None] = lambda: None
) -> "str | Failure":
    """Compute one step in a worker: return "done", "found" when another run has made it, "busy" when one is at it, "stopped", or a Failure."""
    import torch

    from pdstudy.models.train import Stopped, Watch
    from pdstudy.run.execute import execute

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
