"""Execute a study's notebooks with papermill, convert them to HTML with nbconvert, and write an index page.

A report exists only if every cell of its notebook ran: the notebook is executed and converted under a temporary name, checked, then
moved. If a cell fails, the executed notebook is saved as `*.failed.ipynb`, and there is no page.
"""

import base64
import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jinja2
import nbformat

from pdstudy.analysis import answers, claims, summary, verdicts
from pdstudy.escape import escape_control
from pdstudy.report import figures
from pdstudy.report.html import TEMPLATES, page, template
from pdstudy.storage import files, paths, results
from pdstudy.study.settings import Study

QUESTIONS = {f"{number:02d}_{name}": question for number, (name, question) in enumerate(claims.QUESTIONS.items(), 1)}
ADVICE = "05_your_task"
OPEN_IN_ADVICE = 3  # sections: what mistakes cost, how to call the model, and the texts
INDEX_FIGURE = "which_student"
SITE = [("All answers", "index.html"), *((question, f"{stem}.html") for stem, question in QUESTIONS.items())]
CELL_TIMEOUT = 3600  # seconds; the study is computed before the notebooks run, which only load its results


class ReportError(RuntimeError):
    """Raised if a notebook does not run to its end; the message names the cell and its error."""


def render(study: Study, notify: Callable[[str], None] = lambda text: None) -> Path:
    """Return the path of index.html, after rendering the notebook of every question for a computed study, on all cores."""
    folder, values = _folder(study), parameters(study)
    n_threads = min(len(QUESTIONS), os.cpu_count() or 1)  # each waits for a kernel of its own
    # papermill changes the folder of the whole process and back: here it is the same one for all threads.
    with contextlib.chdir(folder), ThreadPoolExecutor(n_threads, "notebooks") as pool:
        pages = {stem: pool.submit(execute, paths.NOTEBOOKS / f"{stem}.ipynb", values, folder) for stem in QUESTIONS}
        try:
            for stem, executed in pages.items():
                notify(f"report {stem}")
                executed.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # those that run come to their end
            raise
    notify("index")
    return index(study, _folder(study))


def advice(study: Study, limits: dict[str, float | None]) -> Path:
    """Return the page of the advice for the user's own task, after rendering its notebook."""
    return execute(paths.NOTEBOOKS / f"{ADVICE}.ipynb", parameters(study) | limits, _folder(study))


def _folder(study: Study) -> Path:
    folder = paths.study_folder(study.name) / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def parameters(study: Study) -> dict[str, Any]:
    """Return the two parameters from which a notebook reads a study. Raises ReportError if it would read another one."""
    if study.origin is None:
        raise ReportError("a report needs a study that was read from a params file; write it to one and use Study.read")
    if Study.read(study.origin.path, study.origin.settings) != study:
        raise ReportError(f"{paths.scrub(str(study.origin.path))} has changed since the study was run; run it again")
    return {"study": paths.portable(str(study.origin.path), Path()), "settings": study.origin.settings}


