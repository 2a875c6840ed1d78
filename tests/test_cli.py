"""The command line: bad input gets one sentence that names the cure, exit 2, and nothing is written."""

import json
import os
import re
import subprocess
import sys

import pytest
from handmade import complete_study
from typer.testing import CliRunner

from pdstudy.__main__ import app
from pdstudy.analysis.claims import CLAIMS
from pdstudy.data import tasks
from pdstudy.storage import paths
from pdstudy.storage.store import Store
from pdstudy.study.yaml_file import load

SMOKE = load(paths.PARAMS / "smoke.yaml")


def pdstudy(*words, outputs, **more):
    environment = os.environ | {"PDSTUDY_OUTPUTS": str(outputs)} | more
    return subprocess.run(
        [sys.executable, "-m", "pdstudy", *map(str, words)], env=environment, capture_output=True, text=True, timeout=120
    )


def written(tmp_path, text):
    file = tmp_path / "study.yaml"
    file.write_text(text if isinstance(text, str) else json.dumps(text))
    return file


BAD = {
    "misspelt key": (SMOKE | {"sedes": [0]}, "sedes: unknown key; did you mean 'seeds'?"),
    "misspelt key inside": (SMOKE | {"finetune": SMOKE["finetune"] | {"epoch": 3}}, "did you mean 'epochs'?"),
    "wrong type": (SMOKE | {"dropout": "much"}, "dropout: "),
    "size": (SMOKE | {"sizes": ["2/100"]}, "multiple of 64"),
    "task": (SMOKE | {"task": "movie"}, "did you mean 'movies'?"),
    "recipe": (SMOKE | {"recipes": ["PDF"]}, "unknown recipe 'PDF'"),
    "seed twice": (SMOKE | {"seeds": [1, 1]}, "seeds: 1 is listed twice"),
    "not YAML": ("a: [1, 2", "not YAML at line"),
    "a list": ("- a\n- b\n", "expected keys and values, got a list"),
    "empty": ("", "the file is empty"),
    "name": (SMOKE | {"name": "../../x"}, "use 1 to 64 small letters"),
    "teacher": (SMOKE | {"teacher": {"size": None, "folder": "/nowhere"}}, "/nowhere: holds none of config.json"),
}


@pytest.mark.parametrize(("text", "sentence"), BAD.values(), ids=BAD)
def test_bad_params_end_with_a_sentence_exit_2_and_nothing_written(tmp_path, text, sentence):
    done = pdstudy("run", written(tmp_path, text), outputs=tmp_path / "outputs")
    assert done.returncode == 2
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_missing_file_is_answered_with_those_there_are(tmp_path):
    done = pdstudy("plan", "params/quik.yaml", outputs=tmp_path)
    assert done.returncode == 2
    assert "no such params file" in done.stderr and "quick" in done.stderr


def test_outputs_that_cannot_be_written_stop_the_run_before_it_begins(tmp_path):
    (tmp_path / "file").write_text("")
    done = pdstudy("run", "smoke", outputs=tmp_path / "file" / "below")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr and "PDSTUDY_OUTPUTS" in done.stderr


def test_altered_text_is_named_with_its_cure(monkeypatch):
    wheel = tasks.TASKS["movies"].source
    object.__setattr__(wheel, "sha256", "0" * 64)
    try:
        done = CliRunner().invoke(app, ["run", "smoke"])
    finally:
        object.__setattr__(wheel, "sha256", "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d")
    assert done.exit_code == 2
    assert "has sha256 d4acac55fe7f" in done.output and "pip install --force-reinstall" in done.output


def test_a_plan_answers_in_a_second_and_loads_no_torch(tmp_path):
    before = os.times()
    done = pdstudy("plan", "quick", outputs=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    after = os.times()
    assert done.returncode == 0 and "distinct" in done.stdout
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.0  # processor time
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "pdstudy.study.plan" in loaded
    assert not {"torch", "pandas", "transformers"} & loaded


def test_every_command_explains_itself():
    for command in ("plan", "run", "report", "serve", "zoo", "claims", "export", "predict", "clean", "doctor"):
        result = CliRunner().invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert "Example: python -m pdstudy" in result.output


def test_doctor_finds_the_text_and_the_store(smoke):
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    assert "sha256 as pinned" in result.output and "store: pretrain" in result.output


def test_clean_keeps_what_a_kept_study_needs(smoke):
    result = CliRunner().invoke(app, ["clean", "--keep", "smoke", "--dry-run"])
    assert result.exit_code == 0
    planned = CliRunner().invoke(app, ["plan", "smoke"])
    assert " 0 to do" in planned.output
    everything = CliRunner().invoke(app, ["clean", "--all", "--dry-run"])
    assert everything.output.count("would remove pretrain/") >= 2
    assert " 0 to do" in CliRunner().invoke(app, ["plan", "smoke"]).output, "a dry run removes nothing"


@pytest.mark.parametrize("words", [["clean"], ["clean", "--all", "--keep", "smoke"]])
def test_clean_does_not_guess_what_to_keep(words):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "--keep" in result.output


def test_doctor_names_what_is_damaged_and_repair_drops_it(tmp_path):
    store = Store(tmp_path / "store", families=())
    store.write("label", "0" * 16, lambda folder: (folder / "logits.npy").write_text("x") and {})
    (store.root / "label" / ("0" * 16) / "logits.npy").write_text("y")
    done = pdstudy("doctor", outputs=tmp_path)
    assert done.returncode == 1 and f"label/{'0' * 16}: logits.npy differs" in done.stderr and "--repair" in done.stderr
    done = pdstudy("doctor", "--repair", outputs=tmp_path)
    assert done.returncode == 0 and f"removed label/{'0' * 16}" in done.stdout
    assert pdstudy("doctor", outputs=tmp_path).returncode == 0


def test_a_run_ends_with_the_answer(smoke):
    result = CliRunner().invoke(app, ["run", "smoke"])
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[-1].startswith("Take the linear model: it scores "), (
        "the smoke study's students learn nothing"
    )


def test_claims_print_as_json_and_name_a_missing_study(smoke):
    import json

    result = CliRunner().invoke(app, ["claims", "smoke", "--json"])
    assert result.exit_code == 0
    assert {row["id"] for row in json.loads(result.output)} >= {"V1", "V2", "R1a", "R2"}
    missing = CliRunner().invoke(app, ["claims", "nothing"])
    assert missing.exit_code == 2 and "python -m pdstudy run" in missing.output


def test_claims_are_one_line_each_in_a_terminal_of_80_columns_and_sentences_on_request(tmp_path, monkeypatch):
    folder = complete_study(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    lines = CliRunner().invoke(app, ["claims", folder]).output.splitlines()
    assert {len(line) for line in lines} <= {0, 80}
    rows = [line.split()[0] for line in lines if line[:1] in "VRL" and line[1:2].isdigit()]
    assert rows == [claim.id for claim in CLAIMS], "in one line each, in their order"
    (line,) = (line for line in lines if line.startswith("R1a"))
    assert re.fullmatch(r"R1a +\+1\d\.\d +\+\d+\.\d to \+\d+\.\d +supported +PD over PF +", line)
    long = " ".join(CliRunner().invoke(app, ["claims", folder, "--long"]).output.split())
    assert "R1a Pre-trained distillation beats pre-training with fine-tuning: supported, +1" in long
