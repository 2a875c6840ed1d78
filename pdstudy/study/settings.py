"""A study's settings: read from one params file or a notebook, checked once, then frozen.

Every key that changes a result is here, and has no second default elsewhere. Options that change only how a study is
computed (workers, progress, trackers) belong to the command line.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from pdstudy.data import mirror
from pdstudy.data.tasks import HELD_BACK, OWN_TRANSFER, TASKS, Task
from pdstudy.machine import best_precision
from pdstudy.recipes import RANDOM, RECIPES
from pdstudy.sizes import Size
from pdstudy.storage import paths
from pdstudy.study import overrides, sections
from pdstudy.study.errors import check_one_of, explain
from pdstudy.study.overrides import Origin
from pdstudy.study.own_task import TaskSetting, with_portable_paths
from pdstudy.study.sections import NAME, OTHERS, Pretrain, Settings, SizeText
from pdstudy.study.yaml_file import ParamsError, find, load

if TYPE_CHECKING:
    from pdstudy.study.form import Form


class Study(Settings):
    """One study: the sizes and recipes compared, the task and texts, and the settings of each stage."""

    name: str
    task: TaskSetting
    sizes: Annotated[list[SizeText], Field(min_length=1)]
    recipes: Annotated[list[str], Field(min_length=1)]
    recipe_sizes: dict[str, Annotated[list[SizeText], Field(min_length=1)]] = {}  # for recipes that use only some of the sizes
    seeds: Annotated[list[sections.Seed], Field(min_length=1)]
    splits: sections.Splits = sections.Splits()
    corpus: sections.Corpus = sections.Corpus()
    tokenizer: sections.Tokenizer = sections.Tokenizer()
    max_length: Annotated[int, Field(ge=8, le=512)] = 64  # pieces of a text that are read
    init_std: dict[str, Annotated[float, Field(gt=0, le=1)]]  # initialiser's scale by hidden width
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    # Pre-trained encoders: a folder such as "zoo/{layers}-{hidden}-s0", a model of the hub such as
    # "hub:google/bert_uncased_L-{layers}_H-{hidden}_A-{heads}", or several of these by size, and `others`.
    family: sections.Family | None = None
    pretrain: Pretrain = Pretrain()
    pretrain_by_size: dict[SizeText, dict[str, Any]] = {}  # what differs from `pretrain` for a size
    teacher: sections.Teacher = sections.Teacher()
    linear: sections.Linear = sections.Linear()
    transfer: sections.Transfer = sections.Transfer()
    curves: sections.Curves = sections.Curves()
    domains: sections.Domains = sections.Domains()
    compound: sections.Compound = sections.Compound()
    finetune: sections.Train
    distill: sections.Distill
    rates_by_size: dict[SizeText, sections.Rates] = {}  # instead of both stages' `rates`, for sizes that need other ones
    # Where the largest rate wins or a candidate collapses, rates are chosen by the mean over this many seeds.
    search_seeds: Annotated[int, Field(ge=1, le=3)] = 1
    pooling: Literal["cls", "mean"] = "cls"  # the classifier's input: the state of [CLS], or the mean over all pieces
    precision: sections.Precision = "auto"
    _origin: Origin | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _names_are_known(self):
        if not NAME.fullmatch(self.name) or ".." in self.name:
            slug = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:64] or "mine"
            raise ValueError(f"name {self.name!r}: use 1 to 64 small letters, digits, '.', '_' or '-', such as {slug!r}")
        if self.name in ("store", "cache", "hub", "published"):
            raise ValueError(f"name {self.name!r} is reserved for a folder in outputs/; choose another")
        if isinstance(self.task, str):
            check_one_of("task", self.task, TASKS)
        elif self.task.corpus and self.corpus.data:
            raise ValueError("corpus.data and task.corpus both say what D_LM is; leave out one of them")
        for recipe in self.recipes:
            check_one_of("recipe", recipe, RECIPES)
        corpora = {f"{key}.corpora": getattr(self, key).corpora for key in ("domains", "compound")}
        known = self.known_corpora()
        for key, names in corpora.items():
            if unknown := {part for name in names for part in name.split("+")} - set(known):
                raise ValueError(f"{key}: no corpus {min(unknown)!r}; known: {', '.join(known)}, and mixtures such as a+b")
        lists = {key: getattr(self, key) for key in ("sizes", "recipes", "seeds")} | {"corpus.data": self.corpus.data} | corpora
        for key in ("curves", "domains", "compound"):
            lists |= {f"{key}.sizes": getattr(self, key).sizes, f"{key}.recipes": getattr(self, key).recipes}
        lists |= {f"recipe_sizes.{recipe}": sizes for recipe, sizes in self.recipe_sizes.items()}
        for key, values in lists.items():
            if repeated := sorted({v for v in values if values.count(v) > 1}, key=str):
                raise ValueError(f"{key}: {repeated[0]!r} is listed twice; list each once")
        return self

    @model_validator(mode="after")
    def _sections_fit_the_study(self):
        if more := [n for n in self.curves.transfer if n >= self.transfer.texts]:
            raise ValueError(f"curves.transfer: {more[0]:,} texts are not fewer than transfer.texts, {self.transfer.texts:,}")
        if self.splits.train and (more := [n for n in self.curves.labels if n >= self.splits.train]):
            raise ValueError(f"curves.labels: {more[0]:,} labels are not fewer than splits.train, {self.splits.train:,}")
        subsets = [(key, getattr(self, key).sizes, getattr(self, key).recipes) for key in ("curves", "domains", "compound")]
        subsets += [(f"recipe_sizes.{recipe}", sizes, [recipe]) for recipe, sizes in self.recipe_sizes.items()]
        for key, sizes, recipes in subsets:
            if other := [s for s in sizes if s not in self.sizes]:
                raise ValueError(f"{key}.sizes: {other[0]} is none of the study's sizes, {', '.join(self.sizes)}")
            if other := [r for r in recipes if r not in self.recipes]:
                raise ValueError(f"{key}.recipes: {other[0]!r} is none of the study's recipes, {', '.join(self.recipes)}")
        for key, fits, reason in (
            ("curves", lambda r: len(r.stages) == 1, "is trained twice, and a curve is of recipes that are trained once"),
            ("domains", lambda r: r.stages[0] == "distill", "is not distilled, so no transfer set changes it"),
            ("compound", lambda r: r.start != RANDOM, "starts at random, so no D_LM changes it"),
        ):
            if other := [name for name in getattr(self, key).recipes if not fits(RECIPES[name])]:
                raise ValueError(f"{key}.recipes: {other[0]} {reason}; leave it out")
        widths = {str(Size.parse(s).hidden) for s in self.all_sizes}
        if missing := sorted(widths - set(self.init_std), key=int):
            raise ValueError(f'init_std has no scale for width {missing[0]}; add it, such as {{"{missing[0]}": 0.04}}')
        for key, values in (("rates", "rates"), ("batch", "batches"), ("epochs", "passes")):
            of_finetune, of_distill = len(getattr(self.finetune, values)), len(getattr(self.distill, values))
            if of_finetune != of_distill:
                raise ValueError(
                    f"finetune.{key} lists {of_finetune} and distill.{key} {of_distill}: recipes are compared fairly only after "
                    "equally large searches; list equally many"
                )
        for size, rates in self.rates_by_size.items():
            if size not in self.all_sizes:
                raise ValueError(f"rates_by_size: {size} is none of the study's sizes, {', '.join(self.all_sizes)}")
            if len(rates) != len(self.finetune.rates):
                raise ValueError(
                    f"rates_by_size.{size} lists {len(rates)} and finetune.rates {len(self.finetune.rates)}: sizes are compared fairly "
                    "only after equally large searches; list equally many"
                )
        if self.family is not None:
            if self.pretrain.starts > 1:
                raise ValueError("pretrain.starts: a family has one encoder of each size; set it to 1, or family to null")
            if self.tokenizer.folder is not None:
                raise ValueError("family: its own tokenizer is used; set tokenizer.folder to null")
            for size in self.all_sizes:
                self.family_name(Size.parse(size))
        for size in self.pretrain_by_size:
            try:
                self.pretraining(Size.parse(size))
            except ValidationError as error:
                raise ValueError(f"pretrain_by_size.{size}: {explain(error, Pretrain)}") from None
        return self

    @model_validator(mode="after")
    def _teacher_can_label(self):
        teacher = self.teacher
        if teacher.texts is not None and teacher.texts < self.transfer.texts:
            raise ValueError(
                f"teacher.texts: {teacher.texts:,} are fewer than transfer.texts, {self.transfer.texts:,}; students need them all"
            )
        if any(member.file for member in teacher.members):
            if self.domains.corpora:
                raise ValueError(
                    "domains.corpora: a file of soft labels has none for other texts; set it to [], or take another teacher"
                )
            if self.distill.labelled:
                raise ValueError("distill.labelled: a file of soft labels has none for the texts of D_L; take another teacher")
        return self

    def named_on_hub(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the splits, "data/split", and the models of the hub, "hub:owner/name", that the study names, each once."""
        names = [*(member.folder for member in self.teacher.members), self.tokenizer.folder]
        if self.family is not None:
            donors = [s for s in self.pretrain_by_size if "PD (truncated)" in self.recipes]
            names += [self.family_name(Size.parse(s)) for s in (*self.all_sizes, *donors)]
        models = tuple(dict.fromkeys(name for name in names if name and name.startswith(paths.HUB)))
        return mirror.splits_of_task(self.resolved_task()), models

    def known_corpora(self) -> tuple[str, ...]:
        """Return the names of the corpora that can be another D_T or D_LM."""
        return (OWN_TRANSFER, HELD_BACK, *(name for name, _ in self.resolved_task().elsewhere))

    def sizes_of(self, recipe: str) -> list[str]:
        """Return the sizes that a recipe is trained at."""
        return self.recipe_sizes.get(recipe, self.sizes)

    @property
    def all_sizes(self) -> tuple[str, ...]:
        """Return the students' sizes and the teachers', each once."""
        teachers = (member.size for member in self.teacher.members if member.size)
        return tuple(dict.fromkeys((*self.sizes, *teachers)))

    def pretraining(self, size: Size) -> Pretrain:
        """Return the pre-training settings of one size."""
        return Pretrain(**(self.pretrain.model_dump() | self.pretrain_by_size.get(str(size), {})))

    def family_name(self, size: Size) -> str:
        """Return the folder of the family's encoder of a size as the params file has it, or its name on the hub."""
        by_size = {OTHERS: self.family} if isinstance(self.family, str) else self.family
        if (template := by_size.get(str(size), by_size.get(OTHERS))) is None:
            raise ValueError(f"family: names nothing for {size}; add it, or {OTHERS}")
        try:
            name = template.format(layers=size.layers, hidden=size.hidden, heads=size.heads)
        except (KeyError, IndexError, ValueError, AttributeError):
            raise ValueError("family: write {layers}, {hidden} and {heads} in the folder's name where its size differs") from None
        if name.startswith(paths.HUB) and (not mirror.NAME.fullmatch(name) or ".." in name):
            raise ValueError(f"family: {name!r} is not the name of a model of the hub; write hub:owner/name")
        return name

    def resolved_task(self) -> Task:
        """Return the study's task, with the D_LM of `corpus.data` if that is set."""
        task, data = TASKS[self.task] if isinstance(self.task, str) else self.task.task(), self.corpus.data
        return replace(task, reads=tuple(data), corpus=", ".join(data)) if data else task

    def resolved_precision(self, precision: sections.Precision | None = None) -> str:
        """Return "fp32" or "bf16" for `precision`, or else for the study's; "auto" is the one that this processor multiplies faster."""
        precision = precision or self.precision
        return best_precision() if precision == "auto" else precision

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
        values = with_portable_paths(overrides.merged(load(path), settings, cls), path.parent)
        study = cls.checked(values, f"settings, over {path}: " if settings else f"{path}: ")
        study._origin = Origin(path.resolve(), settings or {})
        return study

    @classmethod
    def form(cls, path: str | Path) -> "Form":
        """Return the settings of a params file as a form for JupyterLab, which gives the line `settings = {...}` to paste."""
        from pdstudy.study.form import Form

        return Form(cls, str(path))

    @property
    def origin(self) -> Origin | None:
        """Return the params file and settings that the study was read from, None for one made from values."""
        return self._origin

    def __eq__(self, other: object) -> bool:
        """Return whether all settings are the same, wherever they were read from."""
        return isinstance(other, Study) and self.model_dump() == other.model_dump()

    def _repr_html_(self) -> str:
        """Return a folded table of every value; those that differ from the params file are marked."""
        in_file = Study.read(self.origin.path) if self.origin and self.origin.settings else self
        return overrides.folded_table(self, in_file)
