"""What a study found and cost, in tables and a sentence: accuracies by size, seconds by stage, students that learned nothing."""

import pandas as pd

from pdstudy.recipes import RECIPES
from pdstudy.storage import results

NAMED = 12  # students that a sentence names


def accuracy_table(metrics: pd.DataFrame, recipe_sizes: dict[str, list[str]] | None = None) -> pd.DataFrame:
    """Return test accuracy in points by recipe and size: mean (lowest to highest seed).

    A student that is not there is named as missing, never averaged over; "-" stands where none was asked for: `recipe_sizes`
    are the study's.
    """
    test = metrics[(metrics.split == "test") & (metrics.metric == "accuracy") & (metrics.recipe != "majority")]
    sizes = test.sort_values("n_params")["size"].unique()
    students = test[test.recipe != "teacher"]
    asked, seeds = set(students["size"]), students.seed.nunique()
    grouped = (test.assign(value=test.value * 100)).groupby(["recipe", "size"]).value.agg(["mean", "min", "max", "count"])
    text = [f"{r.mean:.1f} ({r.min:.1f} to {r.max:.1f})" if r.count > 1 else f"{r.mean:.1f}" for r in grouped.itertuples()]
    lacking = [0 if r.Index[0] == "teacher" else seeds - r.count for r in grouped.itertuples()]
    text = [f"missing {n} of {seeds} seeds" if n else t for t, n in zip(text, lacking, strict=True)]
    wide = grouped.assign(text=text).text.unstack("size").reindex(columns=sizes)
    order = [r for r in ("teacher", *reversed(RECIPES)) if r in wide.index]  # from best expected to worst
    majority = metrics[(metrics.recipe == "majority") & (metrics.split == "test")].value
    wide = wide.reindex(order)
    for recipe in wide.index.drop("teacher", errors="ignore"):
        for size in asked & set((recipe_sizes or {}).get(recipe, sizes)):
            if wide.at[recipe, size] != wide.at[recipe, size]:  # not a number: no text
                wide.at[recipe, size] = "missing"
    wide = wide.fillna("-")
    if len(majority):
        wide.loc["majority class"] = [f"{majority.iloc[0] * 100:.1f}"] * len(wide.columns)
    return wide.rename_axis(index=None, columns=None)


def cost_table(study: str) -> pd.DataFrame:
    """Return steps, seconds, pieces read and floating-point operations by stage, what a released family gave apart."""
    costs = results.load_costs(study)
    costs["stage"] = costs.stage + costs.family.map({True: " (released family)", False: ""})
    grouped = costs.groupby("stage", sort=False).agg(
        steps=("seconds", "size"), seconds=("seconds", "sum"), tokens=("tokens", "sum"), flops=("flops", "sum")
    )
    shown = {"steps": grouped.steps, "seconds": grouped.seconds.round(0).astype(int)}
    shown |= {"million pieces": (grouped.tokens / 1e6).round(1), "TFLOP": (grouped.flops / 1e12).round(1)}
    return pd.DataFrame(shown).rename_axis(None)


def collapsed(study: str) -> str:
    """Return which students, of all that were trained, know no more than the majority class."""
    students = results.load_students(study)
    found = students[students.collapsed.fillna(False).astype(bool)]
    if found.empty:
        return "No student collapsed to the majority class."
    names = []
    for row in found.itertuples():
        where = (("D_T", row.domain), ("D_LM", row.corpus), ("texts", int(row.texts) if row.texts == row.texts else None))
        note = ", ".join(f"{name} {value}" for name, value in where if isinstance(value, (str, int)))
        names.append(f"{row.recipe} {row.size} seed {int(row.seed)}" + (f" ({note})" if note else ""))
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    return f"{len(names)} of {len(students)} students collapsed to the majority class: {shown}."
