"""From a params file to rendered reports: strict parameters, papermill, nbconvert, one index page.

A report exists only if every cell of its notebook ran: it is executed and converted under a temporary name,
checked, then moved. A failing cell leaves an executed notebook named `*.failed.ipynb` and no page.
"""

import ast
import base64
import os
from collections.abc import Callable
from pathlib import Path

import jinja2
import nbformat

from pdstudy.analysis import claims, summary
from pdstudy.analysis.verdicts import answer, of_study, shown
from pdstudy.escape import visible
from pdstudy.report import figures
from pdstudy.report.html import TEMPLATES, page, template
from pdstudy.storage import files, paths, results
from pdstudy.study.settings import Study, check_names
from pdstudy.study.yaml_file import ParamsError

QUESTIONS = {f"{number:02d}_{name}": question for number, (name, question) in enumerate(claims.QUESTIONS.items(), 1)}
ADVICE = "05_your_task"
KEY_FIGURES = {  # of the index page
    claims.VALUE: ("pretraining_gain", "strategies"),
    claims.DEPTH: ("depth_width",),
    claims.COMPOUND: ("compound",),
    claims.ROBUST: ("transfer_size", "domains"),
}
SITE = [("All answers", "index.html"), *((question, f"{stem}.html") for stem, question in QUESTIONS.items())]


class ReportError(RuntimeError):
    """Raised when a notebook did not run to its end; the message names the cell and its error."""


def render(study: Study, tell: Callable[[str], None] = lambda text: None) -> Path:
    """Return the path of index.html after rendering every question's notebook over the study's results."""
    folder = paths.study_folder(study.name) / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    values = study.model_dump(mode="json")
    notebooks = [paths.NOTEBOOKS / f"{stem}.ipynb" for stem in QUESTIONS]
    for notebook in notebooks:
        check_names(set(values), set(declared(notebook)), notebook.name)
    for notebook in notebooks:
        tell(f"report {notebook.stem}")
        execute(notebook, values, folder)
    tell("index")
    return index(study, folder)


def advice(study: Study, limits: dict[str, float | None]) -> Path:
    """Return the page of the advice on a task of one's own, after rendering its notebook over what is in the store."""
    folder = paths.study_folder(study.name) / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    notebook, values = paths.NOTEBOOKS / f"{ADVICE}.ipynb", study.model_dump(mode="json") | limits
    check_names(set(values), set(declared(notebook)), notebook.name)
    return execute(notebook, values, folder)


def execute(notebook: Path, values: dict, folder: Path) -> Path:
    """Return the page of one notebook, executed with these parameters. Raises ReportError naming the failing cell.

    A full disk leaves the page that stood there; a notebook that fails takes it away, for it must not look like
    the answer to this run.
    """
    stem = notebook.stem
    page, failed, temporary = folder / f"{stem}.html", folder / f"{stem}.failed.ipynb", folder / f".{stem}.{os.getpid()}.ipynb"
    try:
        problem = run(notebook, temporary, values)
        executed = nbformat.read(temporary, as_version=4)
        clean_executed(executed)
        nbformat.write(executed, temporary)
        if problem is None:
            _write(page, convert(executed, stem))
            temporary.replace(folder / f"{stem}.ipynb")
            failed.unlink(missing_ok=True)
            return page
        page.unlink(missing_ok=True)
        temporary.replace(failed)
    except OSError as error:
        if not files.is_full(error):
            raise
        raise ReportError(paths.scrub(files.full(folder))) from None
    finally:
        temporary.unlink(missing_ok=True)
    raise ReportError(f"{notebook.name}: {paths.scrub(problem)}; see {paths.scrub(str(failed))}")


