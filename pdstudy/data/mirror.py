"""What the hub's named data sets and models are on this machine: files, whole and as they were fetched. Opens no network.

A mirror is a folder of `<data>/<split>.parquet`, another of `<owner>/<name>/` with a model's files. Where hub.py filled
them, a `manifest.json` beside the files holds the revision they came from, and their sha256. A mirror that was made by
hand has none, and is taken as it is: what was read is known by its content in any case.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pdstudy.data.tasks import DATA, Named, Task
from pdstudy.storage import paths
from pdstudy.storage.files import sha256

MANIFEST = "manifest.json"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
VOCABULARIES = ("tokenizer.json", "vocab.txt")  # either will do
NAME = re.compile(r"hub:[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FETCH = "python -m pdstudy fetch PARAMS"


class MirrorError(ValueError):
    """Raised where a named data set or model is not at hand or not what was fetched; the message names the cure."""


def tables(task: Task) -> tuple[str, ...]:
    """Return the splits that a task reads, each "data/split", each once."""
    parts = task.source.parts().values() if isinstance(task.source, Named) else ()
    return tuple(dict.fromkeys(name for names in (*parts, task.reads) for name in names))


def place(table: str) -> Path:
    """Return where the mirror keeps a split, whether or not it is there."""
    return paths.DATA / f"{table}.parquet"


def table(name: str) -> Path:
    """Return the file of a split, "data/split". Raises MirrorError where it is not there, or not what was fetched."""
    path, data = place(name), DATA[name.split("/")[0]]
    if path.is_file():
        _check(path.parent, (path.name,))
        return path
    if data.hub is None:
        columns = ", ".join(data.columns)
        raise MirrorError(f"{_called(name)} is not at hand: put {name}.parquet (columns {columns}) into the folder PDSTUDY_DATA")
    raise MirrorError(
        f"{_called(name)} is not at hand: run `{FETCH}` on a machine with a network, or set PDSTUDY_DATA to a folder that holds "
        f"{name}.parquet"
    )


def _called(name: str) -> str:
    data, _, split = name.partition("/")
    whence = ", ".join(filter(None, (DATA[data].hub, DATA[data].config)))
    return f"the data set {data}" + (f" ({whence}), split {split}," if whence else f", split {split},")


def model(folder: str) -> Path:
    """Return the folder of a model, "hub:owner/name" or a path. Raises MirrorError where one of the hub is not there whole.

    A path is returned as it is: what is missing in it is named by whoever opens it.
    """
    if not folder.startswith(paths.HUB):
        return paths.expanded(folder)
    if not NAME.fullmatch(folder) or ".." in folder:
        raise MirrorError(f"{folder!r} is no model of the hub; write hub:owner/name")
    found = paths.whole(folder)
    if not all((found / name).is_file() for name in (CONFIG, WEIGHTS)):
        raise MirrorError(
            f"the model {folder.removeprefix(paths.HUB)} is not at hand: run `{FETCH}` on a machine with a network, or set "
            f"PDSTUDY_MODELS to a folder that holds {folder.removeprefix(paths.HUB)}/ with {CONFIG}, {WEIGHTS} and {VOCABULARIES[1]}"
        )
    _check(found, (CONFIG, WEIGHTS, *VOCABULARIES))
    return found


def pieces(folder: str) -> list[str]:
    """Return the word pieces of a model's tokenizer in the order of their numbers, from its vocab.txt or tokenizer.json.

    Raises MirrorError where they cannot be read.
    """
    found = model(folder)
    try:
        if (found / "vocab.txt").is_file():
            return (found / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
        told = json.loads((found / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = dict(told["model"]["vocab"]) | {added["content"]: added["id"] for added in told.get("added_tokens", ())}
        return sorted(vocabulary, key=vocabulary.get)
    except (OSError, ValueError, KeyError, TypeError):
        raise MirrorError(f"{paths.scrub(str(found))}: its {' or '.join(VOCABULARIES)} cannot be read; fetch it again") from None


def pickled(whose: str) -> str:
    """Return the sentence for a model without safetensors."""
    return (
        f"{whose}: no {WEIGHTS}; pickled weights are not opened, convert them to safetensors first: opening a pickle runs what is in "
        "it, so do that where you trust it (docs/paper_scale.md has the command) and put the folder into PDSTUDY_MODELS"
    )


def manifest(folder: Path) -> dict[str, Any]:
    """Return what was recorded when a folder of the mirror was filled; nothing where it was made by hand."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
        {name: (file["bytes"], file["sha256"]) for name, file in found["files"].items()}
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise MirrorError(f"{paths.scrub(str(path))} is unreadable; remove its folder and fetch it again") from None


def listed(path: Path) -> dict[str, Any]:
    """Return what a manifest holds of one file: bytes and sha256."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def _check(folder: Path, names: Iterable[str]) -> None:
    """Raise MirrorError where one of a folder's files is not the one that its manifest lists."""
    files = manifest(folder).get("files", {})
    for name in names:
        path = folder / name
        if path.is_file() and name in files and listed(path) != {k: files[name][k] for k in ("bytes", "sha256")}:
            raise MirrorError(
                f"{paths.scrub(str(path))} is not the file that was fetched (another sha256 than in {MANIFEST}); remove it and "
                f"fetch it again: {FETCH}"
            )
