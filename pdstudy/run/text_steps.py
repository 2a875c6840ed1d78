"""The steps that make text: cleaned, split, taken from other domains, cut into word pieces, counted.

No model is trained here. What they write is Parquet, arrays that can be memory-mapped, and a record of what was left out.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pdstudy.data import cleaning, other_domains, own_pieces, repeats, sources
from pdstudy.data import similarity as nearness
from pdstudy.data.formats import TextError
from pdstudy.data.tasks import HELD_BACK, OWN_TRANSFER, Files, Wheel
from pdstudy.data.texts import Text
from pdstudy.data.tokenizer import continues, open_tokenizer, save_tokenizer, train_word_pieces, write_texts
from pdstudy.run.inputs import Inputs, Lines, column, joined, tuples
from pdstudy.storage import paths
from pdstudy.study.steps import Step

if TYPE_CHECKING:  # text steps load no torch
    from pdstudy.models.train import Watch

ROWS = 16_384  # documents in a row group, which is what a reader holds in memory
MAX_UNKNOWN = 0.05  # share of unknown pieces above which the vocabulary is the wrong one


def texts(step: Step, inputs: Inputs, folder: Path, watch: "Watch") -> dict[str, Any]:
    """Clean and split a task's texts: one Parquet file a split, and the counts of what was left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    s, source = step.settings, step.task.source
    raw = sources.read(step.task)
    own = s["sha256"] if isinstance(source, Wheel) else sources.digests(source)  # of a wheel it was looked at while it was read
    if own != s["sha256"] or sources.read_digests(step.task) != s.get("reads", {"sha256": []})["sha256"]:
        raise TextError("a file of the task was changed while the study began; run the same command again")
    found = cleaning.build(raw, s["splits"], s["corpus"]["documents"], s["corpus"]["heldout"], s["split_seed"])
    for split, (lines, labels) in found.labelled.items():
        pq.write_table(pa.table(_columns(lines) | {"label": labels}), folder / f"{split}.parquet")
    pq.write_table(pa.table(_columns(found.transfer)), folder / "transfer.parquet")
    for name, lines in (("corpus", found.documents), ("heldout", found.heldout)):
        pq.write_table(pa.table({"text": lines}), folder / f"{name}.parquet", row_group_size=ROWS)
    names = list(found.labels)
    classes = {name: np.bincount(labels, minlength=len(names)).tolist() for name, (_, labels) in found.labelled.items()}
    record = {"counts": found.counts, "labels": names, "classes": classes}
    if isinstance(source, Files):  # said before training; `ordered`: somebody gave the order of the classes' numbers
        record |= {"examples": found.examples, "ordered": bool(source.labels)}
    return record


def domain(step: Step, inputs: Inputs, folder: Path, watch: "Watch") -> dict[str, Any]:
    """Take a transfer set of one size from another corpus, or of several alike, and measure how near it is to D_L."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    s, raw = step.settings, inputs.folder("texts")
    labelled = tuples(raw / "train.parquet")[: s["labelled"] or None]
    measured = [t for split in ("dev", "test") for t in tuples(raw / f"{split}.parquet")]
    parts = {name: _texts_of(name, step, raw) for name in s["corpus"].split("+")}
    key = repeats.key_of(step.task)
    found, counts = cleaning.transfer_set(parts, s["texts"], measured, labelled, s["split_seed"], key)
    (near,) = nearness.compare(joined(labelled), {s["corpus"]: joined(found)}, key)
    if np.isnan(near["S"]):
        raise TextError(
            f"domains: {s['corpus']} has {near['words']:,} words, too few for S, which ranks them; ask for at least {nearness.LEAST:,}"
        )
    pq.write_table(pa.table(_columns(cleaning.plain(found))), folder / "transfer.parquet")
    return {"counts": counts, "labels": inputs.record("texts")["labels"], "near": near}


def corpus(step: Step, inputs: Inputs, folder: Path, watch: "Watch") -> dict[str, Any]:
    """Take another D_LM than the study's: D_T itself, or text of other domains, all of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    s, raw = step.settings, inputs.folder("texts")
    measured = [part for split in ("dev", "test") for t in tuples(raw / f"{split}.parquet") for part in t]
    found = [d for name in s["corpus"].split("+") for d in _documents_of(name, step, raw)]
    found = [found[i] for i in np.random.default_rng(s["split_seed"]).permutation(len(found))]
    key = repeats.key_of(step.task)
    read, heldout, left_out = cleaning.documents(found, {key(text) for text in measured}, None, s["heldout"], key)
    for name, lines in (("corpus", read), ("heldout", heldout)):
        pq.write_table(pa.table({"text": lines}), folder / f"{name}.parquet", row_group_size=ROWS)
    return {"counts": {"D_LM": left_out.counts}, "labels": inputs.record("texts")["labels"]}


