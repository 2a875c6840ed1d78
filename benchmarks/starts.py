"""Which pre-trained start is best for a task? The same study with each family, and the paired differences from the first.

Run:  python benchmarks/starts.py PARAMS old=zoo/{layers}-{hidden}-s0 distilled=zoo/distilled/{layers}-{hidden}-s0 --sizes 2/128
Every family gets the same recipes, rates and seeds. Adds a row for each to benchmarks/results/starts.json and prints them.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from teaching import right_of

from pdstudy import machine, run_study
from pdstudy.analysis import stats
from pdstudy.analysis.stats import POINTS
from pdstudy.data import hub
from pdstudy.storage import results
from pdstudy.study.settings import Study

OUT = Path(__file__).parent / "results" / "starts.json"


def study_of(base: Study, i: int, family: str, asked: argparse.Namespace) -> Study:
    """Return the study of one family."""
    settings = base.model_dump() | {"name": f"starts-{base.name}-{i}", "family": family, "recipe_sizes": {}}
    settings |= {"recipes": asked.recipes, "sizes": asked.sizes, "seeds": asked.seeds, "transfer": {"texts": asked.texts}}
    settings |= {part: {} for part in ("curves", "domains", "compound")}
    if asked.max_length:
        settings["max_length"] = asked.max_length
    if asked.rates:
        for section in ("finetune", "distill"):
            settings[section] = settings[section] | {"rates": asked.rates}
    if "PD" not in asked.recipes:  # nothing is distilled: the linear model stands for the teacher
        settings["teacher"] = {"size": None, "linear": True, "margin": -1}
    return Study(**settings)


def dev_of(study: Study) -> dict[tuple[str, str], float]:
    """Return the mean accuracy on dev of each recipe and size."""
    rows = results.load_results(study.name).query("metric == 'accuracy' and split == 'dev'")
    return rows.groupby(["recipe", "size"]).value.mean().to_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("params", type=Path)
    parser.add_argument("families", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--recipes", nargs="*", default=["PF"])
    parser.add_argument("--sizes", nargs="*", default=["2/128"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--texts", type=int, default=2000, help="transfer texts")
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--rates", nargs="*", type=float)
    asked = parser.parse_args()
    base, rows, first = Study.read(asked.params), [], {}
    for i, pair in enumerate(asked.families):
        name, family = pair.split("=", 1)
        study = study_of(base, i, family, asked)
        hub.fetch_missing(*study.named_on_hub())
        run_study(study)
        linear = results.load_results(study.name).query("metric == 'accuracy' and split == 'test' and recipe == 'Linear'").value
        dev = dev_of(study)
        answers = {key: right for key, right in right_of(study).items() if key[0] in asked.recipes}
        for (recipe, size), right in answers.items():
            base_right = first.setdefault((recipe, size), right)
            effect = None if base_right is right else stats.crossed_effect(right - base_right).scaled(POINTS)
            rows.append({
                "task": base.name, "start": name, "recipe": recipe, "size": size, "max_length": study.max_length,
                "texts": asked.texts if "PD" in asked.recipes else None, "dev": round(POINTS * dev[recipe, size], 1),
                "test": round(POINTS * float(right.mean()), 1), "linear": round(POINTS * float(linear.iloc[0]), 1),
                "over the first": effect and {"points": round(effect.estimate, 1), "low": round(effect.low, 1),
                                              "high": round(effect.high, 1)},
                "seeds": right.shape[0], "items": right.shape[1], "processor": machine.processor(), "commit": machine.commit(),
                "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            })  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    key = ("task", "start", "recipe", "size", "max_length", "texts")
    new = {tuple(row[k] for k in key) for row in rows}
    old = [row for row in (json.loads(OUT.read_text()) if OUT.is_file() else []) if tuple(row[k] for k in key) not in new]
    OUT.write_text(json.dumps(old + rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
