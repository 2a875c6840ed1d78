"""Spends the time there is on a study: every student once, then only those worth a second look.

Successive halving over sizes and recipes: the teacher and the smallest students, which tell how fast the machine is,
one seed for all that there is time for, further seeds for the better half, learning curves for the one that would be
recommended. Every round is a plan over the same store, so a round costs only what is new in it, and a killed
run goes on where it was. What there was no time for is said.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
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
from pdstudy.run.progress import Progress
from pdstudy.run.run_study import run_study
from pdstudy.run.scheduler import RunError
from pdstudy.storage import paths, results
from pdstudy.storage.files import atomic_write
from pdstudy.storage.store import Store
from pdstudy.study.plan import make, with_candidates_measured
from pdstudy.study.settings import Study
from pdstudy.study.steps import Plan

FIRST = 0.7  # share of the time that the first round, every student once, may take
SPENT = "spent.json"
Grid = dict[tuple[str, str], list[int]]  # (recipe, size) -> seeds


@dataclass
class Spent:
    """What the time went to, and what there was none for."""

    minutes: float
    study: str  # a digest of its settings: time spent on other settings is not this study's
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
    """Return what was trained in about so many minutes; the tables are the study's. Raises RunError and Interrupted.

    What earlier calls spent on the same study counts: asked again with the same minutes, nothing more is trained.
    """
    work = _Work(study, minutes, workers, listen, store or Store())
    once = {(recipe, size): study.seeds[:1] for recipe in study.recipes for size in study.sizes}
    smallest = work.by_cost(once)[0]
    # The teacher and one size tell how fast this machine is: what else there is time for is decided by that.
    trained = work.round(f"the teacher, and {smallest} once", {k: seeds for k, seeds in once.items() if k[1] == smallest})
    recipes = {recipe for recipe, _ in trained}
    grid = work.affordable({k: seeds for k, seeds in once.items() if k[0] in recipes})
    if grid != trained:
        grid = work.round("every student once", grid)
    measure(study, work.plan(grid), work.store)
    for n in range(2, len(study.seeds) + 1):
        better = promising(study.name, grid)
        more = grid | dict.fromkeys(better, study.seeds[:n])
        if not work.fits(more):
            work.spent.left_out.append(f"seeds beyond {n - 1}, for want of time")
            break
        grid = more
        work.round(f"seed {n} for {len(better)} of {len(grid)} students", grid)
    work.curves(grid, limits)
    near(study, work.plan(grid), work.store)
    look(study, work.plan(grid), work.store)
    folder = paths.study_folder(study.name)
    with atomic_write(folder / SPENT) as new:
        new.write_text(json.dumps(vars(work.spent), indent=1) + "\n")
    return work.spent


def texts_first(study: Study, store: Store | None = None) -> dict[str, Any]:
    """Return what the cleaning of a study's texts recorded, counts and examples; it is done where it is not in the store.

    Raises RunError where the texts are not what was asked for.
    """
    store = store or Store()
    (step,) = make(study).of_stage("texts")
    with store.lock(step.digest):
        folder = store.find(step.digest)
        try:
            folder = folder or execute(step, store, Watch())
        except TextError as error:
            raise RunError(f"{step.label}: {error}", bad_input=True) from None
    return json.loads((folder / "record.json").read_text())


def earlier(study: str, digest: str) -> list[dict[str, Any]]:
    """Return the rounds that earlier calls spent on a study of these settings."""
    path = paths.study_folder(study) / SPENT
    found = json.loads(path.read_text()) if path.exists() else {}
    return found["rounds"] if found.get("study") == digest else []


def promising(study: str, grid: Grid) -> list[tuple[str, str]]:
    """Return the students that deserve another seed: near the best of their size, and not beaten by a smaller size.

    Near is within one standard error of a difference on dev.
    """
    table = candidates.Candidates(study).table
    table = table[~table.recipe.isin(["teacher", *LINEARS])]
    n_dev = results.load_counts(study).loc["dev", "kept"]
    best, kept = -math.inf, []
    for _, rows in table.groupby("n_params"):  # the smallest first
        top = rows.dev.max()
        near = POINTS * math.sqrt(2 * top / POINTS * max(0.01, 1 - top / POINTS) / n_dev)
        if top >= best - near:
            kept += [(r.recipe, r.size) for r in rows.assign(size=rows["size"]).itertuples() if r.dev >= top - near]
        best = max(best, top)
    return [student for student in grid if student in kept]


def measure(study: Study, plan: Plan, store: Store) -> None:
    """Measure each size's latency on this machine."""
    with atomic_write(paths.study_folder(study.name) / results.LATENCY) as new:
        new.write_text(json.dumps(study_latency.of_study(plan, store), indent=1) + "\n")


def near(study: Study, plan: Plan, store: Store) -> None:
    """Measure how near D_T and D_LM are to the training texts."""
    import pyarrow.parquet as pq

    (texts,) = plan.of_stage("texts")
    folder = store.open(texts.digest)

    def read(name: str) -> list[str]:
        table = pq.read_table(folder / f"{name}.parquet")
        columns = [table.column(c).to_pylist() for c in ("text", "pair") if c in table.column_names]
        return [" ".join(parts) for parts in zip(*columns, strict=True)]

    try:
        table = similarity.compare(read("train"), {"D_T": read("transfer"), "D_LM": read("corpus")}, key_of(study.resolved_task()))
    except ValueError:  # too few words for ranks
        return
    table = [{k: None if v != v else v for k, v in row.items()} for row in table]  # nan, where words are too few
    with atomic_write(paths.study_folder(study.name) / data_checks.NEARNESS) as new:
        new.write_text(json.dumps(table, indent=1) + "\n")