def _texts_of(name: str, step: Step, raw: Path) -> list[Text]:
    """Return all transfer texts of one corpus."""
    if name == OWN_TRANSFER:
        return tuples(raw / "transfer.parquet")
    if name == HELD_BACK:
        n = step.settings["labelled"]
        return tuples(raw / "train.parquet")[n:] if n else []
    columns = getattr(step.task.source, "text", ("text",))
    return other_domains.texts(dict(step.task.elsewhere)[name], columns)


def _documents_of(name: str, step: Step, raw: Path) -> list[str]:
    """Return all documents of one corpus; of D_T and of texts held back, each text is one."""
    if name in (OWN_TRANSFER, HELD_BACK):
        return joined(_texts_of(name, step, raw)[: step.settings["texts"] if name == OWN_TRANSFER else None])
    return other_domains.documents(dict(step.task.elsewhere)[name])


def tokenizer(step: Step, inputs: Inputs, folder: Path, watch: "Watch") -> dict[str, Any]:
    """Train word pieces on D_LM, or copy a tokenizer's folder."""
    if step.folder is None:
        lines, n, cut = Lines(inputs.folder("texts") / "corpus.parquet"), step.settings["vocabulary"], step.settings.get("cut")
        if cut is None:
            save_tokenizer(train_word_pieces(lines, n).get_vocab(), folder)
        else:
            own_pieces.save(own_pieces.train(lines, n), folder)
        return {}
    source = paths.expanded(step.folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)
    return {}


def ids(step: Step, inputs: Inputs, folder: Path, watch: "Watch") -> dict[str, Any]:
    """Cut D_LM, or the texts of the task, into word pieces: on disk, ready to be memory-mapped."""
    raw, tokenizer_folder = inputs.folder("texts"), inputs.folder("tokenizer")
    tokenizer, vocabulary = open_tokenizer(tokenizer_folder)
    names = {"corpus": ("corpus", "heldout"), "task": ("train", "dev", "test", "transfer"), "transfer": ("transfer",)}[
        step.settings["of"]
    ]
    counts = {}
    for name in names:
        lines, length = Lines(raw / f"{name}.parquet"), step.settings.get("max_length")
        counts[name], seen = write_texts(folder, name, tokenizer, vocabulary, lines.batches(), length)
        share = counts[name]["unknown"] / max(1, counts[name]["pieces"])
        if share > MAX_UNKNOWN:
            raise TextError(f"{name}: {share:.0%} of the word pieces are unknown to the tokenizer; {_cure(tokenizer, lines)}")
        if name == "corpus":
            np.save(folder / "corpus.counts.npy", seen)
            np.save(folder / "continues.npy", continues(tokenizer))
        if name in ("train", "dev", "test"):
            np.save(folder / f"{name}.labels.npy", np.array(column(raw / f"{name}.parquet", "label"), dtype=np.int64))
    labels = json.loads((raw / "record.json").read_text())["labels"]
    return {"vocabulary": vars(vocabulary), "counts": counts, "labels": labels}


def _cure(tokenizer, lines: Lines) -> str:
    """Return what is unknown to a tokenizer, and what to do about it."""
    missing = own_pieces.missing(tokenizer, lines)
    shown = f" (it lacks {', '.join(missing[:10])})" if missing else ""
    if not own_pieces.is_own(tokenizer):
        return f"it was made for another language or script{shown}; take another, or null for one of this text's own"
    return f"D_LM, which it was made from, is of another kind, or tokenizer.vocabulary is too small for its letters{shown}"


def words(step: Step, inputs: Inputs, folder: Path, watch: "Watch") -> dict[str, Any]:
    """Start word embeddings from the corpus' counts of pairs."""
    from pdstudy.data import word_vectors  # here: it loads scipy, which every worker would wait for

    s = step.settings
    np.save(
        folder / "words.npy", word_vectors.word_vectors(inputs.ids("corpus"), inputs.vocabulary().size, s["width"], s["window"])
    )
    return {}


def _columns(texts: list) -> dict[str, list[str]]:
    """Return the columns of texts, or of pairs."""
    columns = [texts] if not texts or isinstance(texts[0], str) else map(list, zip(*texts, strict=True))
    return dict(zip(("text", "pair"), columns, strict=False))
