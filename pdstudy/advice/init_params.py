"""Write a first params file for the user's own files: guess the columns and sensible sizes, and say why.

Every guess is a line that can be changed. Nothing is trained, and no text leaves the machine.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import jinja2
import numpy as np
import yaml

from pdstudy.advice import columns, taken_student
from pdstudy.advice.file_checks import check_style
from pdstudy.data import cleaning, formats, left_out, own_pieces, scripts, sources
from pdstudy.data import rare as rare_classes
from pdstudy.data.dialects import PLAIN, Dialect
from pdstudy.data.formats import TextError
from pdstudy.data.tasks import TASKS, Files, Task
from pdstudy.data.texts import spaced
from pdstudy.data.tokenizer import encode_texts, open_tokenizer, vocabulary_of
from pdstudy.escape import escape_control
from pdstudy.storage import paths

LENGTHS = (32, 48, 64, 96, 128, 192, 256)  # choices of max_length; twice the length takes twice the time
FINETUNED, DISTILLED = 8_000, 20_000  # texts that a student is trained on in all, repeats included
MOST_PIECES = 4_500_000  # of fine-tuning in all; 4/256 takes minutes for them. Many labelled texts are cut earlier.
MOST_TRANSFER, HELDOUT = 60_000, 0.02
UNKNOWN, PIECES_A_WORD, MERGED = 0.01, 1.7, 0.002  # above these the released family's word pieces do not fit a text
VOCABULARY, SPARE = (
    4096,
    0.9,
)  # of an own vocabulary; of what a small text supports only this share, because other splits support less
ENOUGH = 3_000_000  # characters of D_LM from which the vocabulary that it supports is known
FOR_COUNTS = 600  # pieces; with fewer, word vectors of width 256 cannot be counted
HELDOUT_WORDS, LEAST_WORDS = 384, 400  # words held out of D_LM to measure pre-training, and in all of it
# The teacher of the distilled family was trained on pairs of NLI, so no result on pairs of texts may rest on it.
SINGLE, PAIRS = "zoo/distilled", "zoo"  # the released family that a task of single texts, or of pairs, starts from
SIZES, RECIPES, TEACHER = ["2/128", "4/128", "2/256", "4/256"], ["Basic", "PF", "PD"], "4/256"
INIT_STD = {"128": 0.02, "256": 0.04}
BERT_STD = 0.02  # the initialiser's scale of other BERTs
RESERVED = {*TASKS, "store", "cache", "hub"}


@dataclass(frozen=True)
class Pieces:
    """The word pieces that fit a text: those of the released family, or its own."""

    family: bool
    unknown: float  # share of the family's pieces that are unknown
    rate: float  # pieces a word, of the family
    merged: float  # share of running words that become equal to another word in the family's pieces
    vocabulary: int
    length: int  # pieces of a text; 95 % of the texts have at most so many


@dataclass(frozen=True)
class ParamsFile:
    """The text of a params file, and notes for the user: what was guessed and what is left out."""

    text: str
    notes: tuple[str, ...]


def params_file(
    train: Path, to: Path, dev: Path | None = None, test: Path | None = None, transfer: list[Path] = (), corpus: list[Path] = (),
    text: tuple[str, ...] = (), label: str | None = None, labels: tuple[str, ...] = (), rare: str | None = None,
    name: str | None = None, dialect: Dialect = PLAIN, check_header: bool = True, student: str | None = None,
) -> ParamsFile:  # fmt: skip
    """Return a commented params file for a table of labelled texts and the user's other files.

    `student` names a pre-trained BERT that is a further student, see taken_student.py. Paths are written relative to `to`, the place of
    the params file. All files are read and cleaned once, so that the numbers are those of the study. Raises
    TextError, and ValueError if `student` is not a pre-trained BERT.
    """
    taken = taken_student.take(student) if student else None
    chosen = columns.find_columns(train, text, label, dialect, check_header)
    for path in filter(None, (dev, test, *transfer, *corpus)):
        check_style(path, dialect, check_header, (*columns.KNOWN, *chosen.text, chosen.label))
    lists = {"transfer": tuple(map(str, transfer)), "corpus": tuple(map(str, corpus))}
    splits = {k: str(path) if path else None for k, path in (("dev", dev), ("test", test))}
    files = Files(str(train), **splits, **lists, text=chosen.text, label=chosen.label, labels=labels, dialect=dialect, rare=rare)
    try:
        raw = sources.read(Task("mine", "", files, (), "", "", ""))
        n_distinct = len({raw.key(*t) for t, _ in raw.labelled["train"]})
        n_split = max(1, min(1000, len(raw.labelled["train"]) // 5))
        if 4 * n_split > n_distinct:  # many rows repeat each other
            n_split = max(1, n_distinct // 5)
        texts = cleaning.build(raw, {k: n_split for k in ("dev", "test") if not splits[k]}, None, HELDOUT, 0)
    except TextError as error:
        raise TextError(f"{error} (read as {'; '.join(chosen.reasons[:2])})") from None
    counts = Counter(texts.labels[y] for part in ("train", "dev", "test") if not splits.get(part) for y in texts.labelled[part][1])
    documents, n_words = [*texts.heldout, *texts.documents], _words(chosen.sample)
    heldout = max(HELDOUT, min(0.4, float(f"{HELDOUT_WORDS / max(1.0, n_words * len(documents)):.1g}")))
    family = SINGLE if len(chosen.text) == 1 else PAIRS
    pieces = fitting(chosen.sample, documents[max(1, round(heldout * len(documents))) :], family)  # held-out text makes no pieces
    if not pieces.family and n_words * len(documents) < LEAST_WORDS:
        raise TextError(
            f"D_LM has about {n_words * len(documents):,.0f} words, and the released family's word pieces do not fit this text; at "
            f"least {LEAST_WORDS:,} are needed for pre-training: give more text with --corpus or --transfer"
        )
    notes = (
        _class_counts(counts, len(raw.labelled["train"])),
        *chosen.reasons,
        *left_out.lines(texts.counts, texts.examples),
        *([] if rare == "keep" else rare_classes.note(counts)),
        *([_pieces_note(taken, chosen.sample)] if taken else []),
    )
    templates = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    # YAML, not HTML: values from the files are written by a YAML writer, or escaped in a comment.
    environment = jinja2.Environment(loader=templates, autoescape=False, keep_trailing_newline=True, trim_blocks=True)  # noqa: S701
    environment.filters["yaml"] = as_yaml
    n_transfer, n_train = min(len(texts.transfer), MOST_TRANSFER), len(texts.labelled["train"][0])
    epochs = _epochs(FINETUNED, n_train, 3)
    affordable = [n for n in LENGTHS if n * n_train * epochs <= MOST_PIECES] or LENGTHS[:1]
    needed = pieces.length + 1 + len(chosen.text)
    max_length = next((n for n in affordable if n >= needed), affordable[-1])
    if max_length < needed:
        notes += (
            f"more than one text in twenty is longer than {max_length} pieces and is cut; `lengths` measures what more is worth",
        )
    written = environment.get_template("own.yaml.j2").render(
        notes=[escape_control(" ".join(line.split())) for line in notes],
        name=name or _name(train),
        file=escape_control(to.name),
        train=_relative(train, to),
        dev=_relative(dev, to),
        test=_relative(test, to),
        transfer=[_relative(path, to) for path in transfer],
        corpus=[_relative(path, to) for path in corpus],
        columns=chosen,
        labels=list(labels),
        dialect=asdict(dialect),
        rare=rare,
        n_split=n_split,
        heldout=HELDOUT if pieces.family else heldout,
        max_length=max_length,
        n_transfer=n_transfer,
        finetune_epochs=epochs,
        distill_epochs=_epochs(DISTILLED, n_transfer, 1),
        pieces=pieces,
        **_students(pieces.family, family, taken),
        words="counts" if pieces.family or pieces.vocabulary >= FOR_COUNTS else "random",
    )
    return ParamsFile(written, tuple(escape_control(line) for line in notes))


def _students(fits: bool, family: str, taken: taken_student.TakenStudent | None) -> dict:
    """Return the values of the template that say which students there are: the family's if its pieces fit, and the one taken."""
    encoders = f"{family}/{{layers}}-{{hidden}}-s0"
    values = {"sizes": SIZES, "recipes": RECIPES, "init_std": INIT_STD, "encoders": encoders, "teacher": TEACHER, "student": taken}
    if taken is None:
        return values
    size, own = str(taken.size), {str(taken.size): taken.name}
    values["rates_by_size"] = {size: taken.rates} if taken.rates else {}
    if not fits:
        return values | {
            "sizes": [size],
            "recipes": ["PF", "PD"],
            "init_std": {str(taken.size.hidden): BERT_STD},
            "encoders": own,
            "teacher": size,
        }
    teacher = taken.teacher(TEACHER)
    return values | {
        "sizes": list(dict.fromkeys([*SIZES, size])),
        "recipe_sizes": {} if size in SIZES else {"Basic": SIZES} | ({"PD": SIZES} if teacher == size else {}),
        "init_std": {str(taken.size.hidden): BERT_STD} | INIT_STD,
        "encoders": own | {"others": encoders},
        "teacher": teacher,
    }


