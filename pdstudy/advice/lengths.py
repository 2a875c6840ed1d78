"""What longer texts are worth on dev: the fastest student, fine-tuned at several lengths."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdstudy.advice.rounds import write_json
from pdstudy.analysis import stats
from pdstudy.analysis.stats import POINTS, Effect
from pdstudy.run.inputs import read_record
from pdstudy.run.progress import Progress
from pdstudy.run.run_study import writable
from pdstudy.run.scheduler import raise_failures, run
from pdstudy.sizes import POSITIONS, Size
from pdstudy.storage.store import Store
from pdstudy.study.plan import make
from pdstudy.study.settings import Study

FILE = "lengths.json"
SEEDS = (0, 1, 2)
LEAST = 16  # pieces of a text


@dataclass(frozen=True)
class Length:
    """The fastest student at one length."""

    pieces: int
    cut: float  # the share of D_L's texts that are longer
    right: np.ndarray  # (n_seeds, n_dev) bool, which answers to dev are right
    seconds: float  # of training, mean over the seeds, on one thread

    @property
    def dev(self) -> float:
        """Return the accuracy on dev in percent."""
        return POINTS * float(self.right.mean())

    def gain(self, other: "Length") -> Effect:
        """Return how many points this length is better on dev than another, with an interval over seeds and texts."""
        return stats.effect_in_points(self.right.astype(float) - other.right.astype(float))


def choices(length: int) -> list[int]:
    """Return the lengths to compare with a study's own: half, twice and four times as many pieces, as far as a BERT has positions."""
    return [n for n in (length // 2, length, 2 * length, 4 * length) if LEAST <= n <= POSITIONS]


def student_of(study: Study) -> tuple[str, str]:
    """Return (recipe, size) of the student that is compared: the one with the fewest operations, by PF where the study has it."""
    recipe = "PF" if "PF" in study.recipes else "Basic"
    return recipe, min(study.sizes, key=lambda size: Size.parse(size).layers * Size.parse(size).hidden ** 2)


def measure(
    study: Study, lengths: Sequence[int], workers: int | None = None, listen: Callable[[Progress], None] = lambda progress: None,
    store: Store | None = None,
) -> list[Length]:  # fmt: skip
    """Return the student's answers to dev at each length, shortest first. Every length has the study's own search of the rate.

    The steps at the study's own length are those of the study. Raises RunError if a step fails.
    """
    writable(study)
    store, key, rows = store or Store(), student_of(study), []
    for pieces in sorted(set(lengths)):
        whole = make(study.model_copy(update={"max_length": pieces}), {key: list(SEEDS)})
        plan = whole.only([s for s in whole.students if s.own and (s.recipe, s.size) == key])
        raise_failures(run(plan, store, workers, listen))
        answers = [store.open(student.evaluation) for student in plan.students]
        ids = store.open(plan.steps[plan.students[0].evaluation].parents["ids"])
        count = read_record(ids)["counts"]["train"]
        right = [np.load(a / "dev.logits.npy").argmax(1) == np.load(a / "dev.labels.npy") for a in answers]
        seconds = [store.manifest(student.model)["seconds"] for student in plan.students[1:]]  # the first one's model is a search
        rows.append(Length(pieces, count["truncated"] / count["texts"], np.stack(right), float(np.mean(seconds))))
    return rows


def enough(rows: Sequence[Length]) -> Length:
    """Return the shortest length that is not significantly worse on dev than the best one."""
    best = max(rows, key=lambda row: (row.dev, -row.pieces))
    return next(row for row in rows if row is best or not best.gain(row).low > 0)


def save(rows: Sequence[Length], study: Study) -> dict[str, Any]:
    """Return what was measured, after writing it into the study's folder: the student, dev's size, a row for each length, the choice."""
    recipe, size = student_of(study)
    record: dict[str, Any] = {"student": f"{recipe} {size}", "seeds": len(SEEDS), "n_dev": rows[0].right.shape[1], "rows": []}
    for row in rows:
        gain = row.gain(rows[0])
        interval = [gain.low, gain.high] if gain.known else None
        points = {"gain": gain.estimate, "interval": interval}  # over the shortest length
        record["rows"].append({"pieces": row.pieces, "cut": row.cut, "dev": row.dev, "seconds": row.seconds} | points)
    record |= {"max_length": enough(rows).pieces}
    write_json(study, FILE, record)
    return record
