"""A file of probabilities or labels: rows find their texts, and every mistake is named with its row."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pdstudy.data import soft_labels
from pdstudy.data.formats import TextError

LABELS = ("bad", "good")
TEXTS = {"transfer": ["a film", "a story", "a play"], "dev": ["fine", "dull"], "test": ["so so"]}
ROWS = [("dull", 0.9, 0.1), ("a story", 0.25, 0.75), ("fine", 0.2, 0.8), ("a film", 0.5, 0.5)]


def csv(tmp_path, rows=ROWS, header="text,p_bad,p_good"):
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def read(path, texts=TEXTS, needed=None, **more):
    return soft_labels.read(path, texts, {"transfer": 2, "dev": 2} if needed is None else needed, LABELS, **more)


def test_rows_belong_to_the_texts_that_they_hold(tmp_path):
    logits = read(csv(tmp_path))
    assert np.exp(logits["transfer"]) == pytest.approx(np.array([[0.5, 0.5], [0.25, 0.75]]))
    assert np.exp(logits["dev"]) == pytest.approx(np.array([[0.2, 0.8], [0.9, 0.1]]))
    assert "test" not in logits  # nothing is said of it, and nothing was needed


def test_json_lines_and_parquet_are_read_alike(tmp_path):
    wanted = read(csv(tmp_path))
    records = [dict(zip(("text", "p_bad", "p_good"), row, strict=True)) for row in ROWS]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        same = read(tmp_path / name)
        assert all(np.array_equal(same[split], wanted[split]) for split in wanted)


def test_labels_are_probabilities_of_one(tmp_path):
    rows = [("dull", "bad"), ("fine", "GOOD"), ("a film", 1), ("a story", 0)]
    logits = read(csv(tmp_path, rows, "text,label"))
    assert logits["transfer"].argmax(1).tolist() == [1, 0]
    assert np.exp(logits["transfer"][0]) == pytest.approx([1e-6, 1])


def test_without_a_text_column_rows_are_the_transfer_texts_in_order(tmp_path):
    path = csv(tmp_path, [(0.5, 0.5), (0.1, 0.9)], "p_bad,p_good")
    assert read(path, needed={"transfer": 2})["transfer"].argmax(1).tolist() == [0, 1]
    with pytest.raises(TextError, match=r"2 rows for 3 transfer texts"):
        read(path, needed={"transfer": 3})


def test_the_task_may_call_its_texts_otherwise(tmp_path):
    path = csv(tmp_path, header="review,p_bad,p_good")
    assert read(path, columns=("review",))["transfer"].shape == (2, 2)


def test_pairs_are_found_by_both_texts(tmp_path):
    path = csv(tmp_path, [("a", "b", 0.2, 0.8)], "text,pair,p_bad,p_good")
    assert read(path, {"transfer": [("a", "b")]}, {"transfer": 1})["transfer"].argmax() == 1


@pytest.mark.parametrize(
    ("rows", "header", "says"),
    [
        ([("dull", 0.9, 0.2)], "text,p_bad,p_good", r"line 2: the probabilities sum to 1.1, not to 1"),
        ([("dull", "nan", 0.2)], "text,p_bad,p_good", r"line 2: p_bad is 'nan', not a probability"),
        ([("dull", "", 0.2)], "text,p_bad,p_good", r"line 2: p_bad is '', not a probability"),
        ([("dull", -0.5, 1.5)], "text,p_bad,p_good", r"p_bad is '-0.5', not a probability from 0 to 1"),
        ([("dull", 1)], "text,p_bad", r"no column p_good; every class of the task needs one: bad, good"),
        ([("dull", 0, 1, 0)], "text,p_bad,p_good,p_so", r"column p_so is none of the task's classes"),
        ([("dull", 1)], "text,score", r"neither probabilities nor labels"),
        ([("dull", "fine")], "text,label", r"line 2: the label is 'fine', none of bad, good"),
        ([("other", 0.5, 0.5)], "text,p_bad,p_good", r"line 2: 'other' is none of the study's .* texts; python -m pdstudy texts"),
        ([*ROWS, ROWS[0]], "text,p_bad,p_good", r"line 6: 'dull' has a row already"),
        (ROWS[:3], "text,p_bad,p_good", r"1 of the first 2 transfer texts have no row, first 'a film'"),
        (ROWS[1:], "text,p_bad,p_good", r"1 of the first 2 dev texts have no row, first 'dull'"),
    ],
)
def test_a_mistake_is_named_with_its_row(tmp_path, rows, header, says):
    with pytest.raises(TextError, match=says):
        read(csv(tmp_path, rows, header))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TextError, match=r"teacher.file: none.csv does not exist"):
        read(tmp_path / "none.csv")
