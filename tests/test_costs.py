"""What it costs to be wrong: files of costs, the confusion table, and exact costs of hand-made answers."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pdstudy.__main__ import app
from pdstudy.advice import costs
from pdstudy.advice.candidates import Candidates
from pdstudy.advice.costs import CostsError
from pdstudy.run import result_tables
from pdstudy.storage import results

LABELS = ["bad", "good"]
TRUE = np.array([0] * 60 + [1] * 40)
ANSWERS = {  # 10 bad taken for good, 20 good for bad; 30 bad taken for good; every answer right
    ("Basic", "2/128"): np.array([1] * 10 + [0] * 50 + [0] * 20 + [1] * 20),
    ("Linear", "linear"): np.array([1] * 30 + [0] * 30 + [1] * 40),
    ("teacher", "4/256"): TRUE,
}


@pytest.fixture
def candidates(tmp_path):
    """A study of 100 texts of dev and test with a student, a linear model and a teacher, whose answers are ANSWERS."""
    metrics, parts = [], []
    for (recipe, size), answers in ANSWERS.items():
        for split in ("dev", "test"):
            row = {"recipe": recipe, "size": size, "seed": 0, "split": split, "metric": "accuracy", "n": 100, "n_params": 1000}
            row |= {"value": (answers == TRUE).mean(), "digest": recipe, "rate": float("nan")}
            metrics += [row | {"metric": name} for name in ("accuracy", "f1", "mcc")]
            columns = {"digest": [recipe] * 100, "split": [split] * 100, "label": TRUE, "predicted": answers}
            parts.append(pa.table(columns))
    metrics += [{"recipe": "majority", "split": split, "metric": "accuracy", "value": 0.6} for split in ("dev", "test")]
    pq.write_table(pa.Table.from_pylist(metrics, schema=result_tables.schema()), tmp_path / results.METRICS)
    pq.write_table(pa.concat_tables(parts), tmp_path / results.PREDICTIONS)
    pq.write_table(
        pa.Table.from_pylist([{"recipe": "Basic", "size": "2/128", "rate": 0.1, "diverged": False}]), tmp_path / results.SEARCHES
    )
    (tmp_path / results.PARAMS).write_text(json.dumps({"finetune": {"rates": [0.1]}, "distill": {"rates": [0.1]}}))
    (tmp_path / results.CLASSES).write_text(json.dumps({"labels": LABELS}))
    return Candidates(tmp_path)


def test_the_expected_cost_is_that_of_the_mistakes_on_test(candidates, tmp_path):
    chosen = candidates.table[candidates.table.recipe == "Basic"].iloc[0]
    assert costs.confusion(candidates, chosen).tolist() == [[50, 10], [20, 20]]
    table = costs.table(candidates, chosen, {"bad": {"good": 5}, "good": {"bad": 1}})
    assert list(table.index) == ["2/128-Basic-s0 (recommended)", "linear", "teacher"]
    assert list(table["cost of 1,000 texts"]) == ["700", "1,500", "0"]  # (10 x 5 + 20 x 1) / 100 of a text
    assert list(table["mistakes in 1,000 texts"]) == ["300", "300", "0"]
    values = np.repeat([5, 1, 0], [10, 20, 70])
    low = 1000 * (values.mean() - 1.984217 * values.std(ddof=1) / 10)  # t of 99 degrees of freedom
    assert table["95 % interval"].iloc[0].startswith(f"{low:,.0f} to ")
    (tmp_path / "costs.csv").write_text("true,good,bad\nbad,5,\ngood,,1\n")
    assert costs.table(candidates, chosen, str(tmp_path / "costs.csv")).equals(table), "a file is read too"
    assert list(costs.table(candidates, chosen)["cost of 1,000 texts"]) == ["300", "300", "0"], "by default a mistake costs 1"


@pytest.mark.parametrize("name", ["c.csv", "c.yaml"])
def test_csv_and_yaml_say_the_same(name, tmp_path):
    texts = {"c.csv": "\ufefftrue, no, yes\nyes, 2.5, 0\nno, 0, 4\n", "c.yaml": "yes: {no: 2.5, yes: 0}\nno: {no: 0, yes: 4}\n"}
    (tmp_path / name).write_text(texts[name], encoding="utf-8")
    assert costs.matrix(costs.read(tmp_path / name), ["no", "yes"]).tolist() == [[0, 4], [2.5, 0]]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("c.txt", "", "costs are read from .csv, .yaml or .yml"),
        ("c.csv", "", "expected the costs of each answer for each true class"),
        ("c.csv", "x,bad,bad\nbad,0,1\n", "the class 'bad' occurs twice"),
        ("c.csv", "x,bad,good\nbad,0\n", "the row of 'bad' has 2 cells, the header 3"),
        ("c.csv", "x,bad,good\nbad,0,much\n", "bad taken for good costs 'much'; write a number, 0 or more"),
        ("c.csv", "x,bad,good\nbad,0,-1\n", "costs '-1'; write a number, 0 or more"),
        ("c.csv", "x,bad,good\nbad,0,inf\n", "costs 'inf'; write a number"),
        ("c.csv", "x,bad,god\nbad,0,1\n", "'god' is no class of this task; its classes are bad, good"),
        ("c.csv", "x,bad,good\nbad,0,1\n", "'good' taken for 'bad' has no cost; write a number, 0 if it costs nothing"),
        ("c.yaml", "bad: 3\n", "expected the costs of each answer for each true class"),
        ("c.yaml", "bad: [\n", "not YAML"),
        ("c.yaml", "bad: {good: [1, 2]}\n", "a list or mapping"),
    ],
)
def test_costs_that_cannot_be_used_are_refused_with_a_sentence(name, text, sentence, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(CostsError) as error:
        costs.matrix(costs.read(tmp_path / name), LABELS)
    assert sentence in str(error.value)


def test_advise_refuses_unreadable_costs_before_it_trains(tmp_path):
    result = CliRunner().invoke(app, ["advise", "smoke", "--costs", str(tmp_path / "none.csv")])
    assert result.exit_code == 2 and "none.csv: cannot be read" in result.output.replace("\n", "")
