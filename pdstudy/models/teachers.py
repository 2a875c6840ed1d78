"""Any sequence classifier or encoder that transformers opens, with its own tokenizer: opened, fine-tuned, asked.

Only safetensors are read, and no code but transformers' own is run. Texts are cut by the model's own tokenizer, so such a
teacher shares nothing with its students but the texts and the names of the classes.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pdstudy.data.batches import Batches, Ids
from pdstudy.data.mirror import CONFIG, WEIGHTS, configuration, is_classifier, pickled_message
from pdstudy.models import losses
from pdstudy.models.inference import Answer, answer_all
from pdstudy.models.train import Fitted, Loss, Schedule, Stopped, Watch, device, fit

PIECES = 2048  # of a batch: of a large model more do not pay on a processor
CARRIED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt")


@dataclass(frozen=True)
class Opened:
    """A model with its tokenizer, and how its classes lie."""

    model: torch.nn.Module  # a transformers model for sequence classification
    tokenizer: Any
    fresh_head: bool  # the classifier was not in the folder: it starts at random and must be trained
    order: list[int]  # column of the model's logits for each class of the task

    @property
    def n_params(self) -> int:
        """Return the number of weights."""
        return sum(p.numel() for p in self.model.parameters())


def open_model(folder: Path, labels: Sequence[str], seed: int = 0) -> Opened:
    """Return the model of a folder as a classifier of `labels`; a classifier that it lacks starts at random from `seed`.

    Raises ValueError, with the cure, for a folder without tokenizer or safetensors, with remote code or other classes, and for one
    that transformers does not open.
    """
    folder, fields = Path(folder), configuration(Path(folder))
    own = is_classifier(fields)
    if not (folder / WEIGHTS).is_file():
        raise ValueError(pickled_message(str(folder)))
    order = list(range(len(labels)))
    if own:
        order = _order(folder, fields, labels)
    tokenizer = _tokenizer(folder)
    with _plainly(folder), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, loading = _load(folder, None if own else labels)
    missing, base = sorted(loading["missing_keys"]), f"{model.base_model_prefix}."
    if own and missing:
        raise ValueError(f"{folder}: its classifier lacks {missing[0]}; it is not a complete checkpoint for its config.json")
    if lost := [name for name in missing if name.startswith(base) and ".pooler." not in name]:
        raise ValueError(f"{folder}: {lost[0]} is missing and would start at random; it is not a complete encoder")
    if wrong := sorted(map(str, loading["mismatched_keys"])):
        raise ValueError(f"{folder}: {wrong[0]} has another shape than its config.json says")
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ValueError(
            f"{folder}: the tokenizer has {len(tokenizer):,} pieces, the model knows {rows:,}; they do not belong together"
        )
    return Opened(model, tokenizer, bool(missing), order)


def encode(opened: Opened, texts: Sequence, max_length: int) -> Ids:
    """Return texts, or pairs of texts, as the model's pieces, each at most `max_length`, its special pieces among them."""
    limit = min(max_length, _longest(opened))
    flat, lengths, second = [], [], []
    for i in range(0, len(texts), 4096):
        chunk = list(texts[i : i + 4096])
        columns = [chunk] if isinstance(chunk[0], str) else [list(column) for column in zip(*chunk, strict=True)]
        cut = opened.tokenizer(*columns, truncation=True, max_length=limit)
        flat += [np.array(ids, dtype=np.int32) for ids in cut["input_ids"]]
        if len(columns) == 2 and "token_type_ids" in cut:
            second += [types.index(1) if 1 in types else len(types) for types in cut["token_type_ids"]]
    lengths = np.array([len(ids) for ids in flat], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    pieces = np.concatenate(flat) if flat else np.empty(0, np.int32)
    return Ids(pieces, starts, np.array(second, dtype=np.int32) if second else None)


def logits(opened: Opened, texts: Sequence, max_length: int, precision: str, watch: Watch | None = None) -> np.ndarray:
    """Return the logits of every text, (n_texts, n_classes) float32, classes in the task's order. Raises Stopped."""
    ids, asked, watch, n_done = encode(opened, texts, max_length), answer(opened, precision), watch or Watch(), 0

    def watched(*question: np.ndarray | None) -> np.ndarray:
        nonlocal n_done
        if watch.stop():
            raise Stopped(f"stopped after {n_done:,} of {len(texts):,} texts")
        n_done += len(question[0])
        watch.progress(n_done / len(texts))
        return asked(*question)

    return answer_all(watched, ids, opened.tokenizer.pad_token_id, len(opened.order), PIECES)


def answer(opened: Opened, precision: str) -> Answer:
    """Return a model as a function of arrays, on the device that training would use; classes in the task's order."""
    where = device()
    model = opened.model.to(where).eval()

    @torch.inference_mode()
    def ask(ids: np.ndarray, mask: np.ndarray | None = None, segments: np.ndarray | None = None) -> np.ndarray:
        with torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16"):
            found = model(**_inputs(ids, mask, segments, where)).logits
        return found.float().cpu().numpy()[:, opened.order]

    return ask


def finetune(opened: Opened, texts: Sequence, labels: np.ndarray, settings: dict[str, Any], watch: Watch | None = None) -> Fitted:
    """Train a model on labelled texts, in place, and return what happened: all weights, cross-entropy, linear decay.

    `labels` is (n_texts,) of class numbers. `settings` holds epochs, batch, rate, warmup, weight_decay, max_length, precision, seed.
    """
    ids = encode(opened, texts, settings["max_length"])
    batches = Batches(ids, labels, settings["batch"], settings["seed"], opened.tokenizer.pad_token_id)
    where, model = device(), opened.model

    def batch(step: int):
        pieces, mask, segments, targets = batches.batch(step)
        real = pieces.size if mask is None else int(mask.sum())
        return [_inputs(pieces, mask, segments, where), torch.from_numpy(targets), real]

    def loss(classifier, data):
        inputs, targets, real = data
        return Loss(losses.hard_label_loss(classifier(**inputs).logits, targets), real)

    steps = max(1, math.ceil(settings["epochs"] * batches.per_epoch))
    schedule = Schedule(steps, settings["warmup"], settings["rate"], settings["weight_decay"])
    fitted = fit(model, batch, loss, schedule, settings["seed"], settings["precision"], watch)
    model.to(torch.float16).to(torch.float32)  # as it is kept: what is measured is what is stored
    return fitted


def save(opened: Opened, source: Path, folder: Path) -> None:
    """Write a fine-tuned model in 16 bits with the tokenizer's files of `source`; `open_model` opens it again."""
    opened.model.to(torch.float16).save_pretrained(folder)
    opened.model.to(torch.float32)
    path = folder / CONFIG
    fields = json.loads(path.read_text())
    fields.pop("transformers_version", None)  # recorded in the manifest; here it would change the file's digest
    path.write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n")
    carry(source, folder)


def carry(source: Path, folder: Path) -> None:
    """Copy the files of a tokenizer."""
    for name in CARRIED:
        if (source / name).is_file():
            (folder / name).write_bytes((source / name).read_bytes())


def _inputs(ids, mask, segments, where) -> dict[str, torch.Tensor]:
    real = np.ones_like(ids) if mask is None else mask.astype(np.int64)
    found = {"input_ids": ids, "attention_mask": real} | ({} if segments is None else {"token_type_ids": segments})
    return {name: torch.from_numpy(array).to(where) for name, array in found.items()}


def _tokenizer(folder: Path):
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        raise ValueError(f"{folder}: no tokenizer; put its tokenizer.json beside the weights (save_pretrained writes it)")
    with _plainly(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ValueError(f"{folder}: the tokenizer has no piece for padding; set pad_token in its tokenizer_config.json")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load(folder: Path, labels: Sequence[str] | None):
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    names = dict(enumerate(labels or ()))
    head = {"num_labels": len(names), "id2label": names, "label2id": {v: k for k, v in names.items()}} if names else {}
    # In bf16 on a processor the fused attention's backward pass is several times slower than the plain products.
    attention = "eager" if device().type == "cpu" else "sdpa"
    try:
        return AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False,
            output_loading_info=True, attn_implementation=attention, **head,
        )  # fmt: skip
    finally:
        logging.set_verbosity(before)


@contextmanager
def _plainly(folder: Path) -> Iterator[None]:
    """Turn what transformers raises into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"{folder}: transformers does not open it ({why})") from None


def _order(folder: Path, fields: dict[str, Any], labels: Sequence[str]) -> list[int]:
    """Return the column of each class of the task in the logits of a classifier, by name."""
    named = {int(i): str(name) for i, name in (fields.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"}).items()}
    names = [named[i].casefold() for i in sorted(named)]
    wanted = [label.casefold() for label in labels]
    if fields.get("problem_type") not in (None, "single_label_classification"):
        raise ValueError(
            f"{folder}: its problem_type is {fields['problem_type']!r}; a teacher gives each text one of several classes"
        )
    if len(names) != len(wanted):
        raise ValueError(f"{folder}: it knows {len(names)} classes, the task {len(wanted)} ({', '.join(labels)}); take another")
    if names == [f"label_{i}" for i in range(len(names))]:
        return list(range(len(names)))  # it does not say; the check on dev finds swapped classes
    if sorted(names) != sorted(wanted):
        raise ValueError(
            f"{folder}: its classes are {', '.join(named.values())}, the task's {', '.join(labels)}; set id2label in its {CONFIG}"
        )
    return [names.index(name) for name in wanted]


def _longest(opened: Opened) -> int:
    """Return the most pieces that a model's positions allow."""
    most = getattr(opened.model.config, "max_position_embeddings", None) or 1 << 20
    if opened.model.config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer"):
        most -= 2  # their positions begin after the padding piece's
    return min(most, opened.tokenizer.model_max_length)
