"""What all commands share: the app, common options, messages, exit codes and the progress bar."""

import signal
from typing import Annotated

import typer
from rich.console import Console

from pdstudy.escape import escape_control
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

Delimiter = Annotated[str | None, typer.Option(help="What parts the cells of .csv and .tsv, such as ; or tab. Default: , and tab.")]
Quotes = Annotated[
    bool | None, typer.Option("--quotes/--no-quotes", help="Whether cells are quoted. Default: in .csv, not in .tsv.")
]
Header = Annotated[
    bool | None,
    typer.Option("--header/--no-header", help="Whether the first row names the columns; without names they are called 1, 2, 3."),
]
Encoding = Annotated[str, typer.Option(help="Of .csv, .tsv, .txt and JSON lines, such as cp1252.")]


def compute_with_progress(study: Study, compute) -> None:
    """Call `compute(listen)` for a study and show a progress bar. Bad input and failures print one sentence and exit."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from pdstudy.data import formats, hub, mirror, sources
    from pdstudy.run.progress import line
    from pdstudy.run.scheduler import RunError
    from pdstudy.run.worker import Interrupted

    try:
        hub.fetch_missing(*study.named_on_hub(), lambda text: err.print(text, markup=False, soft_wrap=True))
        sources.check(study.resolved_task())
    except (formats.TextError, mirror.MirrorError) as error:
        fail(str(error), 2)
    except hub.HubError as error:
        fail(str(error), 2 if error.bad_input else 1)
    columns = (BarColumn(24), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=False, disable=not err.is_terminal) as bar:
        job = bar.add_task("planning", total=1.0)
        last = [""]

        def listen(progress) -> None:
            text = line(progress)
            bar.update(job, completed=progress.share, description=text)
            done = text.split(",")[0]
            if not err.is_terminal and done != last[0]:  # in a log file: one line per finished step
                last[0] = done
                err.print(text, markup=False, soft_wrap=True)

        try:
            compute(listen)
        except RunError as error:
            bar.stop()
            fail(str(error), 2 if error.bad_input else 1)
        except Interrupted as error:
            bar.stop()
            fail(str(error), 130 if getattr(error, "signal", None) == signal.SIGINT else 143)


def store_for(from_scratch: bool):
    """Return the store, without the released encoders if `from_scratch`."""
    from pdstudy.storage.store import Store

    return Store(families=()) if from_scratch else Store()


def duration(seconds: float) -> str:
    """Return seconds as text in seconds, minutes or hours."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def dialect(delimiter: str | None, quotes: bool | None, header: bool | None, encoding: str):
    """Return how the files are written; ends with a sentence for what is no delimiter or encoding."""
    from pdstudy.data.dialects import Dialect, checked_delimiter, checked_encoding

    try:
        given = None if delimiter is None else checked_delimiter(delimiter)
        return Dialect(given, quotes, header is not False, checked_encoding(encoding))
    except ValueError as error:
        fail(str(error), 2)


def fail(message: str, code: int) -> None:
    """Print an error message and exit with status `code`."""
    print_error(message)
    raise typer.Exit(code)


def print_error(message: str) -> None:
    """Print a message to stderr in red, with control characters escaped."""
    err.print(escape_control(message), style="red", markup=False, soft_wrap=True)
