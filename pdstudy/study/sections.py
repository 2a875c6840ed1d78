"""The sections of a study's settings, and the types of their values: counts, rates, sizes, names and lists."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from pdstudy.data.tasks import DATA
from pdstudy.sizes import Size

MOST = 10**12  # of any count, so that estimates stay finite
SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Settings(BaseModel):
    """A group of settings: frozen, without unknown keys, defaults checked too."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def _size(text: Any) -> str:
    return str(Size.parse(text))


def _rates(values: Any) -> Any:
    numbers = [f"{float(v):g}" for v in values if isinstance(v, (int, float, str))] if isinstance(values, list) else []
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"a learning rate is listed twice: {values}")
    return values


def _no_bool(value: Any) -> Any:
    """Return the value. Raises ValueError for true and false, which Python counts as numbers."""
    if isinstance(value, bool):
        raise ValueError("expected a number, got true or false")
    return value


def _rising(values: Any) -> Any:
    if isinstance(values, list) and all(isinstance(v, int) for v in values) and values != sorted(set(values)):
        raise ValueError(f"list each number once, the smallest first: {values}")
    return values


def _by_size(value: Any) -> Any:
    return {k if k == OTHERS else _size(k): v for k, v in value.items()} if isinstance(value, dict) else value


def _one_or_several(one: Any, several: Any, container: type) -> Any:
    """Return the type of a value that is `one`, or, as a `container`, `several`; errors then name one of the two only."""
    return Annotated[
        Annotated[one, Tag(ONE)] | Annotated[several, Tag(SEVERAL)],
        Discriminator(lambda value: SEVERAL if isinstance(value, container) else ONE),
    ]


OTHERS = "others"  # in `family`: all sizes that have no key of their own
ONE, SEVERAL = "<one>", "<several>"
SizeText = Annotated[str, BeforeValidator(_size)]
Rate = Annotated[float, Field(gt=0, le=1)]
Rates = Annotated[list[Rate], Field(min_length=1, max_length=12), BeforeValidator(_rates)]
Count = Annotated[int, Field(ge=1, le=MOST), BeforeValidator(_no_bool)]
Counts = Annotated[list[Count], Field(max_length=20), BeforeValidator(_rising)]
Seed = Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(_no_bool)]
Precision = Literal["fp32", "bf16", "auto"]
CorpusName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")]
CorpusText = Annotated[
    str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}(\+[a-z0-9][a-z0-9._-]{0,31}){0,7}$")
]  # "a+b": equal parts of each


def _split_of_data(text: Any) -> Any:
    data, _, split = text.partition("/") if isinstance(text, str) else ("", "", "")
    if data not in DATA or not SPLIT.fullmatch(split):
        raise ValueError(
            f"{text!r} is not a split of a named data set; write one of {', '.join(DATA)} with a split, such as imdb/train"
        )
    return text


DataSplit = Annotated[str, BeforeValidator(_split_of_data)]


def _as_list(value: Any) -> Any:
    return [] if value is None else [value] if isinstance(value, str) else value


Name = Annotated[str, Field(min_length=1, max_length=4096)]  # of a file, folder, column or class
Names = Annotated[list[Name], BeforeValidator(_as_list)]  # one name may stand without brackets

Passes = Annotated[float, Field(gt=0, le=1000), BeforeValidator(_no_bool)]  # over the texts
Batch = _one_or_several(Count, Annotated[Counts, Field(min_length=2)], list)
Epochs = _one_or_several(Passes, Annotated[list[Passes], Field(min_length=2, max_length=6)], list)
Family = _one_or_several(Name, Annotated[dict[str, Name], BeforeValidator(_by_size)], dict)


class Splits(Settings):
    """The number of labelled texts in each split of D_L; `train: 0` takes all that dev and test leave.

    A task with its own dev or test set does not use that split's number.
    """

    train: Annotated[int, Field(ge=0, le=MOST), BeforeValidator(_no_bool)] = 0
    dev: Count = 1000
    test: Count = 2530
    seed: Seed = 0  # of the split, the same for all training seeds, so that every student has the same test texts


class Corpus(Settings):
    """D_LM: the number of documents, and the share held out to measure pre-training."""

    documents: Count | None = None  # None takes all
    heldout: Annotated[float, Field(gt=0, lt=0.5)] = 0.02
    data: Annotated[list[DataSplit], Field(max_length=20)] = []  # named splits that are D_LM; none: the task's own


