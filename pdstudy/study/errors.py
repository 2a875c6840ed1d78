"""Errors of a study's settings as sentences that name the key, the problem and the nearest known name."""

import difflib
import json
from collections.abc import Collection

from pydantic import BaseModel, ValidationError

from pdstudy.study.own_task import TASK_FILES, TASK_NAME, Own
from pdstudy.study.sections import ONE, SEVERAL

TAGS = (TASK_NAME, TASK_FILES, ONE, SEVERAL)  # pydantic puts them into the place of an error


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return pydantic's errors of a model as one sentence each: the key, what is wrong, the nearest known key."""
    sentences = []
    for e in error.errors():
        place = tuple(part for part in e["loc"] if part not in TAGS)
        message = e["msg"].removeprefix("Value error, ")
        if e["type"] == "extra_forbidden":
            keys = list(_model_at(place[:-1], model).model_fields)
            near = difflib.get_close_matches(str(place[-1]), keys, n=1, cutoff=0.5)
            message = "unknown key; " + (f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(keys)}")
        elif e["type"] == "missing":
            message = "this key is required"
        elif e["type"] != "value_error":
            value = json.dumps(e["input"], default=str)
            message = f"{message[0].lower()}{message[1:]}, got {value if len(value) <= 60 else value[:57] + '...'}"
            if e["type"] == "string_type" and isinstance(e["input"], bool | int | float):
                message += "; write it in quotes"
        sentences.append(f"{'.'.join(map(str, place))}: {message}" if place else message)
    return "\n  ".join(sentences)


def check_one_of(kind: str, name: str, known: Collection[str]) -> None:
    """Raise ValueError for an unknown name; the message has the nearest known name, and all of them."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown {kind} {name!r}; {hint}choose from {', '.join(map(repr, known))}")


def _model_at(place: tuple, root: type[BaseModel]) -> type[BaseModel]:
    """Return the model whose keys belong at a place in the settings, such as ("pretrain",)."""
    model = root
    for part in place:
        field = None if part == "task" else model.model_fields.get(part)
        annotation = Own if part == "task" else field and field.annotation
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else root
    return model