def _pieces_note(taken: taken_student.TakenStudent, sample: tuple[str, ...]) -> str:
    """Return how well the word pieces of a student from elsewhere fit a text."""
    ids, counts = encode_texts(*open_tokenizer(taken.folder), list(sample), None)
    n_words = max(1, sum(1 for t in sample for _ in scripts.units(t)))
    unknown, rate = counts["unknown"] / max(1, counts["pieces"]), (len(ids.flat) - len(sample)) / n_words
    fit = "" if unknown <= UNKNOWN else "; they do not fit this text"
    return f"student {taken.size}: {taken.name}, with its own word pieces ({unknown:.1%} unknown, {rate:.2f} a word){fit}"


def _class_counts(counts: Counter, n_rows: int) -> str:
    """Return the number of distinct texts and the classes, the largest first, in their own letters."""
    classes = [f'"{name}" {n:,}' for name, n in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]
    listed = ", ".join([*classes[:6], *(["..."] if len(classes) > 6 else [])])
    rows = f" in {n_rows:,} rows" if n_rows != counts.total() else ""
    return f"{counts.total():,} labelled texts{rows}, {len(counts):,} classes: {listed}"


def as_yaml(value: object) -> str:
    """Return a value as YAML writes it on one line."""
    written = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=float("inf"))
    return written.removesuffix("\n").removesuffix("\n...")