class Tokenizer(Settings):
    """Word pieces: trained on D_LM, or taken from a folder with a tokenizer.json or a vocab.txt."""

    vocabulary: Annotated[int, Field(ge=8, le=65_535)] = 8192
    folder: str | None = None


class Pretrain(Settings):
    """Masked language modelling on D_LM (the paper's section 3; BERT's 15 %, 80/10/10)."""

    tokens: Annotated[float, Field(ge=1, le=1e15)] = 16e6  # pieces trained on, repeats included
    row: Annotated[int, Field(ge=16, le=512)] = 64  # pieces in a row
    batch: Count = 32  # rows in a step
    # BERT's second phase: the last `long_share` of the steps has rows of `long_row` pieces, and as many pieces in a step.
    long_row: Annotated[int, Field(ge=16, le=512)] | None = None
    long_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    mask: Annotated[float, Field(gt=0, lt=1)] = 0.15  # share of pieces masked
    whole_words: bool = False  # mask all pieces of a word or none
    cls_words: Annotated[float, Field(ge=0, le=10)] = 0.0  # weight of a second task: [CLS] predicts its row's words
    rate: Rate = 1e-3
    optimiser: Literal["adamw", "muon"] = "adamw"
    muon_rate: Rate = 0.02  # for the layers' matrices, where optimiser is muon
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    init_std: Annotated[float, Field(gt=0, le=1)] | None = None  # initialiser's scale; None takes the study's for the width
    positions: Literal["random", "sinusoid"] = "random"  # how position embeddings start
    words: Literal["random", "counts"] = "random"  # how word embeddings start: at random, or from counts of pairs in D_LM
    window: Annotated[int, Field(ge=1, le=64)] = 3  # with "counts": the largest distance between the pieces of a pair
    words_std: Annotated[float, Field(gt=0, le=1)] = 0.06  # with "counts": the embeddings' standard deviation
    starts: Count = 1  # encoders pre-trained per size; the student of seed s starts from number s mod starts
    precision: Precision | None = None  # None takes the study's, as compound's encoders do
    compile: bool = False  # the encoder with torch.compile; needs a C++ compiler; benchmarks/ways.py measures the gain

    @model_validator(mode="after")
    def _long_rows(self):
        if self.long_row is not None and self.compile:
            raise ValueError("long_row: a compiled encoder has rows of one length; set compile to false, or long_row to null")
        if self.long_row is not None and self.long_row <= self.row:
            raise ValueError(f"long_row: {self.long_row} pieces are not more than row, {self.row}")
        if self.long_row is not None and self.batch * self.row < self.long_row:
            raise ValueError(f"long_row: {self.long_row} pieces do not fit in a step of {self.batch * self.row}; raise batch")
        return self


class Train(Settings):
    """One supervised stage: fine-tuning on D_L or distillation on D_T. The best of `rates` on dev is used."""

    epochs: Epochs = 4  # passes over the texts; of several the best on dev is used, in every combination with the rates
    batch: Batch = 32  # texts in a step; several are searched in the same way
    rates: Rates
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01

    @property
    def batches(self) -> list[int]:
        """Return the batch sizes that are searched."""
        return self.batch if isinstance(self.batch, list) else [self.batch]

    @property
    def passes(self) -> list[float]:
        """Return the numbers of epochs that are searched."""
        return self.epochs if isinstance(self.epochs, list) else [self.epochs]


class Distill(Train):
    """Distillation: soft cross-entropy at a temperature; the paper's is 1."""

    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0
    # Options beyond the paper, off by default; benchmarks/teaching.py measures what each is worth.
    loss: Literal["soft", "logits"] = "soft"  # logits: the squared distance of centred logits instead of cross-entropy
    labelled: bool = False  # also distil on the texts of D_L
    true_labels: Annotated[float, Field(ge=0, le=1)] = 0.0  # weight of their true labels beside the soft ones, if labelled
    match_classes: bool = False  # shift the student's bias until its mean probabilities over D_L are the class shares there

    @model_validator(mode="after")
    def _true_labels(self):
        if self.true_labels and not self.labelled:
            raise ValueError("true_labels: only texts of D_L have true labels; set labelled to true")
        return self


