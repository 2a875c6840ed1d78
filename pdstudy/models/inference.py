"""Classifiers as plain functions of arrays, whichever engine is behind them: transformers, our own forward, ONNX Runtime.

So one loop asks them all, one clock measures them all, and their answers can be compared. No engine is imported
before a classifier is opened in it: what answers with ONNX Runtime has no torch in its memory.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pdstudy.data.batches import Ids, padded

# ids, mask and segments as `batches.padded` gives them, (batch, length) or None -> logits (batch, n_classes) float32
Question = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]
Answer = Callable[[np.ndarray, np.ndarray | None, np.ndarray | None], np.ndarray]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")  # what transformers and an exported ONNX file call them
ONNX = {"fp32": "onnx/model.onnx", "int8": "onnx/model_int8.onnx"}  # in an exported folder, named as on the hub
PIECES_PER_BATCH = 8192  # fills a GPU


def answer_all(answer: Answer, ids: Ids, pad: int, n_classes: int, pieces: int = PIECES_PER_BATCH) -> np.ndarray:
    """Return the logits of every text, (n_texts, n_classes) float32, in the texts' order.

    They are asked in batches of similar length, of at most `pieces` pieces or one text.
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


def of_model(model, precision: str) -> Answer:
    """Return a `encoder.Classifier` as a function of arrays, on the device on which it is; `precision` is "fp32" or "bf16"."""
    import torch

    model.eval()
    device = next(model.parameters()).device

    @torch.inference_mode()
    def answer(*question: np.ndarray | None) -> np.ndarray:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(*(None if a is None else torch.from_numpy(a).to(device) for a in question))
        return logits.float().cpu().numpy()

    return answer


def logits(model, ids: Ids, pad: int, precision: str) -> np.ndarray:
    """Return an `encoder.Classifier`'s logits of every text, (n_texts, n_classes) float32, in the texts' order."""
    return answer_all(of_model(model, precision), ids, pad, model.bert.config.num_labels)


def open_torch(folder: str | Path, threads: int, precision: str = "fp32") -> Answer:
    """Return the classifier of a folder in our own forward. Sets torch's threads, which are the process's."""
    import torch

    from pdstudy.models.weights import load_classifier

    torch.set_num_threads(threads)
    return of_model(load_classifier(Path(folder)), precision)


def open_transformers(folder: str | Path, threads: int) -> Answer:
    """Return the classifier of a folder as transformers opens and runs it, in fp32. Sets torch's threads."""
    import torch

    torch.set_num_threads(threads)
    model = load_transformers(folder)

    @torch.inference_mode()
    def answer(*question: np.ndarray | None) -> np.ndarray:
        return model(**{name: torch.from_numpy(a) for name, a in _inputs(*question).items()}).logits.numpy()

    return answer


def load_transformers(folder: str | Path, attention: str = "sdpa"):
    """Return transformers' own model of a folder, every weight accounted for; safetensors only, no remote code."""
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar a model would cut through ours
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention, use_safetensors=True, local_files_only=True,
        trust_remote_code=False, output_loading_info=True,
    )  # fmt: skip
    wrong = sorted(str(name) for keys in loading.values() for name in keys)
    if wrong:
        raise ValueError(f"{folder}: transformers does not find every weight at its place: {wrong[0]}")
    return model.eval()


def open_onnx(file: str | Path, threads: int) -> Answer:
    """Return the classifier of an ONNX file, run by ONNX Runtime on the processor. Raises ValueError with the cure."""
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
    except Exception as error:  # its errors have no class of their own
        raise ValueError(f"{file}: ONNX Runtime does not open it ({str(error).splitlines()[0]})") from error
    return lambda *question: session.run(None, _inputs(*question))[0]


def _inputs(ids: np.ndarray, mask: np.ndarray | None = None, segments: np.ndarray | None = None) -> dict[str, np.ndarray]:
    real = np.ones_like(ids) if mask is None else mask.astype(np.int64)
    return dict(zip(INPUTS, (ids, real, np.zeros_like(ids) if segments is None else segments), strict=True))
