"""init and domain, as they are typed: what they write and say, and what ends with a sentence and exit 2."""

import json
import os
import re

import pytest
from typer.testing import CliRunner

from pdstudy import Study
from pdstudy.__main__ import app
from pdstudy.storage import paths, results


def typed(*words) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture
def reviews(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "".join(f"a film with number {i} in its name,{('bad', 'good')[i % 2]}\n" for i in range(300)))
    return path


def test_init_writes_a_study_beside_the_table_and_never_over_one_unasked(reviews):
    code, message = typed("init", reviews)
    assert code == 0 and message.splitlines()[0] == '300 labelled texts, 2 classes: "bad" 150, "good" 150'
    assert Study.read(reviews.with_suffix(".yaml")).name == "reviews"
    code, message = typed("init", reviews)
    assert code == 2 and "exists; give another place with --to, or --force to replace it" in " ".join(message.split())
    assert typed("init", reviews, "--force", "--name", "other")[0] == 0
    assert Study.read(reviews.with_suffix(".yaml")).name == "other"
    assert "advise reviews.yaml" in reviews.with_suffix(".yaml").read_text(), "the file, not the study"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.xlsx", b"PK\x03\x04\xff\xfe\x00", "t.xlsx: tables are .csv, .tsv"),
        ("t.txt", b"a line\n", "t.txt: tables are .csv, .tsv"),
        ("t.csv", b"text,label\na,x\nb,y\n", "the task has 2 distinct labelled texts; ask for fewer"),
        ("t.csv", "text,label\nété,x\n".encode("latin-1"), "t.csv, line 2: not UTF-8 text; save it as UTF-8"),
        ("t.csv", b"text,text,label\na,b,x\n", "t.csv: 2 columns 'text'"),
        ("t.csv", b"text,label\n", "t.csv holds no rows"),
        (".", None, "not a folder that `datasets` saved"),
    ],
    ids=["workbook", "lines", "two rows", "latin-1", "twice", "header", "a folder"],
)
def test_init_refuses_what_is_no_table_of_labelled_texts(name, content, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, message = typed("init", name)
    assert code == 2 and sentence in " ".join(message.split())
    assert not list(tmp_path.glob("*.yaml"))


def test_domain_ranks_corpora_and_a_text_that_is_none_is_no_word(tmp_path):
    rows = [{"text": None if i % 2 else f"these are some words {i}", "label": i % 3} for i in range(800)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "near.txt").write_text("".join(f"these are some words {i}\n" for i in range(800)))
    (tmp_path / "far.txt").write_text("".join(f"nothing of that kind {i}\n" for i in range(800)))
    code, message = typed("domain", tmp_path / "t.jsonl", tmp_path / "far.txt", tmp_path / "near.txt")
    unseen = dict(re.findall(r"(near|far)\.txt\D+-?\d\.\d+\D+(\d+\.\d)%", message))
    assert code == 0 and message.index("near.txt") < message.index("far.txt")
    assert unseen == {"near": "0.0", "far": "80.0"}, message


def test_domain_takes_the_columns_that_it_cannot_guess(tmp_path):
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"text": f"some of the words {i}", "label": f"kind {i}"}) + "\n" for i in range(400))
    )
    (tmp_path / "c.txt").write_text("some of the words\n" * 400)
    code, message = typed("domain", tmp_path / "t.jsonl", tmp_path / "c.txt")
    assert code == 2 and "looks like labels; name it with --label" in " ".join(message.split())
    for option in (("--label", "label"), ("--text", "text")):
        code, message = typed("domain", tmp_path / "t.jsonl", tmp_path / "c.txt", *option)
        assert code == 0 and "c.txt" in message


