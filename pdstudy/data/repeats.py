"""When two texts are repeats: the keys by which repeats and leaks are recognised.

In the user's own files two texts are repeats if they are equal after Unicode normalisation (NFKC), case folding and joining white
space. Nothing else is dropped: an emoji, a plus sign or a vowel sign may be all that distinguishes two classes.

The public tasks keep the key of their committed studies, which also drops punctuation: film-review snippets and SST-2's phrases
occur several times, with and without the full stop. docs/method.md says how many texts the two keys treat differently.
"""

import re
import unicodedata
from collections.abc import Callable

from pdstudy.data.tasks import Files, Task

OWN = "nfkc, case, space"  # in the settings, and so the digest, of steps of own files
NOT_WORD = re.compile(r"\W+")

Key = Callable[..., str]


def key(*text: str) -> str:
    """Return the key of a text, or a pair, without case, extra white space and Unicode form."""
    return "\t".join(map(_folded, text)).strip()


def _folded(text: str) -> str:
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def loose_key(*text: str) -> str:
    """Return the key of a text, or a pair, without case, punctuation and extra white space."""
    return "\t".join(NOT_WORD.sub(" ", part.lower()).strip() for part in text).strip()


def key_of(task: Task) -> Key:
    """Return the key function of a task."""
    return key if isinstance(task.source, Files) else loose_key
