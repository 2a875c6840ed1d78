"""Care of the store: what lies in it by stage, what does not verify, what no study needs.

A run may be at work in the same store. What belongs to a step is removed only with that step's lock in hand, so
nothing is taken from under a living maker; a dead one holds no lock.
"""

import os
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from pdstudy.storage.files import n_bytes
from pdstudy.storage.store import Store, StoreError, damage

NOT_STAGES = ("locks", "work")
DIGEST = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Finding:
    """A folder that does not verify, or that nobody will finish, and why."""

    folder: Path
    reason: str
    n_bytes: int

    @property
    def name(self) -> str:
        """Return the folder's name in the store, stage/digest."""
        return f"{self.folder.parent.name}/{self.folder.name}"


def census(store: Store) -> list[tuple[str, int, int]]:
    """Return (stage, artifacts, bytes) of every stage in the store, and "unfinished" for what is under work."""
    rows = [(stage.name, len(found := _artifacts(stage)), sum(map(n_bytes, found))) for stage in _stages(store)]
    unfinished = _folders(store.root / "work")
    return rows + ([("unfinished", len(unfinished), sum(map(n_bytes, unfinished)))] if unfinished else [])


def examine(store: Store) -> list[Finding]:
    """Return every artifact that does not verify and every leftover of a killed maker, reading every file."""
    found = []
    for stage in _stages(store):
        for folder in _folders(stage):
            if folder.name.startswith(".damaged-"):
                reason = "set aside as damaged"
            elif folder.name.startswith("."):
                reason = "left by a maker that was killed"
            else:
                reason = damage(folder, folder.name)
            if reason and not _held(folder, store):
                found.append(Finding(folder, reason, n_bytes(folder)))
    return found


def ill_released(store: Store) -> list[str]:
    """Return a sentence for every released artifact that does not verify; those are restored, not dropped."""
    try:
        return [f"{folder}: {problem}" for folder in store.released_folders() if (problem := damage(folder))]
    except StoreError as error:
        return [str(error)]


def surplus(store: Store, wanted: set[str]) -> list[Finding]:
    """Return what `wanted` does not name: artifacts, unfinished steps, what was set aside."""
    found = []
    for folder in [f for stage in _stages(store) for f in _folders(stage)] + _folders(store.root / "work"):
        if folder.name not in wanted and not _held(folder, store):
            found.append(Finding(folder, "no kept study needs it", n_bytes(folder)))
    return found


def drop(finding: Finding, store: Store) -> bool:
    """Remove a folder and return True, or False where a living run has taken it up meanwhile."""
    digest = DIGEST.search(finding.folder.name)
    if digest is None:
        _remove(finding.folder)
        return True
    with store.lock(digest[0], wait=False) as mine:
        if mine:
            _remove(finding.folder)
        return mine


def _held(folder: Path, store: Store) -> bool:
    """Return whether a living run is at work in a folder."""
    if folder.name.startswith("progress-"):
        host, _, pid = folder.name.removeprefix("progress-").rpartition("-")
        return host != socket.gethostname() or _lives(int(pid))
    digest = DIGEST.search(folder.name)
    if digest is None or not (store.root / "locks" / f"{digest[0]}.lock").exists():
        return False
    with store.lock(digest[0], wait=False) as mine:
        return not mine


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # asks only
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)


def _stages(store: Store) -> list[Path]:
    return [folder for folder in _folders(store.root) if folder.name not in NOT_STAGES]


def _folders(place: Path) -> list[Path]:
    return sorted(p for p in place.iterdir() if p.is_dir()) if place.is_dir() else []


def _artifacts(stage: Path) -> list[Path]:
    return [p for p in _folders(stage) if not p.name.startswith(".")]
