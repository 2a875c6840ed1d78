"""The commands for the user's own texts: lengths, texts, domain."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pdstudy.cli.task import Label, Texts, check_exists
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
    out,
    print_line,
)
from pdstudy.storage import paths
from pdstudy.study.settings import Study


@app.command(epilog="Example: python -m pdstudy lengths reviews.yaml --length 128 --length 256")
def lengths(
    params: Params,
    length: Annotated[
        list[int] | None, typer.Option(help="Pieces of a text, several times. Default: half, all, twice, four times max_length.")
    ] = None,
    workers: Workers = None,
) -> None:
    """Measure on dev what longer texts are worth: the fastest student, fine-tuned at several lengths. Says which max_length to take."""
    from pdstudy.advice import lengths as of_texts

    study = Study.read(params)
    asked = length or of_texts.choices(study.max_length)
    if wrong := [n for n in asked if not of_texts.LEAST <= n <= of_texts.POSITIONS]:
        fail(f"--length {wrong[0]}: give {of_texts.LEAST} to {of_texts.POSITIONS} pieces", 2)
    rows: list[of_texts.Length] = []
    compute_with_progress(study, lambda listen: rows.extend(of_texts.measure(study, asked, workers, listen)))
    record = of_texts.save(rows, study)
    table = Table(
        "pieces", "texts cut", "dev", f"points over {rows[0].pieces} (95 %)", "seconds a seed",
        title=f"{record['student']}, {record['seeds']} seeds x {record['n_dev']:,} dev texts",
    )  # fmt: skip
    for row in record["rows"]:
        points = "{:+.1f} ({:+.1f} to {:+.1f})".format(row["gain"], *row["interval"]) if row["interval"] else ""
        table.add_row(f"{row['pieces']}", f"{row['cut']:.1%}", f"{row['dev']:.1f}%", points, f"{row['seconds']:.1f}")
    out.print(table)
    words = "the shortest that is not significantly worse on dev than the best"
    print_line(f"max_length: {record['max_length']}  # {words}; now {study.max_length}")


@app.command(epilog="Example: python -m pdstudy texts reviews.yaml --to to_label.csv")
def texts(
    params: Params,
    to: Annotated[Path, typer.Option(help="The CSV file to write.")],
    n: Annotated[int | None, typer.Option(min=1, help="The number of texts of D_T. Default: transfer.texts.")] = None,
) -> None:
    """Write the texts that a file of soft labels must have, for another teacher to label: D_T, dev and test, with a column `split`.

    Trains nothing.
    """
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
    limits = {"transfer": n or study.transfer.texts, "dev": None, "test": None}
    rows = [(split, *text) for split, limit in limits.items() for text in tuples(folder / f"{split}.parquet")[:limit]]
    n_columns = len(rows[0]) - 1
    with atomic_write(to) as new, new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["split", *(columns if len(columns) == n_columns else ("text", "pair")[:n_columns])])
        writer.writerows(rows)
    print_line(f"{to}: {len(rows):,} texts; add the columns p_<class>, one for each class, or label")


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
    """Rank transfer corpora by their similarity to a task's texts, before anything is trained."""
    from pdstudy.advice import columns, init_params
    from pdstudy.advice.file_checks import check_style
    from pdstudy.data import similarity

    check_exists(labelled, *candidates)
    style = dialect(delimiter, quotes, header, encoding)
    with exit_on(2, ValueError):
        texts = list(text or columns.find_columns(labelled, (), label, style, header is None).text)
        for path in (labelled, *candidates):
            check_style(path, style, header is None, (*columns.KNOWN, *texts))
        names = [path.name for path in candidates]
        corpora = {
            path.name if names.count(path.name) == 1 else paths.scrub(str(path)): init_params.texts_of(path, texts, style)
            for path in candidates
        }
        rows = similarity.compare(init_params.texts_of(labelled, texts, style), corpora)
    table = Table(
        "corpus", "S", "unseen words", "repeats", "texts", "words", "words a text", title=f"transfer text for {labelled.name}"
    )
    for row in rows:
        s = "too few words" if row["S"] != row["S"] else f"{row['S']:.3f}"
        counts = (f"{row[k]:,}" for k in ("repeats", "texts", "words"))
        table.add_row(row["corpus"], s, f"{row['unseen']:.1%}", *counts, f"{row['words a text']:.0f}")
    out.print(table)
