"""The key `task` of a params file: the name of a task, or a task in the user's own files."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from pdstudy.data.dialects import UTF8, Dialect, checked_delimiter, checked_encoding
from pdstudy.data.tasks import TASKS, Files, Task, Wheel
from pdstudy.storage import paths
from pdstudy.study.sections import NAME, CorpusName, Name, Names, Settings


class Own(Settings):
    """A task in the user's files: tables of labelled texts, and unlabelled ones as tables or plain text.

    Paths are relative to the params file. Defaults: dev and test are split off train, D_T is the texts of train without
    their labels, D_LM is D_T. A corpus alone is enough to pre-train a family.
    """

    name: str = "mine"
    train: Name | None = None
    dev: Name | None = None
    test: Name | None = None
    transfer: Names = []
    corpus: Names = []
    text: Annotated[Names, Field(min_length=1, max_length=2)] = ["text"]  # the column of the text, or the two of a pair
    label: Name = "label"  # the column of the label
    labels: Annotated[Names, Field(max_length=1000)] = []  # names in the order of the class numbers; none: those in train
    # The format of .csv, .tsv, .txt and JSON lines; null: the usual one of the file's suffix.
    delimiter: str | None = None
    quotes: bool | None = None
    header: bool = True  # without one the columns are called "1", "2", "3"
    encoding: str = UTF8
    # What happens to classes of fewer than 5 texts; null: an error if a split lacks one.
    rare: Literal["drop", "merge", "keep"] | None = None
    elsewhere: dict[CorpusName, Names] = {}  # text of other domains by name, for `domains` and `compound`

    @model_validator(mode="after")
    def _coherent(self):
        embedded = [name for name, task in TASKS.items() if isinstance(task.source, Wheel)]
        if not NAME.fullmatch(self.name) or ".." in self.name or self.name in embedded:
            raise ValueError(f"name {self.name!r}: use small letters, digits, '.', '_' or '-', and none of {', '.join(embedded)}")
        if self.train is None and (not self.corpus or self.dev or self.test or self.transfer):
            raise ValueError("give train, a table of labelled texts; or only a corpus, to pre-train a family on")
        if len({*self.text, self.label}) < len(self.text) + 1:
            raise ValueError("text and label must be different columns")
        self.dialect()  # raises ValueError for an unusable delimiter or encoding
        if self.labels and (len(self.labels) < 2 or len(set(self.labels)) < len(self.labels)):
            raise ValueError("labels: name at least two classes, each once")
        return self

    def dialect(self) -> Dialect:
        """Return the format of the task's delimited and plain text files."""
        delimiter = None if self.delimiter is None else checked_delimiter(self.delimiter)
        return Dialect(delimiter, self.quotes, self.header, checked_encoding(self.encoding))

    def task(self) -> Task:
        """Return the task, with absolute paths."""
        labelled = {k: str(paths.absolute(getattr(self, k))) for k in ("train", "dev", "test") if getattr(self, k)}
        unlabelled = {k: _absolute(getattr(self, k)) for k in ("transfer", "corpus")}
        files = Files(**({"train": None} | labelled), **unlabelled, text=tuple(self.text), label=self.label,
                      labels=tuple(self.labels), dialect=self.dialect(), rare=self.rare)  # fmt: skip
        train = Path(self.train).name if self.train else "nothing"
        transfer, corpus = (", ".join(Path(p).name for p in names) for names in (self.transfer, self.corpus))
        return Task(
            name=self.name,
            title=f"the classes of {train}",
            source=files,
            labels=tuple(self.labels),
            labelled=train,
            transfer=transfer or "the texts of train, labels dropped",
            corpus=corpus or transfer or "the texts of train",
            elsewhere=tuple((name, _absolute(files)) for name, files in self.elsewhere.items()),
        )


TASK_NAME, TASK_FILES = "<name>", "<files>"  # the two kinds of the key `task`, as pydantic's errors name them
TaskSetting = Annotated[
    Annotated[str, Tag(TASK_NAME)] | Annotated[Own, Tag(TASK_FILES)],
    Discriminator(lambda value: TASK_FILES if isinstance(value, (dict, Own)) else TASK_NAME),
]


def with_portable_paths(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings with the paths of task and teacher, which are relative to `folder`, relative to the workspace."""

    def portable(value: Any, keys: tuple[str, ...] | None = None) -> Any:
        """Return a value with its paths changed; of a mapping those under `keys`, if given."""
        if isinstance(value, dict):
            return {k: portable(v) if keys is None or k in keys else v for k, v in value.items()}
        if isinstance(value, list):
            return [portable(v, keys) for v in value]
        return paths.portable(value, folder) if isinstance(value, str) else value

    task, teacher = values.get("task"), values.get("teacher")
    if isinstance(teacher, dict):
        values = values | {"teacher": portable(teacher, ("file",))}
        if isinstance(teacher.get("mean"), list):
            values["teacher"]["mean"] = portable(teacher["mean"], ("file",))
    if isinstance(task, dict):
        values = values | {"task": portable(task, ("train", "dev", "test", "transfer", "corpus", "elsewhere"))}
    return values


def _absolute(names: list[str]) -> tuple[str, ...]:
    return tuple(str(paths.absolute(name)) for name in names)
