"""From a params file to rendered reports: strict parameters, papermill, nbconvert, one index page.

A report exists only if every cell of its notebook ran: it is executed and converted under a temporary name,
checked, then moved. A failing cell leaves an executed notebook named `*.failed.ipynb` and no page.
"""

import ast
import base64
import html
import os
from collections.abc import Callable
from pathlib import Path

import jinja2
import nbformat

from pdstudy import claims, disk, figures, paths, results
from pdstudy.page import TEMPLATES, page, template
from pdstudy.params import ParamsError, Study, check_names
from pdstudy.visible import visible

QUESTIONS = {f"{number:02d}_{name}": question for number, (name, question) in enumerate(claims.QUESTIONS.items(), 1)}
ADVICE = "05_your_task"
KEY_FIGURES = {  # of the index page
    claims.VALUE: ("pretraining_gain", "strategies"),
    claims.DEPTH: ("depth_width",),
    claims.COMPOUND: ("compound",),
    claims.ROBUST: ("transfer_size", "domains"),
}
SITE = [("All answers", "index.html"), *((question, f"{stem}.html") for stem, question in QUESTIONS.items())]
NAMED = 12  # students that a sentence names
CELL_TIMEOUT = 3600  # seconds; the work is done before the notebooks run, they read the store


class ReportError(RuntimeError):
    """Raised when a notebook did not run to its end; the message names the cell and its error."""


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
        problem = _run(notebook, temporary, values)
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
        if not disk.is_full(error):
            raise
        raise ReportError(paths.scrub(disk.full(folder))) from None
    finally:
        temporary.unlink(missing_ok=True)
    raise ReportError(f"{notebook.name}: {paths.scrub(problem)}; see {paths.scrub(str(failed))}")


def _run(notebook: Path, temporary: Path, values: dict) -> str | None:
    """Execute a notebook to `temporary` and return what went wrong, or None."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        papermill.execute_notebook(
            str(notebook), str(temporary), parameters=values, kernel_name="python3", language="python",
            progress_bar=False, execution_timeout=CELL_TIMEOUT, cwd=str(temporary.parent),
            extra_arguments=["--log-level=CRITICAL"],  # else a kernel tells the terminal of loopback without encryption, and of being shut down
        )  # fmt: skip
    except PapermillExecutionError as error:
        return f"cell {error.cell_index + 1}: {error.ename}: {error.evalue}"
    except DeadKernelError:
        return "the kernel died; perhaps memory ran out"
    except CellTimeoutError:
        return f"a cell ran longer than {CELL_TIMEOUT} seconds"
    cells = [c for c in nbformat.read(temporary, as_version=4).cells if c.cell_type == "code"]
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
    table = claims.judge(study.name)
    claims.save(table, study.name)
    metrics, environment = results.load_results(study.name), results.load_environment(study.name)
    body = template("index.html.j2").render(
        study=study,
        task=study.resolved_task(),
        questions=[
            {
                "question": question,
                "page": f"{stem}.html",
                "answer": claims.answer(table, name),
                "claims": claims.shown(table[table.question == name]),
                "figures": _figures(study.name, table, KEY_FIGURES[name]),
            }
            for (name, question), stem in zip(claims.QUESTIONS.items(), QUESTIONS, strict=True)
        ],
        titles=figures.TITLES,
        figure_of=figures.of_claims(),
        accuracy=accuracy_table(metrics, study.recipe_sizes).to_html(border=0, escape=True),
        costs=cost_table(study.name).to_html(border=0, escape=True),
        texts=results.load_counts(study.name).astype(object).fillna("").to_html(border=0, escape=True),
        collapsed=collapsed(study.name),
        environment=environment,
    )
    made = page(f"pdstudy: {study.name}", body, SITE, "index.html", footer=results.provenance(study.name))
    return _write(folder / "index.html", made)


def collapsed(study: str) -> str:
    """Return which students, of all that were trained, know no more than the majority class."""
    students = results.load_students(study)
    found = students[students.collapsed.fillna(False).astype(bool)]
    if found.empty:
        return "No student collapsed to the majority class."
    names = []
    for row in found.itertuples():
        where = (("D_T", row.domain), ("D_LM", row.corpus), ("texts", int(row.texts) if row.texts == row.texts else None))
        note = ", ".join(f"{name} {value}" for name, value in where if isinstance(value, (str, int)))
        names.append(f"{row.recipe} {row.size} seed {int(row.seed)}" + (f" ({note})" if note else ""))
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    return f"{len(names)} of {len(students)} students collapsed to the majority class: {shown}."


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


def accuracy_table(metrics, recipe_sizes: dict[str, list[str]] | None = None):
    """Return test accuracy in points by recipe and size: mean (lowest to highest seed).

    A student that is not there is named as missing, never averaged over; "-" stands where none was asked for: `recipe_sizes`
    are the study's.
    """
    test = metrics[(metrics.split == "test") & (metrics.metric == "accuracy") & (metrics.recipe != "majority")]
    sizes = test.sort_values("n_params")["size"].unique()
    students = test[test.recipe != "teacher"]
    asked, seeds = set(students["size"]), students.seed.nunique()
    grouped = (test.assign(value=test.value * 100)).groupby(["recipe", "size"]).value.agg(["mean", "min", "max", "count"])
    text = [f"{r.mean:.1f} ({r.min:.1f} to {r.max:.1f})" if r.count > 1 else f"{r.mean:.1f}" for r in grouped.itertuples()]
    lacking = [0 if r.Index[0] == "teacher" else seeds - r.count for r in grouped.itertuples()]
    text = [f"missing {n} of {seeds} seeds" if n else t for t, n in zip(text, lacking, strict=True)]
    wide = grouped.assign(text=text).text.unstack("size").reindex(columns=sizes)
    order = [r for r in ("teacher", *claims_recipes(metrics)) if r in wide.index]
    majority = metrics[(metrics.recipe == "majority") & (metrics.split == "test")].value
    wide = wide.reindex(order)
    for recipe in wide.index.drop("teacher", errors="ignore"):
        for size in asked & set((recipe_sizes or {}).get(recipe, sizes)):
            if wide.at[recipe, size] != wide.at[recipe, size]:  # not a number: no text
                wide.at[recipe, size] = "missing"
    wide = wide.fillna("-")
    if len(majority):
        wide.loc["majority class"] = [f"{majority.iloc[0] * 100:.1f}"] * len(wide.columns)
    return wide.rename_axis(index=None, columns=None)


def claims_recipes(metrics) -> list[str]:
    """Return the study's recipes in the order of recipes.py, from best expected to worst."""
    from pdstudy.recipes import RECIPES

    return [r for r in reversed(RECIPES) if r in set(metrics.recipe)]