@lru_cache(maxsize=2)
def _pieces_of(family: str):
    """Return a released family's tokenizer and its vocabulary."""
    return open_tokenizer(paths.absolute(f"{family}/tokenizer"))


def fitting(sample: tuple[str, ...], documents: list[str], family: str = SINGLE) -> Pieces:
    """Return the word pieces for a text: the released family's if they lose nothing of it, otherwise those that D_LM supports.

    Raises TextError if D_LM is too short to make word pieces of.
    """
    tokenizer, vocabulary = _pieces_of(family)
    ids, counts = encode_texts(tokenizer, vocabulary, list(sample), None)
    n_words = max(1, sum(1 for t in sample for _ in scripts.units(t)))
    unknown = (counts["unknown"] + _n_dropped(tokenizer, sample)) / max(1, counts["pieces"])
    rate, merged = (len(ids.flat) - len(sample)) / n_words, _share_merged(tokenizer, sample)
    if unknown <= UNKNOWN and rate <= PIECES_A_WORD and merged <= MERGED:
        return Pieces(True, unknown, rate, merged, VOCABULARY, _length(ids))
    supported = _supported(documents)
    n = VOCABULARY if len(supported) >= VOCABULARY else int(SPARE * len(supported))
    if n < 8:
        raise TextError(f"D_LM supports only {len(supported)} word pieces; give more text with --corpus or --transfer")
    own = own_pieces.blank(supported)
    ids, _ = encode_texts(own, vocabulary_of(own), list(sample), None)
    return Pieces(False, unknown, rate, merged, n, _length(ids))


