"""Labels a file with an exported classifier, in a stream: a file of any length takes the same memory.

Texts go the way of training: read strictly, cut into the folder's word pieces, at most as many of them as the
student read. A row without text is written without label, and counted: nothing is made up for it.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from pdstudy.data import classes, formats
from pdstudy.data.batches import Vocabulary
from pdstudy.data.dialects import PLAIN, Dialect, TextError
from pdstudy.data.texts import LONGEST, shortened, spaced
from pdstudy.data.tokenizer import encode_texts, open_tokenizer
from pdstudy.models import inference, linear
from pdstudy.models.inference import Answer
from pdstudy.storage import files

ADDED = ("label", "probability")  # the columns that are written behind the input's; "predicted ..." where the input has them
FACTS = "export.json"  # what `export` tells of a folder
CHUNK = 1024  # rows that are in memory at a time
PIECES = 1024  # in a batch: on a processor larger ones are slower and take more memory


class PredictError(ValueError):
    """Raised when a folder, a file or a row cannot be used; the message names it and the cure."""


@dataclass(frozen=True)
class Labeller:
    """An exported folder, opened: how it cuts texts, how it answers, what its classes are called."""

    answer: Answer
    labels: tuple[str, ...]
    tokenizer: object
    vocabulary: Vocabulary
    max_length: int  # pieces of a text that are read
    pairs: bool | None  # whether it was trained on pairs of texts; None where the folder does not tell

    def __call__(self, items: Sequence[str | tuple[str, str]]) -> tuple[list[str], np.ndarray]:
        """Return the label of each text, or pair of texts, and its probability, (n_items,)."""
        ids, _ = encode_texts(self.tokenizer, self.vocabulary, items, self.max_length)
        logits = inference.answer_all(self.answer, ids, self.vocabulary.pad, len(self.labels), PIECES).astype(np.float64)
        share = np.exp(logits - logits.max(axis=1, keepdims=True))
        best = logits.argmax(axis=1)
        return [self.labels[i] for i in best], share.max(axis=1) / share.sum(axis=1)


@dataclass(frozen=True)
class LinearLabeller:
    """An exported linear model, opened: it is asked texts themselves."""

    model: linear.Linear
    labels: tuple[str, ...]
    pairs: bool | None

    def __call__(self, items: Sequence[str | tuple[str, str]]) -> tuple[list[str], np.ndarray]:
        """Return the label of each text, or pair of texts, and its probability, (n_items,)."""
        logits = self.model.logits(items).astype(np.float64)
        share = np.exp(logits - logits.max(axis=1, keepdims=True))
        return [self.labels[i] for i in logits.argmax(axis=1)], share.max(axis=1) / share.sum(axis=1)


def open_linear(folder: Path) -> LinearLabeller:
    """Return the labeller of an exported linear model. Raises PredictError where its files do not fit each other."""
    try:
        model, told = linear.load(folder), json.loads((folder / linear.VOCABULARY).read_text(encoding="utf-8"))
        facts = json.loads((folder / FACTS).read_text()) if (folder / FACTS).is_file() else {}
        labels = tuple(map(str, told["labels"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{error.args[0]} is missing from {linear.VOCABULARY}" if isinstance(error, KeyError) else str(error)
        raise PredictError(f"{folder}: {why.removeprefix(f'{folder}: ')}") from None
    if len(labels) != len(model.bias):
        raise PredictError(f"{folder}: {linear.VOCABULARY} names {len(labels)} labels, the weights have {len(model.bias)}")
    return LinearLabeller(model, labels, facts.get("pairs"))


def open_labeller(folder: Path, onnx: str | None = None) -> "Labeller | LinearLabeller":
    """Return a folder's Labeller: safetensors in our own forward, or one of `inference.ONNX` ("fp32", "int8") in ONNX Runtime.

    Raises PredictError when the folder is not a whole, plain BERT classifier with its tokenizer.
    """
    if linear.is_linear(Path(folder)):
        if onnx:
            raise PredictError(f"{folder}: a linear model has no ONNX file; leave out --onnx and --int8")
        return open_linear(Path(folder))
    import torch
    from safetensors import SafetensorError

    from pdstudy.models.weights import load_config

    folder, threads = Path(folder), torch.get_num_threads()
    try:
        config = load_config(folder)
        answer = inference.open_onnx(folder / inference.ONNX[onnx], threads) if onnx else inference.open_torch(folder, threads)
        tokenizer, vocabulary = open_tokenizer(folder)
        max_length = json.loads((folder / "tokenizer_config.json").read_text()).get("model_max_length")
        facts = json.loads((folder / FACTS).read_text()) if (folder / FACTS).is_file() else {}
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        why = f"{Path(error.filename).name} cannot be read" if isinstance(error, OSError) and error.filename else str(error)
        raise PredictError(f"{folder}: {why.removeprefix(f'{folder}: ')}") from None
    if vocabulary.size > config.vocab_size:
        raise PredictError(f"{folder}: the tokenizer has {vocabulary.size:,} pieces, the model knows {config.vocab_size:,}")
    if not (isinstance(max_length, int) and 3 <= max_length <= config.max_position_embeddings):
        raise PredictError(f"{folder}: model_max_length is {max_length}, expected 3 to {config.max_position_embeddings}")
    if config.num_labels < 2 or config.problem_type not in (None, "single_label_classification"):
        raise PredictError(f"{folder}: not a classifier that gives each text one of several labels")
    labels = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    return Labeller(answer, labels, tokenizer, vocabulary, max_length, facts.get("pairs"))


@dataclass(frozen=True)
class Labelled:
    """What became of a file: its rows, those without text, and how the answers compare with its label column."""

    rows: int
    blank: int
    truth: str | None = None  # the label column that the answers are compared with
    confusion: np.ndarray | None = None  # (n_classes, n_classes) of its rows that have a label: the right class, the answer
    unmatched: str | None = None  # why a column called "label" is compared with nothing


def label_file(
    labeller: Labeller | LinearLabeller,
    source: Path,
    to: Path,
    text: Sequence[str] = ("text",),
    progress: Callable[[float, int], None] = lambda share, n: None,
    label: str | None = None,
    dialect: Dialect = PLAIN,
) -> Labelled:
    """Write `source`'s rows with label and probability to the CSV file `to`; return what became of them.

    `text` names the column of the texts, or the two of pairs; `label` one with the right classes, "label" where there is one. All
    columns are written, what is no text as JSON; of plain text its lines. The file is read to its end before a text is labelled,
    so that an unreadable row is reported before any prediction; `to` is written only when all rows are done. Raises PredictError naming the file and the row.
    """
    source, to = Path(source), Path(to)
    _check_asked(labeller, to, text)
    columns = _columns(source, tuple(text), label, dialect)
    truth = label or ("label" if "label" in columns and "label" not in text else None)
    total, places = 0, {}
    for row in _rows(source, columns, text, dialect, truth):
        total += 1
        if row.truth is not None:
            places.setdefault(row.truth, row.place)
    if not total:
        raise PredictError(f"{source.name}: it holds no rows")
    try:
        numbers, unmatched = classes.numbers(places, labeller.labels, ordered=False), None
    except formats.TextError as error:
        if label is not None:
            raise PredictError(f"{error} (the student's)".replace("; the classes are those of train", "")) from None
        numbers, unmatched = (
            {},
            str(error).replace("train's classes", "the student's classes").replace("; the classes are those of train", ""),
        )
    rows, n_rows, n_blank = _rows(source, columns, text, dialect, truth), 0, 0
    confusion = np.zeros((len(labeller.labels),) * 2, dtype=np.int64)
    with files.atomic_write(to) as new, new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *(f"predicted {name}" if name in columns else name for name in ADDED)])
        while chunk := list(islice(rows, CHUNK)):
            items = [row.item for row in chunk if row.item is not None]
            answers, shares = map(iter, labeller(items) if items else ((), ()))
            for row in chunk:
                answer = next(answers) if row.item is not None else ""
                writer.writerow([*row.values, answer, f"{next(shares):.6f}" if answer else ""])
                if answer and row.truth in numbers:
                    confusion[numbers[row.truth], labeller.labels.index(answer)] += 1
            n_rows, n_blank = n_rows + len(chunk), n_blank + len(chunk) - len(items)
            progress(n_rows / total, n_rows)
    compared = truth is not None and unmatched is None and confusion.sum() > 0
    return Labelled(n_rows, n_blank, truth if compared else None, confusion if compared else None, unmatched)


def _check_asked(labeller: Labeller, to: Path, text: Sequence[str]) -> None:
    """Raise PredictError where the answers cannot be written, or the student read another number of texts."""
    if to.suffix.lower() != ".csv":
        raise PredictError(f"{to}: the labels are written as CSV; give a name that ends in .csv")
    if not to.parent.is_dir():
        raise PredictError(f"{to}: the folder {to.parent} is not there; make it first")
    if to.exists():
        raise PredictError(f"{to}: it is there already; remove it, or name another with --to")
    if len(text) > 2 or len(set(text)) < len(text):
        raise PredictError(f"--text {' --text '.join(text)}: give the one column of texts, or the two of pairs")
    if labeller.pairs is not None and labeller.pairs != (len(text) == 2):
        raise PredictError(
            f"the student was trained on {'pairs: give --text twice' if labeller.pairs else 'single texts: give --text once'}"
        )


def _columns(source: Path, text: tuple[str, ...], label: str | None, dialect: Dialect) -> list[str]:
    """Return the columns that are written, after checking that the texts are among them and nothing is written twice."""
    if not formats.is_table(source):
        if source.suffix.lower() != ".txt":
            raise PredictError(
                f"{source.name}: give one of {', '.join((*formats.TABLES, '.txt'))}, or a folder saved by `datasets`"
            )
        columns = ["text"]
    else:
        columns = _read(source, lambda: _all_columns(source, dialect))
    for name in (*text, *([label] if label else [])):
        if name not in columns:
            option = "--text" if name in text else "--label"
            raise PredictError(
                f"{source.name}: no column {name!r}; it has {', '.join(map(repr, columns))[:400]}: name one with {option}"
            )
    if twice := next((name for name in columns if columns.count(name) > 1 and name.strip()), None):
        raise PredictError(f"{source.name}: {columns.count(twice)} columns {twice!r}; its columns are {', '.join(columns)[:200]}")
    columns = [name for name in columns if name.strip()]
    if taken := [f"predicted {name}" for name in ADDED if name in columns and f"predicted {name}" in columns]:
        raise PredictError(
            f"{source.name}: it has a column {taken[0]!r} already, and the answer is written under that name; rename it"
        )
    return columns


def _all_columns(source: Path, dialect: Dialect) -> list[str]:
    """Return the columns of a table; of JSON lines the fields of all records, in the order in which they come up."""
    if source.is_dir() or source.suffix.lower() not in (".jsonl", ".ndjson", ".json"):
        return formats.columns_of(source, dialect)
    names: dict[str, None] = {}
    for _, record in formats.objects(source, dialect):
        names |= dict.fromkeys(record)
    return list(names) or formats.columns_of(source, dialect)


@dataclass(frozen=True)
class Row:
    """One row of a file: where it stands, what is written of it, the text or pair to be labelled, and its label, if any."""

    place: str
    values: list[str]
    item: str | tuple[str, str] | None
    truth: str | None


def _rows(
    source: Path, columns: list[str], text: Sequence[str], dialect: Dialect = PLAIN, truth: str | None = None
) -> Iterator[Row]:
    """Yield the rows of a file. Raises PredictError, naming the row."""
    at, of_truth = [columns.index(name) for name in text], None if truth is None else columns.index(truth)
    found = _values(source, columns, text, dialect)
    while (row := _read(source, lambda: next(found, None))) is not None:
        place, values = row
        for i in at:
            if not isinstance(values[i], str | None):
                raise PredictError(f"{place}: {shortened(values[i])} is no text")
        texts = [spaced(values[i] or "")[:LONGEST] for i in at]
        label = None if of_truth is None or values[of_truth] in (None, "") else cell_text(values[of_truth])
        item = None if not all(texts) else texts[0] if len(texts) == 1 else tuple(texts)
        yield Row(place, [v if isinstance(v, str) else _as_cell(place, v) for v in values], item, label)


def _values(source: Path, columns: list[str], text: Sequence[str], dialect: Dialect) -> Iterator[tuple[str, list]]:
    """Yield (place, values of `columns`). A JSON record may lack any field but the text's."""
    if not formats.is_table(source):
        yield from ((place, [line.rstrip("\r\n")]) for place, line in formats.lines(source, dialect))
    elif source.is_dir() or source.suffix.lower() not in (".jsonl", ".ndjson", ".json"):
        yield from formats.rows(source, columns, dialect=dialect, names=True)
    else:
        for place, record in formats.objects(source, dialect):
            if missing := [name for name in text if name not in record]:
                raise TextError(f"{place}: no field {missing[0]!r}; its fields are {', '.join(record)[:200]}")
            for value in record.values():
                if isinstance(value, str):
                    formats.check_text(place, value)
            yield place, [record.get(name) for name in columns]


def cell_text(value: object) -> str:
    """Return a label as it is compared with the student's classes."""
    return str(value).strip()


def _as_cell(place: str, value: object) -> str:
    """Return a value that is no text as it stands in a CSV: nothing for none, JSON for the rest."""
    if value is None:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:
        raise PredictError(f"{place}: a number of thousands of digits; remove it") from None


def _read(source: Path, what: Callable):
    """Return `what()`; what cannot be read becomes a PredictError."""
    try:
        return what()
    except formats.TextError as error:
        raise PredictError(str(error)) from None
    except OSError as error:
        raise PredictError(f"{source}: cannot be read ({error.strerror or str(error).splitlines()[0]})") from None
