"""A notebook as a file: the parameters it declares, run by papermill, cleaned before it is published or committed."""

import ast
from pathlib import Path

import nbformat

from pdstudy.storage import paths
from pdstudy.study.yaml_file import ParamsError

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
