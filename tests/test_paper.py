"""The paper's numbers: transcribed so that they agree with each other."""

import pandas as pd
import pytest

from pdstudy.analysis import paper
from pdstudy.data.tasks import TASKS


def test_the_meta_scores_of_table_3_are_the_means_that_its_other_numbers_give():
    table = paper.table3()
    for (split, model), rows in table.groupby(["split", "model"]):
        values = rows.set_index(["task", "metric"]).value
        mean = lambda *keys: sum(values[k] for k in keys) / len(keys)  # noqa: B023, E731
        six = [
            mean(("sst2", "accuracy")),
            mean(("mrpc", "f1"), ("mrpc", "accuracy")),
            mean(("qqp", "f1"), ("qqp", "accuracy")),
            mean(("mnli", "accuracy"), ("mnli-mm", "accuracy")),
            mean(("qnli", "accuracy")),
            mean(("rte", "accuracy")),
        ]
        assert sum(six) / 6 == pytest.approx(values["meta", "meta"], abs=0.11), (split, model)


def test_table_3_names_tasks_of_this_package_and_their_metrics():
    rows = {(r.task, r.metric) for r in paper.table3().itertuples() if r.metric != "meta"}
    assert {task for task, _ in rows} <= set(TASKS)
    assert all((name, TASKS[name].metric) in rows for name in {task for task, _ in rows})


def test_table_3_is_shown_with_our_own_rows_below():
    shown = paper.table3_section("dev", {("ours, PD", "rte", "accuracy"): 61.37})
    assert list(shown.index) == ["PF", "PD", "DistilBERT", "ours, PD"]
    assert shown.loc["PD"].to_dict() == {
        "sst2": "91.1", "mrpc": "89.4/84.9", "qqp": "87.4/90.7", "mnli": "82.5", "mnli-mm": "83.4", "qnli": "89.4", "rte": "66.7",
        "meta": "84.4",
    }  # fmt: skip
    assert shown.loc["ours, PD"].rte == "61.4" and set(shown.loc["ours, PD"].drop("rte")) == {"-"}
    with pytest.raises(ValueError, match="choose dev or test"):
        paper.table3_section("train")


def test_table_3_shows_a_study_s_own_students_of_that_size_or_that_there_are_none():
    row = {"task": "rte", "recipe": "PD", "size": "6/768", "split": "test", "metric": "accuracy"}
    metrics = pd.DataFrame(
        [row | {"seed": 0, "value": 0.6}, row | {"seed": 1, "value": 0.7}, row | {"size": "2/128", "value": 0.1}]
    )
    shown = paper.table3_beside(metrics)
    assert list(shown.index) == ["PF", "PD", "DistilBERT", "ours, PD, 2 seeds"] and shown.iloc[-1].rte == "65.0"
    for without in (metrics.assign(size="2/128"), metrics.assign(task="movies")):
        assert set(paper.table3_beside(without).loc["ours"]) == {"-"}
