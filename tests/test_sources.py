"""Files of one's own: what is read is what stands there, and what cannot be read is named with its file and line."""

import json
import re

import numpy as np
import pytest

from pdstudy.data import cleaning, dialects, formats, repeats, sources, texts
from pdstudy.data.formats import TextError
from pdstudy.data.tasks import Files, Task

ROWS = [
    ("a good film", "pos"),
    ("a bad film", "neg"),
    ("NA", "pos"),
    ("null", "neg"),
    ("None", "pos"),
    ('so "good", it hurts', "pos"),
]


def task(**files) -> Task:
    """Return a task of one's own."""
    files = {k: tuple(map(str, v)) if isinstance(v, list) else str(v) for k, v in files.items()}
    return Task("mine", "", Files(**files), (), "", "", "")


def csv_of(rows, path, sep=","):
    quote = lambda t: '"' + t.replace('"', '""') + '"' if sep == "," else t  # noqa: E731
    path.write_text(sep.join(["text", "label"]) + "\n" + "".join(f"{quote(t)}{sep}{y}\n" for t, y in rows), encoding="utf-8")
    return path


def parquet_of(rows, path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": [t for t, _ in rows], "label": [y for _, y in rows]}), path)
    return path


def jsonl_of(rows, path):
    path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows))
    return path


def datasets_of(rows, path):
    from datasets import Dataset

    Dataset.from_dict({"text": [t for t, _ in rows], "label": [y for _, y in rows]}).save_to_disk(str(path))
    return path


WRITERS = {"csv": csv_of, "tsv": lambda r, p: csv_of(r, p, "\t"), "jsonl": jsonl_of, "parquet": parquet_of, "saved": datasets_of}


# What is read


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_table_gives_the_same_texts_and_words_like_na_stay_texts(kind, tmp_path):
    raw = sources.read(task(train=WRITERS[kind](ROWS, tmp_path / f"train.{kind}")))
    assert raw.labels == ("neg", "pos")
    assert raw.labelled == {"train": [((t,), int(y == "pos")) for t, y in ROWS]}
    assert raw.transfer is None and raw.documents is None


def test_a_lone_quote_in_a_tsv_is_a_quote_and_every_line_a_row(tmp_path):
    lines = ["text\tlabel", 'the 12" record\tpos', 'he said "no\tneg', "fine\tpos"]
    (tmp_path / "t.tsv").write_text("\n".join(lines) + "\n")
    rows = sources.read(task(train=tmp_path / "t.tsv")).labelled["train"]
    assert [t for (t,), _ in rows] == ['the 12" record', 'he said "no', "fine"]


def test_class_numbers_are_classes_in_their_order(tmp_path):
    path = parquet_of([("a", 10), ("b", 9), ("c", 10), ("d", 2)], tmp_path / "t.parquet")
    raw = sources.read(task(train=path))
    assert raw.labels == ("2", "9", "10") and [y for _, y in raw.labelled["train"]] == [2, 1, 2, 0]


def test_named_classes_keep_their_order_and_may_be_given_by_number(tmp_path):
    names = {
        "train": csv_of([("a", "pos"), ("b", "neg")], tmp_path / "names.csv"),
        "dev": csv_of([("c", 1), ("d", 0)], tmp_path / "n.csv"),
    }
    raw = sources.read(task(**names, labels=["pos", "neg"]))
    assert [y for _, y in raw.labelled["train"]] == [0, 1] and [y for _, y in raw.labelled["dev"]] == [1, 0]