def convert(notebook: nbformat.NotebookNode, stem: str) -> str:
    """Return a self-contained page: no script but ours, no request to anywhere, code folded away."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="basic",
        template_file="notebook.html.j2",
        extra_loaders=[jinja2.FileSystemLoader(TEMPLATES)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    body, _ = exporter.from_notebook_node(notebook, resources={"claims": figures.TITLES})
    title = QUESTIONS.get(stem) or next((c.source.splitlines()[0].lstrip("# ") for c in notebook.cells if c.source), stem)
    site = SITE if stem in QUESTIONS else []  # advice stands alone
    return page(title, body, site, f"{stem}.html", rows={id: f"#figure-{name}" for id, name in figures.of_claims().items()})


def index(study: Study, folder: Path) -> Path:
    """Return the path of the page that holds the answers, the claims, the accuracies and the costs."""
    table = of_study(study.name)
    metrics, environment = results.load_results(study.name), results.load_environment(study.name)
    body = template("index.html.j2").render(
        study=study,
        task=study.resolved_task(),
        questions=[
            {
                "question": question,
                "page": f"{stem}.html",
                "answer": answer(table, name),
                "claims": shown(table[table.question == name]),
                "figures": _figures(study.name, table, KEY_FIGURES[name]),
            }
            for (name, question), stem in zip(claims.QUESTIONS.items(), QUESTIONS, strict=True)
        ],
        titles=figures.TITLES,
        figure_of=figures.of_claims(),
        accuracy=summary.accuracy_table(metrics, study.recipe_sizes).to_html(border=0, escape=True),
        costs=summary.cost_table(study.name).to_html(border=0, escape=True),
        texts=results.load_counts(study.name).astype(object).fillna("").to_html(border=0, escape=True),
        collapsed=summary.collapsed(study.name),
        environment=environment,
    )
    made = page(f"pdstudy: {study.name}", body, SITE, "index.html", footer=results.provenance(study.name))
    return _write(folder / "index.html", made)


def _figures(study: str, verdicts, names: tuple[str, ...]) -> list[dict[str, str | float]]:
    """Return key figures as the page shows them, after keeping each."""
    from matplotlib import pyplot as plt

    found = []
    for name in names:
        drawn = figures.draw(study, name, verdicts)
        if not drawn.data.empty:  # else it was not measured, as the claims say
            figures.keep(drawn, study, name)
            picture = base64.b64encode((paths.study_folder(study) / "figures" / f"{name}.png").read_bytes()).decode()
            found.append({"name": name, "png": picture, "alt": drawn.alt, "inches": drawn.axes.figure.get_figwidth()})
        plt.close(drawn.axes.figure)
    return found


def _write(path: Path, text: str) -> Path:
    with files.whole(path) as new:
        new.write_text(visible(text), encoding="utf-8")
    return path


CELL_TIMEOUT = 3600  # seconds; the work is done before the notebooks run, they read the store


def declared(notebook: Path) -> dict[str, object]:
    """Return the parameters that a notebook declares: names and their literal values in its one parameters cell."""
    cells = [c for c in nbformat.read(notebook, as_version=4).cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ParamsError(f"{notebook.name}: {len(cells)} cells are tagged parameters, expected one")
    found = {}
    for node in ast.parse(cells[0].source).body:
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
            raise ParamsError(f"{notebook.name}: the parameters cell may hold only `name = literal`, line {node.lineno} does not")
        found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def run(notebook: Path, executed: Path, values: dict) -> str | None:
    """Return what went wrong, or None, after executing a notebook to `executed`."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        papermill.execute_notebook(
            str(notebook), str(executed), parameters=values, kernel_name="python3", language="python",
            progress_bar=False, execution_timeout=CELL_TIMEOUT, cwd=str(executed.parent),
            extra_arguments=["--log-level=CRITICAL"],  # else a kernel tells the terminal of loopback without encryption, and of being shut down
        )  # fmt: skip
    except PapermillExecutionError as error:
        return f"cell {error.cell_index + 1}: {error.ename}: {error.evalue}"
    except DeadKernelError:
        return "the kernel died; perhaps memory ran out"
    except CellTimeoutError:
        return f"a cell ran longer than {CELL_TIMEOUT} seconds"
    cells = [c for c in nbformat.read(executed, as_version=4).cells if c.cell_type == "code"]
    unfinished = [i for i, c in enumerate(cells) if c.metadata.get("papermill", {}).get("status") != "completed"]
    # `sys.exit(0)` in a cell ends papermill with success
    return f"code cell {unfinished[0] + 1} did not run to its end" if unfinished else None


def clean_executed(notebook: nbformat.NotebookNode) -> None:
    """Remove from an executed notebook, in place, what must not be published: this machine's paths and stderr."""
    meta = notebook.metadata.get("papermill", {})
    for name in ("input_path", "output_path"):
        if meta.get(name):
            meta[name] = Path(meta[name]).name
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
        for output in cell.outputs:
            if "text" in output:
                output.text = paths.scrub(output.text)
            if "traceback" in output:
                output.traceback = [paths.scrub(t) for t in output.traceback]
            for kind, value in output.get("data", {}).items():
                if kind.startswith("text/") and isinstance(value, str):
                    output.data[kind] = paths.scrub(value)


def clean_source(path: Path) -> bool:
    """Strip a notebook of outputs, counts and machine metadata; return whether anything changed."""
    before = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(before, as_version=4)
    for i, cell in enumerate(notebook.cells):
        cell.id = f"{path.stem[:2]}-{i:02d}"
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.NotebookNode({"tags": tags} if tags else {})
        if cell.cell_type == "code" and "nbval-check-output" not in tags:
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = nbformat.NotebookNode(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    after = nbformat.writes(notebook) + "\n"
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before
