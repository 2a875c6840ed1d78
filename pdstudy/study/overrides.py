"""The `settings` of a notebook: merged with the values of a params file, and marked in a table of all values."""

import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pdstudy.escape import escape_control
from pdstudy.study.yaml_file import ParamsError

STYLE = 'style="text-align: left"'


@dataclass(frozen=True)
class Origin:
    """The params file that a study was read from, and the settings that replaced some of the file's."""

    path: Path
    settings: dict[str, Any]


def merged(values: dict[str, Any], settings: dict[str, Any] | None, study: type[BaseModel]) -> dict[str, Any]:
    """Return the values of a params file, some replaced by `settings`.

    Of a section, such as `pretrain`, only the keys in `settings` are replaced; every other value is replaced as a whole.
    Raises ParamsError where `settings` is not a mapping.
    """
    if settings is None:
        return values
    if not isinstance(settings, dict):
        raise ParamsError(f'settings: expected keys and values such as {{"seeds": [0, 1]}}, got a {type(settings).__name__}')
    if other := [key for key in settings if not isinstance(key, str)]:
        raise ParamsError(f"settings: the key {other[0]!r} is no name of a setting, such as 'seeds'")
    sections = {key for key, field in study.model_fields.items() if isinstance(field.annotation, type)} | {"task"}
    within_sections = {
        key: values[key] | value
        for key, value in settings.items()
        if key in sections and isinstance(value, dict) and isinstance(values.get(key), dict)
    }
    return values | settings | within_sections


def folded_table(study: BaseModel, in_file: BaseModel) -> str:
    """Return every value of a study as an HTML table; those that differ from the study as its params file has it are marked.

    The table is folded: its summary line names the study, task, sizes, recipes and seeds, and counts the values that differ.
    """
    old, rows, n_changed = _flat(in_file.model_dump(mode="json")), [], 0
    for key, value in _flat(study.model_dump(mode="json")).items():
        changed = value != old.get(key)
        n_changed += changed
        cell, old_cell = _text(value), _text(old[key]) if changed and key in old else ""
        rows.append(f"<tr><td {STYLE}>{html.escape(key)}</td><td {STYLE}>{f'<mark>{cell}</mark>' if changed else cell}</td>")
        rows.append(f"<td {STYLE}>{old_cell}</td></tr>")
    head = "".join(f"<th {STYLE}>{title}</th>" for title in ("key", "value", "in the params file, if it differs"))
    task = study.task if isinstance(study.task, str) else study.task.name
    lists = "; ".join(f"{key} {', '.join(map(str, getattr(study, key)))}" for key in ("sizes", "recipes", "seeds"))
    differ = {0: "no value differs", 1: "1 value differs"}.get(n_changed, f"{n_changed} values differ")
    summary = _text(f"Study {study.name}: task {task}; {lists}; {differ} from the params file")
    return f"<details><summary>{summary}</summary><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></details>"


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of all sections by "section.key"; an empty mapping is one value."""
    flat = {}
    for key, value in values.items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) and value else {key: value}
    return flat


def _text(value: Any) -> str:
    """Return a value as JSON, escaped for HTML and terminals; integers without a decimal point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return html.escape(escape_control(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
