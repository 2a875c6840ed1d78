"""A study's settings: from one params file or a notebook, checked once, frozen.

Every key that changes what is computed is here and has no second default elsewhere. What only changes how
it is computed (workers, progress, trackers) belongs to the command line.
"""

import difflib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from pdstudy.data import mirror
from pdstudy.data.tasks import HELD_BACK, OWN_TRANSFER, TASKS, Task
from pdstudy.machine import best_precision
from pdstudy.recipes import RECIPES
from pdstudy.sizes import Size
from pdstudy.storage import paths
from pdstudy.study import overrides
from pdstudy.study.overrides import Origin
from pdstudy.study.own_task import TASK_FILES, TASK_NAME, Own, TaskGiven, placed
from pdstudy.study.sections import (
    NAME,
    ONE,
    OTHERS,
    SEVERAL,
    Compound,
    Corpus,
    Curves,
    Distill,
    Domains,
    Family,
    Linear,
    Precision,
    Pretrain,
    Seed,
    Settings,
    SizeText,
    Splits,
    Teacher,
    Tokenizer,
    Train,
    Transfer,
)
from pdstudy.study.yaml_file import ParamsError, find, load


class Study(Settings):
    """One study: what is compared, on what, and how each stage is run."""

    name: str
    task: TaskGiven
    sizes: Annotated[list[SizeText], Field(min_length=1)]
    recipes: Annotated[list[str], Field(min_length=1)]
    recipe_sizes: dict[str, list[SizeText]] = {}  # recipes that are tried at some of the sizes only
    seeds: Annotated[list[Seed], Field(min_length=1)]
    splits: Splits = Splits()
    corpus: Corpus = Corpus()
    tokenizer: Tokenizer = Tokenizer()
    max_length: Annotated[int, Field(ge=8, le=512)] = 64  # pieces of a text that are read
    init_std: dict[str, Annotated[float, Field(gt=0, le=1)]]  # initialiser's scale by hidden width
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    # Encoders that have read already: a folder such as "zoo/{layers}-{hidden}-s0", a model of the hub such as
    # "hub:google/bert_uncased_L-{layers}_H-{hidden}_A-{heads}", or several of these by size, and `others`.
    family: Family | None = None
    pretrain: Pretrain = Pretrain()
    pretrain_by_size: dict[SizeText, dict[str, Any]] = {}  # what differs from `pretrain` for a size
    teacher: Teacher = Teacher()
    linear: Linear = Linear()
    transfer: Transfer = Transfer()
    curves: Curves = Curves()
    domains: Domains = Domains()
    compound: Compound = Compound()
    finetune: Train
    distill: Distill
    search_seeds: Annotated[int, Field(ge=1, le=3)] = (
        1  # where the largest rate wins or a candidate collapses, rates are chosen on these
    )
    pooling: Literal["cls", "mean"] = "cls"  # what a classifier reads of its encoder: [CLS], or the mean of all pieces
    precision: Precision = "auto"
    _origin: Origin | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _coherent(self):
        if not NAME.fullmatch(self.name) or ".." in self.name:
            raise ValueError(
                f"name {self.name!r}: use 1 to 64 small letters, digits, '.', '_' or '-', such as {_slug(self.name)!r}"
            )
        if self.name in ("store", "cache", "hub", "published"):
            raise ValueError(f"name {self.name!r} is reserved for a folder in outputs/; choose another")
        if isinstance(self.task, str):
            check_one_of("task", self.task, TASKS)
        elif self.task.corpus and self.corpus.data:
            raise ValueError("corpus.data and task.corpus both say what D_LM is; leave out one of them")
        if twice := [name for name in self.corpus.data if self.corpus.data.count(name) > 1]:
            raise ValueError(f"corpus.data: {twice[0]!r} is listed twice; list each once")
        for recipe in self.recipes:
            check_one_of("recipe", recipe, RECIPES)
        if more := [n for n in self.curves.transfer if n >= self.transfer.texts]:
            raise ValueError(f"curves.transfer: {more[0]:,} texts are not fewer than transfer.texts, {self.transfer.texts:,}")
        for where, sizes, recipes in self._narrowed():
            if other := [s for s in sizes if s not in self.sizes]:
                raise ValueError(f"{where}.sizes: {other[0]} is none of the study's sizes, {', '.join(self.sizes)}")
            if other := [r for r in recipes if r not in self.recipes]:
                raise ValueError(f"{where}.recipes: {other[0]!r} is none of the study's recipes, {', '.join(self.recipes)}")
        for where in ("domains", "compound"):
            corpora = getattr(self, where).corpora
            for name in corpora:
                if (unknown := set(name.split("+")) - set(self.corpora_known())) or corpora.count(name) > 1:
                    what = (
                        f"no corpus {min(unknown)!r}; known: {', '.join(self.corpora_known())}"
                        if unknown
                        else f"{name!r} is listed twice"
                    )
                    raise ValueError(f"{where}.corpora: {what}, and mixtures such as a+b")
        for key in ("sizes", "recipes", "seeds"):
            values = getattr(self, key)
            twice = sorted({v for v in values if values.count(v) > 1}, key=str)
            if twice:
                raise ValueError(f"{key}: {twice[0]!r} is listed twice; list each once")
        widths = {str(Size.parse(s).hidden) for s in self.all_sizes}
        if missing := sorted(widths - set(self.init_std), key=int):
            raise ValueError(f'init_std has no scale for width {missing[0]}; add it, such as {{"{missing[0]}": 0.04}}')
        if len(self.finetune.rates) != len(self.distill.rates):
            raise ValueError(
                f"finetune.rates lists {len(self.finetune.rates)} and distill.rates {len(self.distill.rates)}: an arm that is "
                "searched less than another proves nothing; list equally many"
            )
        if len(self.finetune.batches) != len(self.distill.batches):
            raise ValueError(
                f"finetune.batch lists {len(self.finetune.batches)} and distill.batch {len(self.distill.batches)}: an arm that is "
                "searched less than another proves nothing; list equally many"
            )
        if len(self.finetune.passes) != len(self.distill.passes):
            raise ValueError(
                f"finetune.epochs lists {len(self.finetune.passes)} and distill.epochs {len(self.distill.passes)}: an arm that is "
                "searched less than another proves nothing; list equally many"
            )
        self._teachable()
        if self.family is not None:
            if self.tokenizer.folder is not None:
                raise ValueError("family: its own tokenizer is used; set tokenizer.folder to null")
            for size in self.all_sizes:
                self.family_folder(Size.parse(size))
        for size in self.pretrain_by_size:
            try:
                self.pretraining(Size.parse(size))
            except ValidationError as error:
                raise ValueError(f"pretrain_by_size.{size}: {explain(error, Pretrain)}") from None
        return self

    def _teachable(self) -> None:
        """Raise ValueError where the teacher cannot label what the study asks for."""
        t = self.teacher
        if t.texts is not None and t.texts < self.transfer.texts:
            raise ValueError(
                f"teacher.texts: {t.texts:,} are fewer than transfer.texts, {self.transfer.texts:,}; students need them all"
            )
        if any(member.file for member in t.members):
            if self.domains.corpora:
                raise ValueError(
                    "domains.corpora: a file of soft labels says nothing of other texts; set it to [], or take another teacher"
                )
            if self.distill.labelled:
                raise ValueError("distill.labelled: a file of soft labels says nothing of the texts of D_L; take another teacher")

    def _narrowed(self) -> list[tuple[str, list[str], list[str]]]:
        """Return where the study is narrowed to some sizes or recipes: (key, sizes, recipes)."""
        parts = [(key, getattr(self, key).sizes, getattr(self, key).recipes) for key in ("curves", "domains", "compound")]
        return parts + [(f"recipe_sizes.{recipe}", sizes, [recipe]) for recipe, sizes in self.recipe_sizes.items()]

    def named_on_hub(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the splits, "data/split", and the models of the hub, "hub:owner/name", that the study names, each once."""
        named = [*(member.folder for member in self.teacher.members), self.tokenizer.folder]
        if self.family is not None:
            donors = [s for s in self.pretrain_by_size if "PD (truncated)" in self.recipes]
            named += [self.family_name(Size.parse(s)) for s in (*self.all_sizes, *donors)]
        models = tuple(dict.fromkeys(name for name in named if name and name.startswith(paths.HUB)))
        return mirror.splits_of_task(self.resolved_task()), models

    def corpora_known(self) -> tuple[str, ...]:
        """Return the names of corpora that other transfer sets and other D_LM can be taken from."""
        return (OWN_TRANSFER, HELD_BACK, *(name for name, _ in self.resolved_task().elsewhere))

    def sizes_of(self, recipe: str) -> list[str]:
        """Return the sizes at which a recipe is tried."""
        return self.recipe_sizes.get(recipe, self.sizes)

    @property
    def all_sizes(self) -> tuple[str, ...]:
        """Return the students' sizes and the teachers', each once."""
        teachers = (member.size for member in self.teacher.members if member.size)
        return tuple(dict.fromkeys((*self.sizes, *teachers)))

    def pretraining(self, size: Size) -> Pretrain:
        """Return the pre-training settings of one size."""
        return Pretrain(**(self.pretrain.model_dump() | self.pretrain_by_size.get(str(size), {})))

    def family_folder(self, size: Size) -> Path:
        """Return where the family keeps its encoder of a size."""
        return paths.absolute(self.family_name(size))

    def family_name(self, size: Size) -> str:
        """Return the folder of the family's encoder of a size as it is written, or its name on the hub."""
        by_size = {OTHERS: self.family} if isinstance(self.family, str) else self.family
        if (template := by_size.get(str(size), by_size.get(OTHERS))) is None:
            raise ValueError(f"family: names nothing for {size}; add it, or {OTHERS}")
        try:
            name = template.format(layers=size.layers, hidden=size.hidden, heads=size.heads)
        except (KeyError, IndexError, ValueError, AttributeError):
            raise ValueError("family: write {layers}, {hidden} and {heads} where a size stands in the folder's name") from None
        if name.startswith(paths.HUB) and (not mirror.NAME.fullmatch(name) or ".." in name):
            raise ValueError(f"family: {name!r} is no model of the hub; write hub:owner/name")
        return name

    def resolved_task(self) -> Task:
        """Return the task that is named, or described by its files, with the D_LM that the study gives it."""
        task, data = TASKS[self.task] if isinstance(self.task, str) else self.task.task(), self.corpus.data
        return replace(task, reads=tuple(data), corpus=", ".join(data)) if data else task

    def resolved_precision(self, given: Precision | None = None) -> str:
        """Return "fp32" or "bf16", of `given` or else of the study: `auto` is what this processor multiplies fastest."""
        given = given or self.precision
        return given if given != "auto" else best_precision()

    @classmethod
    def checked(cls, values: dict[str, Any], where: str = "") -> "Study":
        """Return the study with these settings. Raises ParamsError, its sentences after `where`."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise ParamsError(f"{where}{explain(error, cls)}") from None

    @classmethod
    def read(cls, path: str | Path, settings: dict[str, Any] | None = None) -> "Study":
        """Return the study of a params file, or of a name in params/ such as "quick", with `settings` in place of the file's.

        Of a section, such as `pretrain`, only the keys in `settings` are replaced. Raises ParamsError.
        """
        path = find(path)
        values = placed(overrides.merged(load(path), settings, cls), path.parent)
        study = cls.checked(values, f"settings, over {path}: " if settings else f"{path}: ")
        study._origin = Origin(path.resolve(), settings or {})
        return study

    @property
    def origin(self) -> Origin | None:
        """Return what the study was read from, None for one that was made of values."""
        return self._origin

    def __eq__(self, other: object) -> bool:
        """Return whether all settings are the same, wherever they were read from."""
        return isinstance(other, Study) and self.model_dump() == other.model_dump()

    def _repr_html_(self) -> str:
        """Return a folded table of every value; those that differ from the params file are marked."""
        in_file = Study.read(self.origin.path) if self.origin and self.origin.settings else self
        return overrides.folded_table(self, in_file)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:64] or "mine"


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
