"""Labelling and evaluating: the teacher's answers to D_T, ours against Hugging Face Trainer's `predict`.

Same weights, same texts and word pieces, same number of threads, fp32. Arms: ours; Trainer with its default batch of 8 and
dynamic padding; Trainer with batches of 128. Starting Python and reading files are outside the clock; the logits' mean size must agree to 1e-4.

Run:  python benchmarks/labelling_peer.py             (about five minutes on 2 quiet cores: 5 rounds of 3 arms at 2 sizes)
Writes benchmarks/results/labelling_peer.json.
"""

import itertools
import tempfile
import time

import numpy as np
import side_by_side
import torch

from pdstudy.models import encoder, inference
from pdstudy.sizes import Size

OURS, ARMS = "ours", ("ours", "Trainer, batches of 8", "Trainer, batches of 128")
TEXTS = 6000


def run(arm: str, size: str, threads: int) -> dict:
    """Return one run's seconds, and what its logits sum to, by which arms are compared."""
    torch.set_num_threads(threads)
    inputs = side_by_side.inputs_of("distill")
    ids, vocabulary = inputs.ids("transfer").head(TEXTS), inputs.vocabulary()
    model = encoder.new_classifier(
        encoder.bert_config(Size.parse(size), vocabulary.size, 0.08, dropout=0.1), 0
    )  # wild: answers differ
    if arm == OURS:
        begun = time.perf_counter()
        logits = inference.logits(model, ids, vocabulary.pad, "fp32")
        seconds = time.perf_counter() - begun
    else:
        seconds, logits = trainer(model, ids, int(arm.split()[-1]))
    return {"arm": arm, "seconds": round(seconds, 3), "texts": len(logits), "mean size": float(np.abs(logits).mean())}


def trainer(model: encoder.Classifier, ids, batch: int) -> tuple[float, np.ndarray]:
    """Return the seconds of Trainer's `predict` with dynamic padding, and its logits (n_texts, n_classes)."""
    import datasets
    from transformers import (
        BertForSequenceClassification,
        DataCollatorWithPadding,
        PreTrainedTokenizerFast,
        Trainer,
        TrainingArguments,
    )

    theirs = BertForSequenceClassification(model.bert.config.for_transformers())
    theirs.load_state_dict(model.state(), strict=False)
    flat = np.asarray(ids.flat).astype(np.int64)
    texts = [flat[a:b].tolist() for a, b in itertools.pairwise(ids.starts)]
    rows = datasets.Dataset.from_dict({"input_ids": texts, "attention_mask": [[1] * len(t) for t in texts]})
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=side_by_side.tokenizer_file("distill"), pad_token="[PAD]", unk_token="[UNK]")
    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            output_dir=place, per_device_eval_batch_size=batch, use_cpu=True, report_to=[], disable_tqdm=True
        )
        trainer = Trainer(model=theirs, args=arguments, data_collator=DataCollatorWithPadding(tokenizer))
        begun = time.perf_counter()
        logits = trainer.predict(rows).predictions
        return time.perf_counter() - begun, logits


if __name__ == "__main__":
    side_by_side.compare(
        __file__, __doc__, ARMS, run, lambda size: side_by_side.inputs_of("distill"), ("texts",), "mean size", 1e-4, texts=TEXTS
    )
