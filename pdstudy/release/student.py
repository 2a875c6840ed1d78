"""One student of a finished study, found by its name: its files, logits and scores, and the stages that made it."""

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pdstudy.analysis.stats import LEVEL
from pdstudy.averaging import log_mean
from pdstudy.data.batches import Ids
from pdstudy.data.tasks import SCALE
from pdstudy.models import evaluate
from pdstudy.recipes import LINEAR, RECIPES, TEACHER, WITH_LINEAR, export_name
from pdstudy.run.inputs import Lines, read_record
from pdstudy.storage import results
from pdstudy.storage.store import Store
from pdstudy.study.plan import make
from pdstudy.study.settings import Study
from pdstudy.study.steps import Plan, Step, Student


class UnknownStudent(ValueError):
    """Raised for a name that no student of the study has; the message has the nearest ones."""


@dataclass(frozen=True)
class Finished:
    """A trained and measured student, opened from the store; `linear` is the linear model that it is averaged with, if it is."""

    student: Student
    plan: Plan
    store: Store
    linear: "Finished | None" = None

    @property
    def recipe(self) -> str:
        """Return its recipe, with the linear model's if it is averaged."""
        return self.student.recipe + (WITH_LINEAR if self.linear else "")

    @property
    def name(self) -> str:
        """Return its name, "<size>-<recipe>-s<seed>"."""
        return export_name(self.recipe, self.student.size, self.student.seed)

    @property
    def n_params(self) -> int:
        """Return its number of parameters, with those of the linear model if it is averaged."""
        return self.record("evaluation")["model"]["n_params"] + (self.linear.n_params if self.linear else 0)

    @property
    def max_length(self) -> int:
        """Return the number of pieces of a text that it takes."""
        return self._ids.settings["max_length"]

    @property
    def precision(self) -> str:
        """Return the precision that it was trained and measured in."""
        return self.plan.study.resolved_precision()

    @property
    def pad(self) -> int:
        """Return the number of the padding piece."""
        return self.record("ids")["vocabulary"]["pad"]

    @property
    def takes_word_pieces(self) -> bool:
        """Return whether it takes the study's word pieces; a linear model and a teacher of another kind take texts."""
        return self._ids is not None

    def folder(self, role: str) -> Path:
        """Return a verified folder: "evaluation", "model", "ids", "texts" or "tokenizer"."""
        evaluation, ids = self.plan.steps[self.student.evaluation], self._ids
        digests = (ids.parents if ids else {}) | evaluation.parents | {"evaluation": evaluation.digest}
        return self.store.open(digests[role])

    def record(self, role: str) -> dict[str, Any]:
        """Return the record of the step of a folder."""
        return read_record(self.folder(role))

    def texts(self, split: str) -> list:
        """Return the texts of a split, pairs as tuples."""
        return list(Lines(self.folder("texts") / f"{split}.parquet"))

    def test_ids(self) -> Ids:
        """Return the test texts as word pieces."""
        return Ids.load(self.folder("ids"), "test")

    def test_logits(self) -> tuple[np.ndarray, np.ndarray]:
        """Return its logits of the test texts, (n_texts, n_classes), and their classes (n_texts,)."""
        logits, labels = _test_logits(self.folder("evaluation"))
        return (log_mean([logits, self.linear.test_logits()[0]]) if self.linear else logits), labels

    @property
    def _ids(self) -> Step | None:
        return self.plan.steps.get(self.plan.steps[self.student.evaluation].parents.get("ids"))


def find(study: str | Path, name: str, store: Store) -> Finished:
    """Return a finished study's student with the name "<size>-<recipe>-s<seed>", or its "teacher"; case does not matter.

    "<size>-<recipe>+linear-s<seed>" is the student averaged with the linear model.
    `study` is a study's name or its folder in outputs/. Raises UnknownStudent, or FileNotFoundError where the study
    has no results.
    """
    settings, environment = results.load_settings(study), results.load_environment(study)
    # The precision of the run, which may differ from this machine's.
    plan, here = make(Study.checked(settings | {"precision": environment["precision"]})), store.digests()
    trained = [Finished(s, plan, store) for s in plan.students if s.own and s.evaluation in here]
    linear = next((f for f in trained if f.recipe == LINEAR), None)
    averages = [replace(f, linear=linear) for f in trained if linear and f.recipe in RECIPES]
    known = {f.name.casefold(): f for f in (*trained, *averages)} | {TEACHER.name: f for f in trained if f.recipe == TEACHER.name}  # noqa: B035
    student = known.get(name.strip().casefold())
    if student is None:
        near = difflib.get_close_matches(name.casefold(), known, n=3, cutoff=0.3) or list(known)[:3]
        nearest = ", ".join(repr(n if n == TEACHER.name else known[n].name) for n in near)
        hint = f"the nearest of its {len(trained)}: {nearest}" if trained else "the store has none of them; run the study first"
        if not trained and here and set(results.load_students(study).digest) & set(here):
            hint = "the files of its task have changed since it was run; put the earlier ones back, or run it again with these"
        raise UnknownStudent(f"{plan.study.name} has no student {name!r}; {hint}")
    return student


