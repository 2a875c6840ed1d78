"""The project's own files: hooks, continuous integration, citation."""

import os
import shlex
import shutil
import subprocess
import sys

import yaml

from pdstudy.report import render
from pdstudy.storage import paths

ROOT = paths.ROOT


def test_the_hooks_are_pinned_and_strip_a_notebook_as_it_is_kept(tmp_path):
    from importlib.metadata import version

    hooks = {h["id"]: h for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"] for h in repo["hooks"]}
    assert all("==" in pin for hook in hooks.values() for pin in hook["additional_dependencies"])
    notebook = tmp_path / "00_one_student.ipynb"
    shutil.copy(paths.NOTEBOOKS / notebook.name, notebook)
    before = notebook.read_text()
    import nbformat

    used = nbformat.read(notebook, as_version=4)
    used.metadata["language_info"] = {"name": "python", "version": "3.11.7", "mimetype": "text/x-python", "file_extension": ".py"}
    for cell in used.cells:
        cell.metadata["editable"], cell.metadata["slideshow"] = True, {"slide_type": ""}
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = 3, [nbformat.v4.new_output("stream", text="secret")]
    nbformat.write(used, notebook)
    program, *options = shlex.split(hooks["nbstripout"]["entry"])
    subprocess.run([sys.executable, "-m", program, *options, str(notebook)], check=True, timeout=60)
    assert not render.clean_source(notebook) and notebook.read_text() == before
    assert version("ruff") and version("nbstripout")


def test_continuous_integration_runs_what_a_newcomer_runs():
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["run"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"] and os.access(ROOT / ".ci" / "run", os.X_OK)
    for form in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        fields = yaml.safe_load(form.read_text())
        assert form.stem == "config" or {"name", "description", "body"} <= set(fields)


def test_the_citation_names_this_version_and_the_paper():
    import pdstudy

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(cited["version"]) == pdstudy.__version__ and cited["license"] == "Apache-2.0"
    (paper,) = cited["references"]
    assert paper["year"] == 2019 and [a["family-names"] for a in paper["authors"]] == ["Turc", "Chang", "Lee", "Toutanova"]
