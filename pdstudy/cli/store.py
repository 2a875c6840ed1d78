"""The commands of what is on disk: fetch, clean, doctor."""

import os
import shutil
import sys
from typing import Annotated

import typer
from rich.table import Table

from pdstudy.console import Params, app, exit_on, fail, out, print_error, print_line
from pdstudy.storage import paths
from pdstudy.study.settings import Study


@app.command(epilog="Example: PDSTUDY_DATA=mirror/data PDSTUDY_MODELS=mirror/models python -m pdstudy fetch params/paper.yaml")
def fetch(
    params: Params,
    revision: Annotated[
        list[str] | None, typer.Option(help="OWNER/NAME=COMMIT: take this commit of a repository; may be given several times.")
    ] = None,
) -> None:
    """Download the data sets and models that a study names into the mirror, for machines without a network. Resumes after a stop."""
    from pdstudy.data import hub
    from pdstudy.data.mirror import MirrorError

    commits = {}
    for text in revision or ():
        name, _, commit = text.partition("=")
        if not (name and commit):
            fail(f"--revision {text}: expected OWNER/NAME=COMMIT", 2)
        commits[name] = commit
    with exit_on(1, hub.HubError), exit_on(2, MirrorError):
        hub.fetch(*Study.read(params).named_on_hub(), print_line, commits)
    print_line(f"data sets in {paths.scrub(str(paths.DATA))}, models in {paths.scrub(str(paths.MODELS))}")


@app.command(epilog="Example: python -m pdstudy clean --keep params/quick.yaml --dry-run")
def clean(
    keep: Annotated[list[str] | None, typer.Option(help="A study whose artifacts stay; may be given several times.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Keep nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    notebooks: Annotated[bool, typer.Option("--notebooks", help="Strip outputs from the notebooks instead.")] = False,
) -> None:
    """Remove from the store what no kept study needs, or strip the source notebooks."""
    if notebooks:
        from pdstudy.report.render import clean_source

        for path in sorted(paths.NOTEBOOKS.glob("*.ipynb")):
            print_line(f"{'cleaned' if clean_source(path) else 'clean'}  {path.name}")
        return
    from pdstudy.storage import store_care
    from pdstudy.storage.store import Store
    from pdstudy.study import artifacts

    if bool(keep) == everything:
        fail("name the studies to keep with --keep, or give --all to keep none; --dry-run lists what would be removed", 2)
    _remove(store_care.find_unused(Store(), artifacts.needed(Study.read(name) for name in keep or ())), dry_run)


@app.command(epilog="Example: python -m pdstudy doctor --repair")
def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove damaged artifacts from the store; a run makes them again.")
    ] = False,
) -> None:
    """Check this machine: versions, processor, threads, disk, the default task's text, and every file of the store."""
    import importlib.metadata

    from pdstudy.data import formats, sources
    from pdstudy.data.tasks import DATA, TASKS, Wheel
    from pdstudy.machine import best_precision
    from pdstudy.storage import store_care
    from pdstudy.storage.store import Store

    problem, store = False, Store()
    table = Table("what", "value", show_header=False)
    table.add_row("python", sys.version.split()[0])
    for name in ("torch", "transformers", "tokenizers", "accelerate", "datasets", "papermill", "pandas"):
        table.add_row(name, importlib.metadata.version(name))
    table.add_row("processor", f"{os.cpu_count()} cores, fastest precision {best_precision()}")
    paths.OUTPUTS.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(paths.OUTPUTS).free
    table.add_row("disk", f"{free / 1e9:,.1f} GB free for {paths.scrub(str(paths.OUTPUTS))}")
    for task in (task for task in TASKS.values() if isinstance(task.source, Wheel)):
        try:
            table.add_row(f"text of {task.name}", f"{sources.locate(task.source).name}, sha256 as pinned")
        except formats.TextError as error:
            problem = True
            table.add_row(f"text of {task.name}", str(error))
    data_sets = [
        f"{name} ({', '.join(splits)})" for name in DATA if (splits := sorted(p.stem for p in paths.DATA.glob(f"{name}/*.parquet")))
    ]
    table.add_row("data sets of the hub", "; ".join(data_sets) or "none; `python -m pdstudy fetch PARAMS` downloads a study's")
    for stage, count, n_bytes in store_care.count_by_stage(store):
        table.add_row(f"store: {stage}", f"{count} artifacts, {n_bytes / 1e6:,.1f} MB")
    out.print(table)
    for sentence in store_care.damaged_released(store):
        problem = True
        print_error(f"{sentence}; {paths.RESTORE}")
    damaged = store_care.find_damaged(store)
    for artifact in damaged:
        print_error(f"{artifact.name}: {artifact.reason}")
    if damaged and repair:
        _remove(damaged, dry_run=False)
    elif damaged:
        print_error("run again with --repair to remove these; a run makes again what it needs")
    raise typer.Exit(1 if problem or (damaged and not repair) else 0)


def _remove(artifacts: list, dry_run: bool) -> None:
    """Remove artifacts from the store, or only list them, and print how much space that frees."""
    from pdstudy.storage import store_care
    from pdstudy.storage.store import Store

    freed = 0
    for artifact in artifacts:
        if dry_run or store_care.remove(artifact, Store()):
            freed += artifact.n_bytes
            print_line(f"{'would remove' if dry_run else 'removed'} {artifact.name}")
    print_line(f"{freed / 1e6:,.1f} MB {'would be freed' if dry_run else 'freed'}")
