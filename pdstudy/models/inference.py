"""Classifiers as functions of arrays, with three engines: transformers, our own forward pass, ONNX Runtime.

All engines use the same loop over texts and the same measurement of latency. An engine is imported when a classifier is opened
with it, so ONNX Runtime runs without torch.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pdstudy.data.batches import Ids, padded

# ids, mask and segments as `batches.padded` gives them, (batch, length) or None -> logits (batch, n_classes) float32
Input = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]
Answer = Callable[[np.ndarray, np.ndarray | None, np.ndarray | None], np.ndarray]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")  # their names in transformers and in an exported ONNX file
ONNX = {"fp32": "onnx/model.onnx", "int8": "onnx/model_int8.onnx"}  # in an exported folder, named as on the hub
PIECES_PER_BATCH = 8192  # fills a GPU


def answer_all(answer: Answer, ids: Ids, pad: int, n_classes: int, pieces: int = PIECES_PER_BATCH) -> np.ndarray:
    """Return the logits of every text, (n_texts, n_classes) float32, in the texts' order.

    A batch has texts of similar length, with padding at most `pieces` pieces, or a single text.
    """
    order = np.argsort(ids.lengths, kind="stable")
    out = np.empty((len(ids), n_classes), dtype=np.float32)
    lengths, i = ids.lengths[order], 0
    while i < len(order):
        n = max(1, int(pieces // lengths[min(len(order) - 1, i + pieces // lengths[i])]))
        index = order[i : i + n]
        out[index] = answer(*padded(ids, index, pad))
        i += n
    return out


def of_model(model, precision: str, device=None, forward: Callable | None = None) -> Answer:
    """Return a model as a function of arrays; `precision` is "fp32" or "bf16".

    `forward(ids, mask, segments)` returns the logits of tensors; None: `model` itself, an `encoder.Classifier`. The model is moved
    to `device`; None: it stays where it is.
    """
    import torch

    model.eval()
    if device is None:
        device = next(model.parameters()).device
    model.to(device)
    forward = forward or model

    @torch.inference_mode()
    def answer(*arrays: np.ndarray | None) -> np.ndarray:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = forward(*(None if a is None else torch.from_numpy(a).to(device) for a in arrays))
        return logits.float().cpu().numpy()

    return answer


def logits(model, ids: Ids, pad: int, precision: str) -> np.ndarray:
    """Return an `encoder.Classifier`'s logits of every text, (n_texts, n_classes) float32, in the texts' order."""
    return answer_all(of_model(model, precision), ids, pad, model.bert.config.num_labels)


def open_torch(folder: str | Path, threads: int) -> Answer:
    """Return the classifier of a folder with our own forward pass in fp32. Sets the number of torch's threads for the process."""
    import torch

    from pdstudy.models.weights import load_classifier

    torch.set_num_threads(threads)
    return of_model(load_classifier(Path(folder)), "fp32")


def open_transformers(folder: str | Path, threads: int) -> Answer:
    """Return the classifier of a folder as transformers opens and runs it, in fp32. Sets the number of torch's threads."""
    import torch

    torch.set_num_threads(threads)
    model = load_transformers(folder)

    @torch.inference_mode()
    def answer(*arrays: np.ndarray | None) -> np.ndarray:
        return model(**{name: torch.from_numpy(a) for name, a in _inputs(*arrays).items()}).logits.numpy()

    return answer


def load_transformers(folder: str | Path, attention: str = "sdpa"):
    """Return transformers' model of a folder for inference.

    Raises ValueError if a weight is missing or unexpected.
    """
    model, loading = from_pretrained(folder, attention)
    wrong = sorted(str(name) for keys in loading.values() for name in keys)
    if wrong:
        raise ValueError(f"{folder}: transformers does not find every weight at its place: {wrong[0]}")
    return model.eval()


def from_pretrained(folder: str | Path, attention: str, **config) -> tuple[Any, dict]:
    """Return (transformers' sequence classifier of a folder, what it says of missing weights), without running remote code.

    Only safetensors are opened. `config` changes fields of the model's configuration.
    """
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would break our own progress line
    return AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention, use_safetensors=True, local_files_only=True,
        trust_remote_code=False, output_loading_info=True, **config,
    )  # fmt: skip


def open_onnx(file: str | Path, threads: int) -> Answer:
    """Return the classifier of an ONNX file, run by ONNX Runtime on the CPU. Raises ValueError, whose message says what to do."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ValueError("ONNX Runtime is not installed; run: pip install 'pdstudy[export]'") from None
    if not Path(file).is_file():
        raise ValueError(f"{file}: not there; the folder was exported without ONNX, export it again with --onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no error class of its own
        raise ValueError(f"{file}: ONNX Runtime does not open it ({str(error).splitlines()[0]})") from error
    return lambda *arrays: session.run(None, _inputs(*arrays))[0]


def _inputs(ids: np.ndarray, mask: np.ndarray | None = None, segments: np.ndarray | None = None) -> dict[str, np.ndarray]:
    attention = np.ones_like(ids) if mask is None else mask.astype(np.int64)
    return dict(zip(INPUTS, (ids, attention, np.zeros_like(ids) if segments is None else segments), strict=True))
