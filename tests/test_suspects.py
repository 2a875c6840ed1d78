"""Texts worth a look: planted label errors, near-duplicates and strangers are found, and what is sound is not shown."""

import json
import os
import random

import pandas as pd

from pdstudy.advice import suspects
from pdstudy.storage import paths

WORDS = {"praise": ["fine", "good", "great", "lovely", "superb"], "scorn": ["awful", "bad", "dull", "poor", "weak"]}
NEUTRAL = ["the", "film", "story", "cast", "scene", "was", "and", "with", "its"]
LABELS = ["praise", "scorn"]


def split(n: int, seed: int) -> tuple[list[str], list[int]]:
    rng = random.Random(seed)
    texts = [" ".join(rng.sample([*rng.choices(WORDS[LABELS[i % 2]], k=3), *rng.choices(NEUTRAL, k=7)], 10)) for i in range(n)]
    return texts, [i % 2 for i in range(n)]


def planted() -> dict:
    train, dev, test = split(400, 0), split(60, 1), split(60, 2)
    for i in (11, 42, 77):
        train[1][i] = 1 - train[1][i]
    dev[0][5] = train[0][100] + " " + train[0][100]
    test[0][7] = "quarterly invoice totals exceed ledger forecast"
    return {"train": train, "dev": dev, "test": test}


def test_planted_errors_near_duplicates_and_strangers_are_found_and_nothing_else():
    splits = planted()
    rows = suspects.find(splits, LABELS)
    errors = [row for row in rows if row["kind"] == "label"]
    assert {row["text"] for row in errors[:3]} == {splits["train"][0][i] for i in (11, 42, 77)} and len(errors) <= 6
    near = [row for row in rows if row["kind"] == "near"]
    assert [row["text"] for row in near] == [splits["dev"][0][5]] and splits["train"][0][100] in near[0]["why"]
    far = [row for row in rows if row["kind"] == "far"]
    assert [(row["split"], row["text"]) for row in far] == [("test", splits["test"][0][7])]


def test_texts_without_spaces_are_looked_at_too():
    train, rng = [], random.Random(0)
    for i in range(200):
        train.append("".join(rng.choices(["今天", "城市", "图书", "天气"], k=5)) + ("好吃" if i % 2 else "难吃"))
    numbers = [i % 2 for i in range(200)]
    numbers[9] = 0
    rows = suspects.find({"train": (train, numbers), "dev": ([], []), "test": ([], [])}, ["bad", "good"])
    assert rows[0]["text"] == train[9] and rows[0]["label"] == "bad"


def test_a_class_of_one_text_and_texts_without_a_word_break_nothing():
    assert suspects.find({"train": (["!!"] * 4, [0, 1, 0, 1]), "dev": ([], []), "test": ([], [])}, LABELS) == []
    texts, numbers = split(40, 0)
    assert isinstance(
        suspects.find({"train": ([*texts, "alone"], [*numbers, 2]), "dev": ([], []), "test": ([], [])}, [*LABELS, "x"]), list
    )


def test_the_table_is_read_back_and_is_empty_where_nothing_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(suspects.results, "folder_of", lambda study: tmp_path)
    assert list(suspects.table("x").columns) == suspects.COLUMNS and suspects.table("x").empty
    suspects.write(tmp_path, planted(), LABELS)
    assert len(suspects.table("x")) == len(json.loads((tmp_path / suspects.SUSPECTS).read_text())) > 3
    assert isinstance(suspects.table("x"), pd.DataFrame)


def test_suspects_of_earlier_settings_are_looked_for_again(smoke):
    folder = paths.study_folder("smoke")
    rows = suspects.of_study(smoke)
    (folder / suspects.SUSPECTS).write_text("[]")
    assert suspects.of_study(smoke).empty, "found once"
    os.utime(folder / suspects.SUSPECTS, (0, 0))  # as if a run with other settings had written the tables since
    assert suspects.of_study(smoke).equals(rows) and len(rows)
