"""A first params file for files of one's own: looks at the table, guesses its columns and sensible sizes, says why.

Every guess is a line that can be changed. Nothing is trained and no text leaves the file.
"""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import jinja2

from pdstudy.data import cleaning, formats, sources
from pdstudy.data.formats import TextError
from pdstudy.data.tasks import Files, Task
from pdstudy.data.texts import DECIMAL, spaced
from pdstudy.storage import paths

LOOKED_AT = 5000  # rows
LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "verdict", "gold", "intent", "topic", "y")
TEXT_NAMES = ("text", "sentence", "review", "body", "content", "message", "comment", "document", "utterance", "question", "title")
PAIR_NAMES = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "answer"), ("question1", "question2"),
    ("text_a", "text_b"), ("text1", "text2"), ("query", "passage"), ("question", "sentence"),
)  # fmt: skip
MOST_LABELS = 200
LENGTHS = (32, 48, 64, 96, 128)  # pieces of a text that are read: twice as long costs twice the time
FINETUNED, DISTILLED = 8_000, 20_000  # texts that a student sees in all, repeats included
MOST_TRANSFER, HELDOUT = 60_000, 0.02
UNKNOWN, PIECES_A_WORD = 0.01, 1.7  # above these the released family's word pieces do not fit a text


@dataclass(frozen=True)
class Guess:
    """What a table seems to be."""

    text: tuple[str, ...]
    label: str
    words: int  # of a text; 95 % have fewer
    sample: tuple[str, ...]


def look(path: Path, text: tuple[str, ...] = (), label: str | None = None) -> Guess:
    """Return what a table of labelled texts seems to be, from its first rows. Raises TextError, naming the options."""
    names = formats.columns_of(path)
    if path.suffix.lower() in (".csv", ".tsv") and (twice := [n for n, k in Counter(names).items() if k > 1]):
        raise TextError(f"{path.name}: 2 columns {twice[0]!r}; its columns are {', '.join(names)[:200]}")
    for wanted in (*text, *([label] if label else [])):
        if wanted not in names:
            raise TextError(f"{path.name}: no column {wanted!r}; its columns are {', '.join(names)[:200]}")
    rows = [values for _, values in islice(formats.rows(path, names), LOOKED_AT)]
    if not rows:
        raise TextError(f"{path.name} holds no rows; give at least a few hundred labelled texts")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    label = label or _label(path, columns, text)
    text = text or _text(path, {name: values for name, values in columns.items() if name != label})
    joined = [" ".join(str(columns[name][i] or "") for name in text) for i in range(len(rows))]
    lengths = sorted(t.count(" ") + 1 for t in joined)
    return Guess(text, label, lengths[int(0.95 * (len(lengths) - 1))], tuple(joined[:1000]))


