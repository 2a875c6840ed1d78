"""The command line: plan, run, report, zoo, claims, clean, doctor."""

import contextlib
import os
import re
import shutil
import signal
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pdstudy import paths
from pdstudy.params import ParamsError, Study
from pdstudy.visible import visible

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Should you pre-train your compact model, distil it, or both? One params file is one study.",
)
out, err = Console(highlight=False), Console(stderr=True, highlight=False)


class Engine(StrEnum):
    """Who computes the steps of a run."""

    local = "local"
    ray = "ray"


Params = Annotated[str, typer.Argument(help="A params file, or the name of one in params/ such as quick.", metavar="PARAMS")]
Workers = Annotated[int | None, typer.Option(help="Processes, one thread each. Default: one a core; 0: none but this one.", min=0)]
FromScratch = Annotated[bool, typer.Option("--from-scratch", help="Do not take encoders from the released family in zoo/.")]
LogWith = Annotated[
    str | None, typer.Option(help="Mirror the training logs to a tracker that accelerate knows, such as tensorboard.")
]


@app.command(epilog="Example: python -m pdstudy plan params/quick.yaml")
def plan(
    params: Params,
    every: Annotated[bool, typer.Option("--steps", help="List every step, not only the stages.")] = False,
    from_scratch: FromScratch = False,
) -> None:
    """Show a study's steps: which are in the store, and about how long the others will take. Computes nothing."""
    from pdstudy import plan as planning
    from pdstudy.estimate import by_stage, needed
    from pdstudy.store import Store

    study = Study.read(params)
    made, store, cores = planning.make(study), Store(families=()) if from_scratch else Store(), os.cpu_count() or 1
    rows = by_stage(made, store, cores)
    table = Table(
        "stage",
        "steps",
        "cached",
        "to do",
        "about",
        title=f"{study.name}: {len(made.students)} models on {study.resolved_task().name}",
    )
    for row in rows:
        table.add_row(
            *(str(row[k]) for k in ("stage", "steps", "cached", "to do")), _duration(row["seconds"]) if row["to do"] else ""
        )
    out.print(table)
    out.print(
        f"{made.asked} steps asked for by the recipes, {len(made.steps)} distinct, {sum(r['to do'] for r in rows)} to do: "
        f"about {_duration(sum(r['seconds'] for r in rows))} on {cores} cores"
    )
    here = store.here()
    todo = needed(made, {d: s for d, s in made.steps.items() if d not in here})
    if every:
        for step in made.steps.values():
            state = "to do" if step.digest in todo else "cached" if step.digest in here else "not needed"
            out.print(f"{step.digest}  {state:10}  {step.stage:9}  {step.label}", markup=False)
    for text in _other_versions(made, store, here):
        out.print(text, markup=False)


@app.command(epilog="Example: python -m pdstudy run params/quick.yaml --log-with tensorboard")
def run(
    params: Params,
    workers: Workers = None,
    log_with: LogWith = None,
    from_scratch: FromScratch = False,
    engine: Annotated[Engine, typer.Option(help="Who computes: processes of this machine, or tasks of Ray.")] = Engine.local,
    address: Annotated[str | None, typer.Option(help="Of a running Ray, host:port or auto. Default: one is started here.")] = None,
    shard: Annotated[str | None, typer.Option(help="i/N: be one of N runs, 0 to N-1, that share the work over one store.")] = None,
) -> None:
    """Compute what the store lacks and write the study's tables. A killed run goes on where it was."""
    if engine is Engine.local and address is not None:
        _fail("--address is Ray's; add --engine ray", 2)
    if engine is Engine.ray and shard is not None:
        _fail("--shard is for runs that know nothing of each other; with --engine ray one run feeds every node", 2)
    _run(Study.read(params), workers, log_with, from_scratch, _engine(engine, address), _shard(shard))


@app.command(epilog="Example: python -m pdstudy report params/quick.yaml")
def report(params: Params, workers: Workers = None, log_with: LogWith = None, from_scratch: FromScratch = False) -> None:
    """Run the study, render its notebooks to HTML, and print the path of index.html."""
    from pdstudy.report import ReportError, render

    study = Study.read(params)
    _run(study, workers, log_with, from_scratch)
    try:
        page = render(study, lambda text: err.print(text, markup=False))
    except ReportError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("stopped; the study is computed, and the same command renders its reports", 130)
    out.print(str(page), markup=False, soft_wrap=True)