def look(study: Study, plan: Plan, store: Store) -> None:
    """Write the texts that are worth a look: likely label errors, near-duplicates across splits, texts unlike those of train."""
    import pyarrow.parquet as pq

    (texts,) = plan.of_stage("texts")
    folder, splits = store.open(texts.digest), {}
    for split in ("train", "dev", "test"):
        read = pq.read_table(folder / f"{split}.parquet")
        columns = [read.column(c).to_pylist() for c in ("text", "pair") if c in read.column_names]
        splits[split] = [" | ".join(parts) for parts in zip(*columns, strict=True)], read.column("label").to_pylist()
    suspects.write(paths.study_folder(study.name), splits, json.loads((folder / "record.json").read_text())["labels"])


def left_out(spent: Spent) -> str:
    """Return what there was no time for, in words."""
    if not spent.left_out:
        return "Nothing was left out."
    return f"Left out: {'; '.join(spent.left_out)}. More time is given with --max-minutes."


class _Work:
    """A study's rounds: what each would cost, and running it."""

    def __init__(self, study: Study, minutes: float, workers: int | None, listen, store: Store):
        self.study, self.workers, self.listen, self.store = study, workers, listen, store
        digest = hashlib.sha256(study.model_dump_json().encode()).hexdigest()[:16]
        self.spent = Spent(minutes, digest, earlier(study.name, digest))
        self.deadline = time.monotonic() + 60 * minutes - sum(r["seconds"] for r in self.spent.rounds)

    def plan(self, grid: Grid, study: Study | None = None) -> Plan:
        return with_candidates_measured(make(study or self.study, grid), self.store.digests())

    def seconds(self, plan: Plan) -> float:
        """Return how long what is missing of a plan will take, about."""
        here = self.store.digests()
        missing = {d: s for d, s in plan.steps.items() if d not in here}
        workers = (os.cpu_count() or 1) if self.workers is None else max(1, self.workers)
        return estimate(list(needed(plan, missing).values()), self.store, workers)

    def fits(self, grid: Grid, study: Study | None = None, share: float = 1.0) -> bool:
        return self.seconds(self.plan(grid, study)) <= share * max(0.0, self.deadline - time.monotonic())

    def by_cost(self, grid: Grid) -> list[str]:
        """Return the sizes, those that cost least first."""
        sizes = dict.fromkeys(size for _, size in grid)
        return sorted(sizes, key=lambda size: self.seconds(self.plan({k: v for k, v in grid.items() if k[1] == size})))

    def affordable(self, grid: Grid) -> Grid:
        """Return the students of the first round: the largest sizes go first where there is no time for them."""
        by_cost = self.by_cost(grid)
        while len(by_cost) > 1 and not self.fits(grid, share=FIRST):
            dropped = by_cost.pop()
            grid = {student: seeds for student, seeds in grid.items() if student[1] != dropped}
            self.spent.left_out.append(f"students of {dropped}, for want of time")
        return grid

    def round(self, name: str, grid: Grid, study: Study | None = None) -> Grid:
        """Train and return what was asked for, without the recipes that distil where the teacher teaches nobody."""
        begun, study = time.monotonic(), study or self.study
        try:
            run_study(study, self.workers, self.listen, self.store, plan=self.plan(grid, study))
        except RunError as error:
            others = {student: seeds for student, seeds in grid.items() if "distill" not in RECIPES[student[0]].stages}
            if not self._unfit_teacher(grid, study) or not others:
                raise
            self.spent.left_out.append(f"recipes that distil, for {str(error).splitlines()[0].partition(': ')[2]}")
            return self.round(name, others, study)
        seconds = round(time.monotonic() - begun, 1)
        known = next((r for r in self.spent.rounds if r["round"] == name), None)
        if known is None:
            self.spent.rounds.append(known := {"round": name, "students": 0, "seconds": 0.0})
        known |= {"students": sum(map(len, grid.values())), "seconds": round(known["seconds"] + seconds, 1)}
        return grid

    def _unfit_teacher(self, grid: Grid, study: Study) -> bool:
        """Return whether there is a teacher, and it was refused."""
        here = self.store.digests()
        return any(s.digest not in here and s.parents["model"] in here for s in self.plan(grid, study).of_stage("label"))

    def curves(self, grid: Grid, limits: candidates.Limits) -> None:
        """Train the student that would be recommended on halves of its texts, and halves of those."""
        try:
            chosen = candidates.best_student(candidates.Candidates(self.study.name, limits))
        except candidates.AdviceError:
            return  # nothing to draw a curve of; who asks for advice is told
        n_train = int(results.load_counts(self.study.name).loc["train", "kept"])
        transfer, labels = self.study.transfer.texts, self.study.splits.train or n_train
        points = {"transfer": [transfer // 8, transfer // 4, transfer // 2], "labels": [labels // 8, labels // 4, labels // 2]}
        points = {kind: sorted({n for n in found if n >= 16}) for kind, found in points.items()}
        study = self.study.model_copy(update={"curves": self.study.curves.model_copy(update=points | {"sizes": [chosen["size"]]})})
        if self.fits(grid, study):
            self.round(f"learning curves of {chosen['size']}", grid, study)
        else:
            self.spent.left_out.append(f"learning curves of {chosen['size']}, for want of time")
