"""A file is labelled in a stream, as the student would have been asked in the study; what cannot be read is named by row."""

import csv
import dataclasses
import itertools
import json
import pickle
import re
import shutil
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pdstudy.__main__ import app
from pdstudy.release import predict, student
from pdstudy.release.predict import PredictError, label_file, open_labeller
from pdstudy.storage import files
from pdstudy.storage.store import Store

NAMES = ["negative", "positive"]


@pytest.fixture(scope="module")
def test_split(exported):
    """The test texts, the label that the study's student gave each, and its probability."""
    finished = student.find("smoke", "2/64-PF-s0", Store())
    logits = finished.test_logits()[0].astype(float)
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return finished.texts("test"), [NAMES[i] for i in logits.argmax(1)], share.max(1)


@pytest.fixture(scope="module")
def labeller(exported):
    return open_labeller(exported)


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_csv(path, rows, **how):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, **how).writerows(rows)
    return path


def as_csv(path, texts):
    return write_csv(path, [["id", "text"], *enumerate(texts)])


def as_tsv(path, texts):
    return write_csv(path, [["id", "text"], *enumerate(texts)], delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None)


def as_txt(path, texts):
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def as_jsonl(path, texts):
    path.write_text("".join(json.dumps({"text": t, "more": [1]}) + "\n" for t in texts), encoding="utf-8")
    return path


def as_parquet(path, texts):
    pq.write_table(pa.table({"n": range(len(texts)), "text": pa.array(texts, pa.large_string())}), path)
    return path


KINDS = {"csv": as_csv, "tsv": as_tsv, "txt": as_txt, "jsonl": as_jsonl, "parquet": as_parquet}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_any_kind_gets_the_study_s_answers(kind, labeller, test_split, tmp_path):
    texts, labels, shares = test_split
    summary = label_file(labeller, KINDS[kind](tmp_path / f"in.{kind}", texts), tmp_path / "out.csv")
    rows = read(tmp_path / "out.csv")
    assert (summary.rows, summary.blank) == (len(texts), 0) and [row["text"] for row in rows] == texts
    assert [row["label"] for row in rows] == labels and set(labels) == set(NAMES)
    assert [float(row["probability"]) for row in rows] == pytest.approx(shares.tolist(), abs=1e-4)
    more = {"csv": ["id", "text"], "tsv": ["id", "text"], "txt": ["text"], "jsonl": ["text", "more"], "parquet": ["n", "text"]}[
        kind
    ]
    assert list(rows[0]) == [*more, "label", "probability"], "all columns stay"
    assert kind == "txt" or rows[-1][{"jsonl": "more", "parquet": "n"}.get(kind, "id")] == {"jsonl": "[1]"}.get(kind, "299")


def test_a_file_with_its_labels_is_measured_and_keeps_them(exported, test_split, tmp_path):
    texts, labels, _ = test_split
    right = [NAMES[i < 60] if i < 100 else "" for i in range(len(texts))]
    source = write_csv(tmp_path / "in.csv", [["text", "label"], *zip(texts, right, strict=True)])
    result = CliRunner().invoke(app, ["predict", str(exported), str(source)])
    rows = read(tmp_path / "in.labelled.csv")
    assert result.exit_code == 0 and list(rows[0]) == ["text", "label", "predicted label", "probability"]
    assert [row["label"] for row in rows] == right and [row["predicted label"] for row in rows] == labels
    hits = sum(a == b for a, b in zip(right[:100], labels, strict=False))
    assert f"accuracy {hits}.0%" in result.output and "on the 100 texts with a label in 'label'" in result.output
    counts = [sum((a, b) == pair for a, b in zip(right[:100], labels, strict=False)) for pair in itertools.product(NAMES, NAMES)]
    assert [int(n) for n in re.findall(r"│ +(\d+)(?= +│)", result.output)] == counts


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        (["0", "1"], "no file says which number is which class"),
        (["good", "bad"], "the label is 'good', none of negative, positive"),
    ],
    ids=["numbers", "other names"],
)
def test_labels_that_the_student_does_not_know_measure_nothing_and_are_said(cells, sentence, exported, tmp_path):
    source = write_csv(tmp_path / "in.csv", [["text", "label"], ["a film", cells[0]], ["it ends", cells[1]]])
    result = CliRunner().invoke(app, ["predict", str(exported), str(source)])
    assert result.exit_code == 0 and sentence in " ".join(result.output.split()) and "accuracy" not in result.output
    result = CliRunner().invoke(app, ["predict", str(exported), str(source), "--label", "label", "--to", str(tmp_path / "b.csv")])
    assert result.exit_code == 2 and sentence in " ".join(result.output.split()) and not (tmp_path / "b.csv").exists()


