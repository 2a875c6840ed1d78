"""Pre-training's speed: ours against Hugging Face Trainer as `run_mlm` sets it up, on the same work.

The same start, the same rows of 128 word pieces, 32 a step, 15 % masked, AdamW at the same rate, as many optimiser steps, as many
threads: BERT's own recipe in both arms, none of the budget recipe's devices (what those are worth is pretraining_peer.py's
question). Ours is in the precision that this processor multiplies fastest, Trainer at its default fp32 and, where bf16 is the faster,
in bf16 too. Trainer: its collator, a dense output layer over every position. A size is LAYERS/WIDTH, or LAYERS/WIDTH@VOCABULARY where
that is not 8,192. Starting Python, reading and evaluating are outside the clock; the held-out losses must agree to 0.3 nats, for each
arm draws its own masks, and Trainer's first step, which at this point of the curve is worth a tenth of a nat, has a rate of 0.

Run:  python benchmarks/pretraining_speed.py          (15 to 30 minutes on 2 quiet cores: 5 rounds of 2 or 3 arms at 5 sizes)
Writes benchmarks/results/pretraining_speed.json, or pretraining_speed_bf16.json on a processor that multiplies fastest in bf16.
"""

import tempfile
import time

import numpy as np
import side_by_side
import torch

from pdstudy import stages
from pdstudy.data.batches import Rows
from pdstudy.machine import best_precision
from pdstudy.models import encoder, evaluate
from pdstudy.models.train import Watch
from pdstudy.run import execute, model_steps
from pdstudy.sizes import Size
from pdstudy.storage.paths import PARAMS
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import Study
from pdstudy.study.yaml_file import load

OURS, ARMS = "ours", ("ours", "Trainer, fp32", *(["Trainer, bf16"] if best_precision() == "bf16" else []))
SIZES = ("2/128", "4/128", "4/256", "4/512", "4/128@30522")
STEPS = {"2/128": 40, "4/128": 30, "4/256": 15, "4/512": 6, "4/128@30522": 10}
SETTINGS = {"batch": 32, "row": 128, "mask": 0.15, "whole_words": False, "cls_words": 0, "rate": 1e-3, "warmup": 0.1}
SETTINGS |= {"weight_decay": 0.01, "muon_rate": None, "seed": 0}


def parts(size: str) -> tuple[Size, int]:
    """Return the size and the vocabulary that a name stands for."""
    shape, _, vocabulary = size.partition("@")
    return Size.parse(shape), int(vocabulary or 8192)


def inputs_of(size: str) -> model_steps.Inputs:
    """Return the opened inputs of a pre-train step on IMDb reviews; its text steps are made if need be."""
    shape, vocabulary = parts(size)
    study = Study.checked(load(PARAMS / "zoo.yaml") | {"tokenizer": {"vocabulary": vocabulary, "folder": None}})
    store, made = Store(), plan.pretraining(study, [shape])
    for step in made.steps.values():
        if step.stage in ("texts", "tokenizer", "ids", "words") and store.find(step.digest) is None:
            execute.execute(step, store, Watch())
    return model_steps.Inputs(made.of_stage("pretrain")[0], store)


def run(arm: str, size: str, threads: int) -> dict:
    """Return one run's seconds of training, optimiser steps, pieces, and the held-out loss afterwards."""
    torch.set_num_threads(threads)
    # What torch imports for its first optimiser takes seconds, which are in neither arm.
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    inputs, (shape, _) = inputs_of(size), parts(size)
    vocabulary, text = inputs.vocabulary(), np.array(inputs.ids("corpus").flat)
    reader = encoder.new_masked_lm(encoder.bert_config(shape, vocabulary.size, 0.05, dropout=0.1), 0)
    if arm == OURS:
        corpus = stages.RunningText(text, np.load(inputs.folder("ids") / "continues.npy"))
        settings = SETTINGS | {"tokens": STEPS[size] * SETTINGS["batch"] * SETTINGS["row"], "precision": best_precision()}
        begun = time.perf_counter()
        steps = stages.pretrain(reader, corpus, settings, vocabulary).steps
        seconds = time.perf_counter() - begun
    else:
        seconds, steps = trainer(reader, text, inputs, STEPS[size], bf16=arm.endswith("bf16"))
    counts = np.load(inputs.folder("ids") / "corpus.counts.npy")
    level = evaluate.heldout_mlm(reader, np.array(inputs.ids("heldout").flat), vocabulary, counts, "fp32")["mlm_loss"]
    pieces = steps * SETTINGS["batch"] * SETTINGS["row"]
    return {"arm": arm, "seconds": round(seconds, 2), "steps": steps, "pieces": pieces, "held-out loss": round(level, 4)}


def trainer(
    reader: encoder.MaskedLanguageModel, text: np.ndarray, inputs: model_steps.Inputs, steps: int, bf16: bool
) -> tuple[float, int]:
    """Train with Hugging Face Trainer as examples/pytorch/language-modeling/run_mlm.py does; return (seconds, steps).

    The rows are those that ours reads; run_mlm too leaves a special piece unmasked. The weights are given back to `reader`.
    """
    import datasets
    from transformers import (
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        PreTrainedTokenizerFast,
        Trainer,
        TrainingArguments,
    )

    theirs = BertForMaskedLM(reader.bert.config.for_transformers())
    theirs.load_state_dict(reader.bert.state_dict(), strict=False)
    ours = Rows(text, SETTINGS["row"], SETTINGS["seed"], inputs.vocabulary())
    ids = np.concatenate([ours.batch(step, SETTINGS["batch"]) for step in range(steps)])
    special = (np.arange(SETTINGS["row"]) == 0) | np.isin(ids, np.arange(5))
    columns = {"input_ids": ids, "attention_mask": np.ones_like(ids), "special_tokens_mask": special.astype(np.int64)}
    rows = datasets.Dataset.from_dict({k: v.tolist() for k, v in columns.items()})
    folder = inputs.store.open(inputs.store.manifest(inputs.step.parents["ids"])["parents"]["tokenizer"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            output_dir=place, per_device_train_batch_size=SETTINGS["batch"], max_steps=steps, learning_rate=SETTINGS["rate"],
            warmup_steps=round(SETTINGS["warmup"] * steps), weight_decay=SETTINGS["weight_decay"], adam_beta2=0.98, use_cpu=True,
            bf16=bf16, seed=0, report_to=[], save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=SETTINGS["mask"])
        trainer = Trainer(model=theirs, args=arguments, train_dataset=rows, data_collator=collator)
        begun = time.perf_counter()
        done = trainer.train()
        seconds = time.perf_counter() - begun
    reader.bert.load_state_dict(theirs.state_dict(), strict=False)
    return seconds, done.global_step


if __name__ == "__main__":
    same = ("steps", "pieces")
    options = {"by_precision": True, "settings": SETTINGS, "steps": STEPS}
    side_by_side.compare(__file__, __doc__, ARMS, run, inputs_of, same, "held-out loss", 0.3, SIZES, **options)
