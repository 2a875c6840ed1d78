"""A student of a finished study as a folder that opens without our code: safetensors, word pieces, ONNX, a card.

What is written is asked the test texts before it is shown: it must cut them into the pieces that the student was
measured on, and answer as it did then. So the card tells of the very files beside it.
"""

import json
import os
import platform
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pdstudy.data import mirror
from pdstudy.data.tokenizer import open_tokenizer
from pdstudy.machine import commit, processor
from pdstudy.models import inference, latency, weights
from pdstudy.models.latency import Opening
from pdstudy.models.train import device
from pdstudy.recipes import LINEARS
from pdstudy.release import linear_export, model_card, onnx_files, student
from pdstudy.release.faithful import unfaithful
from pdstudy.release.predict import FACTS
from pdstudy.release.student import Finished
from pdstudy.run import execute
from pdstudy.storage import files, results
from pdstudy.storage.files import sha256
from pdstudy.storage.store import Store

CARD = "README.md"
ENGINES = {  # with their places in the folder
    "transformers": Opening(inference.open_transformers, (".",), "fp32"),
    "ONNX Runtime": Opening(inference.open_onnx, (inference.ONNX["fp32"],), "fp32"),
    "ONNX Runtime, 8-bit weights": Opening(inference.open_onnx, (inference.ONNX["int8"],), "int8"),
}


class ExportError(ValueError):
    """Raised when what is asked for cannot be exported; the message names the cure."""


class Unfaithful(RuntimeError):
    """Raised when what was written does not answer as the student did; nothing of it is left."""


