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

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from pdstudy import mirror, paths
from pdstudy.fields import (
    MOST,
    NAME,
    ONE,
    OTHERS,
    SEVERAL,
    Batch,
    CorpusText,
    Count,
    Counts,
    DataSplit,
    Family,
    Precision,
    Rate,
    Rates,
    Seed,
    Settings,
    SizeText,
    whole_number,
)  # fmt: skip
from pdstudy.own import TASK_FILES, TASK_NAME, Own, TaskGiven, placed
from pdstudy.paramsfile import ParamsError, find, load
from pdstudy.recipes import RECIPES
from pdstudy.sizes import Size
from pdstudy.tasks import HELD_BACK, OWN_TRANSFER, TASKS, Task


class Splits(Settings):
    """How many labelled texts go into each split of D_L; `train: 0` takes all that dev and test leave.

    Where a task has its own dev or test, that one's number is not used.
    """

    train: Annotated[int, Field(ge=0, le=MOST), BeforeValidator(whole_number)] = 0
    dev: Count = 1000
    test: Count = 2530
    seed: Seed = 0  # of the cut: one for all seeds of training, so that every student answers the same test


class Corpus(Settings):
    """D_LM: how many documents, and the share held out to measure how well a model reads."""

    documents: Count | None = None  # None takes all
    heldout: Annotated[float, Field(gt=0, lt=0.5)] = 0.02
    data: Annotated[list[DataSplit], Field(max_length=20)] = []  # named splits that are read; none: the task's own D_LM


class Tokenizer(Settings):
    """Word pieces: trained on D_LM, or taken from a folder that holds a tokenizer.json or a vocab.txt."""

    vocabulary: Annotated[int, Field(ge=64, le=65_535)] = 8192
    folder: str | None = None


class Pretrain(Settings):
    """Masked language modelling on D_LM (the paper's section 3; BERT's 15 %, 80/10/10)."""

    tokens: Annotated[float, Field(ge=1, le=1e15)] = 16e6  # pieces read, repeats included; YAML 16e6
    row: Annotated[int, Field(ge=16, le=512)] = 64  # pieces in a row
    batch: Count = 32  # rows in a step
    mask: Annotated[float, Field(gt=0, lt=1)] = 0.15  # share of pieces masked
    whole_words: bool = False  # mask all pieces of a word or none
    cls_words: Annotated[float, Field(ge=0, le=10)] = 0.0  # weight of a second task: [CLS] names its row's words
    rate: Rate = 1e-3
    optimiser: Literal["adamw", "muon"] = "adamw"
    muon_rate: Rate = 0.02  # for the layers' matrices, where optimiser is muon
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    init_std: Annotated[float, Field(gt=0, le=1)] | None = None  # initialiser's scale; None takes the study's for the width
    positions: Literal["random", "sinusoid"] = "random"  # how position embeddings start
    words: Literal["random", "counts"] = "random"  # how word embeddings start: at random, or from D_LM's counts of pairs,
    window: Annotated[int, Field(ge=1, le=64)] = 3  # at most so many pieces apart,
    words_std: Annotated[float, Field(gt=0, le=1)] = 0.06  # scaled to this
    starts: Count = 1  # encoders pre-trained per size; student seed s begins from number s mod starts
    precision: Precision | None = None  # None takes the study's, as compound's encoders do
    compile: bool = False  # the encoder into fewer, larger kernels; wants a C++ compiler; benchmarks/ways.py says whether it pays


class Train(Settings):
    """One supervised stage: fine-tuning on D_L or distillation on D_T. `rates` are searched on dev."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = 4
    batch: Batch = 32  # texts in a step; several are searched on dev with the rates, each with each
    rates: Rates
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01

    @property
    def batches(self) -> list[int]:
        """Return the batch sizes, one or those that are searched."""
        return self.batch if isinstance(self.batch, list) else [self.batch]


class Distill(Train):
    """Distillation: soft cross-entropy at a temperature; the paper's is 1."""

    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0


class Transfer(Settings):
    """D_T: how many unlabelled texts the teacher labels."""

    texts: Count = 20_000


class Curves(Settings):
    """Learning curves: students trained on fewer texts than the study's, at the rates found for the study's own (Fig 8)."""

    transfer: Counts = []  # numbers of D_T's texts, for recipes that distil
    labels: Counts = []  # numbers of D_L's training texts, for recipes that only fine-tune
    sizes: list[SizeText] = []  # none: all the study's
    recipes: list[str] = []  # none: all the study's of one stage


class Domains(Settings):
    """Transfer sets of one size from other corpora, at the rates found for the study's own D_T (Fig 9)."""

    corpora: list[CorpusText] = []
    texts: Count = 2000  # of each
    epochs: Annotated[float, Field(gt=0, le=1000)] = 4
    sizes: list[SizeText] = []  # none: all the study's
    recipes: list[str] = []  # none: all the study's that distil


class Compound(Settings):
    """Encoders that read another D_LM than the study's, and the students begun from them (Fig 10)."""

    corpora: list[CorpusText] = []
    tokens: Annotated[float, Field(ge=1, le=1e15)] = 3e6  # pieces read, the same for each
    sizes: list[SizeText] = []  # none: all the study's
    recipes: list[str] = []  # none: PF and PD, where the study has them


