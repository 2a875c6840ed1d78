"""Text of other domains than the task's, for other transfer sets and other D_LM.

The sources: a folder of a wheel, Python's own documentation, the user's own files.
"""

import ast
import hashlib
import re
import sysconfig
from functools import lru_cache
from pathlib import Path

from pdstudy.data import sources
from pdstudy.data.formats import TextError
from pdstudy.data.tasks import OtherText, PythonDocs, Wheel
from pdstudy.data.texts import Text, sentences, spaced

BLANK_LINE = re.compile(r"\n\s*\n")


@lru_cache
def identity(source: OtherText) -> str:
    """Return the sha256 of a source's text. Raises TextError, whose message says what to do, if it is missing or altered."""
    if isinstance(source, Wheel):
        sources.locate(source)
        return source.sha256
    if isinstance(source, PythonDocs):
        digest = hashlib.sha256()
        for path in _python_files():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()
    return hashlib.sha256("\n".join(sources.file_digest(path, "elsewhere") for path in source).encode()).hexdigest()


def documents(source: OtherText) -> list[str]:
    """Return a source's documents, in a fixed order: articles, pages of documentation, or the rows of the files."""
    if isinstance(source, Wheel):
        return [_article(path) for path in sorted(sources.locate(source).rglob("*.txt"))]
    if isinstance(source, PythonDocs):
        return _python_docs()
    return [" ".join(text) for path in source for text in sources.unlabelled(path, ("text",))]


def texts(source: OtherText, columns: tuple[str, ...]) -> list[Text]:
    """Return a source as transfer texts: the rows of the files, or the sentences of the documents.

    Raises TextError if the task needs pairs and the source is running text.
    """
    if isinstance(source, tuple):
        return [text for path in source for text in sources.unlabelled(path, columns)]
    if len(columns) == 2:
        raise TextError("this task reads pairs; for a transfer set from elsewhere give tables with its two columns")
    paragraphs = (spaced(p) for document in documents(source) for p in document.split("\n\n"))
    return [(sentence,) for paragraph in paragraphs for sentence in sentences(paragraph)]


def _article(path: Path) -> str:
    """Return an article, whose lines are paragraphs. The few with a pound sign that is not UTF-8 are Latin-1."""
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return "\n\n".join(line for line in map(spaced, text.splitlines()) if line)


def _python_files() -> list[Path]:
    """Return the files of Python's documentation: pydoc's topics, then the modules of the standard library."""
    library = Path(sysconfig.get_path("stdlib"))
    return [library / "pydoc_data" / "topics.py", *sorted(library.glob("[a-z]*.py"))]


def _python_docs() -> list[str]:
    """Return Python's documentation, a document for each topic or docstring, without running any of it."""
    texts, (topics, *modules) = [], _python_files()
    for node in ast.walk(ast.parse(topics.read_bytes())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            texts.append(node.value)
    for path in modules:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                texts.append(ast.get_docstring(node) or "")
    return ["\n\n".join(p for p in map(spaced, BLANK_LINE.split(text)) if p) for text in texts if text]
