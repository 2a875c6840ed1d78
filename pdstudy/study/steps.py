"""What a study consists of: steps with digests, the students that they make, and the plan that holds both.

When is a step *new*? A step is its stage, the version of that stage's code, the settings that change its
meaning, the digests of its parents and of the text it read. Device, number of workers, threads and log
interval are not part of it: the same step computed elsewhere is the same step. Library versions are not
part of it either, so an upgrade does not throw a night of work away; each artifact records the versions
that made it and `plan` says so when they differ from those installed. Whoever wants everything made anew
runs `clean`.

The cost of that choice: a change of code that changes results must raise VERSION below.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pdstudy.data.tasks import Task
from pdstudy.storage.store import identity
from pdstudy.study.settings import Study

# Raise a stage's number when its code changes what it computes.
VERSION = {
    "texts": 2, "domain": 1, "corpus": 1, "tokenizer": 1, "ids": 2, "words": 1, "pretrain": 3, "adopt": 2,
    "given": 2, "finetune": 4, "distill": 5, "search": 1, "label": 2, "evaluate": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One stage with its settings and inputs. `parents` maps a role, such as "start", to a digest."""

    stage: str
    settings: dict[str, Any]
    parents: dict[str, str]
    label: str  # for people: logs and progress
    flops: float = 0.0  # estimate, for the time left
    folder: str | None = None  # where given files lie; their digest is in the settings, the place is not
    room: int = 0  # estimate of the bytes that it writes
    texts: int = 0  # estimate of those that it reads, where its settings do not say
    task: Task | None = None  # where texts come from; what they are is in the settings

    @cached_property
    def digest(self) -> str:
        """Return the identity of the step: 16 hexadecimal digits."""
        return identity(self.stage, VERSION[self.stage], self.settings, self.parents)


@dataclass(frozen=True)
class Student:
    """One trained student of the study, or its teacher: which step made it and which measured it."""

    recipe: str
    size: str
    seed: int
    model: str
    evaluation: str
    curve: str | None = None  # "transfer" or "labels" where it is a point of a learning curve,
    texts: int | None = None  # of so many texts
    domain: str | None = None  # the corpus that D_T was taken from, where it is not the study's own
    corpus: str | None = None  # the D_LM that its start has read, where it is not the study's own

    @property
    def own(self) -> bool:
        """Return whether it is one of the study's own students, no point of a curve and on no other text."""
        return self.curve is None and self.domain is None and self.corpus is None


@dataclass
class Plan:
    """The steps of a study in an order in which parents come first, and its students."""

    study: Study
    steps: dict[str, Step] = field(default_factory=dict)
    students: list[Student] = field(default_factory=list)
    asked: int = 0  # steps asked for, shared ones counted every time

    def add(self, step: Step) -> str:
        """Return the step's digest, after adding it if nobody asked for it before."""
        self.asked += 1
        self.steps.setdefault(step.digest, step)
        return step.digest

    def of_stage(self, stage: str) -> list[Step]:
        """Return the steps of one stage."""
        return [s for s in self.steps.values() if s.stage == stage]

    def source_of(self, step: Step) -> str | None:
        """Return the corpus that a step's text was taken from, None where it is the study's own."""
        while step.stage not in ("texts", "corpus", "domain"):
            step = self.steps[step.parents["ids" if "ids" in step.parents else "texts"]]
        return step.settings["corpus"] if step.stage != "texts" else None

    def counts(self) -> dict[str, int]:
        """Return the number of steps by stage."""
        return dict(Counter(s.stage for s in self.steps.values()))
