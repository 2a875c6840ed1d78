"""The explorer: intervals, the Pareto front, texts on which student and teacher differ, and the widgets."""

import json
import re

import handmade
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pdstudy.analysis import stats
from pdstudy.report import explore
from pdstudy.report.explore import OWN, Explorer
from pdstudy.report.widgets import Panel
from pdstudy.storage import paths, results
from pdstudy.storage.store import Store
from pdstudy.study import plan

HOSTILE = "<script>alert(1)</script> $x^2$ \u202e<img src=x onerror=alert(2)>"
TEXTS = ["plain & simple", HOSTILE, "long " * 200, "all agree"]
LOGITS = {  # three classes; the teacher's classes are 0, 0, 1, 2
    "teacher": [[3, 0, 0], [2, 1, 0], [0, 4, 0], [0, 0, 5]],
    "seed 0": [[1, 0, 0], [0, 3, 0], [0, 0, 2], [0, 0, 5]],
    "seed 1": [[0, 0, 1], [0, 3, 0], [0, 1, 0], [0, 0, 5]],
}
LABELS = [0, 1, 1, 2]


@pytest.fixture
def tiny(tmp_path) -> Explorer:
    """A study of four texts, three classes, a teacher and PD 2/64 of two seeds; their answers are LOGITS."""
    handmade.write(tmp_path, {("teacher", "2/128"): 0.9, ("PD", "2/64"): 0.5}, n_items=4, missing=[("PD", "2/64", 2)])
    parts = []
    for digest, who in (("teacher 2/128-0", "teacher"), ("PD 2/64-0", "seed 0"), ("PD 2/64-1", "seed 1")):
        logits = np.array(LOGITS[who], dtype=np.float32)
        columns = {"digest": [digest] * 4, "split": ["test"] * 4, "item": range(4), "label": LABELS, "predicted": logits.argmax(1)}
        parts.append(pa.table(columns | {"logits": list(logits)}))
    pq.write_table(pa.concat_tables(parts), tmp_path / results.PREDICTIONS)
    (tmp_path / results.CLASSES).write_text(json.dumps({"labels": ["bad", "<b>good</b>", "other"]}))
    explorer = Explorer(tmp_path)
    explorer.texts = TEXTS
    return explorer


@pytest.fixture(scope="module")
def complete(tmp_path_factory) -> Explorer:
    return Explorer(handmade.complete_study(tmp_path_factory.mktemp("whole")))


def test_the_choices_are_those_of_the_study(complete):
    assert complete.recipes == ["PD", "PF", "Distillation", "Basic", "PD-F", "PD (embeddings)", "PD (truncated)"]
    assert complete.sizes == ["2/64", "4/64", "6/64", "2/128", "4/128", "6/128"]
    assert complete.domains == [OWN, "a", "b", "c"]  # the nearest first
    assert complete.costs == ["n_params", "ms"]


def test_an_interval_is_over_seeds_and_texts(complete):
    (row,) = complete.accuracy(["PD"], ["2/64"]).itertuples()
    answers = results.load_predictions(complete.study)
    right = np.stack(
        [(a.label == a.predicted) for _, a in answers[answers.digest.isin(f"PD 2/64-{s}" for s in (0, 1, 2))].groupby("digest")]
    )
    effect = stats.crossed_effect(right.astype(float))
    assert (row.accuracy, row.low, row.high) == pytest.approx((100 * effect.estimate, 100 * effect.low, 100 * effect.high))
    assert (row.seeds, row.texts, row.ms) == (3, 15_000, 1.0)


def test_students_on_the_front_are_not_dominated_and_the_others_are(complete):
    for cost in complete.costs:
        table = complete.accuracy(complete.recipes, complete.sizes, cost=cost)
        front = table[table.front]
        for row in table.itertuples():
            beaten = ((table[cost] <= getattr(row, cost)) & (table.accuracy > row.accuracy)).any()
            assert row.front is not beaten
        assert front.sort_values(cost).accuracy.is_monotonic_increasing


