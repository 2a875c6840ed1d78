"""The commands of a study: plan, run, report, serve, zoo, claims."""

import contextlib
import os
import re
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pdstudy.console import FromScratch, LogWith, Params, Workers, app, compute_with_progress, duration, err, fail, out, store_for
from pdstudy.storage import paths
from pdstudy.study.settings import ParamsError, Study


class Engine(StrEnum):
    """Who computes the steps of a run."""

    local = "local"
    ray = "ray"


@app.command(epilog="Example: python -m pdstudy plan params/quick.yaml")
def plan(
    params: Params,
    every: Annotated[bool, typer.Option("--steps", help="List every step, not only the stages.")] = False,
    from_scratch: FromScratch = False,
    speed: Annotated[
        float | None, typer.Option(min=1, help="Operations a second of a device that is not at hand, such as 2e13.")
    ] = None,
) -> None:
    """Show a study's steps: which are in the store, and about how long the others will take. Computes and fetches nothing."""
    from pdstudy.run.estimate import by_stage, device, needed
    from pdstudy.study import plan as planning
    from pdstudy.study.artifacts import unusable_encoders

    study, absent, store, on = Study.read(params), "", store_for(from_scratch), device(speed)
    try:
        made = planning.make(study)
    except ParamsError as error:
        absent, made = str(error), planning.make(study, assumed=True)  # raises where a guess would not help
    rows = by_stage(made, store, on, measured=speed is None)
    table = Table(
        "stage",
        "steps",
        "cached",
        "to do",
        "updates",
        "pieces",
        "FLOPs",
        "about",
        title=f"{study.name}: {len(made.students)} models on {study.resolved_task().name}",
    )
    for row in rows:
        table.add_row(
            *(str(row[k]) for k in ("stage", "steps", "cached", "to do")),
            *(f"{row[k]:.2g}" if row[k] else "" for k in ("updates", "pieces", "flops")),
            duration(row["seconds"]) if row["to do"] else "",
        )
    out.print(table)
    out.print(
        f"{made.asked} steps asked for by the recipes, {len(made.steps)} distinct, {sum(r['to do'] for r in rows)} to do: "
        f"{sum(r['updates'] for r in rows):.3g} updates, {sum(r['pieces'] for r in rows):.3g} pieces, "
        f"{sum(r['flops'] for r in rows):.3g} FLOPs, about {duration(sum(r['seconds'] for r in rows))} on {on.name}",
        markup=False,
        soft_wrap=True,
    )
    if absent:
        out.print(f"{absent}; until then nothing counts as cached", markup=False, soft_wrap=True)
    here = store.digests()
    todo = needed(made, {d: s for d, s in made.steps.items() if d not in here})
    if every:
        for step in made.steps.values():
            state = "to do" if step.digest in todo else "cached" if step.digest in here else "not needed"
            out.print(f"{step.digest}  {state:10}  {step.stage:9}  {step.label}", markup=False)
    for text in (*_other_versions(made, store, here), *unusable_encoders(made, store)):
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
        fail("--address is Ray's; add --engine ray", 2)
    if engine is Engine.ray and shard is not None:
        fail("--shard is for runs that know nothing of each other; with --engine ray one run feeds every node", 2)
    study, shard_of = Study.read(params), _shard(shard)
    _run(study, workers, log_with, from_scratch, _engine(engine, address), shard_of)
    if shard_of is None:  # else another run may still have to compute the rest
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
        page = render(study, lambda text: err.print(text, markup=False))
    except ReportError as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        fail("stopped; the study is computed, and the same command renders its reports", 130)
    out.print(str(page), markup=False, soft_wrap=True)


@app.command(epilog="Example: python -m pdstudy serve outputs/quick")
def serve(
    study: Annotated[str, typer.Argument(help="A study's name, or its folder in outputs/.")],
    port: Annotated[int | None, typer.Option(help="Default: the first free one from 8000 on.", min=1, max=65535)] = None,
) -> None:
    """Show a study's reports to the browsers of this machine, and to no other, until Ctrl-C."""
    from pdstudy.report.server import ServeError, first_page, make_server

    folder = Path(study) if Path(study).is_dir() else paths.study_folder(study)
    try:
        serving = make_server(folder, port)
    except ServeError as error:
        fail(str(error), 2)
    with serving, contextlib.suppress(KeyboardInterrupt):
        address = f"http://{serving.server_address[0]}:{serving.server_port}{first_page(folder)}"
        out.print(f"{address}  (Ctrl-C ends it)", markup=False, soft_wrap=True)
        serving.serve_forever()


