"""Fine-tuning, ours against Hugging Face Trainer as `run_glue` sets it up, with dynamic padding.

Same starting weights (a seed's), same texts, word pieces, epochs, batch, rate, schedule and number of threads. Arms: ours in
the precision that this processor multiplies fastest; Trainer at its default fp32; Trainer in bf16. Starting Python, reading and
evaluating are outside the clock.

Run:  python benchmarks/finetuning_peer.py            (about 25 minutes on 2 quiet cores: 5 rounds of 3 arms at 2 sizes)
Writes benchmarks/results/finetuning_peer.json.
"""

import itertools
import tempfile
import time

import numpy as np
import side_by_side
import torch

from pdstudy import stages
from pdstudy.data import batches
from pdstudy.machine import best_precision
from pdstudy.models import encoder, evaluate, inference
from pdstudy.sizes import Size

OURS, ARMS = "ours", ("ours", "Trainer, fp32", "Trainer, bf16")
SETTINGS = {"epochs": 2, "batch": 32, "rate": 3e-4, "warmup": 0.1, "weight_decay": 0.01, "seed": 0}


def run(arm: str, size: str, threads: int) -> dict:
    """Return one run's seconds of training, optimiser steps, real pieces, and accuracy on dev afterwards."""
    torch.set_num_threads(threads)
    inputs = side_by_side.inputs_of("finetune")
    train, dev, vocabulary = inputs.labelled("train"), inputs.labelled("dev"), inputs.vocabulary()
    config = encoder.bert_config(Size.parse(size), vocabulary.size, 0.04 if size.endswith("/256") else 0.02, dropout=0.1)
    model = encoder.new_classifier(config, 0)
    evaluate.metrics(np.eye(2), np.arange(2))  # loads what evaluating needs, and `finetune` does at its end: two seconds
    if arm == OURS:
        begun = time.perf_counter()
        done = stages.finetune(model, train, _first(dev), SETTINGS | {"precision": best_precision()}, vocabulary)
        seconds, steps, pieces = time.perf_counter() - begun, done.fitted.steps, done.fitted.tokens
    else:
        seconds, steps, pieces = trainer(model, train, vocabulary, bf16=arm.endswith("bf16"))
    accuracy = evaluate.metrics(inference.logits(model, dev.ids, vocabulary.pad, "fp32"), dev.labels)["accuracy"]
    return {"arm": arm, "seconds": round(seconds, 2), "steps": steps, "pieces": pieces, "dev accuracy": round(accuracy, 4)}


def _first(dev: batches.Labelled) -> batches.Labelled:
    """Return the first text of dev: `finetune` looks at dev when it is done, which is not what is timed."""
    return batches.Labelled(dev.ids.head(1), dev.labels[:1])


def trainer(model: encoder.Classifier, train: batches.Labelled, vocabulary, bf16: bool) -> tuple[float, int, int]:
    """Train with Hugging Face Trainer as examples/pytorch/text-classification/run_glue.py does with dynamic padding.

    Its weights are given back to `model`. Returns (seconds, optimiser steps, real pieces).
    """
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
    starts, flat = train.ids.starts, np.asarray(train.ids.flat).astype(np.int64)
    texts = [flat[a:b].tolist() for a, b in itertools.pairwise(starts)]
    rows = datasets.Dataset.from_dict(
        {"input_ids": texts, "attention_mask": [[1] * len(t) for t in texts], "label": train.labels.tolist()}
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=side_by_side.tokenizer_file("finetune"), pad_token="[PAD]", unk_token="[UNK]"
    )
    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            output_dir=place, per_device_train_batch_size=SETTINGS["batch"], num_train_epochs=SETTINGS["epochs"],
            learning_rate=SETTINGS["rate"], warmup_steps=SETTINGS["warmup"], weight_decay=SETTINGS["weight_decay"], bf16=bf16,
            use_cpu=True, seed=0, report_to=[], save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        collator = DataCollatorWithPadding(tokenizer)
        trainer = Trainer(model=theirs, args=arguments, train_dataset=rows, data_collator=collator)
        begun = time.perf_counter()
        done = trainer.train()
        seconds = time.perf_counter() - begun
    model.bert.load_state_dict(theirs.state_dict(), strict=False)
    return seconds, done.global_step, SETTINGS["epochs"] * len(flat)


if __name__ == "__main__":
    side_by_side.compare(
        __file__,
        __doc__,
        ARMS,
        run,
        lambda size: side_by_side.inputs_of("finetune"),
        ("steps", "pieces"),
        "dev accuracy",
        0.03,
        settings=SETTINGS,
    )