class Transfer(Settings):
    """D_T: the number of texts that students are distilled on."""

    texts: Count = 20_000


class Curves(Settings):
    """Learning curves: students trained on fewer texts, at the rates chosen for the study's own students (Fig 8)."""

    transfer: Counts = []  # numbers of D_T's texts, for recipes that distil
    labels: Counts = []  # numbers of D_L's training texts, for recipes that only fine-tune
    sizes: list[SizeText] = []  # none: all the study's
    recipes: list[str] = []  # none: all the study's of one stage


class Domains(Settings):
    """Transfer sets of one size from other corpora, at the rates chosen for the study's own D_T (Fig 9)."""

    corpora: list[CorpusText] = []
    texts: Count = 2000  # of each
    epochs: Annotated[float, Field(gt=0, le=1000)] = 4
    sizes: list[SizeText] = []  # none: all the study's
    recipes: list[str] = []  # none: all the study's that distil


class Compound(Settings):
    """Encoders pre-trained on other corpora than the study's D_LM, and the students that start from them (Fig 10)."""

    corpora: list[CorpusText] = []
    tokens: Annotated[float, Field(ge=1, le=1e15)] = 3e6  # pieces trained on, the same for each
    sizes: list[SizeText] = []  # none: all the study's
    recipes: list[str] = []  # none: PF and PD, where the study has them


class Tune(Settings):
    """Fine-tuning on D_L of a teacher that is an encoder of `folder`; its rates and epochs are searched on dev."""

    epochs: Annotated[list[Annotated[float, Field(gt=0, le=1000)]], Field(min_length=1, max_length=6)] = [3]
    rates: Rates = [3e-5]
    batch: Count = 16
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    precision: Precision | None = None  # None takes the study's; bf16 or fp32 where labels are to be released


class Member(Settings):
    """One teacher: exactly one of these keys is set."""

    size: SizeText | None = None  # pre-trained and fine-tuned here
    # A classifier or an encoder that transformers opens: a folder, "hub:owner/name", or "wheel:package==version".
    folder: Name | None = None
    file: Name | None = None  # a table of the transfer texts with their probabilities or labels
    linear: bool = False  # the linear model, trained on D_L

    @property
    def kinds(self) -> list[str]:
        """Return the keys that are set: one, unless the settings are wrong."""
        return [key for key in ("size", "folder", "file", "linear") if getattr(self, key)]

    @model_validator(mode="after")
    def _single(self):
        if type(self) is Member and len(self.kinds) != 1:
            raise ValueError("a member of teacher.mean is one of size, folder, file and linear")
        return self


class Teacher(Member):
    """The teacher: a size trained here, a folder, a file of soft labels, the linear model, or the mean of several."""

    size: SizeText | None = "4/256"
    mean: Annotated[list[Member], Field(max_length=8)] = []  # the mean of their probabilities
    margin: Annotated[float, Field(ge=-1, le=1)] = 0.02  # least gain over the majority class on dev; a worse teacher is refused
    texts: Count | None = None  # of D_T that it labels, if more than transfer.texts; students use the first
    max_length: Annotated[int, Field(ge=8, le=8192)] | None = None  # pieces of a text, for a model of `folder`; None: the study's
    finetune: Tune = Tune()  # for a model of `folder` without a classifier

    @property
    def members(self) -> list[Member]:
        """Return the teachers of the mean, or this one alone."""
        return self.mean or [self]

    @model_validator(mode="after")
    def _one(self):
        if len(self.kinds) + bool(self.mean) != 1:
            raise ValueError(
                "give either a size (trained here), a folder (already trained), a file of soft labels, linear: true, or a mean of "
                "several; set the others to null"
            )
        if len(self.mean) == 1:
            raise ValueError("mean: give at least two teachers, or name the one without mean")
        return self


class Linear(Settings):
    """The linear baseline: TF-IDF and logistic regression; its C is searched on dev."""

    strengths: Annotated[list[Annotated[float, Field(gt=0, le=1e6)]], Field(min_length=1, max_length=12)] = [1, 3, 10, 30, 100]  # C
    texts: Count = 200_000  # of D_T, at most, for "Linear, taught"
