"""A task in files of one's own, as a params file gives it, and the ways in which any task is given."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from pdstudy.data.dialects import UTF8, Dialect, checked_delimiter, checked_encoding
from pdstudy.data.tasks import TASKS, Files, Task, Wheel
from pdstudy.storage import paths
from pdstudy.study.sections import NAME, CorpusName, Listed, Settings, Words


class Own(Settings):
    """A task in files of one's own: tables of labelled texts, and unlabelled ones as tables or plain text.

    Paths are relative to the params file. What is left out is made: dev and test are split off train, D_T is the
    texts of train without their labels, D_LM is D_T. A corpus alone is enough to pre-train a family.
    """

    name: str = "mine"
    train: Words | None = None
    dev: Words | None = None
    test: Words | None = None
    transfer: Listed = []
    corpus: Listed = []
    text: Annotated[Listed, Field(min_length=1, max_length=2)] = ["text"]  # its column, or the two of a pair
    label: Words = "label"  # its column
    labels: Annotated[Listed, Field(max_length=1000)] = []  # names in the order of the class numbers; none: those in train
    # How .csv, .tsv, .txt and JSON lines are written; null: as the ending of the name says.
    delimiter: str | None = None
    quotes: bool | None = None
    header: bool = True  # without one the columns are called "1", "2", "3"
    encoding: str = UTF8
    rare: Literal["drop", "merge", "keep"] | None = (
        None  # what becomes of classes of fewer than 5 texts; null: a lost one is refused
    )
    elsewhere: dict[CorpusName, Listed] = {}  # text of other domains by name, for `domains` and `compound`

    @model_validator(mode="after")
    def _coherent(self):
        embedded = [name for name, task in TASKS.items() if isinstance(task.source, Wheel)]
        if not NAME.fullmatch(self.name) or ".." in self.name or self.name in embedded:
            raise ValueError(f"name {self.name!r}: use small letters, digits, '.', '_' or '-', and none of {', '.join(embedded)}")
        if self.train is None and (not self.corpus or self.dev or self.test or self.transfer):
            raise ValueError("give train, a table of labelled texts; or a corpus and nothing else, to pre-train a family on")
        if len({*self.text, self.label}) < len(self.text) + 1:
            raise ValueError("text and label must be different columns")
        if self.delimiter is not None:
            checked_delimiter(self.delimiter)
        checked_encoding(self.encoding)
        if self.labels and (len(self.labels) < 2 or len(set(self.labels)) < len(self.labels)):
            raise ValueError("labels: name at least two classes, each once")
        return self

    def dialect(self) -> Dialect:
        """Return how the task's delimited and plain text files are written."""
        delimiter = None if self.delimiter is None else checked_delimiter(self.delimiter)
        return Dialect(delimiter, self.quotes, self.header, checked_encoding(self.encoding))

    def task(self) -> Task:
        """Return the task, its paths whole."""
        place = {k: str(paths.absolute(getattr(self, k))) for k in ("train", "dev", "test") if getattr(self, k)}
        lists = {k: tuple(str(paths.absolute(p)) for p in getattr(self, k)) for k in ("transfer", "corpus")}
        other = tuple((name, tuple(str(paths.absolute(p)) for p in given)) for name, given in self.elsewhere.items())
        files = Files(**({"train": None} | place), **lists, text=tuple(self.text), label=self.label, labels=tuple(self.labels),
                      dialect=self.dialect(), rare=self.rare)  # fmt: skip
        shown = {k: ", ".join(Path(p).name for p in getattr(self, k)) for k in ("transfer", "corpus")}
        labelled = Path(self.train).name if self.train else "nothing"
        return Task(
            name=self.name,
            title=f"the classes of {labelled}",
            source=files,
            labels=tuple(self.labels),
            labelled=labelled,
            transfer=shown["transfer"] or "the texts of train, labels dropped",
            corpus=shown["corpus"] or shown["transfer"] or "the texts of train",
            elsewhere=other,
        )


TASK_NAME, TASK_FILES = "<name>", "<files>"  # the two ways to give a task, as pydantic's errors call them
TaskGiven = Annotated[
    Annotated[str, Tag(TASK_NAME)] | Annotated[Own, Tag(TASK_FILES)],
    Discriminator(lambda given: TASK_FILES if isinstance(given, (dict, Own)) else TASK_NAME),
]


def placed(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings with the paths of a task's files, relative to its params file, as they are from the checkout."""
    task, teacher = values.get("task"), values.get("teacher")
    if isinstance(teacher, dict):
        values = values | {"teacher": _placed_teacher(teacher, folder)}
    if not isinstance(task, dict):
        return values

    def portable(value):
        return (
            [portable(v) for v in value]
            if isinstance(value, list)
            else paths.portable(value, folder)
            if isinstance(value, str)
            else value
        )

    keys, other = ("train", "dev", "test", "transfer", "corpus"), task.get("elsewhere")
    task = task | {key: portable(task[key]) for key in keys if key in task}
    if isinstance(other, dict):
        task["elsewhere"] = {name: portable(given) for name, given in other.items()}
    return values | {"task": task}


def _placed_teacher(teacher: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the teacher's settings with the paths of its files, and of its members', as they are from the checkout."""
    if isinstance(teacher.get("file"), str):
        teacher = teacher | {"file": paths.portable(teacher["file"], folder)}
    if isinstance(members := teacher.get("mean"), list):
        teacher = teacher | {"mean": [_placed_teacher(m, folder) if isinstance(m, dict) else m for m in members]}
    return teacher
