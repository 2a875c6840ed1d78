"""The wheel is enough: installed beside nothing else of the checkout, it starts a workspace and works in it."""

import csv
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pdstudy.storage import paths

CHECKOUT = paths.ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=CHECKOUT, check=True, timeout=300)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def pdstudy(wheel, tmp_path_factory):
    """Run the installed wheel's command line in a folder outside the checkout."""
    target = tmp_path_factory.mktemp("installed")
    words = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", target, wheel]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, timeout=300)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PDSTUDY_")} | {"PYTHONPATH": str(target)}

    def run(*words, folder: Path, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert str(CHECKOUT) not in done.stdout + done.stderr
        return done.stdout + done.stderr

    assert run("-c", "import pdstudy; print(pdstudy.__file__)", folder=target).startswith(str(target))
    return lambda *words, **more: run("-m", "pdstudy", *words, **more)


@pytest.fixture
def workspace(pdstudy, tmp_path) -> Path:
    """A workspace as `start` makes it."""
    assert pdstudy("start", "mine", folder=tmp_path).strip() == str(tmp_path / "mine")
    return tmp_path / "mine"


def test_the_wheel_carries_the_notebooks_the_params_files_and_the_whole_released_family(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(
        ["git", "ls-files", "notebooks", "params", "zoo"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert {f"pdstudy/share/{name}" for name in listed.stdout.splitlines()} <= names
    assert not [name for name in names if name.startswith(("tests/", "outputs/", "benchmarks/"))]


def test_start_makes_a_workspace_once(pdstudy, workspace):
    assert sorted(p.name for p in workspace.iterdir()) == ["README.md", "notebooks", "params"]
    for name in ("notebooks", "params"):
        assert {p.name for p in (workspace / name).iterdir()} == {p.name for p in (CHECKOUT / name).iterdir() if p.name[0] != "."}
    assert "notebooks is there already" in pdstudy("start", workspace, folder=workspace, code=2)


def test_a_plan_in_the_notebooks_folder_is_of_the_workspace_and_takes_the_released_family(pdstudy, workspace):
    study = (workspace / "params" / "quick.yaml").read_text()
    (workspace / "params" / "ours.yaml").write_text(study.replace("name: quick", "name: ours"))
    rows = pdstudy("plan", "ours", folder=workspace / "notebooks").splitlines()
    (pretrain,) = (row.split("│") for row in rows if row.startswith("│ pretrain "))
    assert int(pretrain[3]) > 0, "steps that the released family holds count as cached"


def test_init_writes_a_params_file_in_any_folder_that_begins_from_the_released_family(pdstudy, tmp_path):
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        rows = [{"text": f"a {word} film, number {i}", "label": word} for i in range(60) for word in ("good", "bad")]
        table = csv.DictWriter(file, ["text", "label"])
        table.writeheader()
        table.writerows(rows)
    pdstudy("init", "reviews.csv", folder=tmp_path)
    assert 'family: "zoo/{layers}-{hidden}-s0"' in (tmp_path / "reviews.yaml").read_text()
    assert "take 2/128 from the family" in pdstudy("plan", "reviews.yaml", "--steps", folder=tmp_path)


@pytest.mark.faults
def test_a_report_in_a_workspace_writes_there_and_nowhere_else(pdstudy, workspace):
    before = {p: p.stat().st_mtime_ns for p in (CHECKOUT / "notebooks").iterdir()}
    page = pdstudy("report", "params/smoke.yaml", folder=workspace).splitlines()[-1]
    assert page == str(workspace / "outputs" / "smoke" / "reports" / "index.html") and Path(page).is_file()
    assert (workspace / "outputs" / "smoke" / "claims.json").is_file()
    assert before == {p: p.stat().st_mtime_ns for p in (CHECKOUT / "notebooks").iterdir()}
