"""Labels a file with an exported classifier, in a stream: a file of any length takes the same memory.

Texts are read as for training: strictly, cut into the folder's word pieces, and truncated to the same length. A row without
text is written without a label, and counted.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from pdstudy.averaging import log_mean
from pdstudy.data import classes, formats
from pdstudy.data.dialects import PLAIN, Dialect, TextError, decoded
from pdstudy.data.texts import LONGEST, shortened, spaced
from pdstudy.data.tokenizer import encode_texts, open_tokenizer
from pdstudy.models import inference, linear
from pdstudy.storage import files

ADDED = ("label", "probability")  # columns after the input's; "predicted ..." if the input has them already
FACTS = "export.json"  # in an exported folder
NO_HEADER = ", or read it with --no-header if its first row is a text"
CHUNK = 1024  # rows that are in memory at a time
PIECES = 1024  # in a batch: on a processor larger ones are slower and take more memory


class PredictError(TextError):
    """Raised when a folder, a file or a row cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Labeller:
    """An exported folder, opened: its logits as a function of texts, and the names of its classes."""

    logits: Callable[[Sequence[str | tuple[str, str]]], np.ndarray]  # (n_texts, n_classes)
    labels: tuple[str, ...]
    pairs: bool | None  # whether it was trained on pairs of texts; None if the folder does not say
    columns: tuple[str, ...] = ("text",)  # of the texts in the files that it was trained on
    ordered: bool = False  # whether the user gave the order of the classes, so that a number stands for one

    def __call__(self, texts: Sequence[str | tuple[str, str]]) -> tuple[list[str], np.ndarray]:
        """Return the label of each text, or pair of texts, and its probability, (n_texts,)."""
        p = self.probabilities(texts)
        return [self.labels[i] for i in p.argmax(axis=1)], p.max(axis=1)

    def probabilities(self, texts: Sequence[str | tuple[str, str]]) -> np.ndarray:
        """Return the probability of every class for each text, or pair of texts, (n_texts, n_classes) float64."""
        from scipy.special import softmax

        return softmax(self.logits(texts).astype(np.float64), axis=1)


def open_labeller(folder: Path, onnx: str | None = None, threads: int | None = None) -> Labeller:
    """Return the Labeller of an exported folder: a linear model, a student, or the mean of both.

    `onnx`, "fp32" or "int8", takes the ONNX file of that precision. `threads` are those of one batch; None: torch's number. Raises
    PredictError if the folder is incomplete or is not a plain BERT classifier with its tokenizer.
    """
    from safetensors import SafetensorError

    folder = Path(folder)
    try:
        facts = json.loads((folder / FACTS).read_text()) if (folder / FACTS).is_file() else {}
        if linear.is_linear(folder):
            if onnx:
                raise PredictError("a linear model has no ONNX file; leave out --onnx and --int8")
            labeller = _open_linear(folder, facts.get("pairs"))
        else:
            labeller = _open_student(folder, onnx, facts.get("pairs"), threads)
            if (folder / linear.FOLDER).is_dir():
                labeller = averaged(labeller, _open_linear(folder / linear.FOLDER, facts.get("pairs")))
        columns, ordered = facts.get("columns", labeller.columns), facts.get("ordered", labeller.ordered)
        return replace(labeller, columns=tuple(columns), ordered=ordered)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = f"its files have no {error}" if isinstance(error, KeyError) else str(error)
        if isinstance(error, OSError) and error.filename:
            reason = f"{Path(error.filename).name} cannot be read"
        raise PredictError(f"{folder}: {reason.removeprefix(f'{folder}: ')}") from None


def averaged(student: Labeller, linear_model: Labeller) -> Labeller:
    """Return the Labeller whose probabilities are the mean of a student's and the linear model's."""
    if student.labels != linear_model.labels:
        raise PredictError("the student and the linear model beside it have other labels; export them again")
    return Labeller(lambda texts: log_mean([student.logits(texts), linear_model.logits(texts)]), student.labels, student.pairs)


def _open_linear(folder: Path, pairs: bool | None) -> Labeller:
    model = linear.load(folder)
    labels = tuple(map(str, json.loads((folder / linear.VOCABULARY).read_text(encoding="utf-8"))["labels"]))
    if len(labels) != len(model.bias):
        raise PredictError(f"{linear.VOCABULARY} names {len(labels)} labels, the weights have {len(model.bias)}")
    return Labeller(model.logits, labels, pairs)


