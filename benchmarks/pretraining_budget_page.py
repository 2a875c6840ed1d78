"""The page and the figure of benchmarks/pretraining_budget.py, every number and sentence from its results."""

import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from pdstudy.report import style

LEFT = 0.5  # nats below the unigram loss: the plateau is left
DRAWN = {  # variant -> colour; the others are in the table
    "budget recipe": "#0072B2",
    "BERT's recipe, initialiser 0.02": "#6E6E6E",
    "BERT's recipe, initialiser 0.06": "#999999",
    "words start at random": "#D55E00",
    "AdamW for all": "#E69F00",
    "positions start at random": "#009E73",
    "no task for [CLS]": "#CC79A7",
}
NOISE = 0.03  # nats: a bar, not a measurement; one run each, so smaller differences are not effects

INTRODUCTION = """# Pre-training on a small budget

This page shows what each setting of the released family is worth when a compact BERT is pre-trained for minutes on 2 cores. In short:
start the word embeddings from counts, use Muon, and give [CLS] a task of its own. With BERT's own recipe the
models of this page stay on the plateau near the unigram loss, or just leave it.

The numbers are in `benchmarks/results/pretraining_budget.json`, written by `benchmarks/pretraining_budget.py`. Each variant changes one setting
of the budget recipe in `params/zoo.yaml`, sees the same amount of text, and was run once. No test text was used. The columns:

- **held-out loss**: in nats; the next column is the difference to the budget recipe;
- **off the plateau after**: seconds until the held-out loss is 0.5 nats below the unigram loss;
- **probe**: five-fold accuracy of a linear classifier on the frozen [CLS] vectors of the labelled training texts;
- **dev**: dev accuracy after fine-tuning at one fixed rate.

Seconds are processor seconds of one core, without the time of the measurements.

## The recipe, and why

1. **Word embeddings from counts.** They start from co-occurrence in D_LM: positive pointwise mutual information of
   pairs at most three pieces apart, reduced to the model's width by a singular value decomposition (Levy, Goldberg and Dagan, 2015).
   This takes seconds. Gradient descent would spend most of a small budget on it.
2. **A task for [CLS].** A classifier uses only [CLS], but masking alone never trains it. So [CLS] also predicts
   the words of its row, in any order. The head of this task is dropped afterwards. (In BERT, [CLS] was trained by next-sentence prediction.)
3. **Positions start as sinusoids**, with a larger scale than usual, so that attention finds neighbours from the beginning.
4. **Muon** for the layers' matrices and AdamW for the rest; 30 % masked; an initialiser of 0.03.

"""


def write(results: dict, page: Path, figure: Path) -> None:
    """Write the page and its figure from the results."""
    kinds = itertools.groupby(sorted(results["runs"], key=alike), alike)
    groups = [list(runs) for _, runs in kinds]
    text = INTRODUCTION + f"![Held-out loss against seconds, one line a variant]({figure.name})\n"
    page.write_text(text + "".join(map(section, groups)))
    draw([runs for runs in groups if sum(r["variant"] in DRAWN for r in runs) > 2], figure)


def alike(run: dict) -> tuple:
    """Return what runs must have in common to stand in one table: size, pieces, the machine and the study's precision."""
    return run["size"], run["pieces"], run["machine"]["processor"], run["versions"]["torch"]


