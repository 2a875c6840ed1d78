"""Kinds of settings: counts, rates, sizes, names and lists, each checked as it is read."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from pdstudy.sizes import Size
from pdstudy.tasks import DATA

MOST = 10**12  # of anything that is counted: estimates stay finite numbers
SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Settings(BaseModel):
    """A group of settings: frozen, no key but those it names, every default checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def _size(text: Any) -> str:
    return str(Size.parse(text))


def _rates(values: Any) -> Any:
    numbers = [f"{float(v):g}" for v in values if isinstance(v, (int, float, str))] if isinstance(values, list) else []
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"a learning rate is listed twice: {values}")
    return values


def whole_number(value: Any) -> Any:
    """Return a value that is no truth value, which Python takes for a number."""
    if isinstance(value, bool):
        raise ValueError("expected a number, got true or false")
    return value


def _rising(values: Any) -> Any:
    if isinstance(values, list) and all(isinstance(v, int) for v in values) and values != sorted(set(values)):
        raise ValueError(f"list each number once, the smallest first: {values}")
    return values


def _by_size(value: Any) -> Any:
    return {k if k == OTHERS else _size(k): v for k, v in value.items()} if isinstance(value, dict) else value


OTHERS = "others"  # the sizes that a family does not name
SizeText = Annotated[str, BeforeValidator(_size)]
Rate = Annotated[float, Field(gt=0, le=1)]
Rates = Annotated[list[Rate], Field(min_length=1, max_length=12), BeforeValidator(_rates)]
Count = Annotated[int, Field(ge=1, le=MOST), BeforeValidator(whole_number)]
Counts = Annotated[list[Count], Field(max_length=20), BeforeValidator(_rising)]
Seed = Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(whole_number)]
Precision = Literal["fp32", "bf16", "auto"]
CorpusName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")]
CorpusText = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}(\+[a-z0-9][a-z0-9._-]{0,31}){0,7}$")]  # "a+b": of each alike


def _split_of_data(text: Any) -> Any:
    data, _, split = text.partition("/") if isinstance(text, str) else ("", "", "")
    if data not in DATA or not SPLIT.fullmatch(split):
        raise ValueError(
            f"{text!r} is no split of a named data set; write one of {', '.join(DATA)}, and its split, such as imdb/train"
        )
    return text


DataSplit = Annotated[str, BeforeValidator(_split_of_data)]


def _listed(value: Any) -> Any:
    return [] if value is None else [value] if isinstance(value, str) else value


Words = Annotated[str, Field(min_length=1, max_length=4096)]
Listed = Annotated[list[Words], BeforeValidator(_listed)]


ONE, SEVERAL = "<one>", "<several>"
Batch = Annotated[
    Annotated[Count, Tag(ONE)] | Annotated[Counts, Field(min_length=2), Tag(SEVERAL)],
    Discriminator(lambda given: SEVERAL if isinstance(given, list) else ONE),
]

Passes = Annotated[float, Field(gt=0, le=1000), BeforeValidator(whole_number)]  # over the texts
Epochs = Annotated[
    Annotated[Passes, Tag(ONE)] | Annotated[list[Passes], Field(min_length=2, max_length=6), Tag(SEVERAL)],
    Discriminator(lambda given: SEVERAL if isinstance(given, list) else ONE),
]


Family = Annotated[
    Annotated[Words, Tag(ONE)] | Annotated[dict[str, Words], BeforeValidator(_by_size), Tag(SEVERAL)],
    Discriminator(lambda given: SEVERAL if isinstance(given, dict) else ONE),
]
