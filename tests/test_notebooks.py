"""Notebooks are thin, clean and say what they run: the library does the work."""

import ast
import re

import nbformat
import papermill
import pytest

from pdstudy.report.render import ADVICE, QUESTIONS, clean_source
from pdstudy.storage import paths

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
EXPLORER = "06_explore"
WIDGETS = "application/vnd.jupyter.widget-view+json"
MAX_LINES = 8  # of a code cell that holds no parameters


def code(path):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def test_the_notebooks_are_the_tutorial_one_for_each_question_advice_and_the_explorer():
    assert [p.stem for p in NOTEBOOKS] == ["00_one_student", *QUESTIONS, ADVICE, EXPLORER]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_source_notebook_is_clean(path, tmp_path):
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    assert not clean_source(copy), "run: python -m pdstudy clean --notebooks"
    assert not any(c.outputs or c.execution_count for c in code(path))


def test_cleaning_strips_outputs_and_is_done_once(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1", execution_count=3)])
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", name="stdout", text="secret")]
    path = tmp_path / "00_x.ipynb"
    nbformat.write(notebook, path)
    assert clean_source(path)
    assert "secret" not in path.read_text()
    assert not clean_source(path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_thin(path):
    for cell in code(path):
        tree = ast.parse(cell.source)  # a magic or a shell escape would not parse
        assert not any(isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.While) for n in ast.walk(tree))
        lines = [line for line in cell.source.splitlines() if line.strip() and not line.startswith(("import ", "from "))]
        assert "parameters" in cell.metadata.get("tags", []) or len(lines) <= MAX_LINES, cell.source
        assert not re.search(r"""["'](\.{1,2}/|/|~)""", cell.source), "paths come from pdstudy.storage.paths"
        assert "open(" not in cell.source and "chdir" not in cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_asks_predicts_limits_and_answers(path):
    cells = nbformat.read(path, as_version=4).cells
    words = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    assert cells[0].source.startswith("# ") and cells[0].source.splitlines()[0].endswith("?")
    assert "\n> " in cells[0].source
    assert "## What this does not show" in words
    assert sum("parameters" in c.metadata.get("tags", []) for c in cells) == 1


@pytest.mark.parametrize("stem", [*QUESTIONS, ADVICE, EXPLORER])
def test_a_notebook_reads_its_study_from_two_parameters(stem):
    parameters, first = code(paths.NOTEBOOKS / f"{stem}.ipynb")[:2]
    assert parameters.metadata.tags == ["parameters"]
    values = {}
    exec(parameters.source, values)
    assert (values["study"], values["settings"]) == ("smoke", {})
    assert "params = Study.read(study, settings)" in first.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_later_cell_overwrites_a_parameter_so_that_all_cells_can_be_run_again(path):
    parameters, *others = ({n.id for n in ast.walk(ast.parse(c.source)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
                           for c in code(path))  # fmt: skip
    assert parameters and not [parameters & names for names in others if parameters & names]


def test_the_explorer_shows_what_it_has_where_nobody_can_click(smoke, tmp_path):
    made = tmp_path / "explorer.ipynb"
    papermill.execute_notebook(
        paths.NOTEBOOKS / f"{EXPLORER}.ipynb", made, {"sizes": ["2/64"], "domain": "news"}, progress_bar=False, cwd=tmp_path
    )
    cells = code(made)
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    kinds = [set(o.get("data", {})) for o in outputs]
    seen = [i for i, kind in enumerate(kinds) if kind & {"text/html", "image/png", WIDGETS}]
    students, figure, texts, _library, answers, suspects, widgets = seen
    assert outputs[students].data["text/html"].count("<tr") == 4  # Distillation, PD and PD-F
    assert outputs[figure].metadata["image/png"]["alt"].startswith("Test accuracy of 3 students")
    assert all('<table class="texts' in outputs[i].data["text/html"] for i in (answers, suspects))
    assert "<td" in outputs[texts].data["text/html"] and WIDGETS in kinds[widgets]
    assert made.stat().st_size < 2_000_000


@pytest.mark.parametrize("stem", QUESTIONS)
def test_no_number_of_a_result_is_typed_into_a_question(stem):
    cells = nbformat.read(paths.NOTEBOOKS / f"{stem}.ipynb", as_version=4).cells
    words = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    assert not re.search(r"\d+\.\d+", words), "sentences with numbers are made from the results"
