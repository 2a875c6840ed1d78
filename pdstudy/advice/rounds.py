"""The rounds of training within a time limit: how long one would take, running it, and the answer after it.

A round is a plan over the study's store: it computes only what is new, so an interrupted one continues. At the deadline, or when
the user stops it, running steps end at their next safe point, and the tables are written from what is finished.
"""

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pdstudy.advice import candidates, choice, cross_validation
from pdstudy.recipes import LINEAR, LINEAR_TAUGHT, LINEARS, RECIPES, TEACHER, without_linear
from pdstudy.run import result_tables, study_latency
from pdstudy.run.engine_local import LocalEngine
from pdstudy.run.estimate import estimate, needed
from pdstudy.run.progress import Progress, notebook_listener
from pdstudy.run.run_study import run_study
from pdstudy.run.scheduler import RunError
from pdstudy.run.worker import Interrupted
from pdstudy.storage import paths, results
from pdstudy.storage.files import atomic_write
from pdstudy.storage.store import Store
from pdstudy.study import plan_folds
from pdstudy.study.plan import make, only_texts, with_candidates_measured
from pdstudy.study.settings import Study
from pdstudy.study.steps import Plan, Step

SPENT = "spent.json"
Grid = dict[tuple[str, str], list[int]]  # (recipe, size) -> seeds


@dataclass
class Spent:
    """How the time was used, and what there was no time for.

    A round is a dict: its name, the number of students, its seconds, the minutes used so far, and the answer after it: the
    recommended student (None: none is within the limits), its accuracy on dev in percent with the interval on new texts, and how
    many points it gained on the answer before.
    """

    minutes: float
    study: str  # a digest of the study's settings and texts: time spent on others does not count
    rounds: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    stopped: str = ""  # a sentence, if the rest of the time was not used because more could not help

    @classmethod
    def start(cls, study: Study, minutes: float) -> "Spent":
        """Return the record of a study with the rounds of earlier calls."""
        texts = " ".join(only_texts(study).steps)  # the step's digest depends on the contents of the files
        digest = hashlib.sha256(f"{study.model_dump_json()} {texts}".encode()).hexdigest()[:16]
        path = paths.study_folder(study.name) / SPENT
        earlier = json.loads(path.read_text()) if path.exists() else {}
        return cls(minutes, digest, earlier["rounds"] if earlier.get("study") == digest else [])


def distils(recipe: str) -> bool:
    """Return whether a recipe needs soft labels."""
    return "distill" in RECIPES[recipe].stages


def line(answer: dict[str, Any]) -> str:
    """Return a round's answer as one line: the minutes used, the recommended student, its accuracy and its gain."""
    if answer["recommended"] is None:
        return f"{answer['minutes']:.1f} min: no student is within the limits yet"
    gain = "" if answer["gain"] is None else f", {answer['gain']:+.1f}"
    interval = f"{answer['low']:.1f} to {answer['high']:.1f} on new texts"
    return f"{answer['minutes']:.1f} min: {answer['recommended']}, {answer['dev']:.1f} % on dev ({interval}){gain}"


def write_json(study: Study, name: str, value: Any) -> None:
    """Write a JSON file into the study's folder."""
    with atomic_write(paths.study_folder(study.name) / name) as new:
        new.write_text(json.dumps(value, indent=1) + "\n")


def write_latency(study: Study, plan: Plan, store: Store) -> None:
    """Measure each size's latency on this machine, and write it into the study's folder."""
    write_json(study, results.LATENCY, study_latency.of_study(plan, store))