def test_an_encoding_that_would_misread_another_file_of_the_task_is_refused(tmp_path):
    rows = "".join(f"un caf\u00e9 num\u00e9ro {i},{'ab'[i % 2]}\n" for i in range(300))
    (tmp_path / "train.csv").write_text("text,label\n" + rows, encoding="utf-8")
    (tmp_path / "more.txt").write_text(rows, encoding="cp1252")
    code, message = typed("init", tmp_path / "train.csv", "--transfer", tmp_path / "more.txt")
    assert code == 2 and "(task.encoding), which then holds for every file of the task" in " ".join(message.split())
    code, message = typed("init", tmp_path / "train.csv", "--transfer", tmp_path / "more.txt", "--encoding", "cp1252")
    assert code == 2 and "train.csv: UTF-8 text, which --encoding cp1252 (task.encoding) would misread" in " ".join(message.split())
    (tmp_path / "train.csv").write_text("text,label\n" + rows, encoding="cp1252")
    assert typed("init", tmp_path / "train.csv", "--transfer", tmp_path / "more.txt", "--encoding", "cp1252")[0] == 0


@pytest.mark.parametrize("option", ["--dev", "--test", "--transfer", "--corpus", "domain"])
@pytest.mark.parametrize(
    ("name", "start", "sentence"),
    [
        ("other.tsv", 'text\tlabel\n"a ""new"" film"\tgood\n', "its cells seem to be quoted, as in a CSV; read it with --quotes"),
        ("other.csv", "text;label\na new film;good\n", "its delimiter seems to be ';'; read it with --delimiter ';'"),
    ],
)
def test_every_file_is_checked_for_the_way_it_is_written(option, name, start, sentence, reviews, tmp_path):
    separator = "\t" if name.endswith("tsv") else ";"
    (tmp_path / name).write_text(start + "".join(f"another film {i}{separator}{('bad', 'good')[i % 2]}\n" for i in range(50)))
    words = ("domain", reviews, tmp_path / name) if option == "domain" else ("init", reviews, option, tmp_path / name)
    code, message = typed(*words)
    assert code == 2 and f"{name}: {sentence}" in " ".join(message.split())


def test_names_and_files_that_cannot_be_are_named_in_the_sentence(reviews):
    code, message = typed("init", reviews, "--name", "movies")
    assert code == 2 and message.startswith("--name 'movies': a name that pdstudy itself uses")
    code, message = typed("init", reviews, "--dev", reviews)
    assert code == 2 and "train: all of its 300 distinct texts occur in dev or test too" in " ".join(message.split())


def test_advice_on_other_texts_is_not_replaced(reviews, tmp_path):
    assert typed("init", reviews, "--name", "taken")[0] == 0
    study = Study.read(reviews.with_suffix(".yaml"))
    folder = paths.study_folder("taken")
    folder.mkdir(parents=True)
    (folder / "metrics.parquet").touch()
    other = study.model_dump(mode="json")
    other["task"]["train"] = "elsewhere/reviews.csv"
    (folder / "study.json").write_text(json.dumps(other))
    code, message = typed("advise", reviews.with_suffix(".yaml"))
    assert code == 2 and "has the results of elsewhere/reviews.csv, not of" in " ".join(message.split())
    assert "give this study another name (name:), or remove that folder" in " ".join(message.split())


def test_a_study_without_results_is_named_with_the_nearest_that_has_some(tmp_path, monkeypatch):
    (paths.OUTPUTS / "reviews-de").mkdir(parents=True)
    (paths.OUTPUTS / "reviews-de" / "metrics.parquet").touch()
    monkeypatch.chdir(tmp_path)
    code, message = typed("export", "reviews-dee", "--student", "linear", "--to", "m")
    assert code == 2 and "did you mean 'reviews-de'? Otherwise run: python -m pdstudy run PARAMS" in " ".join(message.split())
    (tmp_path / "reviews-de").mkdir()  # a folder of texts, say
    assert results.folder_of("reviews-de") == paths.OUTPUTS / "reviews-de"


@pytest.mark.parametrize("command", ["init", "domain"])
def test_a_pipe_is_refused_because_it_can_be_read_once_only(command, reviews, tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    words = (reviews, "--transfer", tmp_path / "pipe.csv") if command == "init" else (tmp_path / "pipe.csv", reviews)
    code, message = typed(command, *words)
    assert code == 2 and "pipe.csv: not a file, such as a pipe; save the text as a file" in " ".join(message.split())
