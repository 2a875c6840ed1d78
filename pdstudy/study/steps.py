"""Steps with digests, the students that they make, and the plan of both.

The digest of a step covers its stage, the version of that stage's code, the settings that change its result, and the digests of
its parents and texts. It does not cover the device, the number of workers, threads or the log interval: a step computed
elsewhere is the same step. Nor does it cover library versions, so that an upgrade does not discard a night of work: each
artifact records its versions, and the command `plan` says when they differ from those installed. `clean` removes all artifacts.

A change of code that changes results must therefore raise the stage's number in VERSION.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pdstudy.data.tasks import Task
from pdstudy.storage.store import identity
from pdstudy.study.settings import Study

MEAN_PIECES, SENTENCE = 30, 64  # of a sentence that is cut at so many pieces; for estimates only
# Raise a stage's number when a change of its code changes results.
VERSION = {
    "texts": 2, "domain": 1, "corpus": 1, "tokenizer": 1, "ids": 2, "words": 1, "pretrain": 3, "adopt": 2,
    "given": 2, "finetune": 4, "distill": 5, "search": 1, "label": 2, "evaluate": 1,
    "outside": 1, "tune": 1, "choose": 1, "file": 1, "linear": 1, "part": 1, "mean": 1, "fold": 1,
}  # fmt: skip


def mean_pieces(max_length: int) -> int:
    """Return an estimate of the mean number of pieces of texts that are cut at `max_length`."""
    return max(MEAN_PIECES, round(MEAN_PIECES * max_length / SENTENCE))


@dataclass(frozen=True)
class Step:
    """One stage with its settings and inputs. `parents` maps a role, such as "start", to a digest."""

    stage: str
    settings: dict[str, Any]
    parents: dict[str, str]
    label: str  # for logs and progress
    flops: float = 0.0  # estimate, for the time left
    folder: str | None = None  # the place of input files; the settings have only their digest
    room: int = 0  # estimate of the bytes that it writes
    texts: int = 0  # estimate of the texts that it reads, if not in its settings
    pieces: int = MEAN_PIECES  # estimate of the pieces of a text
    task: Task | None = None  # the place of the texts; the settings have only their digest

    @cached_property
    def digest(self) -> str:
        """Return the digest of the step: 16 hexadecimal digits."""
        return identity(self.stage, VERSION[self.stage], self.settings, self.parents)


@dataclass(frozen=True)
class Student:
    """One trained student of the study, or its teacher: the digests of its model and its evaluation."""

    recipe: str
    size: str
    seed: int
    model: str
    evaluation: str
    curve: str | None = None  # "transfer" or "labels" for a point of a learning curve
    texts: int | None = None  # the number of texts of that point
    domain: str | None = None  # the corpus of D_T, if not the study's own
    corpus: str | None = None  # the D_LM of its encoder, if not the study's own

    @property
    def own(self) -> bool:
        """Return whether it is on the study's own texts and no point of a learning curve."""
        return self.curve is None and self.domain is None and self.corpus is None


@dataclass
class Plan:
    """The steps of a study, parents first, and its students."""

    study: Study
    steps: dict[str, Step] = field(default_factory=dict)
    students: list[Student] = field(default_factory=list)
    asked: int = 0  # calls of `add`: shared steps count every time

    def add(self, step: Step) -> str:
        """Return the step's digest, after adding it if it is new."""
        self.asked += 1
        self.steps.setdefault(step.digest, step)
        return step.digest

    def only(self, students: list[Student]) -> "Plan":
        """Return the plan of only these of its students: the steps that they need."""
        wanted = {digest for student in students for digest in (student.model, student.evaluation)}
        for digest in reversed(self.steps):  # parents come first
            if digest in wanted:
                wanted |= set(self.steps[digest].parents.values())
        return replace(self, steps={d: step for d, step in self.steps.items() if d in wanted}, students=students)

    def of_stage(self, stage: str) -> list[Step]:
        """Return the steps of one stage."""
        return [s for s in self.steps.values() if s.stage == stage]

    def source_of(self, step: Step) -> str | None:
        """Return the other corpus that a step's texts come from, None for the study's own texts."""
        while step.stage not in ("texts", "corpus", "domain"):
            step = self.steps[step.parents["ids" if "ids" in step.parents else "texts"]]
        return step.settings["corpus"] if step.stage != "texts" else None

    def counts(self) -> dict[str, int]:
        """Return the number of steps by stage."""
        return dict(Counter(s.stage for s in self.steps.values()))
