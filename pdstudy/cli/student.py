"""The commands of a trained student: export, predict."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from pdstudy.console import Delimiter, Encoding, Header, Quotes, app, dialect, err, fail, out
from pdstudy.escape import escape_control
from pdstudy.storage import files, paths
from pdstudy.study.settings import Study

MOST_SHOWN = 12  # classes in a confusion table


@app.command(epilog="Example: python -m pdstudy export quick --student 2/256-PD-s0 --to model")
def export(
    study: Annotated[str, typer.Argument(help="A finished study's name, its folder in outputs/, or its params file.")],
    student: Annotated[str, typer.Option(help="<size>-<recipe>-s<seed>, such as 4/128-PD-s0; or teacher.")],
    to: Annotated[Path, typer.Option(help="The folder that is written.")],
    onnx: Annotated[bool, typer.Option("--onnx/--no-onnx", help="Write ONNX files too, 32-bit and with 8-bit weights.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
) -> None:
    """Write a student as a folder that transformers and ONNX Runtime open without this package, with its model card."""
    from pdstudy.release.export import ExportError, Unfaithful
    from pdstudy.release.export import export as write
    from pdstudy.release.student import UnknownStudent
    from pdstudy.storage import results

    study = Study.read(study).name if study.endswith((".yaml", ".yml")) else study
    try:
        results.folder_of(study)
    except FileNotFoundError as error:
        fail(str(error), 2)
    try:
        with _writing(to):
            facts = write(study, student, to, onnx, force, lambda text: err.print(text, markup=False))
    except (ExportError, UnknownStudent) as error:
        fail(paths.scrub(str(error)), 2)
    except Unfaithful as error:
        fail(f"nothing was written: {error}", 1)
    test = facts["test"]
    told = f"accuracy {test['accuracy']:.1%} ({test['low']:.1%} to {test['high']:.1%}) on {test['n']:,} test texts"
    out.print(f"{to}: {told}", markup=False, soft_wrap=True)


@app.command(epilog="Example: python -m pdstudy predict model reviews.csv --text review --to labelled.csv")
def predict(
    model: Annotated[Path, typer.Argument(help="A folder that `export` wrote.")],
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSON lines, Parquet, a `datasets` folder, or .txt with one text a line.")],
    text: Annotated[list[str] | None, typer.Option(help="The text column; twice for pairs. Default: text.")] = None,
    label: Annotated[str | None, typer.Option(help="A column of right classes. Default: label, where there is one.")] = None,
    to: Annotated[
        Path | None, typer.Option(help="The CSV that is written. Default: NAME.labelled.csv beside the file, or here.")
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Answer with ONNX Runtime.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Answer with ONNX Runtime and 8-bit weights.")] = False,
    delimiter: Delimiter = None,
    quotes: Quotes = None,
    header: Header = None,
    encoding: Encoding = "utf-8",
) -> None:
    """Label every text of a file: all its columns, with `label` and `probability` behind them, as CSV; measured where it has labels."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from pdstudy.release.predict import PredictError, label_file, open_labeller

    named = f"{file.stem}.labelled.csv"
    to = to or (file.with_name(named) if file.name else Path(named))
    to = to if (to.parent.is_dir() and files.writable(to.parent)) or to.name != named else Path(named)
    columns = (BarColumn(24), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        with _writing(to), Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
            job = bar.add_task("reading", total=1.0)
            labeller = open_labeller(model, "int8" if int8 else "fp32" if onnx else None)
            listen = lambda share, n: bar.update(job, completed=share, description=f"{n:,} rows")  # noqa: E731
            how = dialect(delimiter, quotes, header, encoding)
            found = label_file(labeller, file, to, text or ("text",), listen, label, how)
    except PredictError as error:
        fail(str(error), 2)
    without = f"; {found.blank:,} of them have no text and so no label" if found.blank else ""
    out.print(f"{to}: {found.rows:,} rows{without}", markup=False, soft_wrap=True)
    if found.unmatched:
        err.print(f"not measured: {escape_control(found.unmatched)}", markup=False, soft_wrap=True)
    if found.confusion is not None:
        _measured(found.truth, labeller.labels, found.confusion)


def _measured(column: str, labels: tuple[str, ...], confusion) -> None:
    """Print accuracy with its interval, and the confusion table; of many classes the commonest mistakes."""
    from rich.markup import escape
    from rich.table import Table

    from pdstudy.release.student import interval

    right, n = int(confusion.trace()), int(confusion.sum())
    bounds = interval(right, n)
    said = f"accuracy {right / n:.1%} ({bounds['low']:.1%} to {bounds['high']:.1%}) on the {n:,} texts with a label in {column!r}"
    out.print(escape_control(said), markup=False, soft_wrap=True)
    if len(labels) <= MOST_SHOWN:
        table = Table("right class", *(escape(escape_control(name)) for name in labels), title="answers")
        for name, row in zip(labels, confusion, strict=True):
            table.add_row(escape(escape_control(name)), *(f"{k:,}" for k in row))
        out.print(table)
        return
    mistakes = [(int(confusion[i, j]), i, j) for i in range(len(labels)) for j in range(len(labels)) if i != j and confusion[i, j]]
    table = Table("right class", "answer", "texts", title="the commonest mistakes")
    for k, i, j in sorted(mistakes, key=lambda m: (-m[0], m[1], m[2]))[:MOST_SHOWN]:
        table.add_row(escape(escape_control(labels[i])), escape(escape_control(labels[j])), f"{k:,}")
    out.print(table)


@contextlib.contextmanager
def _writing(to: Path):
    """End with a sentence where `to` cannot be written, or where somebody stops it."""
    from pdstudy.storage.store import StoreError

    try:
        yield
    except KeyboardInterrupt:
        fail("stopped; nothing was written", 130)
    except Exception as error:
        if files.is_disk_full(error):
            fail(f"no room to write {to}; free some, or name another place with --to", 1)
        if not isinstance(error, OSError) or isinstance(error, StoreError):
            raise
        fail(f"{to}: cannot be written ({error.strerror or error})", 2)
