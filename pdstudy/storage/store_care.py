"""Maintenance of the store: what it contains by stage, what is damaged, what no study needs.

A run may use the same store at the same time. The files of a step are removed only while its lock is held, so nothing is
removed from under a running process; a dead process holds no lock.
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
    """A folder that can be removed, the reason, and its size in bytes."""

    folder: Path
    reason: str
    n_bytes: int

    @property
    def name(self) -> str:
        """Return the name of the folder in the store, stage/digest."""
        return f"{self.folder.parent.name}/{self.folder.name}"


def count_by_stage(store: Store) -> list[tuple[str, int, int]]:
    """Return (stage, artifacts, bytes) for every stage in the store, and for "unfinished" steps if there are any."""
    artifacts = {stage.name: [f for f in _folders(stage) if not f.name.startswith(".")] for stage in _stages(store)}
    if unfinished := _folders(store.root / "work"):
        artifacts["unfinished"] = unfinished
    return [(stage, len(folders), sum(map(n_bytes, folders))) for stage, folders in artifacts.items()]


def find_damaged(store: Store) -> list[Finding]:
    """Return every damaged artifact and every leftover of a killed process. Reads every file."""
    findings = []
    for folder in (f for stage in _stages(store) for f in _folders(stage)):
        if folder.name.startswith(".damaged-"):
            reason = "set aside as damaged"
        elif folder.name.startswith("."):
            reason = "left by a process that was killed"
        else:
            reason = damage(folder, folder.name)
        if reason and not _in_use(folder, store):
            findings.append(Finding(folder, reason, n_bytes(folder)))
    return findings


def damaged_released(store: Store) -> list[str]:
    """Return a sentence for every damaged artifact of a released family. These are restored, not removed."""
    try:
        return [f"{folder}: {problem}" for folder in store.released_folders() if (problem := damage(folder))]
    except StoreError as error:
        return [str(error)]


def find_unused(store: Store, wanted: set[str]) -> list[Finding]:
    """Return the artifacts, unfinished steps and folders set aside as damaged whose digest is not in `wanted`."""
    folders = [f for stage in _stages(store) for f in _folders(stage)] + _folders(store.root / "work")
    unused = [f for f in folders if f.name not in wanted and not _in_use(f, store)]
    return [Finding(f, "no study to keep needs it", n_bytes(f)) for f in unused]


def remove(finding: Finding, store: Store) -> bool:
    """Remove a folder and return True, or return False if a running process has locked its step."""
    digest = DIGEST.search(finding.folder.name)
    if digest is None:
        _remove(finding.folder)
        return True
    with store.lock(digest[0], wait=False) as locked:
        if locked:
            _remove(finding.folder)
        return locked


def _in_use(folder: Path, store: Store) -> bool:
    """Return whether a running process works in a folder."""
    if folder.name.startswith("progress-"):
        host, _, pid = folder.name.removeprefix("progress-").rpartition("-")
        return host != socket.gethostname() or is_running(int(pid))
    digest = DIGEST.search(folder.name)
    if digest is None or not (store.root / "locks" / f"{digest[0]}.lock").exists():
        return False
    with store.lock(digest[0], wait=False) as locked:
        return not locked


def is_running(pid: int) -> bool:
    """Return whether this machine has a process of this number, also if another user owns it."""
    try:
        os.kill(pid, 0)  # signal 0 only tests whether the process exists
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
