"""What is each setting worth that the paper leaves open? One table: accuracy at two sizes, three seeds, beside the paper's own recipe.

Settings: teaching the texts of D_L as well; their true labels mixed in; logit regression in the place of cross-entropy; the mean of
all pieces in the place of [CLS]; passes over D_T searched. Every one is tried alone, on the same teacher, texts, seeds and rates. The
difference is paired by seed and test text, with a 95 % interval over both.

Run:  python benchmarks/teaching.py params/teacher-movies.yaml              (hours; what is in the store is not computed again)
      python benchmarks/teaching.py params/teacher-movies.yaml --texts 16000 --sizes 2/128 --seeds 0
Writes benchmarks/results/teaching.json and prints the table in Markdown.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from pdstudy import run_study
from pdstudy.analysis import stats
from pdstudy.analysis.stats import POINTS
from pdstudy.data import hub
from pdstudy.storage import results
from pdstudy.study.settings import Study

SIZES, SEEDS, TEXTS = ["2/128", "4/256"], [0, 1, 2], 60_000
RECIPES = ["PF", "PD"]
OPTIONS = {  # name -> what differs from the base, by section
    "the paper's": {},
    "D_L's texts taught too": {"distill": {"labelled": True}},
    "D_L's texts taught too, true labels mixed in by half": {"distill": {"labelled": True, "true_labels": 0.5}},
    "logit regression": {"distill": {"loss": "logits"}},
    "mean pooling": {"pooling": "mean"},
    "passes searched (1, 2, 4; fine-tuning 2, 4, 8)": {"distill": {"epochs": [1, 2, 4]}, "finetune": {"epochs": [2, 4, 8]}},
}
OUT = Path(__file__).parent / "results" / "teaching.json"


def study_of(base: Study, name: str, changes: dict, sizes: list[str], seeds: list[int], texts: int) -> Study:
    """Return the study of one option."""
    settings = base.model_dump() | {
        "name": f"teaching-{list(OPTIONS).index(name)}",
        "sizes": sizes,
        "seeds": seeds,
        "recipes": RECIPES,
    }
    settings |= {"recipe_sizes": {}, "transfer": {"texts": texts}}
    settings |= {part: {} for part in ("curves", "domains", "compound")}
    for key, value in changes.items():
        settings[key] = settings[key] | value if isinstance(value, dict) else value
    return Study(**settings)


def right_of(study: Study) -> dict[tuple[str, str], np.ndarray]:
    """Return the right (1) and wrong (0) answers to test of each recipe and size, (n_seeds, n_items)."""
    students, answers = results.load_students(study.name), results.load_predictions(study.name).query("split == 'test'")
    by_digest = {d: (rows.label == rows.predicted).to_numpy(float) for d, rows in answers.groupby("digest", observed=True)}
    own = students[students.curve.isna() & students.domain.isna() & students.corpus.isna() & students.recipe.isin(RECIPES)]
    groups = own.sort_values("seed").groupby(["recipe", "size"])
    return {key: np.stack([by_digest[d] for d in rows.digest]) for key, rows in groups}


def main() -> None:
    """Run every option and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("params")
    parser.add_argument("--texts", type=int, default=TEXTS)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--workers", type=int, default=None)
    asked = parser.parse_args()
    base, right = Study.read(asked.params), {}
    hub.fetch_missing(*base.named_on_hub())
    for name, changes in OPTIONS.items():
        study = study_of(base, name, changes, asked.sizes, asked.seeds, asked.texts)
        print(f"{name} ({study.name})", file=sys.stderr, flush=True)
        run_study(study, asked.workers)
        right[name] = right_of(study)
    rows = []
    for name, arms in right.items():
        for (recipe, size), answers in arms.items():
            d = answers - right["the paper's"][recipe, size]
            effect = (stats.crossed_effect(d) if len(d) > 1 else stats.mean_interval(d[0])).scaled(POINTS)
            rows.append({"option": name, "recipe": recipe, "size": size, "accuracy": round(100 * float(answers.mean()), 2),
                         "gain": effect.estimate, "low": effect.low, "high": effect.high, "seeds": len(d), "texts": d.shape[1]})  # fmt: skip
    OUT.write_text(json.dumps({"transfer_texts": asked.texts, "teacher": base.teacher.model_dump(), "rows": rows}, indent=1) + "\n")
    print(table(rows))


def table(rows: list[dict]) -> str:
    """Return the rows as a Markdown table: one line an option, one column a recipe and size."""
    arms = list(dict.fromkeys((row["recipe"], row["size"]) for row in rows))
    cells = {(row["option"], row["recipe"], row["size"]): row for row in rows}
    lines = [f"| setting | {' | '.join(f'{recipe} {size}' for recipe, size in arms)} |", "|---" * (1 + len(arms)) + "|"]
    for option in dict.fromkeys(row["option"] for row in rows):
        cells = []
        for recipe, size in arms:
            row = cells[option, recipe, size]
            known = np.isfinite(row["low"]) and option != "the paper's"
            cells.append(
                f"{row['accuracy']:.1f}" + (f" ({row['gain']:+.1f}, {row['low']:+.1f} to {row['high']:+.1f})" if known else "")
            )
        lines.append(f"| {option} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