def lineage(finished: Finished) -> list[dict[str, Any]]:
    """Return the stages that made a student, first to last: settings, searched rates, steps and pieces."""
    stages, digest = [], finished.student.model
    while digest is not None:
        step, record = finished.plan.steps[digest], read_record(finished.store.open(digest))
        search = read_record(finished.store.open(step.parents["search"])) if "search" in step.parents else record
        if step.stage == "search":  # its candidates have the same settings but for those searched, which are in the record
            step = finished.plan.steps[next(iter(step.parents.values()))]
        stage = {
            "stage": step.stage,
            "settings": step.settings | {k: record[k] for k in ("rate", "batch", "epochs") if record.get(k) is not None},
            "searched": [row["rate"] for row in search.get("searched") or ()],
        }
        stages.append(stage | {k: record.get(k) for k in ("steps", "tokens")})
        digest = step.parents.get("start")
    return stages[::-1]


def common_facts(finished: Finished, logits: np.ndarray) -> dict[str, Any]:
    """Return the facts about a student or linear model whose exported folder gives `logits`, (n_texts, n_classes), on test.

    Accuracy, F1, Matthews' r (for labels that are scores also Pearson's and Spearman's) and the agreement with the teacher are
    those of `logits`, with Wilson's 95 % interval over the texts.
    """
    study, task, texts = finished.plan.study, finished.plan.study.resolved_task(), finished.record("texts")
    evaluation, (_, labels) = finished.record("evaluation"), finished.test_logits()
    return {
        "study": study.name,
        "task": task.name,
        "pairs": isinstance(finished.texts("test")[0], tuple),
        "columns": list(getattr(task.source, "text", ("text",))),
        "ordered": bool(getattr(task.source, "labels", ())),
        "without_tags": task.without_tags,
        "labels": texts["labels"],
        "student": finished.name,
        "recipe": finished.recipe,
        "digest": finished.student.model,
        "n_params": finished.n_params,
        "test": evaluate.metrics(logits, labels, tuple(texts["labels"]) == SCALE)
        | interval(int((logits.argmax(1) == labels).sum()), len(labels))
        | {"n": len(labels), "majority": evaluation["scores"]["test"]["majority"]},
        "teacher": agreement_with_teacher(finished, logits),
        "texts": texts["counts"],
    }


def facts(finished: Finished, logits: np.ndarray) -> dict[str, Any]:
    """Return the facts about a student whose exported folder gives `logits`, (n_texts, n_classes), on test.

    The scores of the study itself are "study_test".
    """
    evaluation, (study_logits, labels) = finished.record("evaluation"), finished.test_logits()
    study_test = evaluate.metrics(study_logits, labels) if finished.linear else evaluation["scores"]["test"]
    same = float((study_logits.argmax(1) == logits.argmax(1)).mean())
    return common_facts(finished, logits) | {
        "size": finished.student.size,
        "meaning": RECIPES.get(finished.student.recipe, TEACHER).meaning,
        "seed": finished.student.seed,
        "collapsed": evaluation["model"]["collapsed"],
        "max_length": finished.max_length,
        "cut_short": finished.record("ids")["counts"]["test"]["truncated"],
        "study_test": study_test | {"precision": finished.precision, "same_answers": same},
        "stages": lineage(finished),
    }


def interval(hits: int, n: int) -> dict[str, float]:
    """Return Wilson's 95 % interval, "low" and "high", of the share `hits` / `n`."""
    from scipy.stats import binomtest

    bounds = binomtest(hits, n).proportion_ci(LEVEL, "wilson")
    return {"low": float(bounds.low), "high": float(bounds.high)}


def agreement_with_teacher(finished: Finished, logits: np.ndarray) -> dict[str, Any] | None:
    """Return the teacher's size and accuracy, and how often it predicts the student's class.

    None for the teacher itself, and if its logits on test are unknown: a file of soft labels may lack them.
    """
    teacher = next(s for s in finished.plan.students if s.recipe == TEACHER.name)
    folder = finished.store.find(teacher.evaluation)
    if finished.student == teacher or folder is None or not (folder / "test.logits.npy").is_file():
        return None
    teacher_logits, labels = _test_logits(folder)
    same, n = int((teacher_logits.argmax(1) == logits.argmax(1)).sum()), len(labels)
    accuracy = float((teacher_logits.argmax(1) == labels).mean())
    return {"size": teacher.size, "accuracy": accuracy, "agreement": same / n, "n": n} | interval(same, n)


def _test_logits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    return np.load(folder / "test.logits.npy"), np.load(folder / "test.labels.npy")
