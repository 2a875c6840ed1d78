"""One student of a finished study, found by its name: where it lies, what it answered, what made it, what is known of it."""

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdstudy.analysis.stats import LEVEL
from pdstudy.data.batches import Ids
from pdstudy.data.tasks import SCALE
from pdstudy.models import evaluate
from pdstudy.recipes import LINEAR_NAMES, RECIPES, TEACHER
from pdstudy.run.inputs import Lines
from pdstudy.storage import results
from pdstudy.storage.store import Store
from pdstudy.study.plan import make
from pdstudy.study.settings import Study
from pdstudy.study.steps import Plan, Step, Student


class UnknownStudent(ValueError):
    """Raised for a name that no student of the study has; the message gives the nearest."""


@dataclass(frozen=True)
class Finished:
    """A student that was trained and measured, opened from the store."""

    student: Student
    plan: Plan
    store: Store

    @property
    def name(self) -> str:
        """Return its name, "<size>-<recipe>-s<seed>"."""
        return called(self.student)

    @property
    def max_length(self) -> int:
        """Return the number of pieces of a text that it reads."""
        return self._step("ids").settings["max_length"]

    @property
    def precision(self) -> str:
        """Return the precision that it was trained and measured in."""
        return self.plan.study.resolved_precision()

    def folder(self, role: str) -> Path:
        """Return a verified folder: "evaluation"; "model" and "ids", which it read; "texts" and "tokenizer", which those came of."""
        if role == "evaluation":
            return self.store.open(self.student.evaluation)
        if role == "texts":
            return self.store.open(self.plan.of_stage("texts")[0].digest)
        return self.store.open(self._step("ids").parents[role] if role == "tokenizer" else self._step(role).digest)

    @property
    def reads_pieces(self) -> bool:
        """Return whether it reads the study's word pieces; a linear model and a teacher of another kind read texts."""
        return "ids" in self.plan.steps[self.student.evaluation].parents

    def lines(self, split: str) -> list:
        """Return the texts of a split, pairs as tuples."""
        return list(Lines(self.folder("texts") / f"{split}.parquet"))

    def record(self, role: str) -> dict[str, Any]:
        """Return what a step recorded of itself."""
        return _record(self.folder(role))

    def texts(self) -> list[list[str]]:
        """Return the test texts in one list, or in two where they are pairs."""
        import pyarrow.parquet as pq

        table = pq.read_table(self.folder("texts") / "test.parquet")
        return [table.column(name).to_pylist() for name in ("text", "pair") if name in table.column_names]

    def test(self) -> tuple[Ids, np.ndarray, np.ndarray]:
        """Return the test texts as pieces, the student's logits (n_texts, n_classes), and their classes (n_texts,)."""
        evaluation = self.folder("evaluation")
        return Ids.load(self.folder("ids"), "test"), *(np.load(evaluation / f"test.{part}.npy") for part in ("logits", "labels"))

    def _step(self, role: str) -> Step:
        return self.plan.steps[self.plan.steps[self.student.evaluation].parents[role]]


def find(study: str | Path, name: str, store: Store) -> Finished:
    """Return a finished study's student called "<size>-<recipe>-s<seed>", or its "teacher", in small letters or capitals.

    `study` is a study's name or its folder in outputs/. Raises UnknownStudent, or FileNotFoundError where the study
    has no results.
    """
    settings, ran = results.load_settings(study), results.load_environment(study)
    # In the precision that it was run in, whatever this machine would prefer.
    plan, here = make(Study.checked(settings | {"precision": ran["precision"]})), store.digests()
    trained = [s for s in plan.students if s.own and s.evaluation in here]
    known = {called(s).casefold(): s for s in trained} | {TEACHER.name: s for s in trained if s.recipe == TEACHER.name}  # noqa: B035
    student = known.get(name.strip().casefold())
    if student is None:
        near = difflib.get_close_matches(name.casefold(), known, n=3, cutoff=0.3) or list(known)[:3]
        nearest = ", ".join(repr(n if n == TEACHER.name else called(known[n])) for n in near)
        hint = f"the nearest of its {len(trained)}: {nearest}" if trained else "the store holds none of them; run the study first"
        raise UnknownStudent(f"{plan.study.name} has no student {name!r}; {hint}")
    return Finished(student, plan, store)