def _supported(documents: list[str]) -> dict[str, int]:
    """Return the pieces that D_LM supports, up to VOCABULARY. Of a long text only the first characters are used if they suffice."""
    n_characters, n = 0, 0
    while n < len(documents) and n_characters < ENOUGH:
        n_characters, n = n_characters + len(documents[n]), n + 1
    pieces = own_pieces.supported(documents[:n], VOCABULARY)
    return pieces if len(pieces) >= VOCABULARY or n == len(documents) else own_pieces.supported(documents, VOCABULARY)


def _length(ids) -> int:
    """Return the number of pieces, without [SEP], that 95 % of the texts do not exceed."""
    return int(np.quantile(ids.lengths - 1, 0.95, method="lower"))


def _n_dropped(tokenizer, sample: tuple[str, ...]) -> int:
    """Return how many characters a tokenizer's normaliser drops without an unknown piece: characters that it does not know.

    Combining marks and control characters do not count.
    """
    counts = Counter(c for text in sample if not text.isascii() for c in text if not c.isascii() and not c.isspace())
    letters = {c: n for c, n in counts.items() if unicodedata.category(c)[0] not in "MC"}
    return sum(n for c, n in letters.items() if not tokenizer.normalizer.normalize_str("a" + c).strip().removeprefix("a"))


def _share_merged(tokenizer, sample: tuple[str, ...]) -> float:
    """Return the share of running words that a tokenizer's normaliser makes equal to another word, for example by dropping accents."""
    counts = Counter(word for text in sample for word in scripts.units(text))
    forms: dict[str, set[str]] = {}
    plain = {word: word if word.isascii() else tokenizer.normalizer.normalize_str(word) for word in counts}
    for word, form in plain.items():
        forms.setdefault(form, set()).add(word)
    return sum(n for word, n in counts.items() if len(forms[plain[word]]) > 1 and not word.isascii()) / max(1, counts.total())


def _words(sample: tuple[str, ...]) -> float:
    """Return the mean number of words of a text; of scripts without spaces, of characters."""
    return sum(1 for text in sample for _ in scripts.units(text)) / max(1, len(sample))


def _epochs(passes: int, texts: int, least: int) -> int:
    return max(least, min(20, round(passes / max(1, texts))))


def texts_of(path: Path, names: list[str], dialect: Dialect = PLAIN) -> list[str]:
    """Return the texts of a corpus: the lines of a text file, or a table's columns `names`, guessed if it does not have these."""
    if not formats.is_table(path):
        return [spaced(text) for _, text in formats.lines(path, dialect)]
    if not set(names) <= set(formats.columns_of(path, dialect)):
        names = list(columns.text_columns(path, dialect))
    return [" ".join(str(v or "") for v in values) for _, values in formats.rows(path, names, dialect=dialect)]


def _name(path: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40].strip("-") or "mine"
    return f"my-{name}" if name in RESERVED else name


def _relative(path: Path | None, to: Path) -> str | None:
    """Return a path as it is written in a params file at `to`, None for None. Raises TextError for a name that is not UTF-8."""
    if path is None:
        return None
    path, folder = path.resolve(), to.resolve().parent
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise TextError(f"{escape_control(path.name)}: the name is not UTF-8; rename the file") from None
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else paths.portable(str(path), folder)
