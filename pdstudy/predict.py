"""Labels a file with an exported classifier, in a stream: a file of any length takes the same memory.

Texts go the way of training: cleaned as a task's texts are, cut into the folder's word pieces, at most as many of
them as the student read. A row without text is written without label, and counted: nothing is made up for it.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from pdstudy import answers, disk
from pdstudy.answers import Answer
from pdstudy.corpora import normalise
from pdstudy.tokens import Vocabulary, encode_texts, open_tokenizer

ADDED = ("label", "probability")  # the columns that are written behind the input's
CHUNK = 1024  # rows that are in memory at a time
PIECES = 1024  # in a batch: on a processor larger ones are slower and take more memory
UNFIT = re.compile(r"[\0\ud800-\udfff]")  # NUL, and what stands for bytes that are not UTF-8


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

    def __call__(self, items: Sequence[str | tuple[str, str]]) -> tuple[list[str], np.ndarray]:
        """Return the label of each text, or pair of texts, and its probability, (n_items,)."""
        ids, _ = encode_texts(self.tokenizer, self.vocabulary, items, self.max_length)
        logits = answers.answer_all(self.answer, ids, self.vocabulary.pad, len(self.labels), PIECES).astype(np.float64)
        share = np.exp(logits - logits.max(axis=1, keepdims=True))
        best = logits.argmax(axis=1)
        return [self.labels[i] for i in best], share.max(axis=1) / share.sum(axis=1)


def open_labeller(folder: Path, onnx: str | None = None) -> Labeller:
    """Return a folder's Labeller: safetensors in our own forward, or one of `answers.ONNX` ("fp32", "int8") in ONNX Runtime.

    Raises PredictError when the folder is not a whole, plain BERT classifier with its tokenizer.
    """
    import torch
    from safetensors import SafetensorError

    from pdstudy.models import load_config

    folder, threads = Path(folder), torch.get_num_threads()
    try:
        config = load_config(folder)
        answer = answers.open_onnx(folder / answers.ONNX[onnx], threads) if onnx else answers.open_torch(folder, threads)
        tokenizer, vocabulary = open_tokenizer(folder)
        max_length = json.loads((folder / "tokenizer_config.json").read_text()).get("model_max_length")
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
    return Labeller(answer, labels, tokenizer, vocabulary, max_length)


def label_file(
    labeller: Labeller,
    source: Path,
    to: Path,
    text: Sequence[str] = ("text",),
    progress: Callable[[float, int], None] = lambda share, n: None,
) -> tuple[int, int]:
    """Write `source`'s rows with label and probability to the CSV file `to`; return how many, and how many have no text.

    `text` names the column of the texts, or the two of pairs. Of CSV and TSV all columns are written, of other files
    the texts. `to` appears when it is whole. Raises PredictError naming the file and the row.
    """
    source, to = Path(source), Path(to)
    if to.suffix.lower() != ".csv":
        raise PredictError(f"{to}: the labels are written as CSV; give a name that ends in .csv")
    if not to.parent.is_dir():
        raise PredictError(f"{to}: the folder {to.parent} is not there; make it first")
    if to.exists():
        raise PredictError(f"{to}: it is there already; remove it, or name another with --to")
    n_rows = n_blank = 0
    rows = _rows(source)
    with disk.whole(to) as new, new.open("w", encoding="utf-8", newline="") as file:
        first = next(rows, None)
        if first is None:
            raise PredictError(f"{source}: it holds no rows")
        columns = _columns(source, list(first.values), text)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *ADDED])
        rows = chain([first], rows)
        while chunk := list(islice(rows, CHUNK)):
            items = [_item(source, row, text) for row in chunk]
            answered = iter(_answered(labeller, [item for item in items if item]))
            writer.writerows(
                [*(row.values[c] for c in columns), *(next(answered) if item else ("", ""))]
                for row, item in zip(chunk, items, strict=True)
            )
            n_rows, n_blank = n_rows + len(chunk), n_blank + items.count(None)
            progress(chunk[-1].share, n_rows)
        file.flush()
    return n_rows, n_blank


def _answered(labeller: Labeller, items: list) -> Iterable[tuple[str, str]]:
    if not items:
        return []
    labels, share = labeller(items)
    return [(label, f"{p:.6f}") for label, p in zip(labels, share, strict=True)]


def _columns(source: Path, columns: list[str], text: Sequence[str]) -> list[str]:
    """Return the columns that are written, after checking that the texts are there and nothing is written twice."""
    for name in text:
        if name not in columns:
            raise PredictError(f"{source}: no column {name!r}; it has {', '.join(map(repr, columns))}: name one with --text")
    if len(text) > 2 or len(set(text)) < len(text):
        raise PredictError(f"--text {' --text '.join(text)}: give the one column of texts, or the two of pairs")
    written = columns if source.suffix.lower() in (".csv", ".tsv") else list(text)
    if taken := [name for name in ADDED if name in written]:
        raise PredictError(f"{source}: it has a column {taken[0]!r} already, and the answer is written under that name; rename it")
    return written


def _item(source: Path, row: "Row", text: Sequence[str]) -> str | tuple[str, str] | None:
    """Return a row's text, or its pair of texts, cleaned as in training; None where there is nothing to read."""
    if lacking := [name for name in text if name not in row.values]:
        raise PredictError(f"{source}, {row.where}: no {lacking[0]!r} there")
    values = [row.values[name] for name in text]
    for name, value in zip(text, values, strict=True):
        if not isinstance(value, str | None):
            raise PredictError(f"{source}, {row.where}: {name!r} is {json.dumps(value, default=str)[:40]}, expected text")
    cleaned = [normalise(value or "") for value in values]
    if not any(cleaned):
        return None
    return cleaned[0] if len(cleaned) == 1 else tuple(cleaned)


