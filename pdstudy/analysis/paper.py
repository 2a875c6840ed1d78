"""The numbers of the paper, each with its source and how precise it is.

Turc, Chang, Lee, Toutanova, "Well-Read Students Learn Better", arXiv 1908.08962v2. "printed": from a table; "digitised": measured
on the markers of a figure, to about +-0.1 (+-0.2 where markers overlap).
"""

import io
from dataclasses import dataclass

import pandas as pd

from pdstudy.recipes import RECIPES


@dataclass(frozen=True)
class Number:
    """One number of the paper."""

    value: float
    where: str
    trust: str  # printed or digitised


_SST2 = """layers,hidden,params,speedup,PD,PF,Distillation,Basic
2,128,4.4,65.24,85.5,83.0,83.1,81.7
4,128,4.8,32.37,89.0,82.8,83.8,81.8
6,128,5.2,21.87,90.7,84.9,83.2,81.8
8,128,5.6,16.42,91.1,84.7,83.9,81.0
10,128,6.0,13.05,90.7,84.9,82.5,81.2
12,128,6.4,11.02,91.1,85.6,83.1,81.3
2,256,9.7,31.25,88.4,83.7,82.9,81.3
4,256,11.3,15.96,91.9,85.8,83.3,81.8
6,256,12.8,10.67,91.2,87.4,83.5,81.7
8,256,14.4,8.01,92.0,87.6,83.8,80.9
10,256,16.0,6.37,92.4,88.2,83.9,81.6
12,256,17.6,5.35,92.4,88.6,84.5,81.9
2,512,22.8,14.44,90.4,86.1,83.7,81.4
4,512,29.1,7.27,91.9,88.4,83.9,81.3
6,512,35.4,4.85,92.8,89.4,84.2,81.6
8,512,41.7,3.64,92.5,89.6,84.2,81.1
10,512,48.0,2.90,92.7,89.4,84.6,81.4
12,512,54.3,2.43,93.0,89.8,84.8,81.3
2,768,39.2,7.46,91.8,86.8,84.4,81.4
4,768,53.4,3.75,92.1,89.5,85.0,81.4
6,768,67.5,2.50,93.2,90.8,85.0,81.7
8,768,81.7,1.88,93.2,90.7,85.4,81.5
10,768,95.9,1.50,93.6,91.2,84.6,81.8
12,768,110.1,1.25,93.1,91.2,85.3,81.8
"""
SST2_SOURCE = "Fig 6, SST-2"
_INITIALISATIONS = """recipe,2/128,4/256,4/512,8/512,12/768
PD,72.2,78.4,79.8,81.9,83.9
PD (truncated),66.2,76.9,77.6,81.2,83.9
PD (embeddings),61.0,68.5,73.9,74.5,74.6
Distillation,60.5,66.0,69.0,69.8,70.1
"""
_COMPOUND = """recipe,2/128,4/256,4/512,8/512,12/768
PD,64.0,74.7,74.5,78.1,78.7
PF,61.3,72.5,72.5,76.0,76.6
Distillation,60.6,66.0,69.1,69.9,70.1
"""
_TRANSFER_SIZE = """recipe,size,50000,100000,1000000,3000000,5000000,8000000
PD,4/256,83.2,84.1,86.6,87.6,87.9,88.0
Distillation,4/256,78.9,81.4,83.8,84.4,84.6,84.7
Distillation,12/768,80.9,82.9,84.5,86.6,86.7,87.7
"""
_DOMAINS = """recipe,0.43,0.52,0.76,1.0
PD-F,84.7,86.6,86.9,87.0
PD,82.4,86.3,86.7,87.2
Distillation,78.8,81.5,83.6,84.05
PF,82.9,82.9,82.9,82.9
"""
BOOKS_BASIC = Number(80.6, "Fig 8, Book Reviews, 4/256", "digitised")


def sst2() -> pd.DataFrame:
    """Return Fig 6, accuracy on SST-2: columns size, recipe, value (in points)."""
    return _table2().melt(id_vars=["size"], value_vars=["PD", "PF", "Distillation", "Basic"], var_name="recipe")


def sst2_gain(better: str, worse: str) -> Number:
    """Return the mean gain of one recipe over another on SST-2 in points, over 24 sizes."""
    return gain(sst2(), better, worse, SST2_SOURCE)


def initialisations() -> pd.DataFrame:
    """Return Fig 5, accuracy on MNLI by initialisation: columns recipe, size, value (in points)."""
    return _long(_INITIALISATIONS, "size")


def compound() -> pd.DataFrame:
    """Return Fig 10, accuracy on MNLI with D_LM = D_T: columns recipe, size, value (in points)."""
    return _long(_COMPOUND, "size")


def transfer_size() -> pd.DataFrame:
    """Return Fig 8, accuracy on Book Reviews by the size of D_T: columns recipe, size, texts, value (in points)."""
    table = pd.read_csv(io.StringIO(_TRANSFER_SIZE)).melt(id_vars=["recipe", "size"], var_name="texts")
    return table.astype({"texts": int})


def domains() -> pd.DataFrame:
    """Return Fig 9, accuracy on Book Reviews by S, with 1.7 M transfer texts and size 4/256: columns recipe, S, value (in points)."""
    return _long(_DOMAINS, "S").astype({"S": float})