def _label(path: Path, columns: dict[str, list], text: tuple[str, ...]) -> str:
    fit = {}
    for name, values in columns.items():
        distinct = {v if isinstance(v, int) else str(v).strip() for v in values if v is not None}
        short = all(isinstance(v, int) or len(str(v)) <= 60 for v in distinct)
        decimals = any(DECIMAL.fullmatch(str(v)) for v in distinct)
        if name not in text and 2 <= len(distinct) <= min(MOST_LABELS, max(2, len(values) // 3)) and short and not decimals:
            fit[name] = len(distinct)
    named = [name for wanted in LABEL_NAMES for name in fit if name.lower() == wanted]
    if named or fit:
        return named[0] if named else min(fit, key=fit.get)
    raise TextError(f"{path.name}: none of its columns, {', '.join(columns)[:200]}, looks like labels; name it with --label")


def _text(path: Path, columns: dict[str, list]) -> tuple[str, ...]:
    lower = {name.lower(): name for name in columns}
    for pair in PAIR_NAMES:
        if set(pair) <= set(lower):
            return tuple(lower[name] for name in pair)
    lengths = {
        name: sum(len(v.split()) for v in values if isinstance(v, str)) / len(values)
        for name, values in columns.items()
        if any(isinstance(v, str) and re.search(r"[^\W\d]", v) for v in values)
    }
    if not lengths:
        raise TextError(f"{path.name}: none of its columns, {', '.join(columns)[:200]}, looks like text; name it with --text")
    named = [lower[name] for name in TEXT_NAMES if lower.get(name) in lengths]
    return (named[0],) if named else (max(lengths, key=lengths.get),)


def family_fits(sample: tuple[str, ...]) -> tuple[bool, float, float]:
    """Return whether the released family's word pieces fit a text, its share of unknown pieces, and pieces a word."""
    from pdstudy.data.tokenizer import encode_texts, open_tokenizer

    tokenizer, vocabulary = open_tokenizer(paths.ZOO / "tokenizer")
    ids, counts = encode_texts(tokenizer, vocabulary, list(sample), None)
    n_words = max(1, sum(t.count(" ") + 1 for t in sample))
    unknown, rate = counts["unknown"] / max(1, counts["pieces"]), (len(ids.flat) - len(sample)) / n_words
    return unknown <= UNKNOWN and rate <= PIECES_A_WORD, unknown, rate


def params_file(
    train: Path, to: Path, text: tuple[str, ...] = (), label: str | None = None, name: str | None = None, **files
) -> str:
    """Return a commented params file for a table of labelled texts, and `files`: dev, test, transfer, corpus.

    Paths are written relative to `to`, where the file will stand. All files are read and cleaned once, so that the
    numbers are those that a study will find. Raises TextError.
    """
    found = look(train, text, label)
    files = dict.fromkeys(("dev", "test", "transfer", "corpus")) | files
    lists = {k: tuple(map(str, files[k] or ())) for k in ("transfer", "corpus")}
    splits = {k: str(files[k]) if files[k] else None for k in ("dev", "test")}
    raw = sources.read(Task("mine", "", Files(str(train), **splits, **lists, text=found.text, label=found.label), (), "", "", ""))
    held = max(1, min(1000, len(raw.labelled["train"]) // 5))
    cut = cleaning.build(raw, {k: held for k in ("dev", "test") if not files[k]}, None, HELDOUT, 0)
    counts = Counter(raw.labels[y] for _, y in raw.labelled["train"]).most_common()
    n_train, n_transfer = len(cut.labelled["train"][0]), min(len(cut.transfer), MOST_TRANSFER)
    fits, unknown, rate = family_fits(found.sample)
    templates = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    # YAML, not HTML; what comes from the files is quoted as JSON
    environment = jinja2.Environment(loader=templates, autoescape=False, keep_trailing_newline=True)  # noqa: S701
    return environment.get_template("own.yaml.j2").render(
        found=found,
        rows=len(raw.labelled["train"]),
        classes=counts,
        name=name or _name(train),
        file=to.name,
        train=_beside(train, to),
        files={k: [_beside(p, to) for p in v] if isinstance(v, list) else _beside(v, to) if v else None for k, v in files.items()},
        held=held,
        max_length=next((n for n in LENGTHS if n >= int(found.words * max(rate, 1.0)) + 3), LENGTHS[-1]),
        n_transfer=n_transfer,
        finetune_epochs=_epochs(FINETUNED, n_train, 2),
        distill_epochs=_epochs(DISTILLED, n_transfer, 1),
        family=fits,
        unknown=unknown,
        rate=rate,
    )


def _epochs(passes: int, texts: int, least: int) -> int:
    return max(least, min(20, round(passes / max(1, texts))))


def texts_of(path: Path, columns: list[str]) -> list[str]:
    """Return the texts of a corpus: a table's column (that of the task, or guessed), or the lines of a text file."""
    if not formats.is_table(path):
        return [spaced(text) for _, text in formats.lines(path)]
    names = formats.columns_of(path)
    columns = columns if set(columns) <= set(names) else [*_text(path, {n: [v for (v,) in _first(path, n)] for n in names})]
    return [" ".join(str(v or "") for v in values) for _, values in formats.rows(path, columns)]


def _first(path: Path, column: str) -> list[list]:
    return [values for _, values in islice(formats.rows(path, [column]), 200)]


def _name(path: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40] or "mine"


def _beside(path: Path, to: Path) -> str:
    """Return a path as it is written in a params file that stands at `to`."""
    path, folder = path.resolve(), to.resolve().parent
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else paths.portable(str(path), folder)
