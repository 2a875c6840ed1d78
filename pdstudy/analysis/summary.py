"""Tables of accuracy by size, of accuracy and cost by student, and of cost by stage; a sentence about collapsed students."""

from pathlib import Path

import numpy as np
import pandas as pd

from pdstudy.analysis import stats
from pdstudy.analysis.stats import POINTS
from pdstudy.recipes import LINEARS, RECIPES
from pdstudy.storage import results

NAMED = 12  # of collapsed students, at most this many


def accuracy_table(metrics: pd.DataFrame, recipe_sizes: dict[str, list[str]] | None = None) -> pd.DataFrame:
    """Return test accuracy in points by recipe and size: mean (lowest to highest seed).

    If a student or seed is missing, the cell is "missing" instead of a mean over the rest. "-": not in the study, see `recipe_sizes`.
    """
    accuracies = results.accuracies(metrics)
    test = accuracies[~accuracies.recipe.isin(["majority", *LINEARS])]
    sizes = test.sort_values("n_params")["size"].unique()
    students = test[test.recipe != "teacher"]
    student_sizes, seeds = set(students["size"]), students.seed.nunique()
    grouped = (test.assign(value=test.value * 100)).groupby(["recipe", "size"]).value.agg(["mean", "min", "max", "count"])
    text = [f"{r.mean:.1f} ({r.min:.1f} to {r.max:.1f})" if r.count > 1 else f"{r.mean:.1f}" for r in grouped.itertuples()]
    lacking = [0 if r.Index[0] == "teacher" else seeds - r.count for r in grouped.itertuples()]
    text = [f"missing {n} of {seeds} seeds" if n else t for t, n in zip(text, lacking, strict=True)]
    wide = grouped.assign(text=text).text.unstack("size").reindex(columns=sizes)
    order = [r for r in ("teacher", *reversed(RECIPES)) if r in wide.index]  # the best expected first
    majority = metrics[(metrics.recipe == "majority") & (metrics.split == "test")].value
    wide = wide.reindex(order)
    for recipe in wide.index.drop("teacher", errors="ignore"):
        for size in student_sizes & set((recipe_sizes or {}).get(recipe, sizes)):
            if wide.at[recipe, size] != wide.at[recipe, size]:  # nan
                wide.at[recipe, size] = "missing"
    wide = wide.fillna("-")
    for name in LINEARS:  # of no size, and the same for every seed
        if len(value := accuracies[accuracies.recipe == name].value):
            wide.loc[name] = [f"{value.iloc[0] * 100:.1f}"] * len(wide.columns)
    if len(majority):
        wide.loc["majority class"] = [f"{majority.iloc[0] * 100:.1f}"] * len(wide.columns)
    return wide.rename_axis(index=None, columns=None)


def students_table(study: str | Path) -> pd.DataFrame:
    """Return test accuracy and cost of each student, linear model and teacher, the cheapest first.

    Columns: recipe, size, seeds, n_params, ms (median for one text, nan if not measured), mb (of weights in fp32), accuracy, low and
    high (percent; the interval is `stats.accuracy_interval`).
    """
    test, latency = results.accuracies(results.load_results(study)), results.load_latency(study)
    rows = []
    for (recipe, size), models in test[test.recipe != "majority"].groupby(["recipe", "size"], sort=False):
        low, high = stats.accuracy_interval(models.value.to_numpy(), int(models.n.iloc[0]))
        n_params = int(models.n_params.iloc[0])
        row = {"recipe": recipe, "size": size, "seeds": len(models), "n_params": n_params, "ms": latency.get(size, np.nan)}
        row |= {"mb": 4e-6 * n_params, "accuracy": models.value.mean() * POINTS, "low": low * POINTS, "high": high * POINTS}
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["n_params", "accuracy"], ignore_index=True)


def cost_table(study: str) -> pd.DataFrame:
    """Return steps, seconds, word pieces and floating-point operations by stage; those of a released family are separate rows."""
    costs = results.load_costs(study)
    costs["stage"] = costs.stage + costs.family.map({True: " (released family)", False: ""})
    grouped = costs.groupby("stage", sort=False).agg(
        steps=("seconds", "size"), seconds=("seconds", "sum"), tokens=("tokens", "sum"), flops=("flops", "sum")
    )
    columns = {"steps": grouped.steps, "seconds": grouped.seconds.round(0).astype(int)}
    columns |= {"million pieces": (grouped.tokens / 1e6).round(1), "TFLOP": (grouped.flops / 1e12).round(1)}
    return pd.DataFrame(columns).rename_axis(None)


def collapsed(study: str) -> str:
    """Return a sentence about the students that are not better than the majority class on dev."""
    students = results.load_students(study)
    collapsed = students[students.collapsed.fillna(False).astype(bool)]
    if collapsed.empty:
        return "No student collapsed to the majority class."
    names = []
    for row in collapsed.itertuples():
        values = {"D_T": row.domain, "D_LM": row.corpus, "texts": int(row.texts) if row.texts == row.texts else None}
        note = ", ".join(f"{name} {value}" for name, value in values.items() if isinstance(value, (str, int)))
        names.append(f"{row.recipe} {row.size} seed {int(row.seed)}" + (f" ({note})" if note else ""))
    listed = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    return f"{len(names)} of {len(students)} students collapsed to the majority class: {listed}."