def sizes() -> pd.DataFrame:
    """Return Table 2: columns size, params (millions), speedup (over BERT-Large on a TPU v2)."""
    return _table2()[["size", "params", "speedup"]]


def gain(table: pd.DataFrame, better: str, worse: str, where: str) -> Number:
    """Return the mean gain of one recipe over another in points, over the sizes of a figure."""
    wide = table.pivot(index="size", columns="recipe", values="value")
    return Number(round(float((wide[better] - wide[worse]).mean()), 1), f"{where}, mean of {len(wide)} sizes", "digitised")


def contrast(table: pd.DataFrame, terms: list[tuple[float, str, object]], where: str) -> Number:
    """Return a weighted sum of values of a figure. `terms` are (weight, recipe, place) with a size, S or (size, texts) as place."""
    places = [c for c in table.columns if c not in ("recipe", "value")]
    value = table.set_index(["recipe", *places]).value
    total = sum(w * value.loc[(recipe, *(place if isinstance(place, tuple) else (place,)))] for w, recipe, place in terms)
    return Number(round(float(total), 1), where, "digitised")


def _table2() -> pd.DataFrame:
    table = pd.read_csv(io.StringIO(_SST2))
    return table.assign(size=table.layers.astype(str) + "/" + table.hidden.astype(str))


def _long(text: str, name: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text)).melt(id_vars=["recipe"], var_name=name)


# Students of size 6/768 with a teacher of 12/768. dev: means of five runs; test: the best model on dev, scored by GLUE's server.
# The paper prints no deviations. `meta` is the mean over six tasks; a task with two numbers counts with their mean.
_TABLE3 = """split,model,sst2,mrpc_f1,mrpc,qqp_f1,qqp,mnli,mnli-mm,qnli,rte,meta
test,TF,90.7,85.9,80.2,69.2,88.2,80.4,79.7,86.7,63.6,80.5
test,PF,92.5,86.8,81.8,70.1,88.5,81.8,81.1,87.9,64.2,81.6
test,PD,91.8,86.8,81.7,70.4,88.9,82.8,82.2,88.9,65.3,82.1
test,Patient KD,92.0,85.0,79.9,70.7,88.9,81.5,81.0,89.0,65.5,81.7
dev,PF,91.1,87.9,82.5,86.6,90.0,81.1,81.7,87.8,63.0,82.8
dev,PD,91.1,89.4,84.9,87.4,90.7,82.5,83.4,89.4,66.7,84.4
dev,DistilBERT,92.7,88.3,82.4,87.7,90.6,81.6,81.1,85.5,60.0,82.3
"""
TABLE3_SOURCE = "Table 3, students of 6/768"


def table3() -> pd.DataFrame:
    """Return Table 3: columns split, model, task, metric (accuracy, f1 or meta), value (in points).

    Tasks have the names of `tasks.TASKS`. The paper's dev set is GLUE's validation split, which is the test set here. Its test
    scores are from GLUE's server, and the labels are not public.
    """
    table = pd.read_csv(io.StringIO(_TABLE3)).melt(id_vars=["split", "model"], var_name="task")
    table["metric"] = table.task.map(lambda t: "meta" if t == "meta" else "f1" if t.endswith("_f1") else "accuracy")
    table["task"] = table.task.str.removesuffix("_f1")
    return table[["split", "model", "task", "metric", "value"]]


def table3_section(split: str = "dev", ours: dict[tuple[str, str, str], float] | None = None) -> pd.DataFrame:
    """Return Table 3 with one row per model and one column per task, and "f1/accuracy" where both are printed.

    `ours` are points by (name of a row, task, metric), such as ("PD, 5 seeds", "rte", "accuracy"). They are rows below the
    paper's, with "-" for what is missing. Raises ValueError for an unknown split.
    """
    table = table3()
    table = table[table.split == split]
    if table.empty:
        raise ValueError(f"Table 3 has no split {split!r}; choose dev or test")
    cells = {(r.model, r.task, r.metric): r.value for r in table.itertuples()} | (ours or {})
    models, tasks = dict.fromkeys(m for m, _, _ in cells), list(dict.fromkeys(table.task))

    def cell(model: str, task: str) -> str:
        values = [cells[model, task, metric] for metric in ("f1", "accuracy", "meta") if (model, task, metric) in cells]
        return "/".join(f"{value:.1f}" for value in values) or "-"

    rows = [{task: cell(model, task) for task in tasks} for model in models]
    return pd.DataFrame(rows, index=pd.Index(models, name=TABLE3_SOURCE))


def table3_beside(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return Table 3 on GLUE's validation split, with rows for the study's students of 6/768 below: means over seeds.

    If there are none, or the task is not in the table, there is one row of "-".
    """
    students = metrics[(metrics["size"] == "6/768") & (metrics.split == "test") & metrics.recipe.isin(RECIPES)]
    means = students.groupby(["recipe", "task", "metric"]).agg(value=("value", "mean"), seeds=("seed", "nunique"))
    cells = {(f"ours, {r}, {row.seeds:.0f} seeds", task, metric): 100 * row.value for (r, task, metric), row in means.iterrows()}
    section = table3_section("dev", {place: value for place, value in cells.items() if place[1] in set(table3().task)})
    if not any(name.startswith("ours") for name in section.index):
        section.loc["ours"] = "-"
    return section
