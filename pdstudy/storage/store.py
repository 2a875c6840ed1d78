"""The store: artifacts by digest, and checkpoints of unfinished steps. Writes are atomic, reads are verified, steps are locked.

An artifact is a folder. Its files are written to a temporary folder and flushed to disk, the manifest (sizes and sha256) last;
then the folder is renamed, so a reader never sees an incomplete artifact. A folder that does not match its manifest is moved
aside, and the step is computed again. Locks use flock: the kernel releases them when a process dies.
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
from pdstudy.storage.files import DiskFull, flush, is_disk_full, is_inside, sha256

MANIFEST = "manifest.json"
LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)  # of file systems that have no flock
log = logging.getLogger("pdstudy")


class StoreError(OSError):
    """Raised when the store cannot be written or an artifact is missing; the message names the folder."""


class Store:
    """Artifacts under `root/<stage>/<digest>/` and in read-only released families."""

    def __init__(self, root: Path = paths.STORE, families: tuple[Path, ...] = (paths.ZOO,)):
        self.root = Path(root)
        self.families = families

    def digests(self) -> set[str]:
        """Return the digests of all artifacts, without verifying them."""
        return {p.parent.name for p in self.root.glob(f"*/*/{MANIFEST}")} | self.released()

    def released(self) -> set[str]:
        """Return the digests of the artifacts in released families."""
        return set(_released_folders(self.families))

    def released_folders(self) -> list[Path]:
        """Return the folders of the artifacts in released families."""
        return list(_released_folders(self.families).values())

    def find(self, digest: str) -> Path | None:
        """Return the folder of an artifact after verifying it, or None. A damaged one is set aside, so that it is computed again."""
        folder = self._own_folder(digest)
        if folder is not None:
            problem = damage(folder, digest) if is_inside(folder, self.root) else "it is a link out of the store"
            if problem is None:
                return folder
            log.warning("%s of %s: %s; it will be computed again", digest, folder.parent.name, problem)
            self.set_aside(folder)
        released = _released_folders(self.families).get(digest)
        if released is not None and (problem := damage(released)):
            raise StoreError(f"{released}: {problem}; {paths.RESTORE}, or run with --from-scratch")
        return released

    def open(self, digest: str) -> Path:
        """Return the folder of an artifact after verifying it. Raises StoreError if it is missing."""
        folder = self.find(digest)
        if folder is None:
            raise StoreError(f"artifact {digest} is not in the store; run the study first")
        return folder

    def manifest(self, digest: str) -> dict[str, Any]:
        """Return the manifest of an artifact: stage, label, settings, parents, versions, seconds. Raises StoreError."""
        folder = self._own_folder(digest) or _released_folders(self.families).get(digest)
        if folder is None:
            raise StoreError(f"artifact {digest} is not in the store; run the study first")
        try:
            return json.loads((folder / MANIFEST).read_text())
        except (OSError, ValueError):
            raise StoreError(f"{folder}: its manifest is unreadable; run: python -m pdstudy doctor --repair") from None

    def _own_folder(self, digest: str) -> Path | None:
        stages = self.root.iterdir() if self.root.is_dir() else ()
        return next((stage / digest for stage in stages if (stage / digest / MANIFEST).is_file()), None)

    def set_aside(self, folder: Path) -> None:
        """Rename a damaged folder, so that its name is free."""
        with contextlib.suppress(FileNotFoundError):
            folder.replace(folder.with_name(f".damaged-{folder.name}-{uuid.uuid4().hex[:8]}"))

    def write(self, stage: str, digest: str, fill: Callable[[Path], dict[str, Any]]) -> Path:
        """Return the folder of a new artifact. `fill` writes its files and returns what is added to the manifest."""
        artifact = self.root / stage / digest
        if not is_inside(artifact, self.root):
            raise StoreError(f"{artifact.parent} is a link out of the store; remove the link, or move all with PDSTUDY_OUTPUTS")
        with _new_folder(artifact.parent, f".new-{digest}-") as folder:
            try:
                record = fill(folder)
                seal(folder, {"stage": stage, "digest": digest} | record)
                if artifact.exists():  # damaged or incomplete
                    self.set_aside(artifact)
                folder.replace(artifact)
            except Exception as error:
                if is_disk_full(error):
                    raise DiskFull(self.root) from error  # counts the free bytes before the folder is removed
                raise
        return artifact

    @contextlib.contextmanager
    def lock(self, digest: str, wait: bool = True) -> Iterator[bool]:
        """Lock a step and yield True, or yield False if another process has the lock and `wait` is false."""
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
            reason = getattr(error, "strerror", error)
            raise StoreError(
                f"{folder}: this file system gives no locks ({reason}); set PDSTUDY_OUTPUTS to a folder on a disk of this machine"
            ) from None
        try:
            yield True
        finally:
            lock.release()

    def checkpoints(self, digest: str) -> "Checkpoints":
        """Return the checkpoints of an unfinished step."""
        return Checkpoints(self.root / "work" / digest)


class Checkpoints:
    """The newest two checkpoints of an unfinished step: folders with a manifest, named by the number of optimizer steps."""

    def __init__(self, root: Path):
        self.root = root

    def save(self, step: int, fill: Callable[[Path], None]) -> None:
        """Write the checkpoint after `step` optimizer steps, then remove the oldest."""
        with _new_folder(self.root, ".new-") as folder:
            fill(folder)
            seal(folder, {"step": step})
            folder.replace(self.root / f"{step:09d}")
        for old in self._folders()[2:]:
            shutil.rmtree(old, ignore_errors=True)

    def newest(self, warn: Callable[[str], None] = lambda text: None) -> tuple[int, Path] | None:
        """Return (step, folder) of the newest undamaged checkpoint, or None to start at step 0. Damaged ones are removed."""
        for folder in self._folders():
            problem = damage(folder)
            if problem is None:
                return int(folder.name), folder
            warn(f"checkpoint {int(folder.name)}: {problem}; trying the one before")
            shutil.rmtree(folder, ignore_errors=True)  # so that it does not count as one of the two newest
        return None

    def drop(self) -> None:
        """Remove all checkpoints of a finished step."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _folders(self) -> list[Path]:
        return sorted((f for f in self.root.glob("[0-9]*") if f.is_dir()), reverse=True)


