"""The sections of a study's settings: the text, the word pieces, each stage of training, and what else is tried."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pdstudy.fields import (
    MOST,
    Batch,
    CorpusText,
    Count,
    Counts,
    DataSplit,
    Precision,
    Rate,
    Rates,
    Seed,
    Settings,
    SizeText,
    whole_number,
)


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
    # BERT's second phase: in the last `long_share` of the steps rows have `long_row` pieces, and a step as many pieces as before.
    long_row: Annotated[int, Field(ge=16, le=512)] | None = None
    long_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
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

    @model_validator(mode="after")
    def _long_rows(self):
        if self.long_row is not None and self.compile:
            raise ValueError("long_row: a compiled encoder takes rows of one length; set compile to false, or long_row to null")
        if self.long_row is not None and self.long_row <= self.row:
            raise ValueError(f"long_row: {self.long_row} pieces are not more than row, {self.row}")
        if self.long_row is not None and self.batch * self.row < self.long_row:
            raise ValueError(f"long_row: {self.long_row} pieces do not fit in a step of {self.batch * self.row}; raise batch")
        return self


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
