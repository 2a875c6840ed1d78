"""A student against the linear model in cross-validation on D_L, for a choice that dev alone leaves open.

Dev is often a thousand texts, on which a student must be two to three points better to be significantly so. D_L has more: each
fold of it is answered by a student and a linear model that learned from the others. The student's rate remains the one chosen on
dev; the linear model's C is chosen on dev in every fold.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pdstudy.analysis import stats
from pdstudy.analysis.stats import POINTS, Effect
from pdstudy.averaging import log_mean
from pdstudy.recipes import is_averaged
from pdstudy.storage import paths, results
from pdstudy.storage.files import atomic_write
from pdstudy.storage.store import Store
from pdstudy.study.steps import Plan

FILE = "cross_validation.json"


@dataclass(frozen=True)
class CrossValidation:
    """The accuracy of a student and of the linear model on each fold, in percent, and the number of texts in all folds."""

    recipe: str
    size: str
    texts: int
    student: list[float]
    linear: list[float]

    @cached_property
    def effect(self) -> Effect:
        """Return how many points the student is above the linear model."""
        return stats.over_folds(np.array(self.student) - np.array(self.linear))

    def is_of(self, row) -> bool:
        """Return whether it is of this candidate."""
        return (self.recipe, self.size) == (row.recipe, row["size"])

    def supports(self, row) -> bool:
        """Return whether this candidate is significantly better than the linear model."""
        return self.is_of(row) and self.effect.known and self.effect.low > 0


def load(study: str | Path) -> CrossValidation | None:
    """Return a study's cross-validation, None if it has none."""
    path = results.folder_of(study) / FILE
    return CrossValidation(**json.loads(path.read_text())) if path.is_file() else None


def forget(study: str) -> None:
    """Remove the file of a cross-validation, which was of other settings."""
    (paths.study_folder(study) / FILE).unlink(missing_ok=True)


def write(study: str, recipe: str, plan: Plan, store: Store) -> None:
    """Write the accuracies of a finished cross-validation into the study's folder; nothing if it is not finished.

    `recipe` is the candidate's: that of the plan's students, or their average with the linear model.
    """
    here, accuracy, n = store.digests(), {"student": [], "linear": []}, 0
    if not all(student.evaluation in here for student in plan.students):
        return
    for student, linear in zip(plan.students[::2], plan.students[1::2], strict=True):
        folders = [store.open(model.evaluation) for model in (student, linear)]
        labels = np.load(folders[0] / "test.labels.npy")
        logits = [np.load(folder / "test.logits.npy") for folder in folders]
        for name, answers in (("student", log_mean(logits) if is_averaged(recipe) else logits[0]), ("linear", logits[1])):
            accuracy[name].append(round(POINTS * float((answers.argmax(1) == labels).mean()), 4))
        n += len(labels)
    record = {"recipe": recipe, "size": plan.students[0].size, "texts": n} | accuracy
    with atomic_write(paths.study_folder(study) / FILE) as new:
        new.write_text(json.dumps(record, indent=1) + "\n")
