"""Give the best answer for the minutes there are: the linear model at once, then every student once, then more seeds of the better ones.

The rounds are a form of successive halving over sizes and recipes. The linear model is first and takes seconds. Then every student
without a teacher is trained once, those that take the least time first; a student that the user named comes second. If dev does not
decide between the best of them and the linear model, cross-validation on D_L may. Then every student with a teacher is trained once.
Further rounds train more seeds of the better students, unless that cannot change the recommendation, and the learning curves of the
best one. After every round the answer so far is printed (rounds.py). Students that did not fit into the time are recorded.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pdstudy.advice import candidates, choice, data_checks, early_stop, suspects
from pdstudy.advice.rounds import Grid, Rounds, Spent, distils, write_json, write_latency
from pdstudy.analysis.stats import POINTS
from pdstudy.data import similarity
from pdstudy.data.formats import TextError
from pdstudy.data.repeats import key_of
from pdstudy.models.train import Watch
from pdstudy.recipes import LINEAR_SIZE, LINEARS, without_linear
from pdstudy.run.execute import execute
from pdstudy.run.inputs import joined, tuples
from pdstudy.run.progress import Progress
from pdstudy.run.scheduler import RunError
from pdstudy.storage import results
from pdstudy.storage.store import Store
from pdstudy.study.plan import make
from pdstudy.study.settings import Study

HALF = 0.5  # of the time left, at most, for a cross-validation
SHARE = 0.9  # of the time left, at most, for students that are trained for the first time: estimates are rough


def spend(
    study: Study,
    minutes: float = 60.0,
    limits: candidates.Limits = candidates.NONE,
    workers: int | None = None,
    listen: Callable[[Progress], None] | None = None,
    store: Store | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Spent:
    """Train what so many minutes allow, write the study's tables, and return how the time was used.

    The linear model is trained however short the time is. After each round `tell` is called with a line that has the answer so far. Earlier
    calls for the same study count: a second call with the same minutes trains nothing more. Raises RunError if a step fails, and
    Interrupted, after the tables of what is finished are written.
    """
    with Rounds(study, minutes, limits, workers, listen, store or Store(), tell) as rounds:
        rounds.run("the linear model", {}, timed=False)
        grid = _every_student_once(rounds, {}, with_teacher=False)
        _cross_validate(rounds, grid)
        grid = _every_student_once(rounds, grid, with_teacher=True)
        grid, reason = _more_seeds(rounds, grid)
        _learning_curves(rounds, grid)
        plan = rounds.plan(grid)
        measured = {s.size for s in plan.students if "ids" in plan.steps[s.evaluation].parents} | {LINEAR_SIZE}
        if rounds.computed or measured - set(results.load_speeds(study.name)):
            write_latency(study, plan, rounds.store)
        (texts,) = plan.of_stage("texts")
        write_nearness(study, rounds.store.open(texts.digest))
        suspects.write_of_study(study.name, rounds.store.open(texts.digest))
        if reason:
            rounds.spent.stopped = f"Stopped after {rounds.minutes_used:.0f} of {minutes:.0f} minutes: {reason}."
    return rounds.spent


def _students_once(study: Study) -> dict[str, Grid]:
    """Return every student with its first seed, in groups by size, those that need a teacher apart."""
    groups: dict[tuple[str, bool], list[str]] = {}
    for recipe in study.recipes:
        for size in study.sizes_of(recipe):
            groups.setdefault((size, distils(recipe)), []).append(recipe)
    return {
        f"{size} by {' and '.join(recipes)}": {(recipe, size): study.seeds[:1] for recipe in recipes}
        for (size, _), recipes in groups.items()
    }


def _every_student_once(rounds: Rounds, grid: Grid, with_teacher: bool) -> Grid:
    """Train every student once whose recipe needs a teacher, or needs none, while there is time; return those that are finished.

    The group that takes the least time is next. The first one is started whatever its estimate, because only then it is known how
    fast this machine is. After it come the students that the user named, such as with `init --student`, if the time allows them.
    """
    groups = _students_once(rounds.study)
    waiting = {name: group for name, group in groups.items() if distils(next(iter(group))[0]) == with_teacher}
    named = set(rounds.study.family) if isinstance(rounds.study.family, dict) else set()

    def order(name: str) -> tuple[bool, float]:
        others = bool(grid) and not any(size in named for _, size in waiting[name])
        return others, rounds.seconds(grid | waiting[name])

    while waiting and not (with_teacher and rounds.weak_teacher):
        name = min(waiting, key=order)
        first = not grid and rounds.seconds_left > 0
        grid = rounds.extend(name, grid, waiting.pop(name), math.inf if first else SHARE)
    return grid


def _cross_validate(rounds: Rounds, grid: Grid) -> None:
    """Compare a student with the linear model in cross-validation, where dev leaves the choice open."""
    rounds.cross_validate(grid, choice.open_on_dev(candidates.Candidates(rounds.study.name, rounds.limits)), HALF)


def _more_seeds(rounds: Rounds, grid: Grid) -> tuple[Grid, str]:
    """Train more seeds of the better students; return what is finished, and why no more can help, empty if it can."""
    study = rounds.study
    once = {student for group in _students_once(study).values() for student in group}
    if rounds.weak_teacher:
        once = {student for student in once if not distils(student[0])}
    for n in range(2, len(study.seeds) + 1) if grid else ():
        better = better_students(study.name, grid)
        if grid.keys() == once and (reason := early_stop.why(candidates.Candidates(study.name, rounds.limits), better)):
            rounds.spent.left_out.append(f"seeds beyond {n - 1}, which cannot change the recommendation")
            return grid, reason
        more = dict.fromkeys(better, study.seeds[:n])
        extended = rounds.extend(f"seed {n} for {len(better)} of {len(grid)} students", grid, more)
        if extended != grid | more:
            return extended, ""
        grid = extended
    return grid, ""


def _learning_curves(rounds: Rounds, grid: Grid) -> None:
    """Train the best student on a half, a quarter and an eighth of its texts."""
    study = rounds.study
    try:
        chosen = choice.best_student(candidates.Candidates(study.name, rounds.limits))
    except candidates.AdviceError:
        return  # no student is within the limits; the recommendation reports it
    n_train = int(results.load_counts(study.name).loc["train", "kept"])
    transfer, labels = study.transfer.texts, study.splits.train or n_train
    points = {"transfer": [transfer // 8, transfer // 4, transfer // 2], "labels": [labels // 8, labels // 4, labels // 2]}
    points = {kind: sorted({n for n in texts if n >= 16}) for kind, texts in points.items()}
    study = study.model_copy(update={"curves": study.curves.model_copy(update=points | {"sizes": [chosen["size"]]})})
    name = f"learning curves of {chosen['size']}"
    if rounds.seconds(grid, study) <= rounds.seconds_left:
        rounds.run(name, grid, study)
    if rounds.seconds(grid, study):
        rounds.spent.left_out.append(f"{name}, for want of time")


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
            better |= set(zip(near.recipe.map(without_linear), near["size"], strict=True))
        best = max(best, top)
    return [student for student in grid if student in better]


def write_nearness(study: Study, texts: Path) -> None:
    """Measure how similar D_T and D_LM are to the training texts, and write it into the study's folder."""
    train, transfer, corpus = (joined(tuples(texts / f"{name}.parquet")) for name in ("train", "transfer", "corpus"))
    try:
        rows = similarity.compare(train, {"D_T": transfer, "D_LM": corpus}, key_of(study.resolved_task()))
    except ValueError:  # too few words for ranks
        return
    write_json(study, data_checks.NEARNESS, [{k: None if v != v else v for k, v in row.items()} for row in rows])  # nan is null


def left_out(spent: Spent) -> str:
    """Return sentences about what there was no time for, and why time was left."""
    if not spent.left_out:
        return "Nothing was left out."
    sentences = [*filter(None, [spent.stopped]), f"Left out: {'; '.join(spent.left_out)}."]
    if any(line.endswith("for want of time") for line in spent.left_out):
        sentences.append("Allow more time with --max-minutes.")
    return " ".join(sentences)
