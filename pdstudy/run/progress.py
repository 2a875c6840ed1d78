"""How work that takes time speaks: one line in a terminal, one display kept up to date in a notebook, errors that are a sentence."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from pdstudy.escape import visible

SHOWN = 8  # running steps that a line names
NAMED = 2  # running steps that a stage names
EVERY = 1.0  # seconds between updates of a notebook's display: each is a message to the browser
WIDTH = 20  # characters of a bar


class Told(RuntimeError):
    """An error whose message says all: a notebook shows that sentence and no traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython looks for this name
        return [visible(f"{type(self).__name__}: {self}")]


@dataclass(frozen=True)
class Stage:
    """One stage of a run: its steps, how many of them are done, the labels of those that are running."""

    name: str
    total: int
    done: int = 0
    running: tuple[str, ...] = ()


@dataclass
class Progress:
    """What is done, told to whoever listens: counts, the running steps' labels, the seconds left."""

    total: int
    done: int = 0
    running: tuple[str, ...] = ()
    seconds_left: float = 0.0
    share: float = 0.0  # of the work, by estimated cost
    stages: tuple[Stage, ...] = ()
    stopping: bool = False  # it was asked to stop, and waits for the running steps' next safe point

    @property
    def over(self) -> bool:
        """Return whether nothing more will be done."""
        return self.share == 1.0 and not self.running


def line(progress: Progress) -> str:
    """Return a progress line: steps done, what is running, time left."""
    if progress.total == 0:
        return "nothing to compute: every step is in the store"
    if progress.over or progress.stopping:
        return _head(progress)
    return f"{_head(progress)}; now {_names(progress.running, SHOWN) or 'starting'}"


def block(progress: Progress) -> str:
    """Return the line without names, and under it one line a stage: a bar, steps done, what is running."""
    if progress.stopping and not progress.running:
        return _head(progress)
    wide = max(len(stage.name) for stage in progress.stages)
    rows = [
        f"{s.name:<{wide}}  {_bar(s.done / s.total)}  {f'{s.done} of {s.total}':<10}  {_names(s.running, NAMED)}".rstrip()
        for s in progress.stages
    ]
    return "\n".join([_head(progress), *rows])


def in_notebook() -> Callable[[Progress], None]:
    """Return a listener that keeps one display up to date in a notebook, and does nothing elsewhere."""
    update = _display("looking at what is there already")
    begun, last = time.monotonic(), [0.0]

    def show(progress: Progress) -> None:
        now = time.monotonic()
        if progress.over:
            update(line(progress) + (f" in {_clock(now - begun)}" if progress.total else ""))
        elif progress.stages and (progress.stopping or now - last[0] > EVERY):
            last[0] = now
            update(block(progress))

    return show


def of(what: str) -> Callable[[float], None]:
    """Return a listener to the share, 0 to 1, of one thing that is done; in a notebook it keeps one line up to date."""
    update = _display(f"{what}  {_bar(0)}")
    begun, last = time.monotonic(), [0.0]

    def show(share: float) -> None:
        now = time.monotonic()
        if share >= 1:
            update(f"{what}: done in {_clock(now - begun)}")
        elif now - last[0] > EVERY:
            last[0] = now
            update(f"{what}  {_bar(share)}  about {_clock((now - begun) * (1 - share) / share)} left")

    return show


def _display(text: str) -> Callable[[str], None]:
    """Return what replaces a text that is now displayed in a notebook; elsewhere nothing is."""
    shell = sys.modules.get("IPython")
    if shell is None or getattr(shell.get_ipython(), "kernel", None) is None:
        return lambda text: None
    from IPython.display import display

    handle = display({"text/plain": text}, raw=True, display_id=True)
    return lambda text: handle.update({"text/plain": text}, raw=True)


def _head(progress: Progress) -> str:
    """Return the steps done, and how it stands with the others."""
    done = f"{progress.done} of {progress.total} steps"
    if progress.stopping:
        waits = f"waiting for {len(progress.running)} to reach a safe point" if progress.running else "stopped"
        return f"{done}; {waits}"
    return f"{done} done" if progress.over else f"{done}, about {_clock(progress.seconds_left)} left"


def _names(labels: tuple[str, ...], n: int) -> str:
    return ", ".join([*labels[:n], *([f"{len(labels) - n} more"] if len(labels) > n else [])])


def _bar(share: float) -> str:
    full = int(share * WIDTH)
    return "█" * full + "·" * (WIDTH - full)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"