class Rounds:
    """The rounds of a study; `spent` says how the time was used. Use it in a `with` block, which ends the workers."""

    def __init__(
        self, study: Study, minutes: float, limits: candidates.Limits, workers: int | None,
        listen: Callable[[Progress], None] | None, store: Store, tell: Callable[[str], None],
    ):  # fmt: skip
        self.study, self.limits, self.store, self.tell = study, limits, store, tell
        self.workers = (os.cpu_count() or 1) if workers is None else workers
        self.spent = Spent.start(study, minutes)
        if not self.spent.rounds:
            cross_validation.forget(study.name)
        self.deadline = time.monotonic() + 60 * minutes - sum(r["seconds"] for r in self.spent.rounds)
        self.weak_teacher = self.computed = False
        self._folds: tuple[str, Plan] | None = None  # the recipe of a candidate, and the plan of its cross-validation
        self._listen = listen or notebook_listener()
        self._engine: _Engine | None = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._engine is not None:
            self._engine.close()
        write_json(self.study, SPENT, vars(self.spent))

    @property
    def seconds_left(self) -> float:
        """Return the seconds until the deadline, at least 0."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def minutes_used(self) -> float:
        """Return the minutes used, including those of earlier calls."""
        return self.spent.minutes - (self.deadline - time.monotonic()) / 60

    def plan(self, grid: Grid, study: Study | None = None) -> Plan:
        """Return the plan of these students and of the linear model.

        The teacher and the linear model that it teaches belong to it if a student needs them, or if they need no training.
        """
        study, cached = study or self.study, self.store.digests()
        waiting = {} if self.weak_teacher else {(r, study.sizes_of(r)[0]): [] for r in study.recipes if distils(r)}
        plan = make(study, waiting | grid)
        if not any(distils(recipe) for recipe, _ in grid):
            taught = [s for s in plan.students if s.recipe in (TEACHER.name, LINEAR_TAUGHT)]
            if any(step.flops for digest, step in plan.only(taught).steps.items() if digest not in cached):
                plan = plan.only([s for s in plan.students if s not in taught])
        plan = with_candidates_measured(plan, cached)
        return plan if self._folds is None else replace(plan, steps=plan.steps | self._folds[1].steps)

    def seconds(self, grid: Grid, study: Study | None = None) -> float:
        """Return about how long the steps will take that are not in the store; 0 if there are none."""
        return estimate(self._missing(self.plan(grid, study)), self.store, max(1, self.workers))

    def finished(self, grid: Grid) -> Grid:
        """Return those of the students and seeds that are in the store."""
        here = self.store.digests()
        done = {(s.recipe, s.size, s.seed) for s in self.plan(grid).students if s.own and s.evaluation in here}
        seeds_done = {student: [seed for seed in seeds if (*student, seed) in done] for student, seeds in grid.items()}
        return {student: seeds for student, seeds in seeds_done.items() if seeds}

    def extend(self, name: str, grid: Grid, more: Grid, share: float = 1.0) -> Grid:
        """Train `more` beyond `grid` if that fits into a share of the time left; return the grid with what is finished of it."""
        asked = grid | more
        if self.seconds(asked) <= share * self.seconds_left:
            self.run(name, asked)
        elif (partly := self.finished(asked)) != grid:  # a round that was cut at the deadline
            self.run(name, partly)
        if self.weak_teacher:
            asked = {student: seeds for student, seeds in asked.items() if not distils(student[0])}
        extended = self.finished(asked)
        if extended != asked:
            self.spent.left_out.append(f"{name}, for want of time")
        return extended

    def cross_validate(self, grid: Grid, rows: list, share: float) -> None:
        """Compare a candidate with the linear model in cross-validation: the first whose takes no more than a share of the time left."""
        linear = next(s for s in self.plan(grid).students if s.recipe == LINEAR)
        fit_seconds = self.store.manifest(linear.model)["seconds"]  # estimates know no linear model
        for row in rows:
            folds = plan_folds.cross_validation(self.study, without_linear(row.recipe), row["size"])
            n_fits = sum(step.stage == "linear" for step in self._missing(folds))
            self._folds = row.recipe, folds
            if self.seconds(grid) + n_fits * fit_seconds / max(1, self.workers) <= share * self.seconds_left:
                self.run(f"cross-validation of {candidates.in_words(row)}", grid)
                break
        if rows and self._missing(self._folds[1]):
            self._folds = None
            self.spent.left_out.append("cross-validation, for want of time")

    def run(self, name: str, grid: Grid, study: Study | None = None, timed: bool = True) -> None:
        """Train these students, until the deadline if `timed`; write the tables, and tell the answer.

        Recipes that distil are left out if the teacher is too weak. Raises RunError if a step fails, and Interrupted.
        """
        begun, plan, before = time.monotonic(), self.plan(grid, study), self.store.digests()
        try:
            self._compute(plan, timed)
        except RunError as error:
            cached, labels = self.store.digests(), plan.of_stage("label")
            weak = any(step.digest not in cached and step.parents["model"] in cached for step in labels)
            if not weak or all(map(distils, self.study.recipes)):
                raise
            self.weak_teacher = True
            self.spent.left_out.append(f"recipes that distil, for {str(error).splitlines()[0].partition(': ')[2]}")
            self.run(name, {student: seeds for student, seeds in grid.items() if not distils(student[0])}, study, timed)
        except Interrupted:
            self._record(name, grid, plan, begun, before)
            raise
        else:
            if self.limits.latency_ms is not None and self.store.digests() != before:
                write_latency(self.study, plan, self.store)
            if self._folds is not None:
                cross_validation.write(self.study.name, *self._folds, self.store)
            self._record(name, grid, plan, begun, before)

    def _missing(self, plan: Plan) -> list[Step]:
        """Return the steps of a plan that are not in the store."""
        cached = self.store.digests()
        return list(needed(plan, {d: s for d, s in plan.steps.items() if d not in cached}).values())

    def _compute(self, plan: Plan, timed: bool) -> None:
        """Compute a plan, until the deadline if `timed`, and write the tables of what is finished."""
        begun, before, cut = time.monotonic(), self.store.digests(), False

        def listen(progress: Progress) -> None:
            nonlocal cut
            if timed and not self.seconds_left and progress.done < progress.total and not self._engine.stopping:
                cut = True
                self._engine.stop()
            self._listen(progress)

        error = None
        if self.seconds_left or not timed or not self._missing(plan):
            try:
                run_study(plan.study, self.workers, listen, self.store, engine=self._same_engine, plan=plan)
                return
            except Interrupted as interrupted:
                self._engine, error = None, interrupted
        here = self.store.digests()
        if any(student.evaluation in here for student in plan.students):
            n = len((here - before) & plan.steps.keys())
            record = result_tables.environment(plan, n, len(plan.steps) - n, time.monotonic() - begun)
            result_tables.write(plan, self.store, record)
        if error is not None and (not cut or error.signal == signal.SIGINT):  # by the user, not at the deadline
            raise error

    def _same_engine(self, store: Store, workers: int, logs: Path | None, tracker: str | None) -> "_Engine":
        self._engine = self._engine or _Engine(store, workers, logs, tracker)
        return self._engine

    def _record(self, name: str, grid: Grid, plan: Plan, begun: float, before: set[str]) -> None:
        """Add a round to `spent`, and tell its answer if anything was computed or the round is new."""
        here, rounds = self.store.digests(), self.spent.rounds
        if not any(student.evaluation in here for student in plan.students):
            return
        entry = next((r for r in rounds if r["round"] == name), None)
        seconds = round(time.monotonic() - begun + (entry["seconds"] if entry else 0.0), 1)
        if entry is not None and here == before:
            entry["seconds"] = seconds
        else:
            self.computed |= here != before
            rounds[:] = [r for r in rounds if r is not entry]
            n_students = sum(map(len, self.finished(grid).values()))
            rounds.append({"round": name, "students": n_students, "seconds": seconds} | self._answer())
            self.tell(line(rounds[-1]))
        write_json(self.study, SPENT, vars(self.spent))

    def _answer(self) -> dict[str, Any]:
        """Return the answer so far: what would be recommended now, from the tables."""
        answer = {"minutes": round(self.minutes_used, 2)} | dict.fromkeys(("recommended", "dev", "low", "high", "gain"))
        before = [r["dev"] for r in self.spent.rounds if r.get("dev") is not None]
        try:
            row = choice.choose(candidates.Candidates(self.study.name, self.limits))
        except candidates.AdviceError:
            return answer
        answer["recommended"] = row.recipe if row.recipe in LINEARS else f"{row.recipe} {row['size']}"
        answer |= {key: round(float(row[key]), 1) for key in ("dev", "low", "high")}
        return answer | {"gain": round(answer["dev"] - before[-1], 1) if before else None}


class _Engine(LocalEngine):
    """A local engine whose workers stay from round to round, because starting one takes seconds."""

    def __exit__(self, *error):
        if self.stopping or error[0]:
            self.close()
        else:
            shutil.rmtree(self.shares, ignore_errors=True)

    def close(self) -> None:
        """End the workers."""
        super().__exit__()
        self.idle.clear()
        self.busy.clear()