def test_a_json_line_keeps_its_fields_and_may_lack_any_but_the_text(labeller, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"id": 7, "text": "a film"}\n{"text": "it ends", "tags": ["é"], "none": null}\n')
    label_file(labeller, tmp_path / "in.jsonl", tmp_path / "out.csv")
    rows = read(tmp_path / "out.csv")
    assert [[row[k] for k in ("id", "text", "tags", "none")] for row in rows] == [
        ["7", "a film", "", ""],
        ["", "it ends", '["é"]', ""],
    ]


def test_what_is_written_goes_here_where_the_files_folder_cannot_be_written_to(exported, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    as_txt(tmp_path / "there" / "in.txt", ["a film"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "writable", lambda folder: "there" not in str(folder))
    result = CliRunner().invoke(app, ["predict", str(exported), "there/in.txt"])
    assert result.exit_code == 0 and (tmp_path / "in.labelled.csv").is_file()


@pytest.mark.parametrize("flag", ["--onnx", "--int8"])
def test_onnx_runtime_labels_as_torch_does(flag, exported, test_split, tmp_path):
    texts, labels, shares = test_split
    source = as_txt(tmp_path / "in.txt", texts)
    result = CliRunner().invoke(app, ["predict", str(exported), str(source), flag])
    assert result.exit_code == 0 and "in.labelled.csv: 300 rows" in result.output.replace("\n", "")
    rows = read(tmp_path / "in.labelled.csv")
    assert [float(row["probability"]) for row in rows] == pytest.approx(shares.tolist(), abs=1e-4 if flag == "--onnx" else 0.02)
    assert flag == "--int8" or [row["label"] for row in rows] == labels


def test_words_that_mean_missing_elsewhere_are_texts_and_a_row_without_text_gets_no_label(labeller, tmp_path):
    texts = ["NA", "null", "None", "nan", "", 'two\nlines, "quoted"', "  "]
    summary = label_file(labeller, as_csv(tmp_path / "in.csv", texts), tmp_path / "out.csv")
    rows = read(tmp_path / "out.csv")
    assert [row["text"] for row in rows] == texts and (summary.rows, summary.blank) == (7, 2)
    assert [row["label"] in NAMES for row in rows] == [True, True, True, True, False, True, False]
    assert rows[4]["label"] == rows[4]["probability"] == ""


def test_blank_lines_of_a_text_file_stay_rows_without_a_label(labeller, tmp_path):
    (tmp_path / "in.txt").write_text("a film\n\nit ends\n   \n")
    summary = label_file(labeller, tmp_path / "in.txt", tmp_path / "out.csv")
    rows = read(tmp_path / "out.csv")
    assert (summary.rows, summary.blank) == (4, 2) and [row["text"] for row in rows] == ["a film", "", "it ends", "   "]
    assert [row["label"] in NAMES for row in rows] == [True, False, True, False]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("in.csv", "text;id\na film;1\nit ends;2\n", "its delimiter seems to be ';'; read it with --delimiter ';'"),
        (
            "in.tsv",
            'text\tid\n"a ""fine"" film"\t1\nit ends\t2\n',
            "its cells seem to be quoted, as in a CSV; read it with --quotes",
        ),
        (
            "in.csv",
            "a film\nit ends\nbad\n",
            "no column 'text'; it has 'a film': name one with --text, or read it with --no-header",
        ),
    ],
)
def test_a_file_written_in_another_way_than_its_name_says_is_refused_with_the_option(name, content, sentence, exported, tmp_path):
    (tmp_path / name).write_text(content)
    result = CliRunner().invoke(app, ["predict", str(exported), str(tmp_path / name)])
    assert result.exit_code == 2 and sentence in " ".join(result.output.split()) and len(list(tmp_path.iterdir())) == 1


def test_a_number_is_a_class_if_the_training_labels_were_numbers_with_names(labeller, tmp_path):
    source = write_csv(tmp_path / "in.csv", [["text", "label"], ["a film", "0"], ["it ends", "1"]])
    assert label_file(labeller, source, tmp_path / "a.csv").confusion is None
    named = dataclasses.replace(labeller, ordered=True)
    assert label_file(named, source, tmp_path / "b.csv").confusion.sum(axis=1).tolist() == [1, 1]