def test_students_on_another_transfer_set_are_separate(complete):
    own, near = complete.accuracy(["PD", "Basic"], ["2/64"]), complete.accuracy(["PD", "Basic"], ["2/64"], "c")
    assert set(own.recipe) == {"PD", "Basic"} and list(near.recipe) == ["PD"]
    assert near.accuracy.iloc[0] < own.set_index("recipe").accuracy["PD"]
    assert complete.accuracy(["Basic"], ["2/64"], "c").empty


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (([], [], OWN, "mb"), "cost 'mb': choose from 'n_params', 'ms'"),
        (("PD", [], OWN, "ms"), "recipes: give a list, such as ['PD']"),
        ((["PDF"], [], OWN, "ms"), "recipes: the study has no 'PDF'; choose from 'PD', 'PF'"),
        (([], ["9/64"], OWN, "ms"), "sizes: the study has no '9/64'; choose from '2/64'"),
        (([], [], "news", "ms"), "domain: the study has no 'news'; choose from \"the study's own\", 'a', 'b', 'c'"),
        ((["PF"], [], "a", "ms"), "no such student was distilled on a; choose other recipes or sizes"),
    ],
)
def test_what_the_study_does_not_have_is_named(complete, asked, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        complete.chosen(*asked)


def test_the_texts_of_a_student_on_another_transfer_set_are_its_own(complete):
    own, other = complete.models, complete.on("a").models
    assert {"teacher", "linear"} & set(other) == {"teacher", "linear"} & set(own) and "2/64-PF-s0" not in other
    digests = complete._students.set_index(["recipe", "size", "seed", "domain"]).digest
    answers = results.load_predictions(complete.study).query("split == 'test'").groupby("digest", observed=True)
    student = answers.get_group(digests["PD", "2/64", 0, "a"])
    assert other["2/64-PD-s0"].predicted.tolist() == student.predicted.tolist() != own["2/64-PD-s0"].predicted.tolist()
    assert complete.models is own


def test_one_seed_has_an_interval_over_texts_and_the_teacher_is_not_a_student(tiny):
    assert tiny.sizes == ["2/64"] and tiny.recipes == ["PD"] and tiny.costs == ["n_params"]
    assert tiny.ceiling() == 75.0
    (row,) = tiny.accuracy(["PD"], ["2/64"]).itertuples()
    assert row.seeds == 2 and row.accuracy == pytest.approx(100 * (4 + 3 - 1) / 8)


def test_texts_on_which_student_and_teacher_differ_are_listed_with_both_answers(tiny):
    rows = tiny.disagreements("PD", "2/64")
    assert list(rows.text) == [HOSTILE, TEXTS[2], TEXTS[0]]  # both seeds differ; then the surest seed
    assert list(rows.teacher) == ["bad", "<b>good</b>", "bad"]
    assert list(rows.student) == ["<b>good</b>", "other", "other"]
    assert list(rows.label) == ["<b>good</b>", "<b>good</b>", "bad"]
    assert list(rows.seeds) == [2, 1, 1] and list(rows.right) == [2, 0, 0] and set(rows.of) == {2}
    assert rows.p_student.tolist() == pytest.approx([np.exp(3) / (np.exp(3) + 2), np.exp(2) / (np.exp(2) + 2), np.e / (np.e + 2)])
    assert explore.disagreement_summary(rows, 4) == (
        "A student of one seed differs from its teacher on 50.0% of 4 test texts;\n"
        "there the teacher is right in 50%, the student in 50% of cases."
    )


def test_a_student_with_the_teachers_answers_has_no_disagreements(tiny):
    rows = tiny.disagreements("PD", "2/64").iloc[:0]
    assert explore.disagreement_summary(rows, 4) == "They give the same answers to all 4 test texts."
    assert "<td" not in explore.disagreements_html(rows).data


def test_texts_and_class_names_are_escaped(tiny):
    page = explore.disagreements_html(tiny.disagreements("PD", "2/64")).data
    assert "<script" not in page and "<img" not in page and "<b>" not in page and "\u202e" not in page
    assert "&lt;script&gt;" in page and "\\u202e" in page and "mathjax_ignore" in page
    assert len(page) < 4000, "long texts are cut"


def test_a_missing_student_or_teacher_is_named_in_the_error(tiny, tmp_path):
    with pytest.raises(ValueError, match="no PF 2/64 with D_T from the study's own"):
        tiny.disagreements("PF", "2/64")
    handmade.write(tmp_path, {("PD", "2/64"): 0.5}, n_items=4)
    with pytest.raises(ValueError, match="no teacher's answers"):
        Explorer(tmp_path).disagreements("PD", "2/64")


def test_the_alternative_text_names_the_front(complete):
    table = complete.accuracy(["PD", "Basic"], ["2/64", "2/128"])
    words = explore.alt_text(table, "n_params")
    assert words.startswith("Test accuracy of 4 students over parameters; on the Pareto front: 2/64 PD") and "Basic" not in words


def test_students_without_an_interval_are_drawn_too(complete):
    table = complete.accuracy(["PD"], ["2/64"]).assign(low=np.nan, high=np.nan)
    low, high = explore.draw(table, "n_params", np.nan).get_ylim()
    assert low < table.accuracy[0] < high
    assert "not known" in explore.students_html(table).data


def test_a_teacher_above_all_intervals_is_inside_the_figure(complete):
    assert explore.draw(complete.accuracy(["PD"], ["2/64"]), "n_params", 95.0).get_ylim()[1] > 95


def test_the_texts_are_those_of_the_results(smoke):
    explorer = Explorer("smoke")
    assert "smoke" in explore.studies() and len(explorer.texts) == 300
    (texts,) = plan.make(smoke).of_stage("texts")  # other studies' texts may lie in the store too
    table = pq.read_table(paths.STORE / "texts" / texts.digest / "test.parquet")
    assert explorer.texts == table.column("text").to_pylist()
    with pytest.raises(OSError, match="not in the store"):
        _ = Explorer("smoke", Store(paths.STORE / "nowhere")).texts


def test_the_widgets_show_the_selected_students(smoke):
    panel = Panel("smoke")
    assert panel.figure.value.startswith('<img alt="Test accuracy of 11 students')
    panel.domain.value = "news"
    assert panel.figure.value.startswith('<img alt="Test accuracy of 3 students')
    for button in panel.recipes.children:
        button.value = button.description == "PD"
    assert panel.student.options == (("PD 2/64", ("PD", "2/64")),)
    assert panel.table.value.count("<tr") == 2 and "differs from" in panel.summary.value + "differs from" * (
        "same" in panel.summary.value
    )
    panel.recipes.children[0].value = False
    assert panel.figure.value == panel.texts.value == "" and panel.table.value.startswith("No such student")


def test_the_widgets_do_not_import_torch(fresh_python):
    assert fresh_python("import sys; import pdstudy.report.widgets; print('torch' in sys.modules)") == "False"
