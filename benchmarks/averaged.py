"""What is a student worth that is averaged with the linear model? On test, against the student alone and against the linear model.

The saved answers of finished studies are read: nothing is trained. Every difference is paired by test text and seed, with a 95 %
interval over both.

Run:  python benchmarks/averaged.py STUDY...      (names or folders of studies with their predictions)
Writes benchmarks/results/averaged.json; `python tools/readme.py` prints it in docs/method.md.
"""

import json
import sys
from pathlib import Path

import numpy as np

from pdstudy.analysis import averaged, stats
from pdstudy.machine import commit, processor
from pdstudy.recipes import LINEAR, RECIPES, WITH_LINEAR
from pdstudy.storage import results

OUT = Path(__file__).parent / "results" / "averaged.json"


def rows_of(study: str) -> list[dict]:
    """Return a row for each recipe and size of a study: its accuracies on test in percent, and the differences in points."""
    models = results.load_students(study)
    models = models[models.curve.isna() & models.domain.isna() & models.corpus.isna()]
    answers = dict(iter(results.load_predictions(study).query("split == 'test'").groupby("digest", observed=True)))
    models, answers = averaged.with_averages(models, answers, "test")
    right = {digest: (table.label == table.predicted).to_numpy(float) for digest, table in answers.items()}
    by_student = {
        key: np.stack([right[d] for d in rows.digest]) for key, rows in models.sort_values("seed").groupby(["recipe", "size"])
    }
    linear, rows = by_student[LINEAR, "linear"], []
    for (recipe, size), alone in by_student.items():
        if recipe in RECIPES:
            both = by_student[recipe + WITH_LINEAR, size]
            row = {"study": Path(study).name, "recipe": recipe, "size": size, "seeds": len(alone), "texts": alone.shape[1]}
            row |= {name: round(100 * float(x.mean()), 2) for name, x in (("linear", linear), ("alone", alone), ("average", both))}
            rows.append(row | {"over_alone": points(both - alone), "over_linear": points(both - linear)})
    return rows


def points(differences: np.ndarray) -> dict[str, float | None]:
    """Return the mean in points and its 95 % interval, over seeds and texts; None where no interval is known."""
    effect = stats.effect_in_points(differences)
    values = {"gain": effect.estimate, "low": effect.low, "high": effect.high}
    return {key: round(float(value), 2) if np.isfinite(value) else None for key, value in values.items()}


def main() -> None:
    """Read every study that is named and write the record."""
    if not sys.argv[1:]:
        raise SystemExit(__doc__)
    rows = [row for study in sys.argv[1:] for row in rows_of(study)]
    command = " ".join(["python benchmarks/averaged.py", *(Path(study).name for study in sys.argv[1:])])
    place = {"commit": commit(), "processor": processor(), "studies": {Path(s).name: results.provenance(s) for s in sys.argv[1:]}}
    OUT.write_text(json.dumps({"command": command} | place | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
