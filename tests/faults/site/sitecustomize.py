"""Read by every Python that a fault test starts, workers and kernels too: the small task, and the fault that is asked for.

The faults are real: a process that kills itself with SIGKILL, sleeps through a request to stop, or raises.
PDSTUDY_FAULT is "<what> <stage>"; with PDSTUDY_FAULT_ONCE, a path, it strikes in one process only, which writes that file.
PDSTUDY_GRACE is how many seconds a step has that is asked to stop.
"""

import os
import signal
import socket
import time

from pdstudy.data import tasks
from pdstudy.storage import store

WHEEL = tasks.Wheel(
    package="small-texts", version="1.0", file="small_texts/texts.csv", sha256=os.environ.get("PDSTUDY_SMALL_SHA256", "")
)
LABELS = tuple(os.environ.get("PDSTUDY_SMALL_LABELS", "bad\ngood").split("\n"))
tasks.TASKS[os.environ.get("PDSTUDY_SMALL_TASK", "small")] = tasks.Task(
    name="small", title=f"is it {LABELS[0]} or {LABELS[1]}?", source=WHEEL, labels=LABELS,
    labelled=f"snippets, {LABELS[1]}", transfer="sentences", corpus="reviews",
)  # fmt: skip


def strikes(here: str, stage: str) -> bool:
    """Return whether the fault that is asked for happens here and now."""
    if os.environ.get("PDSTUDY_FAULT") != f"{here} {stage}":
        return False
    once = os.environ.get("PDSTUDY_FAULT_ONCE")
    if once is None:
        return True
    try:
        os.close(os.open(once, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


write, seal, set_aside = store.Store.write, store.seal, store.Store.set_aside


def faulty_write(self, stage, digest, fill):
    if strikes("die in", stage):
        die()
    if strikes("raise in", stage):
        raise RuntimeError("the shelf fell down")
    if strikes("sleep in", stage):
        time.sleep(300)
    if strikes("lose the number in", stage):
        from pdstudy.models import fused_loss

        fused_loss.mlm_loss = lambda hidden, weight, bias, pieces: hidden.sum() * float("nan")
    place = write(self, stage, digest, fill)
    if strikes("die after", stage):
        die()
    return place


def faulty_seal(folder, record):
    if strikes("die before the manifest of", record.get("stage", "checkpoint")):
        die()
    seal(folder, record)
    if strikes("die after the manifest of", record.get("stage", "checkpoint")):
        die()


def faulty_set_aside(self, folder):
    set_aside(self, folder)
    if strikes("die while replacing", folder.parent.name):
        die()


store.Store.write, store.seal, store.Store.set_aside = faulty_write, faulty_seal, faulty_set_aside

if os.environ.get("PDSTUDY_GRACE"):
    from pdstudy.run import engine_local

    engine_local.GRACE = float(os.environ["PDSTUDY_GRACE"])

if os.environ.get("PDSTUDY_OFFLINE"):  # whoever asks for more than this machine leaves a note and gets an error
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def note(address) -> None:
        with open(os.environ["PDSTUDY_OFFLINE"], "a") as file:  # noqa: PTH123
            file.write(f"{address}\n")

    def local_connect(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            note(address)
            raise OSError("the network is blocked")
        return connect(self, address)

    def local_resolve(host, *more, **named):
        if host not in (None, "", "127.0.0.1", "::1", "localhost", socket.gethostname()):
            note(host)
            raise socket.gaierror("the network is blocked")
        return resolve(host, *more, **named)

    socket.socket.connect, socket.getaddrinfo = local_connect, local_resolve
