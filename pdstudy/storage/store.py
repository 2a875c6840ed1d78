"""The store: artifacts by digest, atomic, verified, locked; and checkpoints of the long ones.

An artifact is a folder. It is written beside its place, every file flushed to disk, its manifest (sizes and
sha256) last, then moved in one rename: whoever reads sees all of it or nothing. A folder whose manifest
does not hold is moved aside and the step is done again. Locks are flock's, which the kernel drops when
their holder dies, so a killed run never needs unlocking.
"""

import contextlib
import errno
import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pdstudy.storage import paths
from pdstudy.storage.files import NoRoom, flush, is_full, is_inside, sha256

MANIFEST = "manifest.json"
LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)  # of file systems that have no flock
log = logging.getLogger("pdstudy")


class StoreError(OSError):
    """Raised when the store cannot be written or an artifact is not there; the message names the place."""


class Store:
    """Artifacts under `root/<stage>/<digest>/`, and read-only families that may hold some of them."""

    def __init__(self, root: Path = paths.STORE, families: tuple[Path, ...] = (paths.ZOO,)):
        self.root = Path(root)
        self.families = families

    def here(self) -> set[str]:
        """Return the digests of all artifacts, without reading them."""
        own = {p.parent.name for p in self.root.glob(f"*/*/{MANIFEST}")}
        return own | set(_family(self.families))

    def released(self) -> set[str]:
        """Return the digests that a released family holds."""
        return set(_family(self.families))

    def released_folders(self) -> list[Path]:
        """Return the folders of the released families' artifacts."""
        return list(_family(self.families).values())

    def find(self, digest: str) -> Path | None:
        """Return the artifact's verified folder, or None. A damaged one is moved aside, so that it is made again."""
        folder = self._own(digest)
        if folder is not None:
            problem = damage(folder, digest) if is_inside(folder, self.root) else "it leads out of the store"
            if problem is None:
                return folder
            log.warning("%s of %s: %s; it will be made again", digest, folder.parent.name, problem)
            self.set_aside(folder)
        given = _family(self.families).get(digest)
        if given is not None:
            if problem := damage(given):
                raise StoreError(f"{given}: {problem}; restore it with git, or run with --from-scratch")
            return given
        return None

    def open(self, digest: str) -> Path:
        """Return the artifact's verified folder. Raises StoreError when it is not there."""
        folder = self.find(digest)
        if folder is None:
            raise StoreError(f"artifact {digest} is not in the store; run the study first")
        return folder

    def manifest(self, digest: str) -> dict[str, Any]:
        """Return what the artifact's maker recorded: stage, label, settings, parents, versions, seconds."""
        folder = self._own(digest) or _family(self.families).get(digest)
        if folder is None:
            raise StoreError(f"artifact {digest} is not in the store; run the study first")
        try:
            return json.loads((folder / MANIFEST).read_text())
        except (OSError, ValueError):
            raise StoreError(f"{folder}: its manifest is unreadable; run: python -m pdstudy doctor --repair") from None

    def _own(self, digest: str) -> Path | None:
        return next((p.parent for p in self.root.glob(f"*/{digest}/{MANIFEST}")), None)

    def set_aside(self, folder: Path) -> None:
        """Move a damaged folder out of the way."""
        with contextlib.suppress(FileNotFoundError):
            folder.replace(folder.with_name(f".damaged-{folder.name}-{uuid.uuid4().hex[:8]}"))

    def write(self, stage: str, digest: str, fill: Callable[[Path], dict[str, Any]]) -> Path:
        """Return the artifact's folder after `fill` has written its files; what `fill` returns joins the manifest."""
        place = self.root / stage / digest
        place.parent.mkdir(parents=True, exist_ok=True)
        if not is_inside(place, self.root):
            raise StoreError(f"{place.parent} leads out of the store; remove the link, or move all with PDSTUDY_OUTPUTS")
        _sweep(place.parent, f".new-{digest}-*")
        folder = place.with_name(f".new-{digest}-{uuid.uuid4().hex[:8]}")
        folder.mkdir()
        try:
            record = fill(folder)
            seal(folder, {"stage": stage, "digest": digest} | record)
            if place.exists():  # a damaged or unfinished folder of that name
                self.set_aside(place)
            folder.replace(place)
        except Exception as error:
            if is_full(error):
                raise NoRoom(self.root) from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return place

    @contextlib.contextmanager
    def lock(self, digest: str, wait: bool = True) -> Iterator[bool]:
        """Hold the step's lock, or yield False when another living process holds it and `wait` is false."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{digest}.lock", timeout=-1 if wait else 0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in LOCKLESS:
                raise
            raise StoreError(
                f"{folder}: this file system gives no locks ({error.strerror if isinstance(error, OSError) else error}); set PDSTUDY_OUTPUTS to a folder on a disk of "
                "this machine"
            ) from None
        try:
            yield True
        finally:
            lock.release()

    def checkpoints(self, digest: str) -> "Checkpoints":
        """Return the checkpoints of an unfinished step."""
        return Checkpoints(self.root / "work" / digest)


class Checkpoints:
    """The newest two states of an unfinished step, each a sealed folder named by its number of steps."""

    def __init__(self, root: Path, keep: int = 2):
        self.root, self.keep = root, keep

    def save(self, step: int, fill: Callable[[Path], None]) -> None:
        """Write the state after `step` steps, then drop those that are too old."""
        self.root.mkdir(parents=True, exist_ok=True)
        _sweep(self.root, ".new-*")
        folder = self.root / f".new-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        try:
            fill(folder)
            seal(folder, {"step": step})
            folder.replace(self.root / f"{step:09d}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        for old in self._folders()[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)

    def newest(self, warn: Callable[[str], None] = lambda text: None) -> tuple[int, Path] | None:
        """Return (step, folder) of the newest state that verifies, or None to begin at step 0. Broken ones are removed."""
        for folder in self._folders():
            problem = damage(folder)
            if problem is None:
                return int(folder.name), folder
            warn(f"checkpoint {int(folder.name)}: {problem}; trying the one before")
            shutil.rmtree(folder, ignore_errors=True)  # its step will be saved anew, and it must not count as one of two
        return None

    def drop(self) -> None:
        """Remove all states: the step is finished."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _folders(self) -> list[Path]:
        found = self.root.glob("[0-9]*") if self.root.is_dir() else ()
        return sorted((f for f in found if f.is_dir()), reverse=True)


