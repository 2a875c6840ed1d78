"""How to call an exported model: the Python of the report is run, the rest is what the server and transformers.js take."""

import json
import re
import shutil

import pytest

from pdstudy.release import usage
from pdstudy.release.predict import open_labeller
from pdstudy.storage import paths

TEXTS = ["a first text", "a second text"]


@pytest.fixture
def advised(exported, tmp_path, monkeypatch):
    """The folder `outputs/mine/model` with an exported student; commands are run beside it."""
    monkeypatch.setattr(paths, "study_folder", lambda name: tmp_path)
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(exported, tmp_path / "model")


def block(text: str, language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1]


def test_the_python_of_the_report_gives_the_labels_of_predict(advised, capsys):
    text = usage.calls("mine", "2/64-PF-s0").data
    assert len(block(text, "python").strip().splitlines()) <= 5 and len(block(text, "javascript").strip().splitlines()) <= 5
    exec(block(text, "python"), {})
    answers = eval(capsys.readouterr().out.splitlines()[-1])
    labels, probabilities = open_labeller(advised)(TEXTS)
    assert [a["label"] for a in answers] == labels and [a["score"] for a in answers] == pytest.approx(probabilities, abs=1e-4)
    assert json.loads(re.search(r"-d '(.*)'", text)[1]) == {"texts": TEXTS}


def test_pairs_and_folders_without_onnx_are_called_through_the_server_from_javascript(advised):
    facts = json.loads((advised / "export.json").read_text())
    (advised / "export.json").write_text(json.dumps(facts | {"pairs": True}))
    text = usage.calls("mine", "2/64-PF-s0").data
    assert '{"text": "a first text", "text_pair": "a second text"}' in block(text, "python") and "fetch(" in block(
        text, "javascript"
    )
    assert json.loads(re.search(r"-d '(.*)'", text)[1]) == {"texts": [TEXTS]}
    (advised / "export.json").write_text(json.dumps(facts | {"engines": [{}]}))
    text = usage.calls("mine", "2/64-PF-s0").data
    assert "fetch(" in block(text, "javascript") and "which `export --onnx` writes" in text


def test_the_card_is_below_the_headings_of_the_report_and_without_metadata(advised):
    text = usage.card("mine", "2/64-PF-s0").data
    assert text.lstrip().startswith("### 2/64-PF-s0: a compact BERT for movies") and "#### How good it is" in text
    assert "pipeline_tag" not in text and not re.search(r"^##? ", text, re.MULTILINE)


def test_another_student_than_the_exported_one_is_not_described(advised):
    assert "not exported" in usage.calls("mine", "linear").data and "not exported" in usage.card("mine", "linear").data
