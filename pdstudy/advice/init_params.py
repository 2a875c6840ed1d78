"""A first params file for files of one's own: looks at the table, guesses its columns and sensible sizes, says why.

Every guess is a line that can be changed. Nothing is trained and no text leaves the file.
"""

import re
from collections import Counter
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import jinja2
import yaml

from pdstudy.advice import columns
from pdstudy.data import cleaning, formats, left_out, own_pieces, rare, scripts, sources
from pdstudy.data.dialects import PLAIN, Dialect
from pdstudy.data.formats import TextError
from pdstudy.data.tasks import TASKS, Files, Task
from pdstudy.data.texts import spaced
from pdstudy.data.tokenizer import encode_texts, open_tokenizer, vocabulary_of
from pdstudy.escape import escape_control
from pdstudy.storage import paths

LENGTHS, UNSPACED_LENGTHS = (32, 48, 64, 96, 128), (192, 256)  # pieces of a text that are read: twice as long costs twice the time
FINETUNED, DISTILLED = 8_000, 20_000  # texts that a student sees in all, repeats included
MOST_TRANSFER, HELDOUT = 60_000, 0.02
UNKNOWN, PIECES_A_WORD, MERGED = 0.01, 1.7, 0.002  # above these the released family's word pieces do not fit a text
VOCABULARY, SPARE = 4096, 0.9  # an own vocabulary; of what a small text supports this share, for other splits support less
ENOUGH = 3_000_000  # characters of D_LM that tell what it supports
FOR_COUNTS = 600  # pieces, below which word vectors of width 256 cannot be counted
HELDOUT_WORDS, LEAST_WORDS = 384, 400  # held out of D_LM to measure reading, and in all of it
RESERVED = {*TASKS, "store", "cache", "hub"}


@dataclass(frozen=True)
class Pieces:
    """The word pieces that fit a text: those of the released family, or its own."""

    family: bool
    unknown: float  # share of the family's pieces that are unknown
    rate: float  # pieces a word, the family's
    merged: float  # share of running words that the family's pieces give another word's form
    vocabulary: int
    length: int  # pieces of a text; 95 % have at most so many


@dataclass(frozen=True)
class First:
    """A params file, and what there is to say before it is written."""

    text: str
    said: tuple[str, ...]


