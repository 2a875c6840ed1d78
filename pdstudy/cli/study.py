"""The commands of a study: plan, run, report, serve, zoo, claims."""

import contextlib
import math
import os
import re
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pdstudy.console import (
    FromScratch,
    LogWith,
    Params,
    StudyName,
    Workers,
    app,
    compute_with_progress,
    exit_on,
    fail,
    out,
    print_line,
    print_note,
    store_for,
)
from pdstudy.escape import escape_control
from pdstudy.storage import paths
from pdstudy.study.settings import ParamsError, Study


class Engine(StrEnum):
    """What computes the steps of a run."""

    local = "local"
    ray = "ray"


@app.command(epilog="Example: python -m pdstudy plan params/quick.yaml")
def plan(
    params: Params,
    every: Annotated[bool, typer.Option("--steps", help="List every step, not only the stages.")] = False,
    from_scratch: FromScratch = False,
    speed: Annotated[float | None, typer.Option(min=1, help="Operations a second of another device, such as 2e13.")] = None,
) -> None:
    """Show a study's steps: which are in the store, and about how long the others will take. Computes and fetches nothing."""
    from pdstudy.run.estimate import by_stage, device, needed
    from pdstudy.study import plan as planning
    from pdstudy.study.artifacts import other_versions, unusable_encoders

    study, missing, store, machine = Study.read(params), "", store_for(from_scratch), device(speed)
    try:
        planned = planning.make(study)
    except ParamsError as error:
        missing, planned = str(error), planning.make(study, assumed=True)  # raises if the error has another cause
    rows = by_stage(planned, store, machine, measured=speed is None)
    columns = ("stage", "steps", "cached", "to do", "updates", "pieces", "FLOPs", "about")
    table = Table(*columns, title=f"{study.name}: {len(planned.students)} models on {study.resolved_task().name}")
    for row in rows:
        table.add_row(
            *(str(row[k]) for k in ("stage", "steps", "cached", "to do")),
            *(f"{row[k]:.2g}" if row[k] else "" for k in ("updates", "pieces", "flops")),
            _duration(row["seconds"]) if row["to do"] else "",
        )
    out.print(table)
    total = {key: sum(row[key] for row in rows) for key in ("to do", "updates", "pieces", "flops", "seconds")}
    print_line(
        f"{planned.asked} steps asked for by the recipes, {len(planned.steps)} distinct, {total['to do']} to do: "
        f"{total['updates']:.3g} updates, {total['pieces']:.3g} pieces, {total['flops']:.3g} FLOPs, about {_duration(total['seconds'])} on {machine.name}"
    )
    if missing:
        print_line(f"{missing}; until then nothing counts as cached")
    cached = store.digests()
    todo = needed(planned, {d: s for d, s in planned.steps.items() if d not in cached})
    if every:
        for step in planned.steps.values():
            state = "to do" if step.digest in todo else "cached" if step.digest in cached else "not needed"
            print_line(f"{step.digest}  {state:10}  {step.stage:9}  {step.label}")
    for text in (*other_versions(planned, store), *unusable_encoders(planned, store)):
        print_line(text)


def _duration(seconds: float) -> str:
    """Return seconds as text in seconds, minutes or hours."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


@app.command(epilog="Example: python -m pdstudy run params/quick.yaml --log-with tensorboard")
def run(
    params: Params,
    workers: Workers = None,
    log_with: LogWith = None,
    from_scratch: FromScratch = False,
    engine: Annotated[Engine, typer.Option(help="What computes: processes of this machine, or tasks of Ray.")] = Engine.local,
    address: Annotated[
        str | None, typer.Option(help="The address of a running Ray, host:port or auto. Default: Ray is started on this machine.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="i/N: this is run i of N runs, 0 to N-1, that share one store and divide the steps.")
    ] = None,
) -> None:
    """Compute what the store lacks and write the study's tables. After a stop, the same command continues."""
    if engine is Engine.local and address is not None:
        fail("--address is an option of Ray; add --engine ray", 2)
    if engine is Engine.ray and shard is not None:
        fail("--shard divides the steps among separate runs; with --engine ray one run uses every node", 2)
    study, part = Study.read(params), _shard(shard)
    _run(study, workers, log_with, from_scratch, _engine(engine, address), part)
    if part is None:  # otherwise another run may still have to compute the rest
        _judge(study)


@app.command(epilog="Example: python -m pdstudy report params/quick.yaml")
def report(params: Params, workers: Workers = None, log_with: LogWith = None, from_scratch: FromScratch = False) -> None:
    """Run the study, render its notebooks to HTML, and print the path of index.html."""
    from pdstudy.report.render import ReportError, render
    from pdstudy.run.study_latency import measure_latency

    study = Study.read(params)
    _run(study, workers, log_with, from_scratch)
    measure_latency(study)
    _judge(study)
    try:
        with exit_on(1, ReportError):
            print_line(str(render(study, print_note)))
    except KeyboardInterrupt:
        fail("stopped; the study is computed, and the same command renders its reports", 130)


@app.command(epilog="Example: python -m pdstudy serve outputs/quick")
def serve(
    folder: Annotated[
        str,
        typer.Argument(help="A study's name, its folder in outputs/, or a folder that `export` wrote.", metavar="STUDY_OR_MODEL"),
    ],
    port: Annotated[int | None, typer.Option(help="Default: the first free one from 8000 on.", min=1, max=65535)] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Of a model: use 8-bit weights.")] = False,
) -> None:
    """Serve a study's reports, or the predictions of an exported model, to this machine only, until Ctrl-C."""
    from pdstudy.release import serve as models
    from pdstudy.release.predict import PredictError
    from pdstudy.report.server import ServeError, first_page, make_server

    place = Path(folder) if Path(folder).is_dir() else paths.study_folder(folder)
    with exit_on(2, ServeError, PredictError):
        if models.is_model(place):
            server, page = models.make_server(models.open_model(place, int8), port), "/"
        else:
            server, page = make_server(place, port), first_page(place)
    with server, contextlib.suppress(KeyboardInterrupt):
        print_line(f"http://{server.server_address[0]}:{server.server_port}{page}  (Ctrl-C ends it)")
        server.serve_forever()


