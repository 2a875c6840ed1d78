"""What is said of the data: every count that matters, and nothing where there is nothing to say."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pdstudy.advice import data_checks
from pdstudy.analysis import class_shares
from pdstudy.run import result_tables
from pdstudy.storage import results
from pdstudy.storage.store import Store
from pdstudy.study import plan

SOUND = {
    "D_L": {"read": 100, "kept": 100, "leaks": 0},
    "train": {"kept": 80, "pieces": 800, "unknown": 0, "truncated": 2},
    "D_T": {"kept": 50},
}


@pytest.fixture
def sentences_of(tmp_path):
    """Return the sentences about made-up counts."""

    def write(counts: dict, train=(40, 40), nearness=None, dev: dict | None = None) -> str:
        rows = [{"recipe": recipe, "split": "dev", "metric": "accuracy", "value": value} for recipe, value in (dev or {}).items()]
        pq.write_table(pa.Table.from_pylist(rows, schema=result_tables.schema()), tmp_path / results.METRICS)
        (tmp_path / results.TEXTS).write_text(json.dumps(counts))
        (tmp_path / results.CLASSES).write_text(json.dumps({"labels": ["a", "b"], "classes": {"train": list(train)}}))
        if nearness:
            (tmp_path / data_checks.NEARNESS).write_text(json.dumps(nearness))
        return "\n".join(data_checks.sentences(str(tmp_path)))

    return write


def test_of_sound_data_only_the_classes_and_lengths_are_said(sentences_of):
    lengths = (
        "train: 10 word pieces a text are used on average; 2% of the texts are longer than max_length and are cut at their ends."
    )
    assert sentences_of(SOUND) == f"train: 80 texts; a 40 (50%), b 40 (50%).\n{lengths}"


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({"D_L": {"leaks": 7}}, "D_L: 7 texts also in dev or test, removed."),
        ({"D_T": {"known": 1234}}, "D_T: 1,234 texts also in train, removed."),
        ({"D_L": {"contradictory": 3}}, "D_L: 3 texts repeated with another label."),
        ({"train": {"truncated": 40}}, "; 50% of the texts are longer than max_length and are cut at their ends."),
        ({"D_T": {"truncated": 20, "pieces": 500}}, "D_T: 10 word pieces a text are used on average; 40% of the texts"),
        ({"train": {"unknown": 16}}, "train: 2.0% of the word pieces are unknown to the tokenizer."),
        ({"D_T": {"of train": 50}}, "There is no transfer text"),
    ],
)
def test_what_matters_is_said_with_its_count(sentences_of, counts, sentence):
    merged = {name: SOUND.get(name, {}) | counts.get(name, {}) for name in SOUND}
    assert sentence in sentences_of(merged)


def test_a_lopsided_train_is_said_and_so_is_a_transfer_text_of_another_kind(sentences_of):
    words = sentences_of(
        SOUND, (1, 99), [{"corpus": "D_T", "texts": 5, "words": 9, "S": 0.1, "unseen": 0.3, "repeats": 0, "words a text": 9.0}]
    )
    assert "99% of train is b: accuracy says little here" in words
    assert "30% of the running words of train never occur in D_T" in words


def test_the_teacher_stands_beside_the_majority_class(sentences_of):
    assert "The teacher is right on 85.0% of dev, the majority class on 50.1%." in sentences_of(
        SOUND, dev={"teacher": 0.85, "majority": 0.501}
    )


@pytest.mark.parametrize(
    ("taught", "matched", "sentence"),
    [
        ([59, 41], False, ""),
        ([200, 800], False, "By the teacher 80% of the transfer texts are b, and 50% of train. Set distill.match_classes: else students answer so too often."),
        ([80, 20], True, "By the teacher 80% of the transfer texts are <a>, and 50% of train. distill.match_classes corrects for it."),
    ],
)  # fmt: skip
def test_transfer_texts_with_other_class_shares_than_train_are_said(tmp_path, taught, matched, sentence):
    (tmp_path / results.METRICS).touch()
    (tmp_path / results.PARAMS).write_text(json.dumps({"distill": {"match_classes": matched}}))
    classes = {"labels": ["<a>", "b"], "classes": {"train": [40, 40]}}
    (tmp_path / results.CLASSES).write_text(json.dumps(classes))
    assert class_shares.sentence(tmp_path) == "", "no students are distilled"
    (tmp_path / results.CLASSES).write_text(json.dumps(classes | {"taught": taught}))
    assert class_shares.sentence(tmp_path) == sentence


def test_a_study_records_what_its_teacher_answers_on_the_transfer_texts(smoke):
    classes = results.load_classes("smoke")
    (label,) = [s for s in plan.make(smoke).of_stage("label") if "transfer" not in s.parents]
    logits = np.load(Store().open(label.digest) / "logits.npy")
    assert classes["taught"] == np.bincount(logits.argmax(1), minlength=2).tolist()
