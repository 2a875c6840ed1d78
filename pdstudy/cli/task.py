"""The commands of a task of one's own: start, init, advise, domain."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

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
    err,
    fail,
    out,
)
from pdstudy.escape import escape_control
from pdstudy.storage import files, paths
from pdstudy.study.sections import NAME
from pdstudy.study.settings import ParamsError, Study

Texts = Annotated[list[str] | None, typer.Option("--text", help="The text column; twice for pairs. Default: guessed.")]
Label = Annotated[str | None, typer.Option(help="The label column. Default: guessed.")]


@app.command(epilog="Example: pdstudy start my-study")
def start(folder: Annotated[Path, typer.Argument(help="A folder to work in; made if need be.")]) -> None:
    """Make a workspace: notebooks for JupyterLab, the params files, and a README that says how to go on."""
    from pdstudy.storage import workspace

    try:
        made = workspace.start(folder)
    except FileExistsError as error:
        fail(str(error), 2)
    except OSError as error:
        fail(f"{folder} cannot be written ({error.strerror})", 2)
    out.print(str(made), markup=False, soft_wrap=True)


class Rare(StrEnum):
    """What becomes of classes of fewer than 5 texts."""

    drop = "drop"
    merge = "merge"
    keep = "keep"


def _check_there(path: Path | None) -> None:
    """End with a sentence where a file is not there, or its name is none."""
    try:
        there = path is None or path.exists()
    except (OSError, ValueError) as error:
        fail(f"{str(path)[:200]}: no such file ({getattr(error, 'strerror', None) or error})", 2)
    if not there:
        fail(f"{path} does not exist", 2)


def _place(train: Path) -> Path:
    """Return where the params file of a table is written: beside it, or here where that folder cannot be written to."""
    beside = (train if train.stem.strip(".") else train.resolve()).with_suffix(".yaml")
    return beside if files.writable(beside.parent) else Path(beside.name)


@app.command(epilog="Example: python -m pdstudy init reviews.csv --transfer more.txt")
def init(
    train: Annotated[Path, typer.Argument(help="A table of labelled texts: CSV, TSV, JSON lines, Parquet, a `datasets` folder.")],
    dev: Annotated[Path | None, typer.Option(help="Labelled texts to choose on. Default: split off.")] = None,
    test: Annotated[Path | None, typer.Option(help="Labelled texts to measure on. Default: split off.")] = None,
    transfer: Annotated[list[Path] | None, typer.Option(help="Unlabelled texts; may be given several times.")] = None,
    corpus: Annotated[list[Path] | None, typer.Option(help="Text to read before; may be given several times.")] = None,
    text: Texts = None,
    label: Label = None,
    labels: Annotated[list[str] | None, typer.Option(help="A class, once for each, in the order of their numbers.")] = None,
    rare: Annotated[Rare | None, typer.Option(help="What becomes of classes of fewer than 5 texts.")] = None,
    delimiter: Delimiter = None,
    quotes: Quotes = None,
    header: Header = None,
    encoding: Encoding = "utf-8",
    name: Annotated[str | None, typer.Option(help="Of the study. Default: the file's.")] = None,
    to: Annotated[Path | None, typer.Option(help="The params file to write. Default: beside the table, or here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a params file that is there.")] = False,
) -> None:
    """Look at a table of labelled texts, say what was taken and left out, and write a commented params file. Trains nothing."""
    from pdstudy.advice import init_params
    from pdstudy.data.formats import TextError

    for path in (train, dev, test, *(transfer or ()), *(corpus or ())):
        _check_there(path)
    if name is not None and not NAME.fullmatch(name):
        fail(f"--name {name!r}: use small letters, digits, '.', '_' or '-'", 2)
    how = dialect(delimiter, quotes, header, encoding)
    try:
        to = to or _place(train)
        if to.exists() and not force:
            fail(f"{to} is there already; give another with --to, or --force to write over it", 2)
        given = {"dev": dev, "test": test, "transfer": transfer, "corpus": corpus}
        first = init_params.params_file(
            train,
            to,
            tuple(text or ()),
            label,
            name,
            how,
            header is not None,
            rare and rare.value,
            tuple(labels or ()),
            **given,
        )
        with files.atomic_write(to) as new:
            new.write_text(first.text, encoding="utf-8")
            Study.read(new)
    except (TextError, ParamsError) as error:
        fail(paths.scrub(str(error)), 2)
    except OSError as error:
        fail(f"{to or train}: cannot be written ({error.strerror or error}); give another place with --to", 2)
    for line in first.said:
        out.print(line, markup=False, soft_wrap=True)
    out.print(escape_control(str(to)), markup=False, soft_wrap=True)


@app.command(epilog="Example: python -m pdstudy advise reviews.yaml --latency-ms 5 --size-mb 20 --max-minutes 60")
def advise(
    params: Params,
    latency_ms: Annotated[
        float | None, typer.Option(min=0, help="The most that one text may take, median, on this machine.")
    ] = None,
    size_mb: Annotated[float | None, typer.Option(min=0, help="The most that the weights may take, in fp32.")] = None,
    max_minutes: Annotated[
        float, typer.Option(min=0, help="Of training, earlier calls for this study counted; what it does not allow is said.")
    ] = 60.0,
    workers: Workers = None,
) -> None:
    """Train what the time allows, measure, and say which student to take, with its reasons. Writes a report."""
    from pdstudy.advice import candidates as advising
    from pdstudy.advice import recommendation
    from pdstudy.report.render import ReportError, advice

    study, limits = Study.read(params), advising.Limits(latency_ms, size_mb)
    try:
        compute_with_progress(study, lambda listen: _spend(study, max_minutes, limits, workers, listen))
        found = recommendation.recommend(advising.Candidates(study.name, limits))
    except advising.AdviceError as error:
        fail(str(error), 1)
    recommendation.keep(found, study.name, limits)
    for reason in found.reasons:
        out.print(reason, markup=False, soft_wrap=True)
    out.print(f"python -m pdstudy export {study.name} --student {found.student} --to model", markup=False, soft_wrap=True)
    err.print("report 05_your_task")
    try:
        page = advice(study, {"latency_ms": latency_ms, "size_mb": size_mb, "max_minutes": max_minutes})
    except ReportError as error:
        fail(str(error), 1)
    out.print(str(page), markup=False, soft_wrap=True)


@app.command(epilog="Example: python -m pdstudy texts reviews.yaml --to to_label.csv")
def texts(
    params: Params,
    to: Annotated[Path, typer.Option(help="The CSV file to write.")],
    n: Annotated[int | None, typer.Option(min=1, help="Of D_T. Default: transfer.texts.")] = None,
) -> None:
    """Write the texts that a teacher's file needs a row for: D_T, dev and test, with a column `split`. Trains nothing."""
    import csv

    from pdstudy.run.inputs import tuples
    from pdstudy.run.scheduler import run
    from pdstudy.storage.files import atomic_write
    from pdstudy.storage.store import Store
    from pdstudy.study.plan import only_texts

    if to.suffix.lower() != ".csv":
        fail(f"{to}: texts are written as CSV; give a name that ends in .csv", 2)
    study, store = Study.read(params), Store()
    plan = only_texts(study)
    compute_with_progress(study, lambda listen: run(plan, store, 0, listen))
    folder = store.open(next(iter(plan.steps)))
    columns = list(getattr(study.resolved_task().source, "text", ("text",)))
    limits, written = {"transfer": n or study.transfer.texts, "dev": None, "test": None}, 0
    with atomic_write(to) as new, new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for split, limit in limits.items():
            rows = tuples(folder / f"{split}.parquet")[:limit]
            if not written:
                writer.writerow(["split", *(columns if len(columns) == len(rows[0]) else ("text", "pair")[: len(rows[0])])])
            writer.writerows([split, *row] for row in rows)
            written += len(rows)
    out.print(f"{to}: {written:,} texts; add the columns p_<class>, one a class, or label", markup=False, soft_wrap=True)


