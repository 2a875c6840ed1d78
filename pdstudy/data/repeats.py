"""When two texts are the same text: the keys by which repeats and leaks are recognised.

In files of one's own two texts are repeats where they are equal after Unicode normalisation (NFKC), case folding and white space.
An emoji, a plus or a vowel sign may be all that tells two classes apart, so nothing else is dropped.

The public tasks keep the key that their committed studies were made with, which also drops punctuation: film-review snippets and
SST-2's phrases stand there several times, with and without the full stop. docs/method.md says by how many texts the two differ.
"""

import re
import unicodedata
from collections.abc import Callable

from pdstudy.data.tasks import Files, Task

OWN = "nfkc, case, space"  # part of what a step of own files is
NOT_WORD = re.compile(r"\W+")

Key = Callable[..., str]


def key(*text: str) -> str:
    """Return what two texts (or pairs) share when they differ only in case, white space and Unicode form."""
    return _folded(text[0]) if len(text) == 1 else "\t".join(map(_folded, text)).strip()


def _folded(text: str) -> str:
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def loose_key(*text: str) -> str:
    """Return what two texts (or pairs) share when they differ only in case, punctuation and white space."""
    return "\t".join(NOT_WORD.sub(" ", part.lower()).strip() for part in text).strip()


def key_of(task: Task) -> Key:
    """Return the key by which a task's repeats are recognised."""
    return key if isinstance(task.source, Files) else loose_key
