"""Teachers that transformers opens, with their own tokenizers: any sequence classifier, or an encoder to fine-tune.

Only safetensors are opened, and no code but transformers' own is run. The model's own tokenizer cuts the texts, so such a teacher
shares with its students only the texts and the names of the classes.
"""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdstudy.data.batches import Batches, Ids
from pdstudy.data.mirror import CONFIG, TOKENIZER_FILES, WEIGHTS, configuration, is_classifier, pickled_message
from pdstudy.models import inference, losses
from pdstudy.models.train import Fitted, Loss, Schedule, Stopped, Watch, device, fit, text_batch

PIECES = 2048  # in a batch; on a CPU larger batches of a large model are not faster


@dataclass(frozen=True)
class Teacher:
    """A model with its tokenizer, and the order of its classes."""

    model: torch.nn.Module  # a transformers model for sequence classification
    tokenizer: Any
    fresh_head: bool  # the folder had no classifier: it starts at random and must be trained
    order: list[int]  # the column of the model's logits for each class of the task


def open_model(folder: Path, labels: Sequence[str], seed: int = 0) -> Teacher:
    """Return the model of a folder as a classifier of `labels`; if it has no classifier, one starts at random from `seed`.

    Raises ValueError, whose message says what to do, for a folder without a tokenizer or safetensors, with remote code or other
    classes, and for one that transformers does not open.
    """
    folder, fields = Path(folder), configuration(Path(folder))
    has_head = is_classifier(fields)
    if not (folder / WEIGHTS).is_file():
        raise ValueError(pickled_message(str(folder)))
    order = _class_columns(folder, fields, labels) if has_head else list(range(len(labels)))
    tokenizer = _tokenizer(folder)
    with _errors_of_transformers(folder), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, loading = _load(folder, None if has_head else labels)
    missing, base = sorted(loading["missing_keys"]), f"{model.base_model_prefix}."
    if has_head and missing:
        raise ValueError(f"{folder}: its classifier lacks {missing[0]}; it is not a complete checkpoint for its config.json")
    if of_encoder := [name for name in missing if name.startswith(base) and ".pooler." not in name]:
        raise ValueError(f"{folder}: {of_encoder[0]} is missing and would start at random; it is not a complete encoder")
    if wrong := sorted(map(str, loading["mismatched_keys"])):
        raise ValueError(f"{folder}: {wrong[0]} has another shape than its config.json says")
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    n_embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > n_embeddings:
        raise ValueError(
            f"{folder}: the tokenizer has {len(tokenizer):,} pieces, the model knows {n_embeddings:,}; they do not belong together"
        )
    return Teacher(model, tokenizer, bool(missing), order)


def encode(teacher: Teacher, texts: Sequence, max_length: int) -> Ids:
    """Return texts, or pairs of texts, as the model's pieces, each at most `max_length` with special pieces."""
    limit = min(max_length, _longest_input(teacher))
    flat, second = [], []
    for i in range(0, len(texts), 4096):
        chunk = list(texts[i : i + 4096])
        columns = [chunk] if isinstance(chunk[0], str) else [list(column) for column in zip(*chunk, strict=True)]
        encoded = teacher.tokenizer(*columns, truncation=True, max_length=limit)
        flat += [np.array(ids, dtype=np.int32) for ids in encoded["input_ids"]]
        if len(columns) == 2 and "token_type_ids" in encoded:
            second += [types.index(1) if 1 in types else len(types) for types in encoded["token_type_ids"]]
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in flat])]).astype(np.int64)
    pieces = np.concatenate(flat) if flat else np.empty(0, np.int32)
    return Ids(pieces, starts, np.array(second, dtype=np.int32) if second else None)


def logits(teacher: Teacher, texts: Sequence, max_length: int, precision: str, watch: Watch | None = None) -> np.ndarray:
    """Return the logits of every text, (n_texts, n_classes) float32, classes in the task's order. Raises Stopped."""
    watch, n_done = watch or Watch(), 0

    def forward(ids: Tensor, mask: Tensor | None, segments: Tensor | None) -> Tensor:
        return teacher.model(**_inputs(ids, mask, segments)).logits[:, teacher.order]

    answer = inference.of_model(teacher.model, precision, device(), forward)

    def watched(*arrays: np.ndarray | None) -> np.ndarray:
        nonlocal n_done
        if watch.stop():
            raise Stopped(f"stopped after {n_done:,} of {len(texts):,} texts")
        n_done += len(arrays[0])
        watch.progress(n_done / len(texts))
        return answer(*arrays)

    ids = encode(teacher, texts, max_length)
    return inference.answer_all(watched, ids, teacher.tokenizer.pad_token_id, len(teacher.order), PIECES)


