"""Reads one params file as a mapping.

A params file may come from anyone. So its size, depth and number of values are limited before it is parsed fully, and only
plain data is made from it. YAML silently takes the last of two equal keys; here a repeated key is an error. Aliases are
refused, because a few of them can multiply into millions of values.
"""

import contextlib
import difflib
from pathlib import Path
from typing import Any

import yaml

from pdstudy.storage import paths

MAX_BYTES = 200_000  # parsed in a second
MAX_DEPTH = 16  # a study has three levels
MAX_VALUES = 20_000


class ParamsError(ValueError):
    """Raised when a params file cannot be used; the message names the file, the key and what to do."""


def find(path: str | Path) -> Path:
    """Return the path of a params file, given as a path or as a name in params/ of the workspace or the package.

    A path is relative to the current folder or to the workspace. Raises ParamsError with the nearest name.
    """
    folders = (paths.ROOT / "params", paths.PARAMS)
    for candidate in (Path(path), paths.absolute(str(path)), *(f / n for f in folders for n in (path, f"{path}.yaml"))):
        with contextlib.suppress(OSError, ValueError):  # a name too long for the file system, or with a NUL
            if candidate.is_file():
                return candidate
    names = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
    near = difflib.get_close_matches(Path(path).stem, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ParamsError(f"{path}: no such params file; {hint}choose one of params/{{{','.join(names)}}}.yaml or give a path")


def load(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raises ParamsError that names the file and what to do."""
    try:
        data = yaml.load(_read_text(path), _Loader)  # noqa: S506 - _Loader is a SafeLoader
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError, IndexError) as error:  # IndexError: PyYAML's for !!int ""
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise ParamsError(f"{path}: not YAML{line}: {problem}") from None
    if data is None:
        raise ParamsError(f"{path}: the file is empty; copy params/smoke.yaml and change it")
    if not isinstance(data, dict):
        raise ParamsError(f"{path}: expected keys and values, got a {type(data).__name__}; copy params/smoke.yaml and change it")
    if bad := [k for k in data if not (isinstance(k, str) and k.isidentifier())]:
        raise ParamsError(f"{path}: {bad[0]!r} is not a parameter name")
    return data


def _read_text(path: Path) -> str:
    """Return the text of a file of at most MAX_BYTES. Raises ParamsError."""
    try:
        with path.open("rb") as file:  # some file systems report a wrong size, so it is not asked
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ParamsError(f"{path.stat().st_size:,} bytes is too large for a params file (at most {MAX_BYTES:,})")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ParamsError(f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ParamsError("not UTF-8 text; save it as UTF-8") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits, without aliases, and with an error for a repeated key."""

    depth = n_values = 0

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise ParamsError(f"an alias (*) at line {self.peek_event().start_mark.line + 1}; write the value out")
        self.depth += 1
        self.n_values += 1
        if self.depth > MAX_DEPTH:
            raise ParamsError(f"more than {MAX_DEPTH} levels of nesting; a study has three")
        if self.n_values > MAX_VALUES:
            raise ParamsError(f"more than {MAX_VALUES:,} values")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
            if name in seen:
                raise ParamsError(f"the key {key.value!r} is repeated at line {key.start_mark.line + 1}; keep one")
            seen.add(name)
        return node