@app.command(epilog="Example: python -m pdstudy zoo params/zoo.yaml --to zoo")
def zoo(
    params: Params,
    workers: Workers = None,
    to: Annotated[Path, typer.Option(help="Where the family's folders are written.")] = paths.ROOT / "zoo",
    allow_plateau: Annotated[bool, typer.Option("--allow-plateau", help="Exit 0 though a model has hardly read.")] = False,
    worth: Annotated[
        list[str] | None, typer.Option(help="A finished study whose gains by size stand in the family's table.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Write the soft labels of the study's teacher instead, to zoo/teachers/NAME.", metavar="NAME")
    ] = None,
    from_scratch: FromScratch = False,
) -> None:
    """Pre-train a family of miniatures and write each as a folder that opens without this package; or release a teacher's labels."""
    from pdstudy.release.zoo import release
    from pdstudy.run.run_study import pretrain_family

    study = Study.read(params)
    store = store_for(from_scratch)
    if teacher is not None:
        _release_labels(study, store, teacher, to)
        return
    with _ranks(store) as engine:
        compute_with_progress(study, lambda listen: pretrain_family(study, workers, listen, engine, store))
    stuck = release(study, store, to, lambda text: out.print(text, markup=False), worth or ())
    if stuck and not allow_plateau:
        fail(f"{', '.join(stuck)}: still on the plateau near the unigram loss; read more tokens, or --allow-plateau", 1)


def _release_labels(study: Study, store, name: str, to: Path) -> None:
    """Write the soft labels of a study that was run."""
    from pdstudy.release.teacher_labels import ReleaseError, release
    from pdstudy.storage.store import StoreError

    try:
        out.print(str(release(study, store, name, to)), markup=False, soft_wrap=True)
    except (ReleaseError, StoreError) as error:
        fail(str(error), 2)


@app.command(epilog="Example: python -m pdstudy claims quick --json")
def claims(
    study: Annotated[str, typer.Argument(help="A study's name, or its folder in outputs/.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Print the verdict on each claim: effect, interval, n, and the paper's number. Exits 1 where a required claim is refuted."""
    from pdstudy.analysis import verdicts
    from pdstudy.analysis.claims import QUESTIONS

    try:
        table = verdicts.of_study(study)
    except FileNotFoundError as error:
        fail(str(error), 2)
    if as_json:
        out.print(table.to_json(orient="records", indent=1), markup=False, soft_wrap=True)
    else:
        shown = verdicts.display_table(table)
        for name, question in QUESTIONS.items():
            columns = ("claim", "points", "95 % interval", "p (Holm)", "verdict", "paper")
            printed = Table("", *columns, title=question, title_justify="left")
            for id, row in shown[(table.question == name).to_numpy()].iterrows():
                printed.add_row(id, *(row[k] for k in columns))
            out.print(printed)
    if refuted := verdicts.refuted_required(table):
        fail(f"required, and refuted: {', '.join(refuted)}", 1)


def _run(study: Study, workers: int | None, tracker: str | None, from_scratch: bool, engine=None, shard=None) -> None:
    from pdstudy.run.run_study import run_study

    store = store_for(from_scratch)
    with _ranks(store, engine, shard) as engine:
        compute_with_progress(study, lambda listen: run_study(study, workers, listen, store, tracker, engine, shard, supplied=True))


def _judge(study: Study) -> None:
    """Write the verdicts on a study's results to its claims.json."""
    from pdstudy.analysis import verdicts

    verdicts.save(verdicts.judge(study.name), study.name)


def _engine(engine: Engine, address: str | None):
    """Return what makes a run's workers, None for the local pool."""
    if engine is Engine.local:
        return None
    from pdstudy.run.engine_ray import RayEngine

    return partial(RayEngine, address=address)


def _shard(text: str | None) -> tuple[int, int] | None:
    """Return (i, N) of a shard's name."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text or "0/1")
    if found is None or not int(found[1]) < int(found[2]):
        fail(f"--shard {text}: expected i/N with i from 0 to N-1, such as 0/4", 2)
    return None if text is None else (int(found[1]), int(found[2]))


@contextlib.contextmanager
def _ranks(store, engine=None, shard=None):
    """Yield the engine; under torchrun one that shares pre-training with the other ranks, which follow and leave here."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield engine
        return
    if engine is not None or shard is not None:
        fail("torchrun shares one model among devices; --engine ray and --shard share steps: use one of them", 2)
    from pdstudy.run.engine_torchrun import follow, lead
    from pdstudy.run.scheduler import RunError

    try:
        if int(os.environ["RANK"]) > 0:
            follow(store)
            raise typer.Exit(0)
        with lead() as engine:
            yield engine
    except RunError as error:
        fail(str(error), 1)


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
