"""A student of a finished study as a folder that opens without our code: safetensors, word pieces, ONNX, a card.

The written files are tested before the folder appears: their tokenizer must give the word pieces that the student was measured
on, and their model the study's logits. The card has the scores of these files.
"""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pdstudy.averaging import log_mean
from pdstudy.data import mirror
from pdstudy.data.tokenizer import open_tokenizer
from pdstudy.machine import commit, processor
from pdstudy.models import inference, latency, linear, weights
from pdstudy.models.latency import Opening
from pdstudy.models.train import device
from pdstudy.recipes import LINEARS
from pdstudy.release import linear_export, model_card, onnx_files, student
from pdstudy.release.faithful import Unfaithful, unfaithful
from pdstudy.release.predict import FACTS
from pdstudy.release.student import Finished
from pdstudy.run import execute
from pdstudy.storage import files, results
from pdstudy.storage.store import Store

CARD = "README.md"
ENGINES = {  # how each opens which file of the folder, in which precision
    "transformers": (inference.open_transformers, ".", "fp32"),
    "ONNX Runtime": (inference.open_onnx, inference.ONNX["fp32"], "fp32"),
    "ONNX Runtime, 8-bit weights": (inference.open_onnx, inference.ONNX["int8"], "int8"),
}


class ExportError(ValueError):
    """Raised when a student cannot be exported; the message says what to do."""