def finetune(teacher: Teacher, texts: Sequence, labels: np.ndarray, settings: dict[str, Any], watch: Watch | None = None) -> Fitted:
    """Fine-tune all weights on labelled texts, in place, with cross-entropy and linear decay; return the training record.

    `labels` is (n_texts,) of class numbers. `settings` has epochs, batch, rate, warmup, weight_decay, max_length, precision, seed.
    """
    ids, model = encode(teacher, texts, settings["max_length"]), teacher.model
    batches = Batches(ids, labels, settings["batch"], settings["seed"], teacher.tokenizer.pad_token_id)

    def loss(classifier, data):
        ids, mask, segments, targets, n_pieces = data
        return Loss(losses.hard_label_loss(classifier(**_inputs(ids, mask, segments)).logits, targets), n_pieces)

    steps = max(1, math.ceil(settings["epochs"] * batches.per_epoch))
    schedule = Schedule(steps, settings["warmup"], settings["rate"], settings["weight_decay"])
    fitted = fit(model, text_batch(batches), loss, schedule, settings["seed"], settings["precision"], watch)
    model.to(torch.float16).to(torch.float32)  # `save` stores 16 bits: measure what is stored
    return fitted


def save(teacher: Teacher, source: Path, folder: Path) -> None:
    """Write a fine-tuned model in 16 bits with the tokenizer's files of `source`; `open_model` opens it again."""
    teacher.model.to(torch.float16).save_pretrained(folder)
    teacher.model.to(torch.float32)
    path = folder / CONFIG
    fields = json.loads(path.read_text())
    fields.pop("transformers_version", None)  # it is in the manifest, and here would change the file's hash
    path.write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n")
    copy_tokenizer(source, folder)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the files of a tokenizer."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _inputs(ids: Tensor, mask: Tensor | None, segments: Tensor | None) -> dict[str, Tensor]:
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids) if mask is None else mask.long()}
    return inputs if segments is None else inputs | {"token_type_ids": segments}


def _tokenizer(folder: Path):
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        raise ValueError(f"{folder}: no tokenizer; put its tokenizer.json beside the weights (save_pretrained writes it)")
    with _errors_of_transformers(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ValueError(f"{folder}: the tokenizer has no piece for padding; set pad_token in its tokenizer_config.json")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load(folder: Path, labels: Sequence[str] | None) -> tuple[Any, dict]:
    """Return (model, loading info); with `labels` the model gets a new classifier of them."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    names = dict(enumerate(labels or ()))
    head = {"num_labels": len(names), "id2label": names, "label2id": {v: k for k, v in names.items()}} if names else {}
    # In bf16 on a CPU the backward pass of the fused attention is several times slower than the plain products.
    attention = "eager" if device().type == "cpu" else "sdpa"
    try:
        return inference.from_pretrained(folder, attention, **head)
    finally:
        logging.set_verbosity(verbosity)


@contextmanager
def _errors_of_transformers(folder: Path) -> Iterator[None]:
    """Turn what transformers raises into a ValueError of one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"{folder}: transformers does not open it ({reason})") from None


def _class_columns(folder: Path, fields: dict[str, Any], labels: Sequence[str]) -> list[int]:
    """Return the column of each class of the task in a classifier's logits, matched by name."""
    by_column = {int(i): str(name) for i, name in (fields.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"}).items()}
    names = [by_column[i].casefold() for i in sorted(by_column)]
    wanted = [label.casefold() for label in labels]
    if fields.get("problem_type") not in (None, "single_label_classification"):
        raise ValueError(
            f"{folder}: its problem_type is {fields['problem_type']!r}; a teacher gives each text one of several classes"
        )
    if len(names) != len(wanted):
        raise ValueError(f"{folder}: it knows {len(names)} classes, the task {len(wanted)} ({', '.join(labels)}); take another")
    if names == [f"label_{i}" for i in range(len(names))]:
        return list(range(len(names)))  # without names the order is assumed; the check on dev finds swapped classes
    if sorted(names) != sorted(wanted):
        raise ValueError(
            f"{folder}: its classes are {', '.join(by_column.values())}, the task's {', '.join(labels)}; set id2label in its {CONFIG}"
        )
    return [names.index(name) for name in wanted]


def _longest_input(teacher: Teacher) -> int:
    """Return the largest number of pieces that the model's positions allow."""
    longest = getattr(teacher.model.config, "max_position_embeddings", None) or 1 << 20
    if teacher.model.config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer"):
        longest -= 2  # their positions begin after the padding piece's
    return min(longest, teacher.tokenizer.model_max_length)