class Teacher(Settings):
    """The teacher: a size pre-trained and fine-tuned here, or a folder with a fine-tuned classifier."""

    size: SizeText | None = "4/256"
    folder: str | None = None
    margin: Annotated[float, Field(ge=-1, le=1)] = 0.02  # above the majority class on dev, or it teaches nobody

    @model_validator(mode="after")
    def _one(self):
        if (self.size is None) == (self.folder is None):
            raise ValueError("give either a size (trained here) or a folder (already trained), not both; set the other to null")
        return self


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
    transfer: Transfer = Transfer()
    curves: Curves = Curves()
    domains: Domains = Domains()
    compound: Compound = Compound()
    finetune: Train
    distill: Distill
    precision: Precision = "auto"

    @model_validator(mode="after")
    def _coherent(self):
        if not NAME.fullmatch(self.name) or ".." in self.name:
            raise ValueError(
                f"name {self.name!r}: use 1 to 64 small letters, digits, '.', '_' or '-', such as {_slug(self.name)!r}"
            )
        if self.name in ("store", "cache", "hub"):
            raise ValueError(f"name {self.name!r} is kept for the {'hub' if self.name == 'hub' else 'store'}; choose another")
        if isinstance(self.task, str):
            _known("task", self.task, TASKS)
        elif self.task.corpus and self.corpus.data:
            raise ValueError("corpus.data and task.corpus both say what D_LM is; leave out one of them")
        if twice := [name for name in self.corpus.data if self.corpus.data.count(name) > 1]:
            raise ValueError(f"corpus.data: {twice[0]!r} is listed twice; list each once")
        for recipe in self.recipes:
            _known("recipe", recipe, RECIPES)
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

    def _narrowed(self) -> list[tuple[str, list[str], list[str]]]:
        """Return where the study is narrowed to some sizes or recipes: (key, sizes, recipes)."""
        parts = [(key, getattr(self, key).sizes, getattr(self, key).recipes) for key in ("curves", "domains", "compound")]
        return parts + [(f"recipe_sizes.{recipe}", sizes, [recipe]) for recipe, sizes in self.recipe_sizes.items()]

    def corpora_known(self) -> tuple[str, ...]:
        """Return the names of corpora that other transfer sets and other D_LM can be taken from."""
        return (OWN_TRANSFER, HELD_BACK, *(name for name, _ in self.resolved_task().elsewhere))

    def sizes_of(self, recipe: str) -> list[str]:
        """Return the sizes at which a recipe is tried."""
        return self.recipe_sizes.get(recipe, self.sizes)

    @property
    def all_sizes(self) -> tuple[str, ...]:
        """Return the students' sizes and the teacher's, each once."""
        teacher = (self.teacher.size,) if self.teacher.size else ()
        return tuple(dict.fromkeys((*self.sizes, *teacher)))

    def pretraining(self, size: Size) -> Pretrain:
        """Return the pre-training settings of one size."""
        return Pretrain(**(self.pretrain.model_dump() | self.pretrain_by_size.get(str(size), {})))

    def family_folder(self, size: Size) -> Path:
        """Return where the family keeps its encoder of a size."""
        return paths.whole(self.family_name(size))

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
    def given(cls, names: dict[str, Any]) -> "Study":
        """Return the study whose keys stand among `names`, such as a notebook's `globals()`. Raises ParamsError."""
        try:
            return cls(**{key: names[key] for key in cls.model_fields if key in names})
        except ValidationError as error:
            raise ParamsError(explain(error)) from None

    @classmethod
    def read(cls, path: str | Path) -> "Study":
        """Return the study of a params file, or of a name in params/ such as "quick". Raises ParamsError."""
        path = find(path)
        try:
            return cls(**placed(load(path), path.parent))
        except ValidationError as error:
            raise ParamsError(f"{path}: {explain(error)}") from None


def explain(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """Return pydantic's errors as one sentence each: the key, what is wrong, the nearest known key."""
    sentences = []
    for e in error.errors():
        loc = tuple(part for part in e["loc"] if part not in (TASK_NAME, TASK_FILES, ONE, SEVERAL))
        where = ".".join(str(part) for part in loc)
        message = e["msg"].removeprefix("Value error, ")
        if e["type"] == "extra_forbidden":
            known = _keys(loc[:-1], model or Study)
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


def best_precision(processor: Path = Path("/proc/cpuinfo")) -> str:
    """Return "bf16" where the processor multiplies that fastest, else "fp32". Reads no torch.

    Intel's tiles (AMX) do; its AVX-512 products alone run at half the speed of fp32 (`python benchmarks/precision.py`).
    AMD's are another make.
    """
    try:
        told = processor.read_text()
    except OSError:
        return "fp32"
    return "bf16" if "amx_bf16" in told or ("AuthenticAMD" in told and "avx512_bf16" in told) else "fp32"


def _known(what: str, value: str, known: dict) -> None:
    if value not in known:
        near = difflib.get_close_matches(value, list(known), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown {what} {value!r}; {hint}choose from {', '.join(map(repr, known))}")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:64] or "mine"


def _keys(loc: tuple, model: Any) -> list[str]:
    for part in loc:
        if part == "task":
            model = Own
            continue
        annotation = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else None
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else Study
    return list(model.model_fields)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