def _open_student(folder: Path, onnx: str | None, pairs: bool | None, threads: int | None) -> Labeller:
    import torch

    from pdstudy.models.weights import load_config

    config, threads = load_config(folder), threads or torch.get_num_threads()
    predict = inference.open_onnx(folder / inference.ONNX[onnx], threads) if onnx else inference.open_torch(folder, threads)
    tokenizer, vocabulary = open_tokenizer(folder)
    max_length = json.loads((folder / "tokenizer_config.json").read_text()).get("model_max_length")
    if vocabulary.size > config.vocab_size:
        raise PredictError(f"the tokenizer has {vocabulary.size:,} pieces, the model knows {config.vocab_size:,}")
    if not (isinstance(max_length, int) and 3 <= max_length <= config.max_position_embeddings):
        raise PredictError(f"model_max_length is {max_length}, expected 3 to {config.max_position_embeddings}")
    if config.num_labels < 2 or config.problem_type not in (None, "single_label_classification"):
        raise PredictError("not a classifier that gives each text one of several labels")

    def logits(texts: Sequence[str | tuple[str, str]]) -> np.ndarray:
        ids, _ = encode_texts(tokenizer, vocabulary, texts, max_length)
        return inference.answer_all(predict, ids, vocabulary.pad, config.num_labels, PIECES)

    return Labeller(logits, tuple(str(config.id2label[i]) for i in range(config.num_labels)), pairs)


@dataclass(frozen=True)
class Labelled:
    """The result for a file: its rows, those without text, and predictions against the file's label column."""

    rows: int
    blank: int
    truth: str | None = None  # the label column that predictions are compared with
    confusion: np.ndarray | None = None  # (right class, predicted class), counts of the rows that have a label
    unmatched: str | None = None  # why a column "label" cannot be compared


def label_file(
    labeller: Labeller,
    source: Path,
    to: Path,
    text: Sequence[str] | None = None,
    progress: Callable[[float, int], None] = lambda share, n: None,
    label: str | None = None,
    dialect: Dialect = PLAIN,
) -> Labelled:
    """Write the rows of `source` with label and probability to the CSV file `to`, and return the result.

    `text` names the column of the texts, or the two of pairs; None: the column that the model was trained on, or "text" if only that
    is in the file. `label` names the column of the right classes, by default "label" if there is one. All columns are written, values
    other than text as JSON. The file is read twice, so that an unreadable row is reported before any prediction; `to` appears when all
    rows are done. Raises PredictError, or TextError naming the file and the row.
    """
    source, to = Path(source), Path(to)
    columns = _columns(source, dialect)
    if text is None:
        text = ("text",) if "text" in columns and not set(labeller.columns) <= set(columns) else labeller.columns
    _check_inputs(labeller, source, to, columns, text, label)
    columns = [name for name in columns if name.strip()]
    truth = label or ("label" if "label" in columns and "label" not in text else None)
    total, places = 0, {}  # where each label occurs first
    for row in _rows(source, columns, text, dialect, truth):
        total += 1
        if row.truth is not None:
            places.setdefault(row.truth, row.place)
    if not total:
        raise PredictError(f"{source.name}: it holds no rows")
    numbers, unmatched = {}, None
    try:
        numbers = classes.numbers(places, labeller.labels, labeller.ordered)
    except formats.TextError as error:
        reason = str(error).replace("; the classes are those of train", "")
        if label is not None:
            raise PredictError(f"{reason} (the student's)") from None
        unmatched = reason.replace("train's classes", "the student's classes")
    rows, n_rows, n_blank = _rows(source, columns, text, dialect, truth), 0, 0
    confusion = np.zeros((len(labeller.labels),) * 2, dtype=np.int64)
    with files.atomic_write(to) as new, new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *(f"predicted {name}" if name in columns else name for name in ADDED)])
        while chunk := list(islice(rows, CHUNK)):
            texts = [row.text for row in chunk if row.text is not None]
            predicted, probabilities = map(iter, labeller(texts) if texts else ((), ()))
            for row in chunk:
                name = next(predicted) if row.text is not None else ""
                writer.writerow([*row.values, name, f"{next(probabilities):.6f}" if name else ""])
                if name and row.truth in numbers:
                    confusion[numbers[row.truth], labeller.labels.index(name)] += 1
            n_rows, n_blank = n_rows + len(chunk), n_blank + len(chunk) - len(texts)
            progress(n_rows / total, n_rows)
    compared = truth is not None and unmatched is None and confusion.sum() > 0
    return Labelled(n_rows, n_blank, truth if compared else None, confusion if compared else None, unmatched)


def _columns(source: Path, dialect: Dialect) -> list[str]:
    """Return a file's columns. Raises PredictError if it is not of a kind that can be read."""
    if formats.is_table(source):
        return _all_columns(source, dialect)
    if source.suffix.lower() == ".txt":
        return ["text"]
    raise PredictError(f"{source}: give one of {', '.join((*formats.TABLES, '.txt'))}, or a folder saved by `datasets`")


