"""A full disk, a limit on file sizes, a disk that cannot be written, links out of the outputs: one sentence, nothing broken."""

import os
import shutil
import subprocess
import sys

import nbformat
import pytest
import small

from pdstudy.report import render
from pdstudy.storage.store import damage


@pytest.fixture
def mounted(tmp_path):
    """Mount a small disk in memory; return a function of its size that gives the folder, and may be called again to resize."""
    folder = tmp_path / "disk"
    folder.mkdir()
    state = {"mounted": False}

    def mount(options: str):
        how = f"remount,{options}" if state["mounted"] else options
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this machine does not let us mount a small disk: {done.stderr.strip()}")
        state["mounted"] = True
        return folder

    yield mount
    if state["mounted"]:
        subprocess.run(["umount", "-l", folder], check=True)


def sound(outputs) -> bool:
    """Return whether every artifact in the store verifies and no file in the outputs is empty by accident."""
    undamaged = all(damage(p.parent, p.parent.name) is None for p in small.artifacts(outputs))
    results = [p for p in (outputs / "small").rglob("*") if p.suffix in (".parquet", ".json", ".html")]
    return undamaged and all(p.stat().st_size for p in results) and not list(outputs.rglob("*.new"))


@pytest.mark.faults
@pytest.mark.parametrize("size", ["64k", pytest.param("700k", marks=pytest.mark.night), "1600k"])
def test_on_a_full_disk_the_run_says_what_it_needs_and_goes_on_once_there_is_room(world, params, unbroken, mounted, size):
    outputs = mounted(f"size={size}") / "outputs"
    done = world.run("run", params, "--workers", "1", outputs=outputs)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    message = " ".join(done.stderr.split())
    assert f"no room to write in {outputs}" in message and "bytes are free" in message and "bytes are needed" in message
    assert sound(outputs)
    mounted("size=100m")
    done = world.run("run", params, "--workers", "1", outputs=outputs)
    assert done.returncode == 0, done.stderr
    assert small.tables(outputs) == unbroken


def test_a_limit_on_file_sizes_is_met_like_a_full_disk(world, params, unbroken_run, tmp_path):
    """Where no disk can be mounted: the kernel refuses to write past a size (RLIMIT_FSIZE), as a quota would."""
    outputs = tmp_path / "outputs"
    shutil.copytree(unbroken_run, outputs)
    for stage in ("evaluate", "search", "distill"):
        shutil.rmtree(outputs / "store" / stage)
    before = small.tables(outputs)
    environment = os.environ | world.environment | {"PDSTUDY_OUTPUTS": str(outputs)}
    command = ["bash", "-c", 'ulimit -f 100; exec "$@"', "-", sys.executable, "-m", "pdstudy", "run", params, "--workers", "0"]
    done = subprocess.run(list(map(str, command)), env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "no room to write in" in done.stderr and "bytes are needed" in done.stderr
    assert sound(outputs) and small.tables(outputs).keys() == before.keys()


def notebook(folder, source):
    cells = [nbformat.v4.new_code_cell('name = "x"', metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(source)]
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(made, folder / "09_full.ipynb")
    return folder / "09_full.ipynb"


def test_a_disk_that_is_full_while_a_report_is_saved_leaves_the_one_before(mounted, tmp_path):
    folder = mounted("size=256k")
    before = {"09_full.html": "the page before", "09_full.ipynb": "the notebook before"}
    for name, text in before.items():
        (folder / name).write_text(text)
    with pytest.raises(render.ReportError, match=r"no room to write in .*: [\d,]+ bytes are free"):
        render.execute(notebook(tmp_path, "print('x' * 400_000)"), {"name": "x"}, folder)
    assert {p.name: p.read_text() for p in folder.iterdir()} == before


@pytest.mark.parametrize("has_results", [False, True], ids=["a new folder", "with results in it"])
def test_outputs_that_cannot_be_written_stop_the_run_before_it_trains(world, params, mounted, has_results):
    outputs = mounted("size=1m") / "outputs"
    if has_results:
        (outputs / "small").mkdir(parents=True)
        (outputs / "store").mkdir()
    mounted("ro")
    done = world.run("run", params, outputs=outputs)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "cannot be written (Read-only file system)" in done.stderr and "PDSTUDY_OUTPUTS" in done.stderr
    assert "of 19 steps" not in done.stderr


@pytest.mark.parametrize("link", ["small", "small/logs", "small/reports", "store", "store/pretrain"])
def test_a_link_out_of_the_outputs_is_refused_before_anything_is_written(world, params, tmp_path, link):
    outputs, elsewhere = tmp_path / "outputs", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (outputs / link).parent.mkdir(parents=True)
    (outputs / link).symlink_to(elsewhere)
    done = world.run("run", params, outputs=outputs)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{outputs / link} is a link out of the outputs; remove it" in done.stderr
    assert not list(elsewhere.iterdir())


def test_an_artifact_that_is_a_link_is_not_taken(tmp_path):
    from pdstudy.storage.store import Store

    maker, store = Store(tmp_path / "elsewhere", families=()), Store(tmp_path / "store", families=())
    folder = maker.write("pretrain", "0" * 16, lambda place: (place / "a").write_text("a") and {})
    (store.root / "pretrain").mkdir(parents=True)
    (store.root / "pretrain" / folder.name).symlink_to(folder)
    assert store.find(folder.name) is None
    assert (folder / "a").read_text() == "a"


def test_nothing_is_written_through_a_link_that_stands_for_a_table(world, params, unbroken_run, tmp_path):
    outputs, precious = tmp_path / "outputs", tmp_path / "precious"
    shutil.copytree(unbroken_run, outputs)
    precious.write_text("precious")
    (outputs / "small" / "metrics.parquet").unlink()
    (outputs / "small" / "metrics.parquet").symlink_to(precious)
    done = world.run("run", params, outputs=outputs)
    assert done.returncode == 2 and "is a link out of the outputs" in done.stderr
    assert precious.read_text() == "precious"