def seal(folder: Path, record: dict[str, Any]) -> None:
    """Write the manifest of a folder after its other files, and flush all to disk."""
    members = sorted(p for p in folder.rglob("*") if p.is_file())
    files = {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in members}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps(record | {"files": files}, indent=1, sort_keys=True) + "\n")
    flush(*members, manifest)


def damage(folder: Path, digest: str | None = None) -> str | None:
    """Return what is wrong with a folder, or None if its files match its manifest and it is the artifact `digest` (None: any)."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = {name: (file["bytes"], file["sha256"]) for name, file in manifest["files"].items()}
        own_digest = manifest.get("digest")
        if digest is not None and own_digest != digest:
            return f"its manifest is that of artifact {own_digest}"
        if "version" in manifest and own_digest != identity(*(manifest[k] for k in ("stage", "version", "settings", "parents"))):
            return "its manifest's stage, settings and parents do not give its digest"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest is missing or unreadable"
    for name, (size, sha) in files.items():
        path = folder / name
        if "\0" in name or not path.is_file() or path.stat().st_size != size:
            return f"{name} is missing or has another size than its manifest says"
        if (path.is_symlink() or path.parent != folder) and not is_inside(path, folder):
            return f"{name} is a link out of the artifact"
        if sha256(path) != sha:
            return f"{name} differs from its manifest's sha256"
    return None


def identity(stage: str, version: int, settings: dict[str, Any], parents: dict[str, str]) -> str:
    """Return the digest of a step: 16 hexadecimal digits of the sha256 of its stage, version, settings and parents."""
    record = {"stage": stage, "version": version, "settings": settings, "parents": parents}
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def _new_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new temporary folder, which is removed afterwards unless it was renamed.

    Those of a killed process are removed first. The caller has the lock of the step, so no other process uses them.
    """
    for leftover in parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = parent / f"{prefix}{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=8)
def _released_folders(families: tuple[Path, ...]) -> dict[str, Path]:
    """Return the folders of the artifacts in released families by digest: encoders and the soft labels of teachers."""
    folders = {}
    for family in families:
        for manifest in sorted({f for depth in ("*", "*/*", "*/*/*") for f in Path(family).glob(f"{depth}/manifest.json")}):
            try:
                folders[json.loads(manifest.read_text())["digest"]] = manifest.parent
            except (OSError, ValueError, KeyError, TypeError):
                raise StoreError(f"{manifest}: unreadable; {paths.RESTORE}, or run with --from-scratch") from None
    return folders