def called(student: Student) -> str:
    """Return a student's name: "<size>-<recipe>-s<seed>", or "linear" or "linear-taught"."""
    return LINEAR_NAMES.get(student.recipe, f"{student.size}-{student.recipe}-s{student.seed}")


def lineage(found: Finished) -> list[dict[str, Any]]:
    """Return the stages that made a student, first to last: settings, the rates that were searched, steps and pieces read."""
    made, digest = [], found.student.model
    while digest is not None:
        step, kept = found.plan.steps[digest], _record(found.store.open(digest))
        search = _record(found.store.open(step.parents["search"])) if "search" in step.parents else kept
        if step.stage == "search":  # its candidates differ in their rate alone
            step = found.plan.steps[next(iter(step.parents.values()))]
        settings = step.settings | {k: kept[k] for k in ("rate", "batch", "epochs") if kept.get(k) is not None}
        tried = [r["rate"] for r in search.get("searched") or ()]
        made.append({"stage": step.stage, "settings": settings, "searched": tried} | {k: kept.get(k) for k in ("steps", "tokens")})
        digest = step.parents.get("start")
    return made[::-1]


def facts(found: Finished, logits: np.ndarray) -> dict[str, Any]:
    """Return what is known of a student whose exported folder gives `logits`, (n_texts, n_classes), to the test texts.

    Accuracy, F1, Matthews' r (of scores Pearson's and Spearman's too) and the agreement with the teacher are those of `logits`, with Wilson's 95 % interval
    over the texts; the study's own measure stands beside them.
    """
    recipe, task = RECIPES.get(found.student.recipe, TEACHER), found.plan.study.resolved_task()
    evaluated, pieces = found.record("evaluation"), found.record("ids")
    _, before, labels = found.test()
    correct, told = logits.argmax(1) == labels, evaluated["scores"]["test"]
    return {
        "study": found.plan.study.name,
        "task": task.name,
        "pairs": len(found.texts()) == 2,
        "without_tags": task.without_tags,
        "labels": pieces["labels"],
        "student": found.name,
        "size": found.student.size,
        "recipe": recipe.name,
        "meaning": recipe.meaning,
        "seed": found.student.seed,
        "digest": found.student.model,
        "n_params": evaluated["model"]["n_params"],
        "collapsed": evaluated["model"]["collapsed"],
        "max_length": found.max_length,
        "cut_short": pieces["counts"]["test"]["truncated"],
        "test": evaluate.metrics(logits, labels, tuple(pieces["labels"]) == SCALE)
        | interval(int(correct.sum()), len(correct))
        | {"n": len(labels), "majority": told["majority"]},
        "study_test": told | {"precision": found.precision, "same_answers": float((before.argmax(1) == logits.argmax(1)).mean())},
        "teacher": beside_teacher(found, logits),
        "stages": lineage(found),
        "texts": found.record("texts")["counts"],
    }


def interval(hits: int, n: int) -> dict[str, float]:
    """Return Wilson's 95 % interval, "low" and "high", of the share of `n` texts that are hit."""
    from scipy.stats import binomtest

    found = binomtest(hits, n).proportion_ci(LEVEL, "wilson")
    return {"low": float(found.low), "high": float(found.high)}


def beside_teacher(found: Finished, logits: np.ndarray) -> dict[str, Any] | None:
    """Return the teacher's size and accuracy and how often its answer is the student's.

    None for the teacher itself, and where its answers to test are not known: a file of soft labels may have none.
    """
    teacher = _teacher(found.plan)
    folder = found.store.find(teacher.evaluation)
    if found.student == teacher or folder is None or not (folder / "test.logits.npy").is_file():
        return None
    told, labels = (np.load(folder / f"test.{part}.npy") for part in ("logits", "labels"))
    same = told.argmax(1) == logits.argmax(1)
    accuracy = float((told.argmax(1) == labels).mean())
    return {"size": teacher.size, "accuracy": accuracy, "agreement": float(same.mean()), "n": len(same)} | interval(
        int(same.sum()), len(same)
    )


def _teacher(plan: Plan) -> Student:
    return next(s for s in plan.students if s.recipe == TEACHER.name)


def _record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text())