def test_a_student_of_single_texts_is_not_asked_about_pairs(labeller, tmp_path):
    source = write_csv(tmp_path / "in.csv", [["b", "a"], ["it  ends", "a film"]])
    with pytest.raises(PredictError, match="trained on single texts: give --text once"):
        label_file(labeller, source, tmp_path / "out.csv", ("a", "b"))


def test_the_text_column_is_that_of_the_training_file_unless_only_text_is_there_or_another_is_named(labeller, tmp_path):
    of_reviews, out = dataclasses.replace(labeller, columns=("review",)), itertools.count()

    def answered(header, *named):
        source, to = write_csv(tmp_path / "in.csv", [header, ["a film", "it ends"]]), tmp_path / f"{next(out)}.csv"
        label_file(of_reviews, source, to, named or None)
        return [float(row["probability"]) for row in read(to)]

    film, ends = answered(["review", "other"]), answered(["other", "review"])
    assert film != ends and answered(["review", "text"]) == film and answered(["text", "other"]) == film
    assert answered(["review", "text"], "text") == ends
    with pytest.raises(PredictError, match="no column 'review'; it has 'a', 'b': name one with --text"):
        answered(["a", "b"])


def test_pairs_go_to_the_encoder_as_pairs_and_half_a_pair_gets_no_label(labeller, tmp_path):
    source = write_csv(tmp_path / "in.csv", [["b", "a"], ["it  ends", "a film"], ["", "b"]])
    both = dataclasses.replace(labeller, pairs=None)  # a folder that does not tell
    rows = predict._rows(source, ["b", "a"], ("a", "b"))
    assert [(row.values, row.text) for row in rows] == [
        (["it  ends", "a film"], ("a film", "it ends")),
        (["", "b"], None),
    ]
    summary = label_file(both, source, tmp_path / "out.csv", ("a", "b"))
    assert (summary.rows, summary.blank) == (2, 1)
    assert [row["label"] in NAMES for row in read(tmp_path / "out.csv")] == [True, False]


def test_memory_does_not_grow_with_the_file(labeller, tmp_path):
    quick = dataclasses.replace(labeller, logits=lambda texts: np.zeros((len(texts), 2), np.float32))
    peaks, shares = [], []
    for n in (2, 10):
        source = as_txt(tmp_path / f"{n}.txt", ["it ends where it began"] * (n * predict.CHUNK))
        tracemalloc.start()
        label_file(quick, source, tmp_path / f"{n}.csv", progress=lambda share, n: shares.append(share))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert len(shares) == 12 and shares == [*sorted(shares[:2]), *sorted(shares[2:])] and shares[1] == shares[-1] == 1.0