def _check_inputs(labeller: Labeller, source: Path, to: Path, columns: list[str], text: Sequence[str], label: str | None) -> None:
    """Raise PredictError if `to` is not a new CSV file, `text` is not one column, or two for a model of pairs, or columns do not fit."""
    if to.suffix.lower() != ".csv":
        raise PredictError(f"{to}: the labels are written as CSV; give a name that ends in .csv")
    if not to.parent.is_dir():
        raise PredictError(f"{to}: the folder {to.parent} does not exist; make it first")
    if to.exists():
        raise PredictError(f"{to}: it exists already; remove it, or name another with --to")
    if len(text) > 2 or len(set(text)) < len(text):
        raise PredictError(f"--text {' --text '.join(text)}: give the one column of texts, or the two of pairs")
    if labeller.pairs is not None and labeller.pairs != (len(text) == 2):
        raise PredictError(
            f"the student was trained on {'pairs: give --text twice' if labeller.pairs else 'single texts: give --text once'}"
        )
    for name in (*text, *([label] if label else [])):
        if name not in columns:
            option = "--text" if name in text else "--label"
            option += NO_HEADER if source.suffix.lower() in (".csv", ".tsv") else ""
            raise PredictError(
                f"{source.name}: no column {name!r}; it has {', '.join(map(repr, columns))[:400]}: name one with {option}"
            )
    if repeated := next((name for name in columns if columns.count(name) > 1 and name.strip()), None):
        raise PredictError(
            f"{source.name}: {columns.count(repeated)} columns {repeated!r}; its columns are {', '.join(columns)[:200]}"
        )
    if taken := [f"predicted {name}" for name in ADDED if name in columns and f"predicted {name}" in columns]:
        raise PredictError(
            f"{source.name}: it has a column {taken[0]!r} already, and predictions are written under that name; rename it"
        )


def _all_columns(source: Path, dialect: Dialect) -> list[str]:
    """Return the columns of a table; for JSON lines the fields of all records, in the order of their first use."""
    if not _is_json(source):
        return formats.columns_of(source, dialect)
    names: dict[str, None] = {}
    for _, record in formats.objects(source, dialect):
        names |= dict.fromkeys(record)
    return list(names) or formats.columns_of(source, dialect)


def _is_json(source: Path) -> bool:
    return not source.is_dir() and source.suffix.lower() in (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class Row:
    """One row of a file."""

    place: str  # file and line, for messages
    values: list[str]  # to write
    text: str | tuple[str, str] | None  # to label; None if it is empty
    truth: str | None  # its right class


def _rows(
    source: Path, columns: list[str], text: Sequence[str], dialect: Dialect = PLAIN, truth: str | None = None
) -> Iterator[Row]:
    """Yield the rows of a file. Raises TextError, naming the row."""
    for place, values in _values(source, columns, text, dialect):
        cells = dict(zip(columns, values, strict=True))
        label = None if truth is None or cells[truth] in (None, "") else str(cells[truth]).strip()
        item = as_item(place, [cells[name] for name in text])
        yield Row(place, [v if isinstance(v, str) else _as_cell(place, v) for v in values], item, label)


def as_item(place: str, values: Sequence) -> str | tuple[str, str] | None:
    """Return one text, or a pair, as a Labeller takes it; None if a text is empty. Raises PredictError for what is not text."""
    for value in values:
        if not isinstance(value, str | None):
            raise PredictError(f"{place}: {shortened(value)} is not a text")
    texts = [spaced(value or "")[:LONGEST] for value in values]
    return None if not all(texts) else texts[0] if len(texts) == 1 else tuple(texts)


def _values(source: Path, columns: list[str], text: Sequence[str], dialect: Dialect) -> Iterator[tuple[str, list]]:
    """Yield (place, values of `columns`). A JSON record may lack any field but the text's."""
    if not formats.is_table(source):
        for n, line in enumerate(decoded(source, dialect.encoding), 1):  # with its blank lines, which get no label
            formats.check_text(f"{source.name}, line {n}", line)
            yield f"{source.name}, line {n}", [line.rstrip("\r\n")]
    elif not _is_json(source):
        yield from formats.rows(source, columns, dialect=dialect, names=True)
    else:
        for place, record in formats.objects(source, dialect):
            if missing := [name for name in text if name not in record]:
                raise TextError(f"{place}: no field {missing[0]!r}; its fields are {', '.join(record)[:200]}")
            for value in record.values():
                if isinstance(value, str):
                    formats.check_text(place, value)
            yield place, [record.get(name) for name in columns]


def _as_cell(place: str, value: object) -> str:
    """Return a value other than text as a cell of a CSV: empty for None, JSON for the rest."""
    if value is None:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:
        raise PredictError(f"{place}: a number with thousands of digits; remove it") from None