def _spend(study: Study, max_minutes: float, limits, workers: int | None, listen) -> None:
    """Say what is left out of a study's texts, then spend the time."""
    from pdstudy.advice import budget
    from pdstudy.data import left_out

    record = budget.texts_first(study)
    for line in left_out.lines(record["counts"], record.get("examples", {})):
        err.print(escape_control(line), markup=False, soft_wrap=True)
    budget.spend(study, max_minutes, limits, workers, listen)


@app.command(epilog="Example: python -m pdstudy domain reviews.csv news.txt more_reviews.txt")
def domain(
    labelled: Annotated[Path, typer.Argument(help="A table of the task's labelled texts.")],
    candidates: Annotated[list[Path], typer.Argument(help="Corpora that could be transfer text: tables, or text one a line.")],
    text: Texts = None,
    label: Label = None,
    delimiter: Delimiter = None,
    quotes: Quotes = None,
    header: Header = None,
    encoding: Encoding = "utf-8",
) -> None:
    """Rank transfer corpora by how near they are to a task, before anything is trained."""
    from pdstudy.advice import columns, init_params
    from pdstudy.data import similarity as nearness

    for path in (labelled, *candidates):
        _check_there(path)
    how = dialect(delimiter, quotes, header, encoding)
    try:
        wanted = list(text or columns.look(labelled, (), label, how, header is not None).text)
        own = init_params.texts_of(labelled, wanted, how)
        names = [path.name for path in candidates]
        found = {
            path.name if names.count(path.name) == 1 else paths.scrub(str(path)): init_params.texts_of(path, wanted, how)
            for path in candidates
        }
        table = nearness.compare(own, found)
    except ValueError as error:
        fail(str(error), 2)
    printed = Table(
        "corpus", "S", "unseen words", "repeats", "texts", "words", "words a text", title=f"transfer text for {labelled.name}"
    )
    for row in table:
        s = "too few words" if row["S"] != row["S"] else f"{row['S']:.3f}"
        counted = (f"{row[k]:,}" for k in ("repeats", "texts", "words"))
        printed.add_row(row["corpus"], s, f"{row['unseen']:.1%}", *counted, f"{row['words a text']:.0f}")
    out.print(printed)
