"""The steps of texts: cleaned, split, taken from other domains, cut into word pieces, counted.

They write Parquet files, arrays that can be memory-mapped, and a record of the texts that were left out.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pdstudy.data import cleaning, other_domains, own_pieces, repeats, similarity, sources
from pdstudy.data.formats import TextError
from pdstudy.data.tasks import HELD_BACK, OWN_TRANSFER, Files, Wheel
from pdstudy.data.texts import Text
from pdstudy.data.tokenizer import continues, open_tokenizer, save_tokenizer, train_word_pieces, write_texts
from pdstudy.run.inputs import Inputs, Lines, column, joined, read_record, tuples
from pdstudy.storage import paths
from pdstudy.study.steps import Step

if TYPE_CHECKING:  # text steps load no torch
    from pdstudy.models.train import Watch

ROWS = 16_384  # documents in a row group, which is read into memory as one
MAX_UNKNOWN = 0.05  # share of unknown pieces above which the tokenizer does not fit the texts

PARTS = {  # of `ids`
    "corpus": ("corpus", "heldout"),
    "task": ("train", "dev", "test", "transfer"),
    "labelled": ("train", "dev", "test"),
    "transfer": ("transfer",),
}


def texts(step: Step, inputs: Inputs, folder: Path, watch: "Watch") -> dict[str, Any]:
    """Clean and split a task's texts: one Parquet file per split, and counts of the texts left out."""
    s, source = step.settings, step.task.source
    raw = sources.read(step.task)
    sha256 = s["sha256"] if isinstance(source, Wheel) else sources.digests(source)  # reading a wheel verifies it
    if sha256 != s["sha256"] or sources.read_digests(step.task) != s.get("reads", {"sha256": []})["sha256"]:
        raise TextError("a file of the task was changed while the study began; run the same command again")
    built = cleaning.build(raw, s["splits"], s["corpus"]["documents"], s["corpus"]["heldout"], s["split_seed"])
    for split, (texts_of_split, labels) in built.labelled.items():
        _write(folder, split, _columns(texts_of_split) | {"label": labels})
    _write(folder, "transfer", _columns(built.transfer))
    _write(folder, "corpus", {"text": built.documents}, row_group_size=ROWS)
    _write(folder, "heldout", {"text": built.heldout}, row_group_size=ROWS)
    names = list(built.labels)
    classes = {split: np.bincount(labels, minlength=len(names)).tolist() for split, (_, labels) in built.labelled.items()}
    record = {"counts": built.counts, "labels": names, "classes": classes}
    if isinstance(source, Files):  # `ordered`: the user gave the order of the classes
        record |= {"examples": built.examples, "ordered": bool(source.labels)}
    return record


def domain(step: Step, inputs: Inputs, folder: Path, watch: "Watch") -> dict[str, Any]:
    """Take a transfer set of one size from another corpus, or equal parts of several, and measure its similarity to D_L."""
    s, texts_folder = step.settings, inputs.folder("texts")
    labelled = tuples(texts_folder / "train.parquet")[: s["labelled"] or None]
    parts = {name: _texts_of(name, step, texts_folder) for name in s["corpus"].split("+")}
    key = repeats.key_of(step.task)
    transfer, counts = cleaning.transfer_set(parts, s["texts"], _evaluated(texts_folder), labelled, s["split_seed"], key)
    (row,) = similarity.compare(joined(labelled), {s["corpus"]: joined(transfer)}, key)
    if np.isnan(row["S"]):
        raise TextError(
            f"domains: {s['corpus']} has {row['words']:,} words, too few to rank for S; ask for at least {similarity.LEAST:,}"
        )
    _write(folder, "transfer", _columns(cleaning.plain(transfer)))
    return {"counts": counts, "labels": inputs.labels, "near": row}


def corpus(step: Step, inputs: Inputs, folder: Path, watch: "Watch") -> dict[str, Any]:
    """Take another D_LM than the study's: D_T itself, or all text of other domains."""
    s, texts_folder = step.settings, inputs.folder("texts")
    documents = [d for name in s["corpus"].split("+") for d in _documents_of(name, step, texts_folder)]
    documents = [documents[i] for i in np.random.default_rng(s["split_seed"]).permutation(len(documents))]
    key = repeats.key_of(step.task)
    keys = {key(text) for pair in _evaluated(texts_folder) for text in pair}
    documents, heldout, left_out = cleaning.documents(documents, keys, None, s["heldout"], key)
    _write(folder, "corpus", {"text": documents}, row_group_size=ROWS)
    _write(folder, "heldout", {"text": heldout}, row_group_size=ROWS)
    return {"counts": {"D_LM": left_out.counts}, "labels": inputs.labels}


