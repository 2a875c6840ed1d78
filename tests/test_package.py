"""The wheel is enough: installed beside nothing else of the checkout, it starts a workspace and works in it."""

import csv
import subprocess
import zipfile

from pdstudy.storage import paths

CHECKOUT = paths.ROOT


def test_the_wheel_carries_the_notebooks_the_params_files_and_the_whole_released_family(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(
        ["git", "ls-files", "notebooks", "params", "zoo"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert {f"pdstudy/share/{name}" for name in listed.stdout.splitlines()} <= names
    assert not [name for name in names if name.startswith(("tests/", "outputs/", "benchmarks/"))]


def test_start_makes_a_workspace_once(installed, workspace):
    assert sorted(p.name for p in workspace.iterdir()) == ["README.md", "notebooks", "params"]
    for name in ("notebooks", "params"):
        assert {p.name for p in (workspace / name).iterdir()} == {p.name for p in (CHECKOUT / name).iterdir() if p.name[0] != "."}
    assert "notebooks is there already" in installed("start", workspace, folder=workspace, code=2)


def test_a_plan_in_the_notebooks_folder_is_of_the_workspace_and_takes_the_released_family(installed, workspace):
    study = (workspace / "params" / "quick.yaml").read_text()
    (workspace / "params" / "ours.yaml").write_text(study.replace("name: quick", "name: ours"))
    assert "take 2/64 from the family" in installed("plan", "ours", "--steps", folder=workspace / "notebooks")


def test_init_writes_a_params_file_in_any_folder_that_begins_from_the_released_family(installed, tmp_path):
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        rows = [{"text": f"a {word} film, number {i}", "label": word} for i in range(60) for word in ("good", "bad")]
        table = csv.DictWriter(file, ["text", "label"])
        table.writeheader()
        table.writerows(rows)
    installed("init", "reviews.csv", folder=tmp_path)
    assert 'family: "zoo/distilled/{layers}-{hidden}-s0"' in (tmp_path / "reviews.yaml").read_text()
    assert "take 2/128 from the family" in installed("plan", "reviews.yaml", "--steps", folder=tmp_path)
