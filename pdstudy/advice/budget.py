"""Train as many students of a study as a time limit allows: first every student once, then more seeds of the better ones.

The rounds are a form of successive halving over sizes and recipes. The first trains the teacher and the students of one size, which
shows how fast the machine is. The second trains one seed of every student for which there is time. Further rounds train more seeds of
the better students, and the learning curves of the best one. Every round is a plan over the same store: it computes only what is new,
and continues after a stop. What there was no time for is recorded.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdstudy.advice import candidates, data_checks, suspects
from pdstudy.analysis.stats import POINTS
from pdstudy.data import similarity
from pdstudy.data.formats import TextError
from pdstudy.data.repeats import key_of
from pdstudy.models.train import Watch
from pdstudy.recipes import LINEARS, RECIPES
from pdstudy.run import study_latency
from pdstudy.run.estimate import estimate, needed
from pdstudy.run.execute import execute
from pdstudy.run.inputs import joined, tuples
from pdstudy.run.progress import Progress
from pdstudy.run.run_study import run_study
from pdstudy.run.scheduler import RunError
from pdstudy.storage import paths, results
from pdstudy.storage.files import atomic_write
from pdstudy.storage.store import Store
from pdstudy.study.plan import make, with_candidates_measured
from pdstudy.study.settings import Study
from pdstudy.study.steps import Plan

FIRST = 0.7  # share of the time that training every student once may take
SPENT = "spent.json"
Grid = dict[tuple[str, str], list[int]]  # (recipe, size) -> seeds


@dataclass
class Spent:
    """How the time was used, and what there was no time for."""

    minutes: float
    study: str  # a digest of the study's settings: time spent on other settings does not count
    rounds: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def spend(
    study: Study,
    minutes: float = 60.0,
    limits: candidates.Limits = candidates.NONE,
    workers: int | None = None,
    listen: Callable[[Progress], None] | None = None,
    store: Store | None = None,
) -> Spent:
    """Train what about so many minutes allow, write the study's tables, and return how the time was used.

    Earlier calls for the same study count: a second call with the same minutes trains nothing more. Raises RunError if a step
    fails, and Interrupted.
    """
    rounds = _Rounds(study, minutes, workers, listen, store or Store())
    once = {(recipe, size): study.seeds[:1] for recipe in study.recipes for size in study.sizes}
    smallest = rounds.by_cost(once)[0]
    # The teacher and one size show how fast this machine is; only then it is known what else there is time for.
    trained = rounds.run(f"the teacher, and {smallest} once", {k: seeds for k, seeds in once.items() if k[1] == smallest})
    recipes = {recipe for recipe, _ in trained}
    grid = rounds.affordable({k: seeds for k, seeds in once.items() if k[0] in recipes})
    if grid != trained:
        grid = rounds.run("every student once", grid)
    write_latency(study, rounds.plan(grid), rounds.store)
    for n in range(2, len(study.seeds) + 1):
        better = better_students(study.name, grid)
        more = grid | dict.fromkeys(better, study.seeds[:n])
        if not rounds.fits(more):
            rounds.spent.left_out.append(f"seeds beyond {n - 1}, for want of time")
            break
        grid = more
        rounds.run(f"seed {n} for {len(better)} of {len(grid)} students", grid)
    rounds.run_curves(grid, limits)
    (texts,) = rounds.plan(grid).of_stage("texts")
    write_nearness(study, rounds.store.open(texts.digest))
    suspects.write_of_study(study.name, rounds.store.open(texts.digest))
    _write_json(study, SPENT, vars(rounds.spent))
    return rounds.spent


def cleaning_record(study: Study) -> dict[str, Any]:
    """Return what the cleaning of a study's texts recorded, counts and examples. The texts are cleaned if they are not in the store.

    Raises RunError if the texts are not what the params file describes.
    """
    store = Store()
    (step,) = make(study).of_stage("texts")
    with store.lock(step.digest):
        try:
            folder = store.find(step.digest) or execute(step, store, Watch())
        except TextError as error:
            raise RunError(f"{step.label}: {error}", bad_input=True) from None
    return json.loads((folder / "record.json").read_text())


def better_students(study: str, grid: Grid) -> list[tuple[str, str]]:
    """Return the students that get another seed: near the best of their size, which is not clearly worse than a smaller size.

    Near is within one standard error of a difference on dev.
    """
    table = candidates.Candidates(study).table
    table = table[~table.recipe.isin(["teacher", *LINEARS])]
    n_dev = results.load_counts(study).loc["dev", "kept"]
    best, better = -math.inf, set()
    for _, rows in table.groupby("n_params"):  # the smallest first
        top = rows.dev.max()
        error = POINTS * math.sqrt(2 * top / POINTS * max(0.01, 1 - top / POINTS) / n_dev)
        if top >= best - error:
            near = rows[rows.dev >= top - error]
            better |= set(zip(near.recipe, near["size"], strict=True))
        best = max(best, top)
    return [student for student in grid if student in better]


def write_latency(study: Study, plan: Plan, store: Store) -> None:
    """Measure each size's latency on this machine, and write it into the study's folder."""
    _write_json(study, results.LATENCY, study_latency.of_study(plan, store))


def write_nearness(study: Study, texts: Path) -> None:
    """Measure how similar D_T and D_LM are to the training texts, and write it into the study's folder."""
    train, transfer, corpus = (joined(tuples(texts / f"{name}.parquet")) for name in ("train", "transfer", "corpus"))
    try:
        rows = similarity.compare(train, {"D_T": transfer, "D_LM": corpus}, key_of(study.resolved_task()))
    except ValueError:  # too few words for ranks
        return
    _write_json(study, data_checks.NEARNESS, [{k: None if v != v else v for k, v in row.items()} for row in rows])  # nan is null


