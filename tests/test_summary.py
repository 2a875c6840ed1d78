"""Tables of a study: missing students are named and not averaged over, costs by stage, collapsed students."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import both, write

from pdstudy.analysis import stats, summary
from pdstudy.analysis.evidence import Arm
from pdstudy.run import result_tables
from pdstudy.storage import results


@pytest.fixture
def study(tmp_path):
    """Return the folder of a study of 2 sizes and 3 seeds, to which one arm on few texts was added."""
    return write(tmp_path, both("PD", 0.8) | both("Basic", 0.6) | {Arm("PD", "2/64", 500): 0.7, Arm("teacher", "2/128"): 0.9})


def with_collapsed(study: str, gone) -> str:
    """Return the study, its students of which `gone(row)` is true collapsed."""
    path = results.folder_of(study) / results.METRICS
    rows = [row | {"collapsed": gone(row)} for row in pq.read_table(path).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=result_tables.schema()), path)
    return study


def test_a_missing_student_is_named_in_the_table_and_not_averaged_over(study):
    metrics = results.load_results(study)
    gone = (metrics.recipe == "PD") & (metrics["size"] == "2/64")
    one_seed = (metrics.recipe == "Basic") & (metrics["size"] == "2/128") & (metrics.seed == 1)
    table = summary.accuracy_table(metrics[~gone & ~one_seed])
    assert table.loc["PD", "2/64"] == "missing" and table.loc["Basic", "2/128"] == "missing 1 of 3 seeds"
    assert table.loc["teacher", "2/64"] == "-", "none was asked for"
    assert list(table.index) == ["teacher", "PD", "Basic"]


def test_a_missing_student_of_the_only_size_is_named_too():
    row = {"recipe": "PD", "size": "2/64", "split": "test", "metric": "accuracy", "n_params": 1.0}
    metrics = pd.DataFrame([row | {"seed": 0, "value": 0.7}, row | {"recipe": "majority", "seed": 0, "value": 0.5}])
    assert summary.accuracy_table(metrics).loc["PD", "2/64"] == "70.0"
    teacher = pd.DataFrame([row | {"recipe": "teacher", "seed": 0, "value": 0.8}, row | {"recipe": "PF", "seed": 0, "value": 0.6}])
    assert list(summary.accuracy_table(pd.concat([metrics, teacher]))["2/64"]) == ["80.0", "70.0", "60.0", "50.0"]


def test_costs_are_summed_by_stage_with_those_of_a_family_in_rows_of_their_own(study):
    step = {
        "digest": "a",
        "stage": "pretrain",
        "label": "x",
        "seconds": 10.4,
        "tokens": 1_500_000,
        "flops": 2.0e12,
        "family": False,
    }
    steps = [step, step | {"seconds": 20.2}, step | {"family": True, "seconds": 600.0}, step | {"stage": "label", "tokens": 0}]
    pq.write_table(pa.Table.from_pylist(steps), results.folder_of(study) / results.COSTS)
    table = summary.cost_table(study)
    assert table.to_dict("index") == {
        "pretrain": {"steps": 2, "seconds": 31, "million pieces": 3.0, "TFLOP": 4.0},
        "pretrain (released family)": {"steps": 1, "seconds": 600, "million pieces": 1.5, "TFLOP": 2.0},
        "label": {"steps": 1, "seconds": 10, "million pieces": 0.0, "TFLOP": 2.0},
    }


def test_students_that_collapsed_are_counted_and_named_with_what_they_were_trained_on(study):
    assert summary.collapsed(study) == "No student collapsed to the majority class."
    sentence = summary.collapsed(with_collapsed(study, lambda row: row["recipe"] == "PD" and row["seed"] == 1))
    assert sentence == (
        "3 of 16 students collapsed to the majority class: PD 2/64 seed 1, PD 2/128 seed 1, PD 2/64 seed 1 (texts 500)."
    )


def test_of_many_collapsed_students_the_first_are_named_and_the_rest_counted(study):
    sentence = summary.collapsed(with_collapsed(study, lambda row: True))
    assert (
        sentence.startswith("16 of 16 students collapsed") and sentence.endswith(" and 4 more.") and sentence.count(" seed ") == 12
    )


def test_each_student_has_its_accuracy_with_an_interval_and_what_it_costs(study):
    (results.folder_of(study) / results.LATENCY).write_text('{"sizes": {"2/64": {"p50": 0.5}}}')
    table = summary.students_table(study).set_index(["recipe", "size"])
    assert set(table.index) == {("PD", "2/64"), ("PD", "2/128"), ("Basic", "2/64"), ("Basic", "2/128"), ("teacher", "2/128")}
    row = table.loc["PD", "2/64"]
    metrics = results.accuracies(results.load_results(study))
    values = metrics[(metrics.recipe == "PD") & (metrics["size"] == "2/64")].value
    assert row.accuracy == pytest.approx(100 * values.mean()) and row.mb == 4e-6 * row.n_params and row.seeds == 3
    assert (row.low, row.high) == pytest.approx([100 * x for x in stats.accuracy_interval(values, 400)])
    assert row.ms == 0.5 and pd.isna(table.ms["PD", "2/128"])