def seal(folder: Path, record: dict[str, Any]) -> None:
    """Write a folder's manifest, last, and flush every file of it to disk."""
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    files = {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in found}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps(record | {"files": files}, indent=1, sort_keys=True) + "\n")
    flush(*found, manifest)


def damage(folder: Path, digest: str | None = None) -> str | None:
    """Return what is wrong with a sealed folder, or None when every file and its identity are as its manifest says.

    `digest` is the artifact that is expected there, where that is known.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        wanted = {name: (file["bytes"], file["sha256"]) for name, file in manifest["files"].items()}
        made = manifest.get("digest")
        if digest is not None and made != digest:
            return f"its manifest is that of artifact {made}"
        if "version" in manifest and made != identity(*(manifest[k] for k in ("stage", "version", "settings", "parents"))):
            return "its manifest's stage, settings and parents do not give its digest"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest is missing or unreadable"
    for name, (size, sha) in wanted.items():
        path = folder / name
        if "\0" in name or not path.is_file() or path.stat().st_size != size:
            return f"{name} is missing or has another size than its manifest says"
        if not is_inside(path, folder):
            return f"{name} leads out of the artifact"
        if sha256(path) != sha:
            return f"{name} differs from its manifest's sha256"
    return None


def identity(stage: str, version: int, settings: dict[str, Any], parents: dict[str, str]) -> str:
    """Return the digest of what a step is: 16 hexadecimal digits."""
    record = {"stage": stage, "version": version, "settings": settings, "parents": parents}
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sweep(folder: Path, pattern: str) -> None:
    """Remove what a killed maker left behind. Whoever writes holds the step's lock, so no living one is at it."""
    for left in folder.glob(pattern):
        shutil.rmtree(left, ignore_errors=True)


@lru_cache(maxsize=8)
def _family(families: tuple[Path, ...]) -> dict[str, Path]:
    """Return the artifacts that released families hold, by digest."""
    found = {}
    for family in families:
        for manifest in sorted(Path(family).glob("*/manifest.json")):
            try:
                found[json.loads(manifest.read_text())["digest"]] = manifest.parent
            except (OSError, ValueError, KeyError, TypeError):
                raise StoreError(f"{manifest}: unreadable; restore it with git, or run with --from-scratch") from None
    return found
