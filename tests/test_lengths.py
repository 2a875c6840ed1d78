"""What longer texts are worth: a real student on texts whose class stands at their ends, and the choice on answers by hand."""

import json

import numpy as np
import pytest
import reviews
from typer.testing import CliRunner

from pdstudy import Study
from pdstudy.__main__ import app
from pdstudy.advice import lengths
from pdstudy.advice.lengths import Length
from pdstudy.storage import paths
from pdstudy.storage.store import Store
from pdstudy.study import plan


@pytest.fixture
def params(tmp_path):
    """A study of texts that end with the word that tells their class, after twenty that do not."""
    rng = np.random.default_rng(0)
    rows = [
        " ".join([*rng.choice(reviews.NEUTRAL, 20), rng.choice(reviews.WORDS[kind])]) + f",{kind}"
        for kind in ("scorn", "praise") * 120
    ]
    (tmp_path / "t.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    path = tmp_path / "ends.yaml"
    study = reviews.STUDY | {"name": "ends", "task": {"train": "t.csv"}, "recipes": ["Basic"], "tokenizer": {"vocabulary": 60}}
    path.write_text(json.dumps(study | {"finetune": reviews.TRAIN | {"epochs": 10}}))
    return path


def test_a_student_that_reads_the_ends_of_the_texts_is_better_and_its_length_is_taken(params):
    study, store = Study.read(params), Store()
    short, long = lengths.measure(study, [64, 16], workers=0, store=store)
    assert (short.pieces, short.cut, long.pieces, long.cut) == (16, 1.0, 64, 0.0)
    assert short.dev < 65 < 85 < long.dev and long.gain(short).low > 0 and long.seconds > 0
    assert lengths.enough([short, long]) is long
    trained = {s.model for s in plan.make(study).students if s.recipe == "Basic"}
    assert trained <= store.digests(), "the study's own students, not others"
    done = CliRunner().invoke(app, ["lengths", str(params), "--length", "16", "--length", "64", "--workers", "0"])
    assert done.exit_code == 0 and "100.0%" in done.output
    words = " ".join(done.output.split())
    assert "max_length: 64 # the shortest that is not significantly worse on dev than the best; now 16" in words
    record = json.loads((paths.study_folder("ends") / lengths.FILE).read_text())
    assert record["max_length"] == 64 and [row["pieces"] for row in record["rows"]] == [16, 64]
    assert record["rows"][0]["interval"] is None and record["rows"][1]["gain"] == pytest.approx(long.dev - short.dev)


def test_a_length_that_no_bert_reads_is_refused(params):
    done = CliRunner().invoke(app, ["lengths", str(params), "--length", "1024"])
    assert done.exit_code == 2 and "--length 1024: give 16 to 512 pieces" in " ".join(done.output.split())


def test_the_shortest_length_is_taken_that_is_not_significantly_worse():
    def at(pieces: int, *right: int) -> Length:
        return Length(pieces, 0.0, np.stack([np.arange(400) < n for n in right]), 1.0)

    clearly = [at(64, 300, 301), at(128, 340, 342), at(256, 341, 343)]
    assert lengths.enough(clearly).pieces == 128
    assert lengths.enough([at(64, 300, 301), at(128, 301, 301)]).pieces == 64
    assert lengths.enough([at(64, 340, 341), at(128, 320, 320)]).pieces == 64


def test_the_lengths_beside_a_study_s_own():
    assert lengths.choices(128) == [64, 128, 256, 512]
    assert lengths.choices(256) == [128, 256, 512]
    assert lengths.choices(16) == [16, 32, 64]
