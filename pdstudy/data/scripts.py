"""Scripts that are written without spaces, emoji, and words: how a text is cut into units.

Han, Kana, Thai, Lao, Khmer and Myanmar are cut by character: a base letter with its marks.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

CUT = "keeps marks; unspaced scripts by character; emoji apart"  # in the settings, and so the digest, of tokenizers of own files
UNSPACED = (
    "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46\u0e50-\u0e59"  # Thai, without the marks above and below
    "\u0e81-\u0eb0\u0eb2\u0eb3\u0ebd-\u0ec6\u0ed0-\u0edf"  # Lao
    "\u1000-\u102a\u103f-\u1055\u105a-\u105d\u1061\u1065\u1066\u106e-\u1070\u1075-\u1081\u108e\uaa60-\uaa7a\ua9e0-\ua9fe"  # Myanmar
    "\u1780-\u17b3\u17d7\u17dc\u17e0-\u17e9"  # Khmer
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
MARKS = (
    "\u0300-\u036f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u1056-\u1059\u105e-\u1060\u1062-\u1064"
    "\u1067-\u106d\u1071-\u1074\u1082-\u108d\u109a-\u109d\u17b4-\u17d3\u17dd\u3099\u309a\ufe00-\ufe0f\uaa7b-\uaa7d\U000e0100-\U000e01ef"
)
EMOJI = "\u2190-\u21ff\u2300-\u23ff\u25a0-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
JOINERS = "\ufe0e\ufe0f\u200d\u20e3"  # characters that join several emoji into one
APART = f"[{UNSPACED}][{MARKS}]*|[{EMOJI}][{JOINERS}]*"  # for Python's regular expressions and for those of tokenizers
_APART = re.compile(APART)
_ANY_UNSPACED = re.compile(f"[{UNSPACED}]")
_LETTERS = re.compile(r"\w+")


def units(text: str) -> Iterator[str]:
    """Yield a text's words in lower case; in scripts without spaces its characters; and each emoji.

    A word is a run of letters, marks and digits, so a vowel sign does not end it.
    """
    text = text.lower()
    if text.isascii():
        yield from _LETTERS.findall(text)
        return
    start = 0
    for match in _APART.finditer(text):
        yield from _words(text[start : match.start()])
        yield match[0]
        start = match.end()
    yield from _words(text[start:])


def _words(text: str) -> list[str]:
    """Return runs of letters, digits, underscores and marks."""
    if not any(unicodedata.category(c)[0] == "M" for c in text if not c.isalnum()):
        return _LETTERS.findall(text)
    return "".join(c if c.isalnum() or c == "_" or unicodedata.category(c)[0] == "M" else " " for c in text).split()


def unspaced(texts: Iterable[str]) -> bool:
    """Return whether most letters of the texts are of scripts without spaces."""
    n_unspaced = n_letters = 0
    for text in texts:
        n_unspaced += 0 if text.isascii() else len(_ANY_UNSPACED.findall(text))
        n_letters += sum(map(str.isalpha, text))
    return n_unspaced > n_letters / 2