def test_a_byte_order_mark_does_no_harm(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\nété,a\nb,c\n", encoding="utf-8-sig")
    assert sources.read(task(train=tmp_path / "t.csv")).labelled["train"][0] == (("été",), 0)


def test_transfer_texts_are_lines_and_a_corpus_may_be_a_folder_of_documents(tmp_path):
    train = csv_of(ROWS, tmp_path / "t.csv")
    (tmp_path / "more.txt").write_text("one line\n\n  another   line \n")
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_text("a whole\nbook")
    (tmp_path / "books" / "b.txt").write_text("another one")
    raw = sources.read(task(train=train, transfer=[tmp_path / "more.txt"], corpus=[tmp_path / "books"]))
    assert raw.transfer == [("one line",), ("another line",)] and raw.documents == ["a whole book", "another one"]


def test_a_long_text_is_cut_and_counted_and_a_huge_field_is_read(tmp_path):
    path = csv_of([*ROWS, ("word " * 10_000_000, "pos")], tmp_path / "t.csv")  # 50 MB
    raw = sources.read(task(train=path))
    assert raw.left_out.counts == {"cut": 1} and len(raw.labelled["train"][-1][0][0]) == texts.LONGEST


def test_pairs_are_read_from_two_columns(tmp_path):
    (tmp_path / "t.csv").write_text("premise,claim,label\nit rains,it is wet,yes\nit rains,it is dry,no\n")
    raw = sources.read(task(train=tmp_path / "t.csv", text=["premise", "claim"]))
    assert raw.labelled["train"] == [(("it rains", "it is wet"), 1), (("it rains", "it is dry"), 0)]


# What is refused


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.csv", b"", "t.csv: the file is empty"),
        ("t.csv", b"text,label\n", "train: t.csv holds no rows"),
        ("t.csv", b"words,label\na,b\n", "t.csv: no column 'text'; its columns are words, label"),
        ("t.csv", b"text,text,label\na,b,c\n", "t.csv: 2 columns 'text'"),
        ("t.csv", b"text,label\na,x\nb\n", "t.csv, line 3: 1 fields, expected text,label"),
        ("t.csv", b'text,label\n"a,x\nb,y\n', "t.csv, line 3: unexpected end of data; is a quote missing?"),
        ("t.csv", "text,label\nété,x\n".encode("latin-1"), "not UTF-8 text; save it as UTF-8"),
        ("t.csv", "text,label\na,x\n".encode("utf-16"), "t.csv: UTF-16 text; save it as UTF-8"),
        ("t.csv", b"text,label\na\0b,x\n", "t.csv, line 2: a NUL character; remove it"),
        ("t.tsv", b"text\tlabel\na\tx\ty\n", "t.tsv, line 2: 3 fields"),
        ("t.csv", b"text,label\na,\nb,x\n", "t.csv, line 2: no label; remove the row"),
        ("t.csv", b"text,label\na,0.5\nb,1.0\n", "t.csv, line 2: the label is 0.5, a number with decimals"),
        ("t.csv", b"text,label\na,x\nb,x\n", "column 'label' holds only 'x'; at least two classes"),
        ("t.csv", b"text,label\na,Pos\nb,pos\n", "holds 'Pos' and 'pos', which differ only in case"),
        ("t.jsonl", b'{"text": "a", "label": 1}\n{"text": \n', "t.jsonl, line 2: "),
        ("t.jsonl", b'["a", 1]\n', "t.jsonl, line 1: not a JSON object"),
        ("t.jsonl", b'{"text": "a"}\n', "t.jsonl, line 1: no field 'label'; its fields are text"),
        ("t.jsonl", b'{"text": 7, "label": 1}\n', "t.jsonl, line 1: the text is 7, of type int; is it the text column?"),
        ("t.jsonl", b'{"text": "a", "label": 1.0}\n', "the label is 1.0, a number with decimals"),
        ("t.jsonl", b"[" * 100_000 + b"\n", "t.jsonl, line 1: "),
        ("t.parquet", b"PAR1 and no more", "t.parquet: not a complete Parquet file"),
        ("t.xlsx", b"PK", "t.xlsx: tables are .csv, .tsv"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_refused_with_the_place_and_the_cure(name, content, sentence, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TextError, match=re.escape(sentence)):
        sources.read(task(train=tmp_path / name))


@pytest.mark.parametrize("name", ["t.txt", "t.jsonl", "t.csv"])
def test_a_line_longer_than_any_text_is_named_and_never_read_whole(name, tmp_path, monkeypatch):
    monkeypatch.setattr(dialects, "LONGEST_LINE", 1 << 20)
    (tmp_path / name).write_bytes(b"text,label\n" + b"x" * (1 << 21) if name != "t.jsonl" else b"x" * (1 << 21))
    with pytest.raises(TextError, match=rf"{name}, line [12]: longer than 1 MB; is this text"):
        list(formats.lines(tmp_path / name) if name == "t.txt" else formats.rows(tmp_path / name, ["text", "label"]))


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_split_without_a_row_is_refused_by_its_name(split, tmp_path):
    files = {"train": csv_of(ROWS, tmp_path / "train.csv"), split: csv_of([], tmp_path / "held.csv")}
    with pytest.raises(TextError, match=rf"{split}: held.csv holds no rows"):
        sources.read(task(**files))


def test_a_label_column_that_is_none_is_noticed(tmp_path):
    path = csv_of([(f"text {i}", f"id{i}") for i in range(100)], tmp_path / "t.csv")
    with pytest.raises(TextError, match="holds 100 different values in 100 rows; is it the label column"):
        sources.read(task(train=path))


@pytest.mark.parametrize(("cell", "labels"), [("maybe", []), ("2", ["neg", "pos"]), ("-1", ["neg", "pos"])])
def test_a_label_that_train_or_the_task_does_not_know_is_refused_by_its_row(cell, labels, tmp_path):
    files = {"train": csv_of(ROWS, tmp_path / "train.csv"), "dev": csv_of([("fine", cell)], tmp_path / "dev.csv")}
    with pytest.raises(TextError, match=rf"dev.csv, line 2: the label is '{cell}', none of neg, pos"):
        sources.read(task(**files, labels=labels))


def test_a_declared_class_without_a_text_to_learn_it_from_is_refused(tmp_path):
    with pytest.raises(TextError, match="train: no text of class 'mixed'"):
        sources.read(task(train=csv_of(ROWS, tmp_path / "t.csv"), labels=["neg", "pos", "mixed"]))


def test_half_a_pair_is_refused_by_its_row(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,label\none,two,x\none,,y\n")
    with pytest.raises(TextError, match=r"t.csv, line 3: one text of the pair is empty"):
        sources.read(task(train=tmp_path / "t.csv", text=["a", "b"]))


def test_lines_cannot_be_the_transfer_texts_of_pairs(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,label\none,two,x\none,three,y\n")
    (tmp_path / "more.txt").write_text("a line\n")
    with pytest.raises(TextError, match=r"more.txt: this task reads pairs; give a table with the columns a, b"):
        sources.read(task(train=tmp_path / "t.csv", text=["a", "b"], transfer=[tmp_path / "more.txt"]))


@pytest.mark.parametrize("part", ["transfer", "corpus"])
def test_a_file_without_a_text_is_refused_by_its_part(part, tmp_path):
    (tmp_path / "more.txt").write_text("\n \n")
    with pytest.raises(TextError, match=rf"{part}: more.txt holds no text"):
        sources.read(task(train=csv_of(ROWS, tmp_path / "t.csv"), **{part: [tmp_path / "more.txt"]}))


def test_a_missing_file_is_named_with_its_part(tmp_path):
    with pytest.raises(TextError, match=r"task.dev: .*gone.csv does not exist"):
        sources.check(task(train=csv_of(ROWS, tmp_path / "t.csv"), dev=tmp_path / "gone.csv"))


# What becomes of it


def many(n: int, word: str = "text") -> list[tuple[str, str]]:
    return [(f"{word} number {i} is here", ("neg", "pos", "pos")[i % 3]) for i in range(n)]


def test_a_leak_of_test_into_train_and_transfer_is_removed_and_counted(tmp_path):
    test, train = many(30, "test"), many(60, "train")
    planted = [(t.upper(), y) for t, y in test[:7]]
    (tmp_path / "more.txt").write_text(
        "\n".join([t for t, _ in test[:5]] + [t for t, _ in train[:4]] + [f"new text {i}" for i in range(20)])
    )
    files = {"train": csv_of(train + planted, tmp_path / "train.csv"), "test": csv_of(test, tmp_path / "test.csv")}
    built = cleaning.build(sources.read(task(**files, transfer=[tmp_path / "more.txt"])), {"dev": 9, "test": 5}, None, 0.1, 0)
    measured = {repeats.key(t) for t in built.labelled["test"][0]}
    assert len(measured) == 30, "test is as it was given"
    assert not measured & {repeats.key(t) for t in built.labelled["train"][0] + built.transfer + built.documents + built.heldout}
    assert built.counts["D_L"]["leaks"] == 7
    count = built.counts["D_T"]
    assert count["leaks"] >= 5 and count["leaks"] + count["known"] == 9 and count["kept"] == 20  # some of train's became dev's


def test_splits_that_are_missing_are_cut_off_train_in_every_class_share(tmp_path):
    files = {"train": csv_of(many(90), tmp_path / "train.csv"), "dev": csv_of(many(12, "dev"), tmp_path / "dev.csv")}
    built = cleaning.build(sources.read(task(**files)), {"test": 30}, None, 0.1, 0)
    assert {name: np.bincount(labels).tolist() for name, (_, labels) in built.labelled.items()} == {
        "dev": [4, 8], "test": [10, 20], "train": [20, 40],
    }  # fmt: skip


def test_without_transfer_or_corpus_the_texts_of_train_serve_and_nothing_measured_does(tmp_path):
    built = cleaning.build(sources.read(task(train=csv_of(many(60), tmp_path / "t.csv"))), {"dev": 9, "test": 12}, None, 0.1, 0)
    assert built.transfer == built.labelled["train"][0] and built.counts["D_T"]["of train"] == 39
    assert sorted(built.documents + built.heldout) == sorted(built.transfer)


def test_one_text_under_two_labels_is_counted(tmp_path):
    path = csv_of([*many(30), ("text number 3 is here", "pos"), ("Text  NUMBER 3 is here", "neg")], tmp_path / "t.csv")
    counts = cleaning.build(sources.read(task(train=path)), {"dev": 3, "test": 3}, None, 0.1, 0).counts["D_L"]
    assert counts["exact"] + counts["normalised"] == 2 and counts["contradictory"] >= 1


def test_a_class_that_the_splits_use_up_is_named(tmp_path):
    path = csv_of([*many(30), ("the only one of its kind", "rare")], tmp_path / "t.csv")
    other = csv_of([("The only one of its kind", "rare")], tmp_path / "test.csv")
    with pytest.raises(TextError, match="train: no text of class 'rare' is left after repeats and the other splits"):
        cleaning.build(sources.read(task(train=path, test=other)), {"dev": 3}, None, 0.1, 0)


def test_a_million_short_rows_take_bounded_memory(tmp_path, fresh_python):
    path = tmp_path / "t.csv"
    with path.open("w") as file:
        file.write("text,label\n")
        file.writelines(f"row {i},{'ab'[i % 2]}\n" for i in range(1_000_000))
    code = (
        "from pdstudy.models import latency; from pdstudy.data import sources; from pdstudy.data.tasks import Files, Task; "
        f"n = len(sources.read(Task('x', '', Files({str(path)!r}), (), '', '', '')).labelled['train']); "
        "print(n, round(latency.peak_of_this_process()))"
    )
    n, megabytes = map(int, fresh_python(code).split())
    assert n == 1_000_000 and megabytes < 600