def execute(notebook: Path, values: dict, folder: Path) -> Path:
    """Return the page of one notebook, executed with these parameters. Raises ReportError naming the failing cell.

    If the disk is full, an earlier page stays. If the notebook fails, an earlier page is removed, so that it is not taken for the
    result of this run.
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
        if not files.is_disk_full(error):
            raise
        raise ReportError(paths.scrub(files.full_disk_message(folder))) from None
    finally:
        temporary.unlink(missing_ok=True)
    raise ReportError(f"{notebook.name}: {paths.scrub(problem)}; see {paths.scrub(str(failed))}")


def convert(notebook: nbformat.NotebookNode, stem: str) -> str:
    """Return a self-contained page without requests and other scripts than ours, with the code folded."""
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
    site = SITE if stem in QUESTIONS else []  # advice is a page of its own
    unfolded = 1 if stem in QUESTIONS else OPEN_IN_ADVICE if stem == ADVICE else None
    rows = {id: f"#figure-{name}" for id, name in figures.figure_of_claim().items() if f'id="figure-{name}"' in body}
    return page(title, body, site, f"{stem}.html", rows=rows, unfolded=unfolded)


def index(study: Study, folder: Path) -> Path:
    """Return the path of the page with the answers, the claims, the accuracies and the costs."""
    table = verdicts.of_study(study.name)
    metrics, environment = results.load_results(study.name), results.load_environment(study.name)
    body = template("index.html.j2").render(
        study=study,
        task=study.resolved_task(),
        questions=[
            {
                "question": question,
                "page": f"{stem}.html",
                "answer": answers.answer(study.name, table, name, with_scores=name == claims.VALUE),
                "claims": verdicts.display_table(table[table.question == name]),
                "tally": verdicts.tally(table[table.question == name]),
                "missing": verdicts.missing(table[table.question == name]),
            }
            for (name, question), stem in zip(claims.QUESTIONS.items(), QUESTIONS, strict=True)
        ],
        chart=_figure(study.name, table, INDEX_FIGURE),
        figure_of=figures.figure_of_claim(),
        accuracy=summary.accuracy_table(metrics, study.recipe_sizes).to_html(border=0, escape=True),
        costs=summary.cost_table(study.name).to_html(border=0, escape=True),
        texts=results.load_counts(study.name).astype(object).fillna("").to_html(border=0, escape=True),
        collapsed=summary.collapsed(study.name),
        environment=environment,
    )
    footer = results.provenance(study.name)
    text = page(f"pdstudy: {study.name}", body, SITE, "index.html", footer=footer, unfolded=len(QUESTIONS))
    return _write(folder / "index.html", text)


def _figure(study: str, table, name: str) -> dict[str, str | float]:
    """Return a figure as the page shows it, after saving it."""
    from matplotlib import pyplot as plt

    figure = figures.draw(study, name, table)
    figures.save(figure, study, name)
    plt.close(figure.axes.figure)
    picture = base64.b64encode((paths.study_folder(study) / "figures" / f"{name}.png").read_bytes()).decode()
    return {"name": name, "png": picture, "alt": figure.alt, "inches": figure.axes.figure.get_figwidth()}


def _write(path: Path, text: str) -> Path:
    with files.atomic_write(path) as new:
        new.write_text(escape_control(text), encoding="utf-8")
    return path


def run(notebook: Path, executed: Path, values: dict) -> str | None:
    """Execute a notebook and write it to `executed`; return what went wrong, or None."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    os.environ |= paths.environment()  # the kernel starts in another folder
    try:
        papermill.execute_notebook(
            str(notebook), str(executed), parameters=values, kernel_name="python3", language="python",
            progress_bar=False, execution_timeout=CELL_TIMEOUT, cwd=str(executed.parent),
            extra_arguments=["--log-level=CRITICAL"],  # otherwise a kernel prints warnings about loopback without encryption
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
    """Remove this machine's paths and stderr from an executed notebook, in place, so that it can be published."""
    from papermill.translators import PythonTranslator

    meta = notebook.metadata.get("papermill", {})
    for name in ("input_path", "output_path"):
        if meta.get(name):
            meta[name] = Path(meta[name]).name
    parameters = meta.get("parameters", {})
    if Path(str(parameters.get("study", ""))).is_absolute():  # a params file outside the workspace
        parameters["study"] = Path(parameters["study"]).name
        for cell in notebook.cells:
            if "injected-parameters" in cell.metadata.get("tags", []):
                cell.source = PythonTranslator.codify(parameters)
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


# Metadata that nbstripout leaves by default; .pre-commit-config.yaml has the same.
_OF_LANGUAGE = ("version", "codemirror_mode", "file_extension", "mimetype", "nbconvert_exporter", "pygments_lexer")
STRIPPED = [*(f"metadata.language_info.{key}" for key in _OF_LANGUAGE), "metadata.papermill"]
STRIPPED += [f"cell.metadata.{key}" for key in ("papermill", "editable", "slideshow")]


def clean_source(path: Path) -> bool:
    """Strip a notebook of outputs, counts and machine metadata; return whether anything changed."""
    from nbstripout import strip_output

    before = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(before, as_version=4)
    strip_output(notebook, keep_output=False, keep_count=False, keep_id=True, extra_keys=STRIPPED)
    after = nbformat.writes(notebook) + "\n"
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before