def export(
    study: str | Path, name: str, to: Path, onnx: bool = True, force: bool = False, tell: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Write a student's folder and return the facts about it, which also stand in its export.json.

    `study` and `name` as in `student.find`. The folder appears whole or not at all; `force` replaces an earlier
    export. Raises ExportError, UnknownStudent, Unfaithful, or FileNotFoundError where the study has no results.
    """
    to = Path(to).resolve()
    _check_free(to, force)
    found = student.find(study, name, Store())
    linear = found.student.recipe in LINEARS
    if onnx and not linear and (package := onnx_files.lacking()):
        raise ExportError(
            f"ONNX files need {package}, which is not installed; run: pip install 'pdstudy[export]', or give --no-onnx"
        )
    _check_kind(found)
    found.folder("evaluation")  # before anything is written
    to.parent.mkdir(parents=True, exist_ok=True)
    new = to.with_name(f".{to.name}.{uuid.uuid4().hex[:8]}.new")
    new.mkdir()
    try:
        facts = linear_export.fill(found, new, tell) if linear else _fill(found, new, onnx, tell)
        facts |= {"trained": results.provenance(study), "exported": _here(found)}
        facts["files"] = {p.relative_to(new).as_posix(): _file(p) for p in _files(new)}
        (new / CARD).write_text((linear_export if linear else model_card).card(facts), encoding="utf-8")
        facts["files"][CARD] = _file(new / CARD)
        (new / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
        files.flush(*_files(new))
        _move(new, to)
    except linear_export.Unlike as error:
        raise Unfaithful(str(error)) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return facts


def _check_kind(found: Finished) -> None:
    """Raise ExportError for what cannot be written as a folder that transformers opens and that answers as it did."""
    if found.student.recipe in LINEARS:
        return
    if not found.reads_pieces:
        raise ExportError(f"{found.name}: a teacher that was taken from elsewhere is not exported; export a student that it taught")
    if found.plan.study.pooling != "cls":
        raise ExportError(
            f"{found.name}: its classifier reads the mean of all pieces, and transformers' BERT reads [CLS]; train it with pooling: cls"
        )


def _fill(found: Finished, new: Path, onnx: bool, tell: Callable[[str], None]) -> dict[str, Any]:
    """Write a student's files and return the facts about it."""
    tell("weights and word pieces")
    write(found, new)
    tell(f"asking it the {len(found.test()[0]):,} test texts")
    logits = check(found, new)
    if onnx:
        tell("ONNX")
        onnx_files.write(new)
    tell("measuring how fast it answers")
    return student.facts(found, logits) | {"engines": engines(found, new, logits)}


def write(found: Finished, folder: Path) -> None:
    """Write config.json with the classes' names, model.safetensors, and the tokenizer."""
    model, labels = weights.load_classifier(found.folder("model")), found.record("ids")["labels"]
    config = model.bert.config
    config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    weights.save(folder, config, model.state(), "BertForSequenceClassification")
    (folder / mirror.WEIGHTS).chmod((folder / "config.json").stat().st_mode)  # safetensors writes for the owner alone
    write_tokenizer(found.folder("tokenizer"), folder, found.max_length)


def write_tokenizer(source: Path, folder: Path, max_length: int) -> None:
    """Write a tokenizer that AutoTokenizer opens and that, asked to truncate, gives what `tokenizer.encode_texts` gives."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    pieces, vocabulary = open_tokenizer(source)
    special = [("[CLS]", vocabulary.cls), ("[SEP]", vocabulary.sep)]
    pieces.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special)
    PreTrainedTokenizerFast(
        tokenizer_object=pieces, model_max_length=max_length, model_input_names=list(inference.INPUTS),
        pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
    ).save_pretrained(folder)  # fmt: skip
    path = folder / "tokenizer_config.json"
    # The name under which every version of transformers knows this class; 5 writes one that 4 does not.
    fields = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n")


def check(found: Finished, folder: Path) -> np.ndarray:
    """Return the logits that transformers alone gives to the test texts, after holding pieces and logits to the study's."""
    from transformers import AutoTokenizer

    test, before, _ = found.test()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    cut = tokenizer(*found.texts(), truncation=True)
    for i, (pieces, segments) in enumerate(zip(cut["input_ids"], cut["token_type_ids"], strict=True)):
        second = len(pieces) if test.second is None else int(test.second[i])
        if pieces != test.flat[test.starts[i] : test.starts[i + 1]].tolist() or segments != [
            int(k >= second) for k in range(len(pieces))
        ]:
            raise Unfaithful(f"test text {i}: the exported tokenizer gives other word pieces than the student was measured on")
    logits = _ask(found, ENGINES["transformers"], folder)
    # The study's logits in the study's precision; then what transformers makes of the same weights, in fp32.
    copy = weights.load_classifier(folder).to(device())
    same = logits if found.precision == "fp32" else inference.logits(copy, test, _pad(found), found.precision)
    if what := unfaithful(same, before, found.precision):
        raise Unfaithful(
            f"the folder's logits differ from the study's {what}; make the student anew: run the study again, then export"
        )
    if found.precision != "fp32" and (what := unfaithful(logits, inference.logits(copy, test, _pad(found), "fp32"), "fp32")):
        raise Unfaithful(f"transformers' logits differ from ours {what}; it opens the folder as another model")
    return logits


def engines(found: Finished, folder: Path, logits: np.ndarray) -> list[dict[str, Any]]:
    """Return, for each engine that the folder has a file for, its answers beside transformers' `logits`, and its latency.

    Raises Unfaithful when ONNX Runtime in fp32 does not answer as torch does.
    """
    test, _, labels = found.test()
    rows = {}
    for name, engine in ENGINES.items():
        file = mirror.WEIGHTS if name == "transformers" else engine.words[0]
        if not (folder / file).is_file():
            continue
        own = logits if name == "transformers" else _ask(found, engine, folder)
        off = float(np.abs(own - logits).max())
        if engine.precision == "fp32" and (what := unfaithful(own, logits, "fp32")):
            raise Unfaithful(f"{name}: logits differ from torch's {what}; leave the ONNX files out with --no-onnx")
        rows[name] = {"engine": name, "file": file, "bytes": (folder / file).stat().st_size, "precision": engine.precision}
        rows[name] |= {"opset": onnx_files.OPSET} if file in inference.ONNX.values() else {}
        rows[name] |= {"largest_difference": off, "same_answers": float((own.argmax(1) == logits.argmax(1)).mean())}
        rows[name] |= {"accuracy": float((own.argmax(1) == labels).mean())}
    lengths = sorted({min(16, found.max_length), found.max_length})
    measured = latency.measure({name: _within(folder, ENGINES[name]) for name in rows}, test, _pad(found), lengths)
    return [row | {"latency": asdict(measured[name])} for name, row in rows.items()]


def _ask(found: Finished, engine: Opening, folder: Path) -> np.ndarray:
    test, before, _ = found.test()
    opening = _within(folder, engine)
    return inference.answer_all(
        opening.function(*opening.words, threads=torch.get_num_threads()), test, _pad(found), before.shape[1]
    )


def _within(folder: Path, engine: Opening) -> Opening:
    return Opening(engine.function, (str(folder / engine.words[0]),), engine.precision)


def _pad(found: Finished) -> int:
    return found.record("ids")["vocabulary"]["pad"]


def _here(found: Finished) -> dict[str, Any]:
    """Return what exported, when, and on which machine."""
    machine = {"system": platform.system(), "processor": processor(), "cores": os.cpu_count()}
    command = f"python -m pdstudy export {found.plan.study.name} --student {json.dumps(found.name)}"
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"command": command, "commit": commit(), "date": date, "versions": execute.versions(), "machine": machine}


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if not p.is_dir() or p.is_symlink())


def _file(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def _check_free(to: Path, force: bool) -> None:
    """Raise ExportError unless `to` is free, or holds nothing but an earlier export that may be replaced."""
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    if not to.is_dir():
        raise ExportError(f"{to}: it is a file; name a folder with --to")
    if not force:
        raise ExportError(
            f"{to}: it is there and not empty; name another folder with --to, or replace an earlier export with --force"
        )
    try:
        earlier = {*json.loads((to / FACTS).read_text())["files"], FACTS}
    except (OSError, ValueError, KeyError, TypeError):
        raise ExportError(f"{to}: not an earlier export (no {FACTS} that lists its files); --force replaces nothing else") from None
    strange = [name for p in _files(to) if (name := p.relative_to(to).as_posix()) not in earlier]
    if strange:
        raise ExportError(f"{to}: {strange[0]} is not of the earlier export; move it away, --force would remove it")


def _move(new: Path, to: Path) -> None:
    """Move a folder to its place; an earlier export leaves it first, and is removed last."""
    old = to.with_name(new.name.removesuffix(".new") + ".old")
    if to.exists():
        to.replace(old)
    new.replace(to)
    shutil.rmtree(old, ignore_errors=True)