@app.command(epilog="Example: python -m pdstudy zoo params/zoo.yaml --to zoo")
def zoo(
    params: Params,
    workers: Workers = None,
    to: Annotated[Path, typer.Option(help="The folder in which the family's folders are written.")] = paths.ROOT / "zoo",
    allow_plateau: Annotated[
        bool, typer.Option("--allow-plateau", help="Exit 0 even if a model is still near the unigram loss.")
    ] = False,
    worth: Annotated[
        list[str] | None, typer.Option(help="A finished study whose gains by size are shown in the family's table.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Write the soft labels of the study's teacher instead, to zoo/teachers/NAME.", metavar="NAME")
    ] = None,
    from_scratch: FromScratch = False,
) -> None:
    """Pre-train a family of encoders and write each as a folder that opens without this package; or write a teacher's soft labels."""
    from pdstudy.release import teacher_labels
    from pdstudy.release.zoo import release
    from pdstudy.run.run_study import pretrain_family
    from pdstudy.storage.store import StoreError

    study, store = Study.read(params), store_for(from_scratch)
    if teacher is not None:
        with exit_on(2, teacher_labels.ReleaseError, StoreError):
            print_line(str(teacher_labels.release(study, store, teacher, to)))
        return
    with _ranks(store) as engine:
        compute_with_progress(study, lambda listen: pretrain_family(study, workers, listen, engine, store))
    stuck = release(study, store, to, print_line, worth or ())
    if stuck and not allow_plateau:
        fail(f"{', '.join(stuck)}: still near the unigram loss; pre-train on more tokens, or give --allow-plateau", 1)


@app.command(epilog="Example: python -m pdstudy claims quick --long")
def claims(
    study: StudyName,
    long: Annotated[bool, typer.Option("--long", help="Print a sentence for each claim below the lines.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Print each claim in one line: points, interval, verdict, what was compared. Exits 1 if a required claim is refuted."""
    from pdstudy.analysis import verdicts
    from pdstudy.analysis.claims import QUESTIONS

    with exit_on(2, FileNotFoundError):
        table = verdicts.of_study(study)
    if as_json:
        print_line(table.to_json(orient="records", indent=1))
    else:
        for name, question in QUESTIONS.items():
            rows = table[table.question == name]
            out.print(_claims_table(rows, question))
            for row in rows.itertuples() if long else ():
                out.print(escape_control(f"{row.id}  {row.sentence}."), markup=False)
            out.print()
    if refuted := verdicts.refuted_required(table):
        fail(f"required, and refuted: {', '.join(refuted)}", 1)


def _claims_table(rows, question: str) -> Table:
    """Return the claims of one question, one line each, as wide as the terminal; only the last column may be cut."""
    table = Table(title=question, title_justify="left", box=None, expand=True, padding=(0, 2, 0, 0), pad_edge=False)
    for name, width in (("", 4), ("points", 6), ("95 % interval", 14), ("verdict", 12)):
        table.add_column(name, no_wrap=True, width=width)
    table.add_column("compared", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows.itertuples():
        points = f"{row.estimate:+.1f}" if math.isfinite(row.estimate) else ""
        interval = f"{row.low:+.1f} to {row.high:+.1f}" if math.isfinite(row.low) else ""
        compared = row.compared or row.measured or f"missing: {row.missing}"
        table.add_row(*map(Text, (row.id, points, interval, row.verdict, escape_control(compared))))
    return table


def _run(study: Study, workers: int | None, tracker: str | None, from_scratch: bool, engine=None, shard=None) -> None:
    """Compute what a study lacks, and write its tables."""
    from pdstudy.run.run_study import run_study

    store = store_for(from_scratch)
    with _ranks(store, engine, shard) as engine:
        compute_with_progress(study, lambda listen: run_study(study, workers, listen, store, tracker, engine, shard, supplied=True))


def _judge(study: Study) -> None:
    """Write the verdicts on a study's results to its claims.json, and print its first answer."""
    from pdstudy.analysis import answers, verdicts

    table = verdicts.judge(study.name)
    verdicts.save(table, study.name)
    print_note(answers.answer(study.name, table))


def _engine(engine: Engine, address: str | None):
    """Return the class of a run's engine with its arguments, None for the local pool."""
    if engine is Engine.local:
        return None
    from pdstudy.run.engine_ray import RayEngine

    return partial(RayEngine, address=address)


def _shard(text: str | None) -> tuple[int, int] | None:
    """Return (i, N) from the text of --shard, None without one."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or int(match[1]) >= int(match[2]):
        fail(f"--shard {text}: expected i/N with i from 0 to N-1, such as 0/4", 2)
    return int(match[1]), int(match[2])


@contextlib.contextmanager
def _ranks(store, engine=None, shard=None):
    """Yield the engine. Under torchrun rank 0 gets one that shares pre-training; the other ranks follow it and exit here."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield engine
        return
    if engine is not None or shard is not None:
        fail("torchrun shares one model among devices; --engine ray and --shard share steps: use one of them", 2)
    from pdstudy.run.engine_torchrun import follow, lead
    from pdstudy.run.scheduler import RunError

    with exit_on(1, RunError):
        if int(os.environ["RANK"]) > 0:
            follow(store)
            raise typer.Exit(0)
        with lead() as engine:
            yield engine
