"""What all commands share: the app, common options, printing, exit statuses and the progress bar."""

import contextlib
import signal
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from pdstudy.escape import escape_control
from pdstudy.storage import paths
from pdstudy.study.settings import Study

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Should you pre-train your compact model, distil it, or both? One params file is one study.",
)
out, err = Console(highlight=False), Console(stderr=True, highlight=False)

Params = Annotated[str, typer.Argument(help="A params file, or the name of one in params/ such as quick.", metavar="PARAMS")]
Workers = Annotated[
    int | None, typer.Option(help="Processes with one thread each. Default: one per core; 0: only this process.", min=0)
]
FromScratch = Annotated[bool, typer.Option("--from-scratch", help="Do not use the released encoders in zoo/.")]
LogWith = Annotated[
    str | None, typer.Option(help="Copy the training logs to a tracker supported by accelerate, such as tensorboard.")
]
StudyName = Annotated[str, typer.Argument(help="A study's name, or its folder in outputs/.")]
Delimiter = Annotated[
    str | None,
    typer.Option(help="The delimiter of .csv and .tsv files, such as ; or tab. Default: a comma in .csv, a tab in .tsv."),
]
Quotes = Annotated[
    bool | None, typer.Option("--quotes/--no-quotes", help="Whether cells may be quoted. Default: in .csv, not in .tsv.")
]
Header = Annotated[
    bool | None,
    typer.Option("--header/--no-header", help="Whether the first row names the columns. Without names they are called 1, 2, 3."),
]
Encoding = Annotated[str, typer.Option(help="The encoding of .csv, .tsv, .txt and JSON lines, such as cp1252.")]


def print_line(text: str, to: Console = out) -> None:
    """Print text as it is, without markup or wrapping, with control characters escaped."""
    to.print(escape_control(text), markup=False, soft_wrap=True)


def print_note(text: str) -> None:
    """Print text to stderr: progress, or what a script need not read."""
    print_line(text, err)


def print_error(message: str) -> None:
    """Print a message to stderr in red, with control characters escaped and without the paths of this machine."""
    err.print(escape_control(paths.scrub(message)), style="red", markup=False, soft_wrap=True)


def fail(message: str, code: int) -> NoReturn:
    """Print an error message and exit with status `code`."""
    print_error(message)
    raise typer.Exit(code)


@contextlib.contextmanager
def exit_on(code: int, *errors: type[Exception]):
    """Print the message of one of these errors and exit with status `code`, or with 2 if the error says that the input is wrong."""
    try:
        yield
    except errors as error:
        fail(str(error), 2 if getattr(error, "bad_input", False) else code)


def compute_with_progress(study: Study, compute: Callable) -> None:
    """Call `compute(listen)` for a study and show a progress bar. Bad input and failures print one sentence and exit."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from pdstudy.data import formats, hub, mirror, sources
    from pdstudy.run.progress import line
    from pdstudy.run.scheduler import RunError
    from pdstudy.run.worker import Interrupted

    with exit_on(2, formats.TextError, mirror.MirrorError), exit_on(1, hub.HubError):
        hub.fetch_missing(*study.named_on_hub(), print_note)
        sources.check(study.resolved_task())
    columns = (BarColumn(24), TextColumn("{task.description}"), TimeElapsedColumn())
    with exit_on(1, RunError), Progress(*columns, console=err, transient=False, disable=not err.is_terminal) as bar:
        job = bar.add_task("planning", total=1.0)
        last_printed = ""

        def listen(progress) -> None:
            nonlocal last_printed
            text = line(progress)
            bar.update(job, completed=progress.share, description=text)
            steps_done = text.split(",")[0]
            if not err.is_terminal and steps_done != last_printed:  # in a log file: one line per finished step
                last_printed = steps_done
                print_note(text)

        try:
            compute(listen)
        except Interrupted as error:
            bar.stop()
            fail(str(error), 130 if getattr(error, "signal", None) == signal.SIGINT else 143)


def store_for(from_scratch: bool):
    """Return the store, without the released encoders if `from_scratch`."""
    from pdstudy.storage.store import Store

    return Store(families=()) if from_scratch else Store()


def dialect(delimiter: str | None, quotes: bool | None, header: bool | None, encoding: str):
    """Return the Dialect of the user's files. An unusable delimiter or encoding ends the command with exit status 2."""
    from pdstudy.data.dialects import Dialect, checked_delimiter, checked_encoding

    with exit_on(2, ValueError):
        delimiter = None if delimiter is None else checked_delimiter(delimiter)
        return Dialect(delimiter, quotes, header is not False, checked_encoding(encoding))