def params_file(
    train: Path, to: Path, text: tuple[str, ...] = (), label: str | None = None, name: str | None = None,
    dialect: Dialect = PLAIN, header_given: bool = False, rare_how: str | None = None, labels: tuple[str, ...] = (), **files,
) -> First:  # fmt: skip
    """Return a commented params file for a table of labelled texts, and `files`: dev, test, transfer, corpus.

    Paths are written relative to `to`, where the file will stand. All files are read and cleaned once, so that the
    numbers are those that a study will find. Raises TextError.
    """
    found = columns.look(train, text, label, dialect, header_given)
    files = dict.fromkeys(("dev", "test", "transfer", "corpus")) | files
    lists = {k: tuple(map(str, files[k] or ())) for k in ("transfer", "corpus")}
    splits = {k: str(files[k]) if files[k] else None for k in ("dev", "test")}
    own = Files(str(train), **splits, **lists, text=found.text, label=found.label, labels=labels, dialect=dialect, rare=rare_how)
    try:
        raw = sources.read(Task("mine", "", own, (), "", "", ""))
        n_distinct = len({raw.key(*t) for t, _ in raw.labelled["train"]})
        held = max(1, min(1000, len(raw.labelled["train"]) // 5))
        held = held if 4 * held <= n_distinct else max(1, n_distinct // 5)  # of many rows that repeat each other few texts are left
        cut = cleaning.build(raw, {k: held for k in ("dev", "test") if not files[k]}, None, HELDOUT, 0)
    except TextError as error:
        raise TextError(f"{error} (read as {'; '.join(found.why[:2])})") from None
    counts = Counter(cut.labels[y] for part in ("train", "dev", "test") if not files.get(part) for y in cut.labelled[part][1])
    n_train, n_transfer = len(cut.labelled["train"][0]), min(len(cut.transfer), MOST_TRANSFER)
    read = [*cut.heldout, *cut.documents]
    heldout = _heldout(found.sample, len(read))
    pieces = fitting(found.sample, read[max(1, round(heldout * len(read))) :])  # what is held out makes no pieces
    if not pieces.family and _words(found.sample) * len(read) < LEAST_WORDS:
        raise TextError(
            f"D_LM has about {_words(found.sample) * len(read):,.0f} words, and the released family's word pieces do not fit this text; at "
            f"least {LEAST_WORDS:,} are needed to read before: give more text with --corpus or --transfer"
        )
    said = (
        _summary(counts, len(raw.labelled["train"])),
        *found.why,
        *left_out.lines(cut.counts, cut.examples),
        *([] if rare_how == "keep" else rare.note(counts)),
    )
    templates = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    # YAML, not HTML; what comes from the files is written by a YAML writer, or escaped in a comment.
    environment = jinja2.Environment(loader=templates, autoescape=False, keep_trailing_newline=True, trim_blocks=True)  # noqa: S701
    environment.filters["yaml"] = as_yaml
    study = name or _name(train)
    written = environment.get_template("own.yaml.j2").render(
        said=[escape_control(" ".join(line.split())) for line in said],
        name=study,
        file=escape_control(to.name),
        train=_beside(train, to),
        files={k: [_beside(p, to) for p in v] if isinstance(v, list) else _beside(v, to) if v else None for k, v in files.items()},
        found=found,
        labels=list(labels),
        dialect=asdict(dialect),
        rare=rare_how,
        held=held,
        heldout=HELDOUT if pieces.family else heldout,
        max_length=next(
            (n for n in _lengths(found.sample) if n >= pieces.length + 1 + len(found.text)), _lengths(found.sample)[-1]
        ),
        n_transfer=n_transfer,
        finetune_epochs=_epochs(FINETUNED, n_train, 2),
        distill_epochs=_epochs(DISTILLED, n_transfer, 1),
        pieces=pieces,
        words="counts" if pieces.family or pieces.vocabulary >= FOR_COUNTS else "random",
    )
    return First(written, tuple(escape_control(line) for line in said))


def _summary(counts: Counter, n_rows: int) -> str:
    """Return the distinct texts and the classes, the largest first, in their own letters."""
    shown = ", ".join(f'"{name}" {n:,}' for name, n in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:6]) + (
        ", ..." if len(counts) > 6 else ""
    )
    rows = f" in {n_rows:,} rows" if n_rows != counts.total() else ""
    return f"{counts.total():,} labelled texts{rows}, {len(counts):,} classes: {shown}"


def as_yaml(value: object) -> str:
    """Return a value as YAML writes it on one line."""
    written = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=float("inf"))
    return written.removesuffix("\n").removesuffix("\n...")


@lru_cache(maxsize=1)
def _family():
    """Return the released family's tokenizer and its vocabulary."""
    return open_tokenizer(paths.ZOO / "tokenizer")


def fitting(sample: tuple[str, ...], documents: list[str]) -> Pieces:
    """Return the word pieces for a text: the released family's where they lose nothing of it, else those that it supports.

    Raises TextError where D_LM is too short to make any of.
    """
    tokenizer, vocabulary = _family()
    ids, counts = encode_texts(tokenizer, vocabulary, list(sample), None)
    n_words = max(1, sum(1 for t in sample for _ in scripts.units(t)))
    unknown = (counts["unknown"] + _dropped(tokenizer, sample)) / max(1, counts["pieces"])
    rate, merged = (len(ids.flat) - len(sample)) / n_words, _merged(tokenizer, sample)
    if unknown <= UNKNOWN and rate <= PIECES_A_WORD and merged <= MERGED:
        return Pieces(True, unknown, rate, merged, VOCABULARY, _most(ids.lengths - 1))
    found = _supported(documents)
    n = VOCABULARY if len(found) >= VOCABULARY else int(SPARE * len(found))
    if n < 8:
        raise TextError(
            f"D_LM, of which word pieces are made, supports only {len(found)}; give more text, such as --corpus or --transfer"
        )
    own = own_pieces.blank(found)
    ids, _ = encode_texts(own, vocabulary_of(own), list(sample), None)
    return Pieces(False, unknown, rate, merged, n, _most(ids.lengths - 1))


def _supported(documents: list[str]) -> dict[str, int]:
    """Return the pieces that D_LM supports, up to VOCABULARY; a long text is asked only as far as need be."""
    n, first = 0, 0
    while first < len(documents) and n < ENOUGH:
        n, first = n + len(documents[first]), first + 1
    found = own_pieces.supported(documents[:first], VOCABULARY)
    return found if len(found) >= VOCABULARY or first == len(documents) else own_pieces.supported(documents, VOCABULARY)


def _most(lengths) -> int:
    """Return the length that 95 % do not exceed."""
    ordered = sorted(lengths.tolist())
    return ordered[int(0.95 * (len(ordered) - 1))]


def _dropped(tokenizer, sample: tuple[str, ...]) -> int:
    """Return how many characters a tokenizer's normaliser drops without an unknown piece: signs that it does not know."""
    counts = Counter(c for text in sample if not text.isascii() for c in text if not c.isascii() and not c.isspace())
    return sum(
        n
        for c, n in counts.items()
        if not tokenizer.normalizer.normalize_str("a" + c).strip().removeprefix("a") and not _is_mark(c)
    )


def _is_mark(c: str) -> bool:
    import unicodedata

    return unicodedata.category(c)[0] in "MC"


def _merged(tokenizer, sample: tuple[str, ...]) -> float:
    """Return the share of running words that a tokenizer's normaliser makes the same as another word: accents that tell words apart."""
    counts = Counter(word for text in sample for word in scripts.units(text))
    forms: dict[str, set[str]] = {}
    plain = {word: word if word.isascii() else tokenizer.normalizer.normalize_str(word) for word in counts}
    for word, form in plain.items():
        forms.setdefault(form, set()).add(word)
    return sum(n for word, n in counts.items() if len(forms[plain[word]]) > 1 and not word.isascii()) / max(1, counts.total())


def _heldout(sample: tuple[str, ...], n_documents: int) -> float:
    """Return the share of D_LM that is held out, enough of it to measure reading on."""
    share = HELDOUT_WORDS / max(1.0, _words(sample) * n_documents)
    return max(HELDOUT, min(0.4, float(f"{share:.1g}")))


def _words(sample: tuple[str, ...]) -> float:
    """Return the mean number of words of a text; of scripts without spaces, of characters."""
    return sum(1 for text in sample for _ in scripts.units(text)) / max(1, len(sample))


def _lengths(sample: tuple[str, ...]) -> tuple[int, ...]:
    return LENGTHS + (UNSPACED_LENGTHS if scripts.unspaced(sample[:200]) else ())


def _epochs(passes: int, texts: int, least: int) -> int:
    return max(least, min(20, round(passes / max(1, texts))))


def texts_of(path: Path, wanted: list[str], dialect: Dialect = PLAIN) -> list[str]:
    """Return the texts of a corpus: a table's column (that of the task, or guessed), or the lines of a text file."""
    if not formats.is_table(path):
        return [spaced(text) for _, text in formats.lines(path, dialect)]
    names = formats.columns_of(path, dialect)
    if not set(wanted) <= set(names):
        first = columns.first_values(path, dialect)
        wanted = list(columns.text_of(path, first))
    return [" ".join(str(v or "") for v in values) for _, values in formats.rows(path, wanted, dialect=dialect)]


def _name(path: Path) -> str:
    found = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40].strip("-") or "mine"
    return f"my-{found}" if found in RESERVED else found


def _beside(path: Path, to: Path) -> str:
    """Return a path as it is written in a params file that stands at `to`. Raises TextError for a name that is no text."""
    path, folder = path.resolve(), to.resolve().parent
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise TextError(f"{escape_control(path.name)}: the name is not UTF-8; rename the file") from None
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else paths.portable(str(path), folder)