@dataclass(frozen=True)
class Row:
    """One row of a file: where it stands, its values by column, and the share of the file that has been read."""

    where: str
    values: dict[str, str | None]
    share: float


def _rows(path: Path) -> Iterator[Row]:
    """Yield a file's rows one by one, read strictly. Raises PredictError naming the file and the row."""
    kinds = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".txt": _txt, ".parquet": _parquet}
    if path.suffix.lower() not in kinds:
        raise PredictError(f"{path}: not a kind of file that is read; give one of {', '.join(kinds)}")
    try:
        for row in kinds[path.suffix.lower()](path):
            found = next((f for v in row.values.values() if isinstance(v, str) and (f := UNFIT.search(v))), None)
            if found:
                what = "a NUL character; remove it" if found[0] == "\0" else "not UTF-8 text; save the file as UTF-8"
                raise PredictError(f"{path}, {row.where}: {what}")
            yield row
    except OSError as error:
        raise PredictError(f"{path}: cannot be read ({error.strerror or str(error).splitlines()[0]})") from None


def _lines(path: Path):
    """Return a text file, opened so that a byte that is not UTF-8 is found in its row, and a function that tells the share read."""
    file, size = path.open(encoding="utf-8-sig", errors="surrogateescape", newline=""), max(1, path.stat().st_size)
    return file, lambda: file.buffer.tell() / size


def _csv(path: Path, **how) -> Iterator[Row]:
    file, share = _lines(path)
    with file:
        reader = csv.reader(file, strict=True, **how)
        try:
            header = next(reader, None)
            if not header:
                raise PredictError(
                    f"{path}: it is empty" if header is None else f"{path}: its first line is blank, expected column names"
                )
            if bad := [name for name in header if UNFIT.search(name)]:
                raise PredictError(f"{path}: the column name {bad[0]!a} is not UTF-8 text, or holds a NUL; save the file as UTF-8")
            if twice := sorted({name for name in header if header.count(name) > 1}):
                raise PredictError(f"{path}: the column {twice[0]!r} is there twice; rename one")
            n = 0
            for fields in reader:
                if not fields:  # a blank line
                    continue
                n += 1
                where = f"row {n} (line {reader.line_num})"
                if len(fields) != len(header):
                    raise PredictError(
                        f"{path}, {where}: {len(fields)} fields, expected {len(header)}; quote a text that holds the separator"
                    )
                yield Row(where, dict(zip(header, fields, strict=True)), share())
        except csv.Error as error:
            raise PredictError(f"{path}, line {reader.line_num}: {error}; is a quote missing?") from None


def _tsv(path: Path) -> Iterator[Row]:
    return _csv(path, delimiter="\t", quoting=csv.QUOTE_NONE)  # in TSV a quote is a letter


def _txt(path: Path) -> Iterator[Row]:
    file, share = _lines(path)
    with file:
        for n, line in enumerate(file, 1):
            yield Row(f"row {n}", {"text": line.rstrip("\r\n")}, share())


def _jsonl(path: Path) -> Iterator[Row]:
    file, share = _lines(path)
    with file:
        for n, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                raise PredictError(f"{path}, row {n}: not JSON; expected one object a line") from None
            if not isinstance(values, dict):
                raise PredictError(f'{path}, row {n}: not an object, expected one such as {{"text": ...}}')
            yield Row(f"row {n}", values, share())


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    n = 0
    try:
        with pq.ParquetFile(path) as file:
            total = file.metadata.num_rows
            for batch in file.iter_batches(CHUNK):
                for values in batch.to_pylist():
                    n += 1
                    yield Row(f"row {n}", values, n / total)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise PredictError(f"{path}, after row {n}: not readable as Parquet ({str(error).splitlines()[0][:80]})") from None