def cost_table(study: str):
    """Return steps, seconds, pieces read and floating-point operations by stage, what a released family gave apart."""
    import pandas as pd

    costs = results.load_costs(study)
    costs["stage"] = costs.stage + costs.family.map({True: " (released family)", False: ""})
    grouped = costs.groupby("stage", sort=False).agg(
        steps=("seconds", "size"), seconds=("seconds", "sum"), tokens=("tokens", "sum"), flops=("flops", "sum")
    )
    shown = {"steps": grouped.steps, "seconds": grouped.seconds.round(0).astype(int)}
    shown |= {"million pieces": (grouped.tokens / 1e6).round(1), "TFLOP": (grouped.flops / 1e12).round(1)}
    return pd.DataFrame(shown).rename_axis(None)


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


def readme_table(study: str) -> str:
    """Return the answers of a study in Markdown, question by question, with their provenance, from its committed results."""
    found = claims.load(study)
    found = found[found.verdict != claims.NOT_MEASURED]
    shown, rows = claims.shown(found), ["| | claim | points | 95 % interval | verdict | paper |", "|---|---|---|---|---|---|"]
    for name, question in claims.QUESTIONS.items():
        mine = shown[(found.question == name).to_numpy()]
        rows += [f"| | **{question}** | | | | |"] if len(mine) else []
        rows += [
            f"| {i} | {r.claim} | {r.points} | {r['95 % interval']} | **{r.verdict}** | {r.paper} |" for i, r in mine.iterrows()
        ]
    n = found[found.n_seeds > 0]
    rows += [
        "",
        f"Every row is over {n.n_seeds.max()} seeds and {n.n_items.max():,} test texts; p after Holm's correction within a question.",
    ]
    accuracy = accuracy_table(results.load_results(study), results.load_settings(study).get("recipe_sizes"))
    rows += ["", "| test accuracy, % | " + " | ".join(accuracy.columns) + " |", "|---" * (len(accuracy.columns) + 1) + "|"]
    rows += [f"| {recipe} | " + " | ".join(values) + " |" for recipe, values in accuracy.iterrows()]
    return "\n".join([*rows, "", f"<sub>{html.escape(results.provenance(study))}</sub>"])


def update_readme(study: str, readme: Path = paths.ROOT / "README.md") -> bool:
    """Write a study's answer table between README's markers; return whether anything changed."""
    before = readme.read_text(encoding="utf-8")
    begin, end = f"<!-- answers of {study}: made by `python -m pdstudy readme`, not typed -->", "<!-- end of answers -->"
    head, _, rest = before.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ReportError(f"{readme.name}: the markers {begin} and {end} are not there")
    after = f"{head}{begin}\n{readme_table(study)}\n{end}{tail}"
    if after != before:
        readme.write_text(after, encoding="utf-8")
    return after != before


def _write(path: Path, text: str) -> Path:
    with disk.whole(path) as new:
        new.write_text(visible(text), encoding="utf-8")
    return path
