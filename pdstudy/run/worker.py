"""One step in a worker process: its outcome, its log, its progress file, and the check whether it should stop."""

import json
import os
import shutil
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pdstudy.run.progress import PlainError
from pdstudy.storage import files, paths
from pdstudy.storage.store import Store
from pdstudy.storage.store_care import is_running
from pdstudy.study.steps import Step

GRACE = 20.0  # seconds that a step has to reach its next safe point before it is killed


class Interrupted(PlainError):
    """Raised after a request to stop. Finished steps are in the store, and long ones have saved a checkpoint."""


@dataclass
class Failure:
    """One step that failed: the reason, its log, and whether to try it again."""

    step: Step
    reason: str
    trace: str
    bad_input: bool
    log: Path | None = None
    again: bool = True
    disk_full: bool = False


def _stop_check() -> bool:  # set_stop_check replaces it
    return False


def set_stop_check(check: Callable[[], bool]) -> None:
    """Set the function that a step in this process calls to learn whether it should stop."""
    global _stop_check
    _stop_check = check


def open_shares(store: Store) -> Path:
    """Return a new folder for this run's progress files, after removing those of killed runs of this machine."""
    prefix = f"progress-{socket.gethostname()}-"
    for old in (store.root / "work").glob(f"{prefix}*"):
        if not is_running(int(old.name.removeprefix(prefix))):
            shutil.rmtree(old, ignore_errors=True)
    folder = store.root / "work" / f"{prefix}{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_share(shares: Path, digest: str) -> float:
    """Return how much of a running step is done, 0 to 1."""
    try:
        return float((shares / digest).read_text() or 0)
    except (OSError, ValueError):
        return 0.0


def log_name(step: Step) -> str:
    """Return the name of a step's log, without its suffix."""
    return f"{step.label.replace('/', '-').replace(' ', '_')}-{step.digest[:6]}"


def log_of(step: Step, logs: Path | None) -> Path | None:
    """Return the path of a step's log, if there is one."""
    path = None if logs is None else logs / f"{log_name(step)}.jsonl"
    return path if path and path.is_file() else None


def compute(
    step: Step, store: Store, shares: Path, logs: Path | None, tracker: str | None, before: Callable[[], None] = lambda: None
) -> "str | Failure":
    """Compute one step and return its outcome; `before` is called if it is really computed here.

    The outcome is "done", "found" (another run has computed it), "busy" (another run is computing it), "stopped", or a Failure.
    """
    import torch

    from pdstudy.models.train import Stopped, Watch
    from pdstudy.run.execute import execute

    # One thread with every engine: sums then have one order, and results are the same bit for bit.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    name = log_name(step)
    try:
        with store.lock(step.digest, wait=False) as acquired:
            if not acquired:
                return "busy"
            if store.find(step.digest) is not None:  # another run has computed it
                return "found"
            before()
            if logs is None:
                execute(step, store, Watch(stop=_stop_check))
                return "done"
            with (logs / f"{name}.jsonl").open("a", buffering=1) as log:
                watch = Watch(
                    log=lambda record: log.write(json.dumps(record) + "\n"),
                    progress=lambda share: (shares / step.digest).write_text(f"{share:.4f}") and None,
                    stop=_stop_check,
                    tracker=tracker,
                    tracker_folder=logs,
                    label=name,
                )
                execute(step, store, watch)
        return "done"
    except Stopped:
        return "stopped"
    except Exception as error:  # it is reported, and the other steps continue
        return _failure(step, error, store, None if logs is None else logs / f"{name}.error.txt")
    finally:
        torch.set_num_threads(threads)


def _failure(step: Step, error: Exception, store: Store, log: Path | None) -> Failure:
    """Return the Failure of an error and write its traceback to `log`. Bad input and divergence are not tried again."""
    from pdstudy.models.train import Diverged

    trace = traceback.format_exc()
    if files.is_disk_full(error):
        reason = paths.scrub(files.full_disk_message(store.root, step.room, error))
        return Failure(step, reason, trace, bad_input=False, again=False, disk_full=True)
    if log is not None:
        try:
            with files.atomic_write(log) as new:
                new.write_text(paths.scrub(trace))
        except OSError:
            log = None
    would_repeat = isinstance(error, ValueError | Diverged)
    reason = paths.scrub(f"{error}" if would_repeat else f"{type(error).__name__}: {error}")
    return Failure(step, reason, trace, isinstance(error, ValueError), log, again=not would_repeat)
