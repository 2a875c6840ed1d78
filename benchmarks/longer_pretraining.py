"""What is longer pre-training worth? Two finished studies whose encoders differ in it: held-out loss, and paired differences on test.

Run:  PDSTUDY_OUTPUTS=gpu-outputs python benchmarks/longer_pretraining.py eight-sizes-20m eight-sizes
Writes benchmarks/results/longer_pretraining.json; `python tools/readme.py` prints it in docs/results.md. Only seeds that both studies
have are compared.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from teaching import difference, right_of

from pdstudy import machine
from pdstudy.sizes import Size
from pdstudy.storage import paths, results
from pdstudy.study.settings import Study

OUT = Path(__file__).parent / "results" / "longer_pretraining.json"
RECIPES = ("PF", "PD")


def heldout_losses(study: str) -> dict[str, float]:
    """Return the held-out MLM loss of the study's encoders by size, in nats."""
    rows = results.load_results(study).query("recipe == 'start' and metric == 'mlm_loss' and split == 'heldout'")
    return rows.groupby("size").value.mean().round(3).to_dict()


def main() -> None:
    names = sys.argv[1:]
    studies = [Study(**results.load_settings(name)) for name in names]
    (short, long), losses = (right_of(study) for study in studies), [heldout_losses(name) for name in names]
    rows = []
    for size in sorted(losses[0].keys() & losses[1].keys(), key=lambda size: Size.parse(size).n_params()):
        row = {"size": size, "loss": [loss[size] for loss in losses]}
        for recipe in RECIPES:
            before, after = short[recipe, size], long[recipe, size]
            seeds = min(len(before), len(after))
            row[recipe] = difference(after[:seeds], before[:seeds]) | {"seeds": seeds, "items": before.shape[1]}
        rows.append(row)
        print(json.dumps(row), flush=True)
    record = {
        "command": f"python benchmarks/longer_pretraining.py {' '.join(names)}",
        "pieces": [study.pretrain.tokens for study in studies],
        "rows": rows,
        "processor": machine.processor(),
        "commit": machine.commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    OUT.write_text(json.dumps(record, indent=1) + "\n")
    print(paths.scrub(str(OUT)))


if __name__ == "__main__":
    main()