@app.command(epilog="Example: python -m pdstudy zoo params/zoo.yaml --to zoo")
def zoo(
    params: Params,
    workers: Workers = None,
    to: Annotated[Path, typer.Option(help="Where the family's folders are written.")] = paths.ZOO,
    allow_plateau: Annotated[bool, typer.Option("--allow-plateau", help="Exit 0 though a model has hardly read.")] = False,
    worth: Annotated[
        list[str] | None, typer.Option(help="A finished study whose gains by size stand in the family's table.")
    ] = None,
) -> None:
    """Pre-train a family of miniatures and write each as a folder that opens without this package."""
    from pdstudy.run import pretrain_family
    from pdstudy.zoo import release

    study = Study.read(params)
    with _ranks(_store(from_scratch=True)) as engine:
        _computed(study, lambda listen: pretrain_family(study, workers, listen, engine))
    stuck = release(study, _store(from_scratch=True), to, lambda text: out.print(text, markup=False), worth or ())
    if stuck and not allow_plateau:
        _fail(f"{', '.join(stuck)}: still on the plateau near the unigram loss; read more tokens, or --allow-plateau", 1)


@app.command(epilog="Example: python -m pdstudy claims quick --json")
def claims(
    study: Annotated[str, typer.Argument(help="A study's name, or its folder in outputs/.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Print the verdict on each claim: effect, interval, n, and the paper's number."""
    from pdstudy import claims as judging

    try:
        table = judging.judge(study)
    except FileNotFoundError as error:
        _fail(str(error), 2)
    if as_json:
        out.print(table.to_json(orient="records", indent=1), markup=False, soft_wrap=True)
        return
    shown = judging.shown(table)
    printed = Table(
        "", "comparison", "points", "95 % interval", "p (Holm)", "verdict", "paper", title=f"claims on {Path(study).name}"
    )
    for (name, row), compared in zip(shown.iterrows(), table.compared, strict=True):
        printed.add_row(name, compared, *(row[k] for k in ("points", "95 % interval", "p (Holm)", "verdict", "paper")))
    out.print(printed)


@app.command(epilog="Example: python -m pdstudy readme")
def readme(study: Annotated[str, typer.Argument(help="The study whose answers README shows.")] = "quick") -> None:
    """Write the answer table of README.md from a study's committed results."""
    from pdstudy.report import update_readme

    out.print("README.md changed" if update_readme(study) else "README.md is up to date")


@app.command(epilog="Example: python -m pdstudy clean --keep params/quick.yaml --dry-run")
def clean(
    keep: Annotated[list[str] | None, typer.Option(help="A study whose artifacts stay; may be given several times.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Keep nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    notebooks: Annotated[bool, typer.Option("--notebooks", help="Strip outputs from the notebooks instead.")] = False,
) -> None:
    """Remove from the store what no kept study needs, or strip the source notebooks."""
    if notebooks:
        from pdstudy.report import clean_source

        for path in sorted(paths.NOTEBOOKS.glob("*.ipynb")):
            out.print(f"{'cleaned' if clean_source(path) else 'clean'}  {path.name}", markup=False)
        return
    from pdstudy import upkeep
    from pdstudy.store import Store

    if bool(keep) == everything:
        _fail("name the studies to keep with --keep, or give --all to keep none; --dry-run says what would go", 2)
    _drop(upkeep.surplus(Store(), upkeep.needed(Study.read(name) for name in keep or ())), dry_run)


@app.command(epilog="Example: python -m pdstudy doctor --repair")
def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Drop from the store what does not verify; it is made again.")] = False,
) -> None:
    """Check this machine: versions, processor, threads, disk, the default task's text, and every file of the store."""
    import importlib.metadata

    from pdstudy import sources, upkeep
    from pdstudy.params import best_precision
    from pdstudy.store import Store
    from pdstudy.tasks import TASKS

    well = True
    table = Table("what", "found", show_header=False)
    table.add_row("python", sys.version.split()[0])
    for name in ("torch", "transformers", "tokenizers", "accelerate", "datasets", "papermill", "pandas"):
        table.add_row(name, importlib.metadata.version(name))
    table.add_row("processor", f"{os.cpu_count()} cores, fastest precision {best_precision()}")
    paths.OUTPUTS.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(paths.OUTPUTS).free
    table.add_row("disk", f"{free / 1e9:,.1f} GB free for {paths.scrub(str(paths.OUTPUTS))}")
    for task in TASKS.values():
        try:
            table.add_row(f"text of {task.name}", f"{sources.locate(task.source).name}, sha256 as pinned")
        except sources.TextError as error:
            well = False
            table.add_row(f"text of {task.name}", str(error))
    store = Store()
    for stage, count, n_bytes in upkeep.census(store):
        table.add_row(f"store: {stage}", f"{count} artifacts, {n_bytes / 1e6:,.1f} MB")
    out.print(table)
    for sentence in upkeep.ill_released(store):
        well = False
        _say(f"{paths.scrub(sentence)}; restore it with git")
    ill = upkeep.examine(store)
    for finding in ill:
        _say(f"{finding.name}: {finding.reason}")
    if ill and repair:
        _drop(ill, dry_run=False)
    elif ill:
        _say("run again with --repair to drop these; a run makes anew what it needs")
    raise typer.Exit(0 if well and (repair or not ill) else 1)


def main() -> None:
    """Run the command line; bad input ends with one sentence and exit 2, a failed step with exit 1."""
    from pdstudy import disk
    from pdstudy.store import StoreError

    try:
        app()
    except ParamsError as error:
        _say(str(error))
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
    except StoreError as error:
        _say(paths.scrub(str(error)))
        sys.exit(1)
    except OSError as error:
        if not disk.is_full(error):
            raise
        _say(paths.scrub(disk.full(paths.OUTPUTS)))
        sys.exit(1)


def _drop(findings: list, dry_run: bool) -> None:
    """Remove folders from the store, or only say so, and tell how much room that makes."""
    from pdstudy import upkeep
    from pdstudy.store import Store

    freed = 0
    for finding in findings:
        if dry_run or upkeep.drop(finding, Store()):
            freed += finding.n_bytes
            out.print(f"{'would remove' if dry_run else 'removed'} {finding.name}", markup=False)
    out.print(f"{freed / 1e6:,.1f} MB {'would be freed' if dry_run else 'freed'}")


def _run(study: Study, workers: int | None, tracker: str | None, from_scratch: bool, engine=None, shard=None) -> None:
    from pdstudy.run import run_study

    store = _store(from_scratch)
    with _ranks(store, engine, shard) as engine:
        _computed(study, lambda listen: run_study(study, workers, listen, store, tracker, engine, shard))


def _engine(engine: Engine, address: str | None):
    """Return what makes a run's workers, None for the local pool."""
    if engine is Engine.local:
        return None
    from pdstudy.cluster import RayCrew

    return partial(RayCrew, address=address)


def _shard(text: str | None) -> tuple[int, int] | None:
    """Return (i, N) of a shard's name."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text or "0/1")
    if found is None or not int(found[1]) < int(found[2]):
        _fail(f"--shard {text}: expected i/N with i from 0 to N-1, such as 0/4", 2)
    return None if text is None else (int(found[1]), int(found[2]))


@contextlib.contextmanager
def _ranks(store, engine=None, shard=None):
    """Yield the engine; under torchrun one that shares pre-training with the other ranks, which follow and leave here."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield engine
        return
    if engine is not None or shard is not None:
        _fail("torchrun shares one model among devices; --engine ray and --shard share steps: use one of them", 2)
    from pdstudy.ranks import follow, lead
    from pdstudy.run import RunError

    try:
        if int(os.environ["RANK"]) > 0:
            follow(store)
            raise typer.Exit(0)
        with lead() as engine:
            yield engine
    except RunError as error:
        _fail(str(error), 1)


def _computed(study: Study, compute) -> None:
    """Compute something of a study under a progress bar; bad input and failures end with a sentence and their exit."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from pdstudy import sources
    from pdstudy.crew import Interrupted
    from pdstudy.run import RunError, line

    try:
        sources.check(study.resolved_task())
    except sources.TextError as error:
        _fail(str(error), 2)
    columns = (BarColumn(24), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=False, disable=not err.is_terminal) as bar:
        job = bar.add_task("planning", total=1.0)
        last = [""]

        def listen(progress) -> None:
            text = line(progress)
            bar.update(job, completed=progress.share, description=text)
            done = text.split(",")[0]
            if not err.is_terminal and done != last[0]:  # a log: one line a finished step
                last[0] = done
                err.print(text, markup=False, soft_wrap=True)

        try:
            compute(listen)
        except RunError as error:
            bar.stop()
            _fail(str(error), 2 if error.bad_input else 1)
        except Interrupted as error:
            bar.stop()
            _fail(str(error), 130 if getattr(error, "signal", None) == signal.SIGINT else 143)


def _store(from_scratch: bool):
    from pdstudy.store import Store

    return Store(families=()) if from_scratch else Store()


def _other_versions(made, store, here) -> list[str]:
    """Return a line for each library whose installed version differs from the one that made cached artifacts."""
    import importlib.metadata
    from collections import Counter

    installed, other = {}, Counter()
    for digest in made.steps:
        if digest in here:
            for name, version in store.manifest(digest).get("versions", {}).items():
                installed.setdefault(name, importlib.metadata.version(name))
                if version != installed[name]:
                    other[name, version] += 1
    return [
        f"{n} cached steps were made with {name} {version}; {installed[name]} is installed. They are kept; `clean` lets them be made anew."
        for (name, version), n in sorted(other.items())
    ]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _fail(message: str, code: int) -> None:
    _say(message)
    raise typer.Exit(code)


def _say(message: str) -> None:
    err.print(visible(message), style="red", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