def left_out(spent: Spent) -> str:
    """Return a sentence about what there was no time for."""
    if not spent.left_out:
        return "Nothing was left out."
    return f"Left out: {'; '.join(spent.left_out)}. Allow more time with --max-minutes."


def _write_json(study: Study, name: str, value: Any) -> None:
    with atomic_write(paths.study_folder(study.name) / name) as new:
        new.write_text(json.dumps(value, indent=1) + "\n")


class _Rounds:
    """The rounds of a study: how long each would take, and running it."""

    def __init__(self, study: Study, minutes: float, workers: int | None, listen, store: Store):
        self.study, self.workers, self.listen, self.store = study, workers, listen, store
        digest = hashlib.sha256(study.model_dump_json().encode()).hexdigest()[:16]
        path = paths.study_folder(study.name) / SPENT
        earlier = json.loads(path.read_text()) if path.exists() else {}
        self.spent = Spent(minutes, digest, earlier["rounds"] if earlier.get("study") == digest else [])
        self.deadline = time.monotonic() + 60 * minutes - sum(r["seconds"] for r in self.spent.rounds)

    def plan(self, grid: Grid, study: Study | None = None) -> Plan:
        return with_candidates_measured(make(study or self.study, grid), self.store.digests())

    def seconds(self, plan: Plan) -> float:
        """Return about how long the steps of a plan will take that are not in the store."""
        cached = self.store.digests()
        missing = {d: s for d, s in plan.steps.items() if d not in cached}
        workers = (os.cpu_count() or 1) if self.workers is None else max(1, self.workers)
        return estimate(list(needed(plan, missing).values()), self.store, workers)

    def fits(self, grid: Grid, study: Study | None = None, share: float = 1.0) -> bool:
        return self.seconds(self.plan(grid, study)) <= share * max(0.0, self.deadline - time.monotonic())

    def by_cost(self, grid: Grid) -> list[str]:
        """Return the sizes, those that take the least time first."""
        sizes = dict.fromkeys(size for _, size in grid)
        return sorted(sizes, key=lambda size: self.seconds(self.plan({k: v for k, v in grid.items() if k[1] == size})))

    def affordable(self, grid: Grid) -> Grid:
        """Return the students for which there is time; the sizes that take most time are left out first."""
        by_cost = self.by_cost(grid)
        while len(by_cost) > 1 and not self.fits(grid, share=FIRST):
            dropped = by_cost.pop()
            grid = {student: seeds for student, seeds in grid.items() if student[1] != dropped}
            self.spent.left_out.append(f"students of {dropped}, for want of time")
        return grid

    def run(self, name: str, grid: Grid, study: Study | None = None) -> Grid:
        """Train these students and return them; if the teacher is too weak, without the recipes that distil."""
        begun, study = time.monotonic(), study or self.study
        try:
            run_study(study, self.workers, self.listen, self.store, plan=self.plan(grid, study))
        except RunError as error:
            others = {student: seeds for student, seeds in grid.items() if "distill" not in RECIPES[student[0]].stages}
            cached, labels = self.store.digests(), self.plan(grid, study).of_stage("label")
            weak_teacher = any(step.digest not in cached and step.parents["model"] in cached for step in labels)
            if not weak_teacher or not others:
                raise
            self.spent.left_out.append(f"recipes that distil, for {str(error).splitlines()[0].partition(': ')[2]}")
            return self.run(name, others, study)
        entry = next((r for r in self.spent.rounds if r["round"] == name), None)
        if entry is None:
            self.spent.rounds.append(entry := {"round": name, "students": 0, "seconds": 0.0})
        entry["students"] = sum(map(len, grid.values()))
        entry["seconds"] = round(entry["seconds"] + time.monotonic() - begun, 1)
        return grid

    def run_curves(self, grid: Grid, limits: candidates.Limits) -> None:
        """Train the best student on a half, a quarter and an eighth of its texts."""
        try:
            chosen = candidates.best_student(candidates.Candidates(self.study.name, limits))
        except candidates.AdviceError:
            return  # no student is within the limits; the recommendation reports it
        n_train = int(results.load_counts(self.study.name).loc["train", "kept"])
        transfer, labels = self.study.transfer.texts, self.study.splits.train or n_train
        points = {"transfer": [transfer // 8, transfer // 4, transfer // 2], "labels": [labels // 8, labels // 4, labels // 2]}
        points = {kind: sorted({n for n in texts if n >= 16}) for kind, texts in points.items()}
        study = self.study.model_copy(update={"curves": self.study.curves.model_copy(update=points | {"sizes": [chosen["size"]]})})
        if self.fits(grid, study):
            self.run(f"learning curves of {chosen['size']}", grid, study)
        else:
            self.spent.left_out.append(f"learning curves of {chosen['size']}, for want of time")
