"""Progress of long work: one line in a terminal, one display in a notebook; and errors without a traceback."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from pdstudy.escape import escape_control

IN_LINE = 8  # running steps named in a line
IN_STAGE = 2  # running steps named for a stage
EVERY = 1.0  # seconds between updates of a notebook's display, which are messages to the browser
WIDTH = 20  # characters of a bar


class PlainError(RuntimeError):
    """An error that a notebook displays without its traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython calls this
        return [escape_control(f"{type(self).__name__}: {self}")]


@dataclass(frozen=True)
class Stage:
    """One stage of a run: its steps, how many of them are done, the labels of those that are running."""

    name: str
    total: int
    done: int = 0
    running: tuple[str, ...] = ()


@dataclass
class Progress:
    """The state of a run, passed to its listener: counts, labels of running steps, seconds left."""

    total: int
    done: int = 0
    running: tuple[str, ...] = ()
    seconds_left: float = 0.0
    share: float = 0.0  # of the work, by estimated cost
    stages: tuple[Stage, ...] = ()
    stopping: bool = False  # a stop was requested; running steps continue to their next safe point

    @property
    def over(self) -> bool:
        """Return whether the run has ended."""
        return self.share == 1.0 and not self.running


def line(progress: Progress) -> str:
    """Return a progress line: steps done, time left, running steps."""
    if progress.total == 0:
        return "nothing to compute: every step is in the store"
    if progress.over or progress.stopping:
        return _head(progress)
    return f"{_head(progress)}; now {_names(progress.running, IN_LINE) or 'starting'}"


def block(progress: Progress) -> str:
    """Return the progress line without running steps, and one line per stage: a bar, steps done, running steps."""
    if progress.stopping and not progress.running:
        return _head(progress)
    width = max(len(stage.name) for stage in progress.stages)
    rows = [
        f"{s.name:<{width}}  {_bar(s.done / s.total)}  {f'{s.done} of {s.total}':<10}  {_names(s.running, IN_STAGE)}".rstrip()
        for s in progress.stages
    ]
    return "\n".join([_head(progress), *rows])


def notebook_listener() -> Callable[[Progress], None]:
    """Return a listener that updates one display in a notebook and does nothing elsewhere."""
    update = _display("checking which steps are in the store")
    begun, last = time.monotonic(), [0.0]

    def show(progress: Progress) -> None:
        now = time.monotonic()
        if progress.over:
            update(line(progress) + (f" in {_clock(now - begun)}" if progress.total else ""))
        elif progress.stages and (progress.stopping or now - last[0] > EVERY):
            last[0] = now
            update(block(progress))

    return show


def of(name: str) -> Callable[[float], None]:
    """Return a listener to the share, 0 to 1, of one task; in a notebook it updates one line."""
    update = _display(f"{name}  {_bar(0)}")
    begun, last = time.monotonic(), [0.0]

    def show(share: float) -> None:
        now = time.monotonic()
        if share >= 1:
            update(f"{name}: done in {_clock(now - begun)}")
        elif now - last[0] > EVERY:
            last[0] = now
            update(f"{name}  {_bar(share)}  about {_clock((now - begun) * (1 - share) / share)} left")

    return show


def _display(text: str) -> Callable[[str], None]:
    """Display a text in a notebook and return a function that replaces it; do nothing elsewhere."""
    shell = sys.modules.get("IPython")
    if shell is None or getattr(shell.get_ipython(), "kernel", None) is None:
        return lambda text: None
    from IPython.display import display

    handle = display({"text/plain": text}, raw=True, display_id=True)
    return lambda text: handle.update({"text/plain": text}, raw=True)


def _head(progress: Progress) -> str:
    """Return the steps done, and the time left or the state of a stop."""
    done = f"{progress.done} of {progress.total} steps"
    if progress.stopping:
        state = f"waiting for {len(progress.running)} to reach a safe point" if progress.running else "stopped"
        return f"{done}; {state}"
    return f"{done} done" if progress.over else f"{done}, about {_clock(progress.seconds_left)} left"


def _names(labels: tuple[str, ...], n: int) -> str:
    return ", ".join([*labels[:n], *([f"{len(labels) - n} more"] if len(labels) > n else [])])


def _bar(share: float) -> str:
    n = int(share * WIDTH)
    return "█" * n + "·" * (WIDTH - n)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"