BAD = {
    "no such column": ("in.csv", b"id,review\n1,good\n", "no column 'text'; it has 'id', 'review': name one with --text"),
    "ragged": ("in.csv", b'id,text\n1,good\n2,"bad"\n3,a,b\n', "line 4: 3 fields, expected id,text"),
    "ragged tsv": ("in.tsv", b"id\ttext\n1\n", "line 2: 1 fields, expected id,text"),
    "open quote": ("in.csv", b'id,text\n1,"good\n2,bad\n', "unexpected end of data; is a quote missing?"),
    "column twice": ("in.csv", b"text,text\na,b\n", "2 columns 'text'"),
    "both names are taken": ("in.csv", b"text,label,predicted label\na,1,2\n", "it has a column 'predicted label' already"),
    "not UTF-8": ("in.csv", b"id,text\n1,good\n2,caf\xe9\n", "not UTF-8 text; save it as UTF-8"),
    "not UTF-8 txt": ("in.txt", b"good\nbad\ncaf\xe9\n", "not UTF-8 text; save it as UTF-8"),
    "UTF-16": ("in.csv", "text\ngood\n".encode("utf-16"), "UTF-16 text; save it as UTF-8"),
    "NUL": ("in.csv", b"text\ngood\nb\0d\n", "line 3: a NUL character; remove it"),
    "NUL in JSON": ("in.jsonl", b'{"text": "a\\u0000b"}\n', "line 1: a NUL character"),
    "lone surrogate": ("in.jsonl", b'{"text": "a"}\n{"text": "\\ud800"}\n', "line 2: half of a character"),
    "empty": ("in.csv", b"", "the file is empty"),
    "empty txt": ("in.txt", b"", "it holds no rows"),
    "only a header": ("in.csv", b"id,text\n", "it holds no rows"),
    "not JSON": ("in.jsonl", b'{"text": "a"}\nb\n', "line 2: "),
    "a list": ("in.jsonl", b"[1]\n", "line 1: not a JSON object"),
    "a number": ("in.jsonl", b'{"text": "a"}\n{"text": 3}\n', "line 2: 3 is not a text"),
    "a row without it": ("in.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', "line 2: no field 'text'"),
    "not Parquet": ("in.parquet", b"PAR1 is what it says", "not a complete Parquet file"),
    "another kind": ("in.xlsx", b"PK", "give one of .csv, .tsv"),
}


@pytest.mark.parametrize(("name", "data", "sentence"), BAD.values(), ids=BAD)
def test_what_cannot_be_read_ends_with_a_sentence_exit_2_and_nothing_written(name, data, sentence, exported, tmp_path):
    (tmp_path / name).write_bytes(data)
    result = CliRunner().invoke(app, ["predict", str(exported), str(tmp_path / name), "--to", str(tmp_path / "out.csv")])
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert name in result.output and sentence in result.output
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_what_cannot_be_written_ends_with_a_sentence(exported, tmp_path):
    (tmp_path / "in.txt").write_text("good\n")
    (tmp_path / "there.csv").write_text("mine")
    for to, sentence in (
        ("there.csv", "it exists already"),
        ("out.tsv", "ends in .csv"),
        ("no/out.csv", "does not exist; make it"),
    ):
        result = CliRunner().invoke(app, ["predict", str(exported), str(tmp_path / "in.txt"), "--to", str(tmp_path / to)])
        assert result.exit_code == 2 and sentence in result.output
    result = CliRunner().invoke(app, ["predict", str(exported), str(tmp_path / "gone.csv")])
    assert result.exit_code == 2 and "gone.csv: cannot be read (No such file or directory)" in result.output
    assert (tmp_path / "there.csv").read_text() == "mine" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("columns", [["text", "text"], ["text", "a", "b"]])
def test_only_one_text_or_a_pair_is_asked_about(columns, labeller, tmp_path):
    source = write_csv(tmp_path / "in.csv", [["text", "a", "b"], ["1", "2", "3"]])
    with pytest.raises(PredictError, match="give the one column of texts, or the two of pairs"):
        label_file(labeller, source, tmp_path / "out.csv", columns)


def test_a_folder_is_opened_whole_or_not_at_all_and_no_pickle_ever(exported, tmp_path):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "gone-off"), "w")

    def refused(change, sentence):
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(exported, folder)
        change(folder)
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(PredictError, match=sentence):
            open_labeller(folder)

    def set_field(file, **fields):
        return lambda folder: (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | fields))

    refused(lambda folder: (folder / "model.safetensors").unlink(), "pickled weights are not opened")
    refused(lambda folder: (folder / "model.safetensors").write_bytes(b"\x10" + bytes(40)), "model: ")
    refused(lambda folder: (folder / "config.json").unlink(), r"model: config\.json cannot be read")
    refused(lambda folder: (folder / "tokenizer_config.json").unlink(), r"model: tokenizer_config\.json cannot be read")
    refused(set_field("config.json", auto_map={"AutoModel": "x.py"}), "not a plain BERT")
    refused(set_field("config.json", problem_type="regression"), "not a classifier that gives each text one")
    refused(set_field("tokenizer_config.json", model_max_length=int(1e30)), "expected 3 to 512")
    refused(set_field("tokenizer_config.json", model_max_length=None), "model_max_length is None")
    (tmp_path / "model" / "tokenizer_config.json").write_text((exported / "tokenizer_config.json").read_text())
    (tmp_path / "model" / "onnx" / "model.onnx").write_text("not ONNX")
    with pytest.raises(PredictError, match="ONNX Runtime does not open it"):
        open_labeller(tmp_path / "model", "fp32")
    with pytest.raises(PredictError, match="exported without ONNX, export it again with --onnx"):
        shutil.rmtree(tmp_path / "model" / "onnx")
        open_labeller(tmp_path / "model", "fp32")
    assert not (tmp_path / "gone-off").exists()
