"""The commands of a trained student: export, predict."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from pdstudy.console import Delimiter, Encoding, Header, Quotes, app, dialect, err, exit_on, fail, out, print_line, print_note
from pdstudy.escape import escape_control
from pdstudy.storage import files
from pdstudy.study.settings import Study

MOST_ROWS = 12  # of a confusion table


@app.command(epilog="Example: python -m pdstudy export quick --student 2/256-PD-s0 --to model")
def export(
    study: Annotated[str, typer.Argument(help="A finished study's name, its folder in outputs/, or its params file.")],
    student: Annotated[str, typer.Option(help="Such as 4/128-PD-s0, 4/128-PD+linear-s0, linear or teacher.")],
    to: Annotated[Path, typer.Option(help="The folder to write.")],
    onnx: Annotated[bool, typer.Option("--onnx/--no-onnx", help="Write ONNX files too, 32-bit and with 8-bit weights.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
) -> None:
    """Write a student as a folder that transformers and ONNX Runtime open without this package, with its model card."""
    from pdstudy.release.export import ExportError, Unfaithful
    from pdstudy.release.export import export as write
    from pdstudy.release.student import UnknownStudent
    from pdstudy.storage import results

    study = Study.read(study).name if study.endswith((".yaml", ".yml")) else study
    with exit_on(2, FileNotFoundError):
        results.folder_of(study)
    try:
        with exit_on(2, ExportError, UnknownStudent), _writing(to):
            facts = write(study, student, to, onnx, force, print_note)
    except Unfaithful as error:
        fail(f"nothing was written: {error}", 1)
    test = facts["test"]
    print_line(f"{to}: accuracy {test['accuracy']:.1%} ({test['low']:.1%} to {test['high']:.1%}) on {test['n']:,} test texts")


@app.command(epilog="Example: python -m pdstudy predict model reviews.csv --text review --to labelled.csv")
def predict(
    model: Annotated[Path, typer.Argument(help="A folder that `export` wrote.")],
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSON lines, Parquet, a `datasets` folder, or .txt with one text a line.")],
    text: Annotated[
        list[str] | None, typer.Option(help="The text column; twice for pairs. Default: that of the training file, or text.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="A column of correct classes. Default: label, if there is one.")] = None,
    to: Annotated[
        Path | None, typer.Option(help="The CSV to write. Default: NAME.labelled.csv beside the file, or in the current folder.")
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Use ONNX Runtime.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Use ONNX Runtime and 8-bit weights.")] = False,
    delimiter: Delimiter = None,
    quotes: Quotes = None,
    header: Header = None,
    encoding: Encoding = "utf-8",
) -> None:
    """Write a file's columns with a label and its probability for every text, as CSV; measure the accuracy if the file has labels."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from pdstudy.advice.columns import KNOWN
    from pdstudy.advice.file_checks import check_style
    from pdstudy.data.formats import TextError
    from pdstudy.release.predict import label_file, open_labeller

    default = f"{file.stem}.labelled.csv"
    to = to or (file.with_name(default) if file.name else Path(default))
    if to.name == default and not (to.parent.is_dir() and files.writable(to.parent)):
        to = Path(default)
    columns = (BarColumn(24), TextColumn("{task.description}"), TimeElapsedColumn())
    bar = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
    with exit_on(2, TextError), _writing(to), bar:
        job = bar.add_task("opening the model", total=1.0)
        labeller = open_labeller(model, "int8" if int8 else "fp32" if onnx else None)
        listen = lambda share, n: bar.update(job, completed=share, description=f"{n:,} rows")  # noqa: E731
        style = dialect(delimiter, quotes, header, encoding)
        check_style(file, style, header is None, (*KNOWN, *(text or ()), *labeller.columns))
        summary = label_file(labeller, file, to, text, listen, label, style)
    without = f"; {summary.blank:,} of them have no text and so no label" if summary.blank else ""
    print_line(f"{to}: {summary.rows:,} rows{without}")
    if summary.unmatched:
        print_note(f"not measured: {summary.unmatched}")
    if summary.confusion is not None:
        _print_accuracy(summary.truth, labeller.labels, summary.confusion)


def _print_accuracy(column: str, labels: tuple[str, ...], confusion) -> None:
    """Print accuracy with its interval, and the confusion table, or the most frequent mistakes if there are many classes."""
    from rich.markup import escape
    from rich.table import Table

    from pdstudy.release.student import interval

    n_right, n = int(confusion.trace()), int(confusion.sum())
    bounds = interval(n_right, n)
    accuracy = f"accuracy {n_right / n:.1%} ({bounds['low']:.1%} to {bounds['high']:.1%})"
    print_line(f"{accuracy} on the {n:,} texts with a label in {column!r}")
    names = [escape(escape_control(name)) for name in labels]
    if len(names) <= MOST_ROWS:
        table = Table("correct class", *names, title="answers")
        for name, row in zip(names, confusion, strict=True):
            table.add_row(name, *(f"{k:,}" for k in row))
    else:
        table = Table("correct class", "answer", "texts", title="the most frequent mistakes")
        mistakes = [(-int(confusion[i, j]), i, j) for i, j in zip(*confusion.nonzero(), strict=True) if i != j]
        for k, i, j in sorted(mistakes)[:MOST_ROWS]:
            table.add_row(names[i], names[j], f"{-k:,}")
    out.print(table)


@contextlib.contextmanager
def _writing(to: Path):
    """End the command with one sentence if `to` cannot be written, or if it is interrupted."""
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
