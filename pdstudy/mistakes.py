"""A mistake in a params file, said in a sentence: the key, what is wrong, and the nearest name that is known."""

import difflib
import json
from typing import Any

from pydantic import BaseModel, ValidationError

from pdstudy.fields import ONE, SEVERAL
from pdstudy.own import TASK_FILES, TASK_NAME, Own
from pdstudy.paramsfile import ParamsError


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return pydantic's errors of a model as one sentence each: the key, what is wrong, the nearest known key."""
    sentences = []
    for e in error.errors():
        loc = tuple(part for part in e["loc"] if part not in (TASK_NAME, TASK_FILES, ONE, SEVERAL))
        where = ".".join(str(part) for part in loc)
        message = e["msg"].removeprefix("Value error, ")
        if e["type"] == "extra_forbidden":
            known = _keys(loc[:-1], model)
            near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
            message = "unknown key; " + (f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}")
        elif e["type"] == "missing":
            message = "this key is required"
        elif e["type"] != "value_error":
            message = f"{message[0].lower()}{message[1:]}, got {_short(e['input'])}"
        sentences.append(f"{where}: {message}" if where else message)
    return "\n  ".join(sentences)


def check_names(names: set[str], known: set[str], what: str) -> None:
    """Raise ParamsError for the first name that is not known, with the nearest one."""
    for name in sorted(names - known):
        near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
        raise ParamsError(f"{what}: unknown parameter {name!r}; {hint}")


def check_one_of(what: str, value: str, known: dict) -> None:
    """Raise ValueError for a name that is not known, with the nearest one and all that there are."""
    if value not in known:
        near = difflib.get_close_matches(value, list(known), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown {what} {value!r}; {hint}choose from {', '.join(map(repr, known))}")


def _keys(loc: tuple, root: Any) -> list[str]:
    model = root
    for part in loc:
        if part == "task":
            model = Own
            continue
        annotation = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else None
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else root
    return list(model.model_fields)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