def export(
    study: str | Path,
    name: str,
    to: Path,
    onnx: bool = True,
    force: bool = False,
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Write a student's folder and return the facts about it, which are also in its export.json.

    `study` and `name` as in `student.find`. The folder appears complete or not at all; `force` replaces an earlier
    export. Raises ExportError, UnknownStudent, Unfaithful, or FileNotFoundError where the study has no results.
    """
    to = Path(to).resolve()
    _check_free(to, force)
    finished = student.find(study, name, Store())
    is_linear = finished.recipe in LINEARS
    if not is_linear:
        _check_exportable(finished, onnx)
    finished.folder("evaluation")  # raises if it is missing, before anything is written
    with files.atomic_folder(to) as new:
        facts = linear_export.fill(finished, new, report) if is_linear else _fill(finished, new, onnx, report)
        facts |= {"trained": results.provenance(study), "exported": _provenance(finished)}
        facts["files"] = {p.relative_to(new).as_posix(): mirror.file_record(p) for p in _files(new)}
        (new / CARD).write_text(model_card.card(facts), encoding="utf-8")
        facts["files"][CARD] = mirror.file_record(new / CARD)
        (new / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
        files.flush(*_files(new))
    return facts


def _check_exportable(finished: Finished, onnx: bool) -> None:
    """Raise ExportError for a student that transformers' BERT cannot run, or without the packages for ONNX."""
    if onnx and (package := onnx_files.lacking()):
        raise ExportError(
            f"ONNX files need {package}, which is not installed; run: pip install 'pdstudy[export]', or give --no-onnx"
        )
    if not finished.takes_word_pieces:
        raise ExportError(f"{finished.name}: a teacher from elsewhere is not exported; export a student that it taught")
    if finished.plan.study.pooling != "cls":
        raise ExportError(
            f"{finished.name}: its classifier takes the mean of all pieces, and transformers' BERT takes [CLS]; "
            "train it with pooling: cls"
        )


def _fill(finished: Finished, new: Path, onnx: bool, report: Callable[[str], None]) -> dict[str, Any]:
    """Write a student's files, and those of the linear model that it is averaged with; return the facts about it."""
    report("weights and word pieces")
    write(finished, new)
    report(f"predicting the {len(finished.test_ids()):,} test texts")
    logits, linear_logits, averaged = check(replace(finished, linear=None), new), None, {}
    if finished.linear:
        (new / linear.FOLDER).mkdir()
        linear_logits, averaged["averaged_with"] = linear_export.write(finished.linear, new / linear.FOLDER, report)
    if onnx:
        report("ONNX")
        onnx_files.write(new)
    report("measuring its latency")
    measured = engines(finished, new, logits, linear_logits)
    return student.facts(finished, _averaged(logits, linear_logits)) | {"engines": measured} | averaged


def _averaged(logits: np.ndarray, linear_logits: np.ndarray | None) -> np.ndarray:
    """Return a student's logits averaged with the linear model's, if there are any."""
    return logits if linear_logits is None else log_mean([logits, linear_logits])


def write(finished: Finished, folder: Path) -> None:
    """Write config.json with the names of the classes, model.safetensors, and the tokenizer."""
    model, labels = weights.load_classifier(finished.folder("model")), finished.record("ids")["labels"]
    config = model.bert.config
    config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    weights.save(folder, config, model.state(), "BertForSequenceClassification")
    (folder / mirror.WEIGHTS).chmod((folder / mirror.CONFIG).stat().st_mode)  # safetensors writes for the owner alone
    write_tokenizer(finished.folder("tokenizer"), folder, finished.max_length)


def write_tokenizer(source: Path, folder: Path, max_length: int) -> None:
    """Write a tokenizer that AutoTokenizer opens; with truncation it gives the pieces of `tokenizer.encode_texts`."""
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
    # Every version of transformers knows this class by this name; version 5 writes another, which 4 does not know.
    fields = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n")


def check(finished: Finished, folder: Path) -> np.ndarray:
    """Return transformers' logits of the test texts. Raises Unfaithful if word pieces or logits differ from the study's."""
    from transformers import AutoTokenizer

    test, (study_logits, _), texts = finished.test_ids(), finished.test_logits(), finished.texts("test")
    columns = [texts] if isinstance(texts[0], str) else map(list, zip(*texts, strict=True))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    encoded = tokenizer(*columns, truncation=True)
    for i, (pieces, segments) in enumerate(zip(encoded["input_ids"], encoded["token_type_ids"], strict=True)):
        second = len(pieces) if test.second is None else int(test.second[i])
        expected = test.flat[test.starts[i] : test.starts[i + 1]].tolist()
        if pieces != expected or segments != [int(k >= second) for k in range(len(pieces))]:
            raise Unfaithful(f"test text {i}: the exported tokenizer gives other word pieces than the student was measured on")
    logits, copy = _logits(finished, folder, "transformers"), weights.load_classifier(folder).to(device())

    def own_logits(precision: str) -> np.ndarray:
        return inference.logits(copy, test, finished.pad, precision)

    # First the study's logits in the study's precision, then transformers' logits in fp32.
    same = logits if finished.precision == "fp32" else own_logits(finished.precision)
    if difference := unfaithful(same, study_logits, finished.precision):
        raise Unfaithful(f"the folder's logits differ from the study's {difference}; run the study again, then export")
    if finished.precision != "fp32" and (difference := unfaithful(logits, own_logits("fp32"), "fp32")):
        raise Unfaithful(f"transformers' logits differ from ours {difference}; it opens the folder as another model")
    return logits


def engines(finished: Finished, folder: Path, logits: np.ndarray, linear_logits: np.ndarray | None = None) -> list[dict[str, Any]]:
    """Return the accuracy and latency of each engine that the folder has a file for, compared with transformers' `logits`.

    With `linear_logits` answers and accuracy are those of the average, the latency that of the student alone. Raises Unfaithful if
    the logits of ONNX Runtime in fp32 differ.
    """
    test, (_, labels), rows, openings = finished.test_ids(), finished.test_logits(), {}, {}
    answers = _averaged(logits, linear_logits).argmax(1)
    for name, (_, place, precision) in ENGINES.items():
        file = mirror.WEIGHTS if name == "transformers" else place
        if not (folder / file).is_file():
            continue
        own = logits if name == "transformers" else _logits(finished, folder, name)
        if precision == "fp32" and (difference := unfaithful(own, logits, "fp32")):
            raise Unfaithful(f"{name}: logits differ from torch's {difference}; leave the ONNX files out with --no-onnx")
        openings[name] = _opening(folder, name)
        rows[name] = {"engine": name, "file": file, "bytes": (folder / file).stat().st_size, "precision": precision}
        rows[name] |= {"opset": onnx_files.OPSET} if name != "transformers" else {}
        rows[name] |= {"largest_difference": float(np.abs(own - logits).max())}
        own_answers = _averaged(own, linear_logits).argmax(1)
        rows[name] |= {"same_answers": float((own_answers == answers).mean())}
        rows[name] |= {"accuracy": float((own_answers == labels).mean())}
    lengths = sorted({min(16, finished.max_length), finished.max_length})
    measured = latency.measure(openings, test, finished.pad, lengths)
    return [row | {"latency": asdict(measured[name])} for name, row in rows.items()]


def _logits(finished: Finished, folder: Path, engine: str) -> np.ndarray:
    """Return an engine's logits of the test texts, (n_texts, n_classes)."""
    opening, n_classes = _opening(folder, engine), finished.test_logits()[0].shape[1]
    predict = opening.function(*opening.words, threads=torch.get_num_threads())
    return inference.answer_all(predict, finished.test_ids(), finished.pad, n_classes)


def _opening(folder: Path, engine: str) -> Opening:
    function, place, precision = ENGINES[engine]
    return Opening(function, (str(folder / place),), precision)


def _provenance(finished: Finished) -> dict[str, Any]:
    """Return the command, commit, date, versions and machine of this export."""
    machine = {"system": platform.system(), "processor": processor(), "cores": os.cpu_count()}
    command = f"python -m pdstudy export {finished.plan.study.name} --student {json.dumps(finished.name)}"
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"command": command, "commit": commit(), "date": date, "versions": execute.versions(), "machine": machine}


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if not p.is_dir() or p.is_symlink())


def _check_free(to: Path, force: bool) -> None:
    """Raise ExportError unless `to` is free, or has only the files of an earlier export that may be replaced."""
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    if not to.is_dir():
        raise ExportError(f"{to}: it is a file; name a folder with --to")
    if not force:
        raise ExportError(f"{to}: it is not empty; name another folder with --to, or replace an earlier export with --force")
    try:
        earlier = {*json.loads((to / FACTS).read_text())["files"], FACTS}
    except (OSError, ValueError, KeyError, TypeError):
        raise ExportError(f"{to}: not an earlier export (no {FACTS} that lists its files); --force replaces nothing else") from None
    for path in _files(to):
        if (name := path.relative_to(to).as_posix()) not in earlier:
            raise ExportError(f"{to}: {name} is not of the earlier export; move it away, --force would remove it")
