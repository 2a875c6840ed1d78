"""One params file as a mapping: found by path or name, read with limits, nothing in it run.

A params file may come from anyone. So its bytes, its depth, its values and its aliases are bounded before
anything is built from it, its tags can make nothing but plain data, and a key given twice is an error: YAML's
own rule, that the last one wins in silence, would run another study than the one that was read.
"""

import contextlib
from pathlib import Path
from typing import Any

import yaml

from pdstudy.storage import paths

MAX_BYTES = 200_000  # a second of parsing
MAX_DEPTH = 16  # a study has three levels
MAX_VALUES = 20_000  # aliases counted as often as they are used
MAX_ALIASES = 200


class ParamsError(ValueError):
    """Raised when a params file cannot be used; the message names the file, the key and the cure."""


def find(path: str | Path) -> Path:
    """Return the params file meant by a path or by a name in params/. Raises ParamsError with the names there."""
    given = Path(path)
    for candidate in (given, paths.PARAMS / given, paths.PARAMS / f"{given}.yaml"):
        with contextlib.suppress(OSError, ValueError):  # a name too long for the file system, or with a NUL
            if candidate.is_file():
                return candidate
    names = [p.stem for p in sorted(paths.PARAMS.glob("*.yaml"))]
    raise ParamsError(f"{path}: no such params file; choose one of params/{{{','.join(names)}}}.yaml or give a path")


def load(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, read safely. Raises ParamsError naming the file and the cure."""
    try:
        data = _parsed(_text(path))
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError, IndexError) as error:  # IndexError: PyYAML's for !!int ""
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        what = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise ParamsError(f"{path}: not YAML{line}: {what}") from None
    if data is None:
        raise ParamsError(f"{path}: the file is empty; copy params/smoke.yaml and change it")
    if not isinstance(data, dict):
        raise ParamsError(f"{path}: expected keys and values at the top, got a {type(data).__name__}; copy params/smoke.yaml")
    if bad := [k for k in data if not (isinstance(k, str) and k.isidentifier())]:
        raise ParamsError(f"{path}: {bad[0]!r} is not a parameter name")
    return data


def _text(path: Path) -> str:
    """Return the text of a file that is small enough."""
    try:
        with path.open("rb") as file:  # the size that a file system tells may not be the size that is read
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ParamsError(f"{path.stat().st_size:,} bytes is too large for a params file (at most {MAX_BYTES:,})")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ParamsError(f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ParamsError("not UTF-8 text; save it as UTF-8") from None


def _parsed(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if _values(node) > MAX_VALUES:  # before aliases and merges are carried out
            raise ParamsError(f"more than {MAX_VALUES:,} values; aliases must not multiply a params file")
        return loader.construct_document(node) if node else None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits, which it has not, and an error for a key that stands twice."""

    def __init__(self, text: str):
        super().__init__(text)
        self.depth = self.aliases = 0

    def compose_node(self, parent, index):
        self.aliases += self.check_event(yaml.AliasEvent)
        if self.aliases > MAX_ALIASES:
            raise ParamsError(f"more than {MAX_ALIASES} aliases; aliases must not multiply a params file")
        if self.depth >= MAX_DEPTH:
            raise ParamsError(f"values lie more than {MAX_DEPTH} levels deep; a study has three")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
            if name in seen:
                raise ParamsError(f"the key {key.value!r} stands twice, again at line {key.start_mark.line + 1}; keep one")
            seen.add(name)
        return node


def _values(node: yaml.Node | None) -> int:
    """Count keys and values, aliases as often as they are used, and stop at the limit: a bomb is not unfolded."""
    stack, count = [node], 0
    while stack and count <= MAX_VALUES:
        item = stack.pop()
        count += 1
        if isinstance(item, yaml.MappingNode):
            stack.extend(part for pair in item.value for part in pair)
        elif isinstance(item, yaml.SequenceNode):
            stack.extend(item.value)
    return count
