"""The commands of the store: clean, doctor."""

import os
import shutil
import sys
from typing import Annotated

import typer
from rich.table import Table

from pdstudy.console import app, fail, out, say
from pdstudy.storage import paths
from pdstudy.study.settings import Study


@app.command(epilog="Example: python -m pdstudy clean --keep params/quick.yaml --dry-run")
def clean(
    keep: Annotated[list[str] | None, typer.Option(help="A study whose artifacts stay; may be given several times.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Keep nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    notebooks: Annotated[bool, typer.Option("--notebooks", help="Strip outputs from the notebooks instead.")] = False,
) -> None:
    """Remove from the store what no kept study needs, or strip the source notebooks."""
    if notebooks:
        from pdstudy.report.render import clean_source

        for path in sorted(paths.NOTEBOOKS.glob("*.ipynb")):
            out.print(f"{'cleaned' if clean_source(path) else 'clean'}  {path.name}", markup=False)
        return
    from pdstudy.storage import store_care
    from pdstudy.storage.store import Store
    from pdstudy.study import artifacts

    if bool(keep) == everything:
        fail("name the studies to keep with --keep, or give --all to keep none; --dry-run says what would go", 2)
    _drop(store_care.surplus(Store(), artifacts.needed(Study.read(name) for name in keep or ())), dry_run)


@app.command(epilog="Example: python -m pdstudy doctor --repair")
def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Drop from the store what does not verify; it is made again.")] = False,
) -> None:
    """Check this machine: versions, processor, threads, disk, the default task's text, and every file of the store."""
    import importlib.metadata

    from pdstudy.data import formats, sources
    from pdstudy.data.tasks import DATA, TASKS, Wheel
    from pdstudy.machine import best_precision
    from pdstudy.storage import store_care
    from pdstudy.storage.store import Store

    well = True
    table = Table("what", "found", show_header=False)
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
            well = False
            table.add_row(f"text of {task.name}", str(error))
    at_hand = [
        f"{name} ({', '.join(splits)})" for name in DATA if (splits := sorted(p.stem for p in paths.DATA.glob(f"{name}/*.parquet")))
    ]
    table.add_row("data sets of the hub", "; ".join(at_hand) or "none at hand; `python -m pdstudy fetch PARAMS` brings a study's")
    store = Store()
    for stage, count, n_bytes in store_care.census(store):
        table.add_row(f"store: {stage}", f"{count} artifacts, {n_bytes / 1e6:,.1f} MB")
    out.print(table)
    for sentence in store_care.ill_released(store):
        well = False
        say(f"{paths.scrub(sentence)}; restore it with git")
    ill = store_care.examine(store)
    for finding in ill:
        say(f"{finding.name}: {finding.reason}")
    if ill and repair:
        _drop(ill, dry_run=False)
    elif ill:
        say("run again with --repair to drop these; a run makes anew what it needs")
    raise typer.Exit(0 if well and (repair or not ill) else 1)


def _drop(findings: list, dry_run: bool) -> None:
    """Remove folders from the store, or only say so, and tell how much room that makes."""
    from pdstudy.storage import store_care
    from pdstudy.storage.store import Store

    freed = 0
    for finding in findings:
        if dry_run or store_care.drop(finding, Store()):
            freed += finding.n_bytes
            out.print(f"{'would remove' if dry_run else 'removed'} {finding.name}", markup=False)
    out.print(f"{freed / 1e6:,.1f} MB {'would be freed' if dry_run else 'freed'}")
