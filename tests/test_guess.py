"""The first params file for a table of one's own: the guess, its reasons, and that it is a valid study."""

import csv
import json
import re

import pytest

from pdstudy import Study
from pdstudy.advice import columns, init_params
from pdstudy.data.formats import TextError
from pdstudy.study import plan

REVIEW = "it was a fine film with a good story and a cast that one likes to see"


def table(path, columns: dict[str, list]):
    rows = zip(*columns.values(), strict=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    return path


def some(n: int = 300, **more) -> dict[str, list]:
    return {"id": list(range(n)), "stars": [f"{i % 50 / 10:.1f}" for i in range(n)], **more}


def reviews(n: int = 300) -> list[str]:
    return [f"{REVIEW} {i}" for i in range(n)]


@pytest.mark.parametrize(
    ("table_columns", "text", "label"),
    [
        ({"text": reviews(), "label": ["a", "b"] * 150}, ("text",), "label"),
        ({"words": reviews(), "kind": ["a", "b", "c"] * 100}, ("words",), "kind"),
        ({"Premise": reviews(), "Hypothesis": reviews(), "gold": [0, 1, 2] * 100}, ("Premise", "Hypothesis"), "gold"),
        ({"title": ["short one"] * 300, "body": reviews(), "Category": ["x", "y"] * 150, "lang": ["en"] * 299 + ["de"]}, ("body",), "Category"),
    ],
    ids=["plain", "unnamed", "pair", "several"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_columns_are_guessed_by_name_and_by_what_they_hold(table_columns, text, label, kind, tmp_path):
    guess = columns.find_columns(table(tmp_path / f"t.{kind}", some(**table_columns)))
    assert (guess.text, guess.label) == (text, label)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("more", [{}, {"lang": ["en", "de"] * 3000}], ids=["alone", "beside another column"])
def test_the_label_of_a_file_sorted_by_label_is_found(more, kind, tmp_path):
    sorted_by_label = some(6000, text=reviews(6000), label=["negative"] * 5500 + ["positive"] * 500, **more)
    guess = columns.find_columns(table(tmp_path / f"t.{kind}", sorted_by_label))
    assert (guess.text, guess.label) == (("text",), "label")


def test_a_column_of_one_value_in_the_whole_file_is_no_label(tmp_path):
    path = table(tmp_path / "t.csv", some(6000, text=reviews(6000), label=["negative"] * 6000))
    with pytest.raises(TextError, match="none of its columns, id, stars, text, label, looks like labels"):
        columns.find_columns(path)


@pytest.mark.parametrize(
    ("table_columns", "sentence"),
    [
        ({"text": reviews()}, "none of its columns, id, stars, text, looks like labels; name it with --label"),
        (
            {"size": [1, 2] * 150, "label": [0, 1] * 150},
            "none of its columns, id, stars, size, looks like text; name it with --text",
        ),
    ],
)
def test_what_cannot_be_guessed_is_asked_for(table_columns, sentence, tmp_path):
    with pytest.raises(TextError, match=re.escape(sentence)):
        columns.find_columns(table(tmp_path / "t.csv", some(**table_columns)))


@pytest.mark.parametrize(
    ("labels", "more", "sentence"),
    [
        (["good"] * 300, {}, "looks like labels; name it with --label ('label' has only the value 'good')"),
        (["1.0", "0.0"] * 150, {}, "name it with --label ('label' has numbers with decimals, such as 1.0)"),
        (
            ["1.0", "0.0"] * 150,
            {"split": ["a", "b"] * 150},
            "t.csv: 'label' has numbers with decimals, such as 1.0; correct it, or name",
        ),
        (reviews(), {"lang": ["en", "de"] * 150}, "t.csv: 'label' has 300 different values in 300 rows; correct it, or name"),
    ],
)
def test_a_column_called_label_that_holds_none_is_not_passed_over_for_another(labels, more, sentence, tmp_path):
    with pytest.raises(TextError, match=re.escape(sentence)):
        columns.find_columns(table(tmp_path / "t.csv", {"text": reviews(), "label": labels, **more}))


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    path = table(tmp_path / "t.csv", some(text=reviews(), label=["a", "b"] * 150))
    with pytest.raises(TextError, match=r"no column 'texts'; its columns are id, stars, text, label"):
        columns.find_columns(path, text=("texts",))


def test_the_written_file_is_a_study_that_can_be_planned_and_names_its_files_from_where_it_stands(tmp_path):
    path = table(tmp_path / "My data.csv", some(text=reviews(), label=['"quoted" # one', "two: {}"] * 150))
    (tmp_path / "more.txt").write_text("\n".join(reviews(500)))
    to = tmp_path / "mine.yaml"
    to.write_text(init_params.params_file(path, to, transfer=[tmp_path / "more.txt"]).text)
    study = Study.read(to)
    assert study.name == "my-data" and study.task.text == ["text"]
    assert study.transfer.texts == 200, "the other 300 stand in train"
    assert study.splits.dev == study.splits.test == 60 and study.max_length == 32
    assert "train: My data.csv" in to.read_text() and study.family == "zoo/distilled/{layers}-{hidden}-s0"
    assert study.task.task().source.train == str(path)
    assert {s.recipe for s in plan.make(study.model_copy(update={"sizes": ["2/128"]})).students} == {
        "teacher",
        "Basic",
        "PF",
        "PD",
        "Linear",
        "Linear, taught",
    }


def test_long_texts_are_cut_where_they_are_many_and_pairs_start_from_masked_words(tmp_path, monkeypatch):
    path = table(tmp_path / "t.csv", some(text=[f"{REVIEW * 6} {i}" for i in range(300)], label=["a", "b"] * 150, other=reviews()))

    def study_of(**columns) -> Study:
        (tmp_path / "t.yaml").write_text(init_params.params_file(path, tmp_path / "t.yaml", **columns).text)
        return Study.read(tmp_path / "t.yaml")

    study = study_of(text=("text",))
    n_train, epochs = 180, study.finetune.epochs  # 60 are split off for dev, 60 for test
    assert study.max_length == 128
    monkeypatch.setattr(init_params, "MOST_PIECES", 64 * n_train * epochs)
    assert study_of(text=("text",)).max_length == 64
    assert study_of(text=("text", "other")).family == "zoo/{layers}-{hidden}-s0"


def test_a_text_that_the_familys_word_pieces_do_not_fit_is_read_from_scratch(tmp_path):
    path = table(
        tmp_path / "t.csv",
        {"text": [f"это был хороший фильм с хорошей историей {i}" for i in range(300)], "label": ["a", "b"] * 150},
    )
    text = init_params.params_file(path, tmp_path / "t.yaml").text
    assert "family: null" in text and "do not fit this text" in text
