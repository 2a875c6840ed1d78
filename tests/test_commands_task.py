"""init and domain, as they are typed: what they write and say, and what ends with a sentence and exit 2."""

import json
import re

import pytest
from typer.testing import CliRunner

from pdstudy import Study
from pdstudy.__main__ import app


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