def fold(step: Step, inputs: Inputs, folder: Path, watch: "Watch") -> dict[str, Any]:
    """Split D_L for cross-validation: one fold of it is test, the others are train. Dev stays, and there is no D_T."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    s, source = step.settings, inputs.folder("texts")
    table = pq.read_table(source / "train.parquet")[: s["texts"] or None]
    fold_of = np.random.default_rng(0).permutation(len(table)) % s["folds"]
    for split, rows in (("train", fold_of != s["fold"]), ("test", fold_of == s["fold"])):
        pq.write_table(table.filter(pa.array(rows)), folder / f"{split}.parquet")
    shutil.copy(source / "dev.parquet", folder / "dev.parquet")
    return {"labels": inputs.labels}


def _evaluated(texts_folder: Path) -> list[Text]:
    """Return the texts of dev and test."""
    return [text for split in ("dev", "test") for text in tuples(texts_folder / f"{split}.parquet")]


def _texts_of(name: str, step: Step, texts_folder: Path) -> list[Text]:
    """Return all transfer texts of one corpus."""
    if name == OWN_TRANSFER:
        return tuples(texts_folder / "transfer.parquet")
    if name == HELD_BACK:
        n = step.settings["labelled"]
        return tuples(texts_folder / "train.parquet")[n:] if n else []
    columns = getattr(step.task.source, "text", ("text",))
    return other_domains.texts(dict(step.task.elsewhere)[name], columns)


def _documents_of(name: str, step: Step, texts_folder: Path) -> list[str]:
    """Return all documents of one corpus; in D_T and among the texts held back, each text is a document."""
    if name in (OWN_TRANSFER, HELD_BACK):
        return joined(_texts_of(name, step, texts_folder)[: step.settings["texts"] if name == OWN_TRANSFER else None])
    return other_domains.documents(dict(step.task.elsewhere)[name])


def tokenizer(step: Step, inputs: Inputs, folder: Path, watch: "Watch") -> dict[str, Any]:
    """Train word pieces on D_LM, or copy a tokenizer's folder."""
    if step.folder is None:
        documents, n_pieces = Lines(inputs.folder("texts") / "corpus.parquet"), step.settings["vocabulary"]
        if "cut" in step.settings:
            own_pieces.save(own_pieces.train(documents, n_pieces), folder)
        else:
            save_tokenizer(train_word_pieces(documents, n_pieces).get_vocab(), folder)
        return {}
    source = paths.expanded(step.folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)
    return {}


def ids(step: Step, inputs: Inputs, folder: Path, watch: "Watch") -> dict[str, Any]:
    """Cut D_LM, the texts of the task, or another transfer set into word pieces, as arrays that can be memory-mapped."""
    texts_folder, counts = inputs.folder("texts"), {}
    tokenizer, vocabulary = open_tokenizer(inputs.folder("tokenizer"))
    for name in PARTS[step.settings["of"]]:
        file, max_length = texts_folder / f"{name}.parquet", step.settings.get("max_length")
        counts[name], piece_counts = write_texts(folder, name, tokenizer, vocabulary, Lines(file).batches(), max_length)
        unknown = counts[name]["unknown"] / max(1, counts[name]["pieces"])
        if unknown > MAX_UNKNOWN:
            raise TextError(
                f"{name}: {unknown:.0%} of the word pieces are unknown to the tokenizer; {_cure(tokenizer, Lines(file))}"
            )
        if name == "corpus":
            np.save(folder / "corpus.counts.npy", piece_counts)
            np.save(folder / "continues.npy", continues(tokenizer))
        if name in ("train", "dev", "test"):
            np.save(folder / f"{name}.labels.npy", np.array(column(file, "label"), dtype=np.int64))
    return {"vocabulary": vars(vocabulary), "counts": counts, "labels": read_record(texts_folder)["labels"]}


def _cure(tokenizer, texts: Lines) -> str:
    """Return which characters of the texts a tokenizer lacks, and what to do about it."""
    missing = own_pieces.missing(tokenizer, texts)
    characters = f" (it lacks {', '.join(missing[:10])})" if missing else ""
    if not own_pieces.is_own(tokenizer):
        return f"it was made for another language or script{characters}; take another, or null to train one on this text"
    return f"D_LM, which it was trained on, differs from these texts, or tokenizer.vocabulary is too small{characters}"


def words(step: Step, inputs: Inputs, folder: Path, watch: "Watch") -> dict[str, Any]:
    """Make the first word embeddings from counts of pairs of pieces in D_LM."""
    from pdstudy.data.word_vectors import word_vectors  # here: it loads scipy, which every worker would wait for

    s = step.settings
    np.save(folder / "words.npy", word_vectors(inputs.ids("corpus"), inputs.vocabulary().size, s["width"], s["window"]))
    return {}


def _write(folder: Path, name: str, columns: dict[str, list], **options) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), folder / f"{name}.parquet", **options)


def _columns(texts: list) -> dict[str, list[str]]:
    """Return the columns of texts, or of pairs."""
    columns = [texts] if not texts or isinstance(texts[0], str) else map(list, zip(*texts, strict=True))
    return dict(zip(("text", "pair"), columns, strict=False))