def section(runs: list[dict]) -> str:
    """Return the table and the findings of one size, on one machine."""
    size = runs[0]["size"]
    runs = sorted(runs, key=lambda r: r["reading"]["mlm_loss"])
    base = next((r for r in runs if r["variant"] == "budget recipe"), None)
    rates = f"; the recipe's rate here {base['settings']['rate']:g}, Muon's {base['settings']['muon_rate']:g}" if base else ""
    lines = [
        f"\n## {size}, {runs[0]['pieces'] / 1e6:g} M pieces, unigram loss {(base or runs[0])['reading']['unigram_loss']:.2f}{rates}\n",
        "| variant | held-out loss | against the budget recipe | off the plateau after, s | all, s | probe | dev |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        same_pieces = "vocabulary" not in run["variant"]
        gap = f"{loss(run) - loss(base):+.2f}" if base and run is not base and same_pieces else "-"
        left = off_plateau(run)
        lines.append(
            f"| {run['variant']} | {loss(run):.3f} | {gap} | {'never' if left is None else f'{left:.0f}'} | {run['curve'][-1]['seconds']:.0f} "
            f"| {run['probe']:.1%} | {np.mean(run['dev']):.1%} |"
        )
    if base:
        others = [r for r in runs if r is not base and "vocabulary" not in r["variant"]]
        better = [r["variant"] for r in others if loss(r) < loss(base) - NOISE]
        worse = sum(loss(r) > loss(base) + NOISE for r in others)
        lines.append(
            f"\nChanged recipes ({len(others)}) by their loss: {worse} more than {NOISE} nats higher, {len(others) - worse - len(better)} "
            f"within {NOISE}, {len(better)} more than {NOISE} lower{' (' + '; '.join(better) + ')' if better else ''}. Each was run once, so small "
            "differences may be chance. A loss over another vocabulary is not comparable; its probe and dev are."
        )
    made = runs[0]
    commits, dates = (", ".join(sorted({r[k][:n] for r in runs})) for k, n in (("commit", 12), ("date", 10)))
    lines.append(
        f"\n<sub>python benchmarks/pretraining_budget.py {size} --pieces {made['pieces']:g} · {dates} · torch {made['versions']['torch']} · "
        f"{made['machine']['processor']}, {made['machine']['cores']} cores · {(base or made)['settings']['precision']} · commits {commits}</sub>"
    )
    return "\n".join(lines) + "\n"


def loss(run: dict) -> float:
    """Return a run's held-out loss."""
    return run["reading"]["mlm_loss"]


def off_plateau(run: dict) -> float | None:
    """Return the seconds after which the plateau was left, between the measurements by straight lines, or None."""
    edge = run["reading"]["unigram_loss"] - LEFT
    before = {"seconds": 0.0, "loss": run["reading"]["unigram_loss"] + 2}
    for point in run["curve"]:
        if point["loss"] < edge:
            part = (before["loss"] - edge) / (before["loss"] - point["loss"])
            return before["seconds"] + part * (point["seconds"] - before["seconds"])
        before = point
    return None


def draw(groups: list[list[dict]], path: Path) -> None:
    """Draw held-out loss against seconds, one panel a table."""
    style.set_style()
    figure, axes = plt.subplots(1, len(groups), figsize=(6 * len(groups), 4.2), layout="constrained", squeeze=False)
    for ax, mine in zip(axes[0], groups, strict=True):
        for run in mine:
            if run["variant"] in DRAWN:
                x, y = ([p[k] for p in run["curve"]] for k in ("seconds", "loss"))
                thick = 2.6 if run["variant"] == "budget recipe" else 1.4
                ax.plot(x, y, color=DRAWN[run["variant"]], lw=thick, marker="o", ms=3, label=run["variant"])
        unigram = next(run["reading"]["unigram_loss"] for run in mine if run["variant"] in DRAWN)  # of these word pieces
        ax.axhline(unigram, color=style.GREY, ls="--", lw=1)
        ax.annotate(
            "unigram", (0.99, unigram), xycoords=("axes fraction", "data"), va="bottom", ha="right", fontsize=8, color=style.GREY
        )
        ax.set(
            xlabel="seconds of one core",
            ylabel="held-out MLM loss, nats",
            title=f"{mine[0]['size']}, {mine[0]['pieces'] / 1e6:g} M pieces",
        )
    named = {label: line for ax in axes[0] for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    drawn = [name for name in DRAWN if name in named]
    figure.legend([named[name] for name in drawn], drawn, loc="outside lower center", ncols=len(drawn), frameon=False, fontsize=9)
    figure.savefig(path)
    plt.close(figure)
