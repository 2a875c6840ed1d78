"""A notebook that dies, however it dies, is a failure: no page, its name on what is left, exit 1."""

import nbformat
import pytest
from typer.testing import CliRunner

from pdstudy.__main__ import app
from pdstudy.report import render
from pdstudy.storage import paths


def notebook(folder, *sources: str):
    """Write a notebook with a parameters cell and these cells."""
    cells = [nbformat.v4.new_code_cell('name = "x"', metadata={"tags": ["parameters"]}), *map(nbformat.v4.new_code_cell, sources)]
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path = folder / "09_test.ipynb"
    nbformat.write(made, path)
    return path


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("raise ValueError('the third shelf')", "cell 3: ValueError: the third shelf"),
        ("import sys\nsys.exit(0)", "did not run to its end"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "the kernel died; perhaps memory ran out"),
    ],
)
def test_a_notebook_that_does_not_end_well_leaves_its_error_and_no_page(tmp_path, source, problem):
    path = notebook(tmp_path, source, "1 + 1")
    (tmp_path / "09_test.html").write_text("an older answer")
    with pytest.raises(render.ReportError, match=problem):
        render.execute(path, {"name": "x"}, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"09_test.ipynb", "09_test.failed.ipynb"}


def test_a_kernel_that_is_killed_by_want_of_memory_ends_the_command_with_exit_1(smoke, tmp_path, monkeypatch):
    source = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\nx = bytearray(2**32)"
    path = notebook(tmp_path, source)
    cell = (paths.NOTEBOOKS / "01_pretraining_value.ipynb").read_text()
    parameters = next(c for c in nbformat.reads(cell, as_version=4).cells if "parameters" in c.metadata.get("tags", []))
    made = nbformat.read(path, as_version=4)
    made.cells[0] = parameters
    nbformat.write(made, path)
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(render, "QUESTIONS", {path.stem: "?"})
    result = CliRunner().invoke(app, ["report", "smoke"])
    assert result.exit_code == 1
    assert "09_test.ipynb: cell 3: MemoryError" in result.output and "Traceback" not in result.output
    left = paths.study_folder("smoke") / "reports"
    assert not (left / "09_test.html").exists()
    (left / "09_test.failed.ipynb").unlink()


@pytest.mark.parametrize(
    "odd", ["a\"b'c\n</script>\u2028\\ {x}", "a\0b", "__import__('os').mkdir('canary')", "\u202e\x1b[31m", "''' + 1/0"]
)
def test_a_params_value_arrives_as_data(tmp_path, odd):
    render.execute(notebook(tmp_path, "print(ascii(name))"), {"name": odd}, tmp_path)
    outputs = nbformat.read(tmp_path / "09_test.ipynb", as_version=4).cells[-1].outputs
    assert outputs[0].text.strip() == ascii(odd)
    assert not (tmp_path / "canary").exists()
