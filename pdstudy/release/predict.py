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

from pdstudy.data import formats
from pdstudy.data.batches import Vocabulary
from pdstudy.data.texts import LONGEST, spaced
from pdstudy.data.tokenizer import encode_texts, open_tokenizer
from pdstudy.models import inference, linear
from pdstudy.models.inference import Answer
from pdstudy.storage import files

ADDED = ("label", "probability")  # the columns that are written behind the input's
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


def label_file(
    labeller: Labeller | LinearLabeller,
    source: Path,
    to: Path,
    text: Sequence[str] = ("text",),
    progress: Callable[[float, int], None] = lambda share, n: None,
) -> tuple[int, int]:
    """Write `source`'s rows with label and probability to the CSV file `to`; return how many, and how many have no text.

    `text` names the column of the texts, or the two of pairs. Of CSV and TSV all columns are written, of other files
    the texts. The file is read to its end before a text is labelled, so that what cannot be read is told at once, and
    `to` appears when it is whole. Raises PredictError naming the file and the row.
    """
    source, to = Path(source), Path(to)
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
    columns = _columns(source, tuple(text))
    total = sum(1 for _ in _rows(source, columns, text))
    if not total:
        raise PredictError(f"{source.name}: it holds no rows")
    rows, n_rows, n_blank = _rows(source, columns, text), 0, 0
    with files.atomic_write(to) as new, new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *ADDED])
        while chunk := list(islice(rows, CHUNK)):
            items = [item for _, item in chunk if item is not None]
            labels, shares = map(iter, labeller(items) if items else ((), ()))
            writer.writerows(
                [*values, "", ""] if item is None else [*values, next(labels), f"{next(shares):.6f}"] for values, item in chunk
            )
            n_rows, n_blank = n_rows + len(chunk), n_blank + len(chunk) - len(items)
            progress(n_rows / total, n_rows)
    return n_rows, n_blank


def _columns(source: Path, text: tuple[str, ...]) -> list[str]:
    """Return the columns that are written, after checking that the texts are among them and nothing is written twice."""
    if not formats.is_table(source):
        if source.suffix.lower() != ".txt":
            raise PredictError(
                f"{source.name}: give one of {', '.join((*formats.TABLES, '.txt'))}, or a folder saved by `datasets`"
            )
        columns = ["text"]
    else:
        columns = _read(source, lambda: formats.columns_of(source))
    for name in text:
        if name not in columns:
            raise PredictError(f"{source.name}: no column {name!r}; it has {', '.join(map(repr, columns))}: name one with --text")
    written = columns if source.suffix.lower() in (".csv", ".tsv") else list(text)
    if taken := [name for name in ADDED if name in written]:
        raise PredictError(
            f"{source.name}: it has a column {taken[0]!r} already, and the answer is written under that name; rename it"
        )
    return written


def _rows(source: Path, columns: list[str], text: Sequence[str]) -> Iterator[tuple[list[str], str | tuple[str, str] | None]]:
    """Yield, row by row, the values of `columns` and the text or pair to be labelled, None where there is none."""
    at = [columns.index(name) for name in text]
    found = (
        formats.rows(source, columns) if formats.is_table(source) else ((p, [t.rstrip("\r\n")]) for p, t in formats.lines(source))
    )
    while (row := _read(source, lambda: next(found, None))) is not None:
        place, values = row
        for value in values:
            if not isinstance(value, str | None):
                raise PredictError(f"{place}: {json.dumps(value, default=str)[:40]} is no text")
            if value and not _encodable(value):
                raise PredictError(f"{place}: half of a character (a lone surrogate); remove it")
        texts = [spaced(values[i] or "")[:LONGEST] for i in at]
        yield values, None if not all(texts) else texts[0] if len(texts) == 1 else tuple(texts)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(source: Path, what: Callable):
    """Return `what()`; what cannot be read becomes a PredictError."""
    try:
        return what()
    except formats.TextError as error:
        raise PredictError(str(error)) from None
    except OSError as error:
        raise PredictError(f"{source}: cannot be read ({error.strerror or str(error).splitlines()[0]})") from None
