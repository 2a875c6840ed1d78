"""Atomic file writes, folders that stay inside their root, checksums, and the message for a full disk."""

import contextlib
import errno
import filecmp
import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Libraries that write in Rust or C keep only the message: safetensors "(os error 28)", numpy "8 requested and 0 written".
FULL_WORDS = re.compile(
    rf"os error ({'|'.join(map(str, FULL))})\b|\d+ requested and \d+ written|[Nn]o space left|[Qq]uota exceeded"
)


class DiskFull(OSError):
    """Raised when a disk is full. `free` is the number of free bytes before the incomplete file is removed."""

    def __init__(self, place: Path):
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
        self.free = shutil.disk_usage(place).free


@contextlib.contextmanager
def atomic_write(path: Path, keep_same: bool = False) -> Iterator[Path]:
    """Yield a path beside `path` to write to, then rename it to `path`; on any error remove it.

    A reader of `path` sees the old file or the new one, and a full disk leaves the old one unchanged. With `keep_same` a file
    with the same bytes is not replaced, so that its date says when its content last changed.
    """
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        yield new
        if keep_same and path.is_file() and filecmp.cmp(new, path, shallow=False):
            return
        flush(new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(place: Path) -> Iterator[Path]:
    """Yield a new folder beside `place`, then rename it to `place`; on any error remove it. A folder that was there is replaced."""
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.new")
    old = new.with_suffix(".old")
    new.mkdir()
    try:
        yield new
        if place.exists():  # renamed first and removed last, so that one of the two is always there
            place.replace(old)
        new.replace(place)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def writable(folder: Path) -> bool:
    """Return whether a file can be created in a folder. It creates one, because permissions do not reveal a read-only disk."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def flush(*files: Path) -> None:
    """Flush files to disk, in parallel, so that the file system commits its journal once for all of them.

    Folders are not flushed. After a power cut the newest artifacts may be missing and are computed again; an incomplete
    one is not used, because every file is verified when it is read.
    """
    if len(files) == 1:
        _flush(files[0])
    elif files:
        with ThreadPoolExecutor(min(len(files), 8)) as pool:
            list(pool.map(_flush, files))


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error or one of its causes means that the disk or a quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if not isinstance(error, ValueError) and FULL_WORDS.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def full_disk_message(place: Path, needed: int | None = None, error: BaseException | None = None) -> str:
    """Return the message for a full disk: which folder, how many bytes are free and needed, and what to do."""
    free = error.free if isinstance(error, DiskFull) else shutil.disk_usage(place).free
    more = f"; about {needed:,} bytes are needed" if needed else ""
    return (
        f"no room to write in {place}: {free:,} bytes are free{more}. "
        "Free some, or set PDSTUDY_OUTPUTS to a larger disk and move the store there; the same command then goes on"
    )


def is_inside(place: Path, root: Path) -> bool:
    """Return whether `place` is in `root` after resolving links."""
    return place.resolve().is_relative_to(root.resolve())


def outside_link(places: Iterable[Path], root: Path) -> Path | None:
    """Return the first of `places` that is a link out of `root`, or None."""
    return next((p for p in places if p.is_symlink() and not is_inside(p, root)), None)


def n_bytes(folder: Path) -> int:
    """Return the total size of the files in a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def sha256(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal. It is cached until the file changes."""
    stat = path.stat()
    return _sha256(str(path), stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)


@lru_cache(maxsize=4096)
def _sha256(path: str, *state: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
