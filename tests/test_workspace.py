"""Where a command works: the workspace, what comes with the package, and the evidence of the project's own studies."""

import shutil
import subprocess

import publish
import pytest

from pdstudy.storage import paths, results, workspace


@pytest.mark.parametrize("marker", ["params", "notebooks"])
def test_the_workspace_is_the_nearest_folder_upwards_with_params_or_notebooks_else_the_current_one(tmp_path, marker):
    below = tmp_path / "ours" / "a" / "b"
    below.mkdir(parents=True)
    assert paths.workspace(below) == below
    (tmp_path / "ours" / marker).mkdir()
    assert paths.workspace(below) == tmp_path / "ours"
    (below / "params").mkdir()
    assert paths.workspace(below) == below


def test_the_environment_names_another_workspace_and_a_child_process_uses_the_same(tmp_path, fresh_python, monkeypatch):
    for name in ("PDSTUDY_OUTPUTS", "PDSTUDY_DATA", "PDSTUDY_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PDSTUDY_HOME", str(tmp_path))
    printed = fresh_python("from pdstudy.storage import paths; print(paths.OUTPUTS); print(*paths.environment().values())")
    outputs = tmp_path / "outputs"
    assert printed.splitlines() == [str(outputs), f"{tmp_path} {outputs} {outputs}/hub/data {outputs}/hub/models"]


def test_a_relative_path_is_the_workspaces_own_else_the_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert paths.absolute("zoo/tokenizer") == paths.ZOO / "tokenizer"
    assert paths.absolute("zoo/nothing") == tmp_path / "zoo" / "nothing"
    (tmp_path / "zoo" / "tokenizer").mkdir(parents=True)
    assert paths.absolute("zoo/tokenizer") == tmp_path / "zoo" / "tokenizer"
    assert paths.absolute("x" * 300) == tmp_path / ("x" * 300)


def test_start_writes_over_nothing(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match=r"README.md is there already"):
        workspace.start(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_evidence_is_replaced_by_the_listed_files_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    study, evidence = tmp_path / "outputs" / "desk", tmp_path / "published" / "desk"
    shutil.copytree(publish.PUBLISHED / "desk", study)
    for extra in ("predictions.parquet", "reports/index.html", "figures/matched.png"):
        (study / extra).parent.mkdir(exist_ok=True)
        (study / extra).write_text("large")
    evidence.mkdir(parents=True)
    (evidence / "advice.json").write_text("of an earlier run")
    assert publish.publish("desk", tmp_path / "published") == evidence
    files = {str(p.relative_to(evidence)): p.read_bytes() for p in evidence.rglob("*") if p.is_file()}
    published = publish.PUBLISHED / "desk"
    assert files == {str(p.relative_to(published)): p.read_bytes() for p in published.rglob("*") if p.is_file()}
    with pytest.raises(FileNotFoundError, match=results.METRICS):
        publish.publish("nothing", tmp_path / "published")


def test_git_sees_the_evidence_and_nothing_else_in_outputs():
    names = [
        "outputs/quick/metrics.parquet",
        "outputs/quick/figures/a.csv",
        "outputs/store/a",
        "outputs/published/quick/claims.json",
    ]
    words = ["git", "check-ignore", "--no-index", *names]
    done = subprocess.run(words, cwd=publish.PUBLISHED.parents[1], capture_output=True, text=True)
    assert done.stdout.splitlines() == names[:-1]
