"""How long until a compact BERT reads this well? Ours against Hugging Face Trainer as `run_mlm` sets it up.

Same text, word pieces, size, machine and measure of reading; each run has the same seconds of training, on the same
number of threads, in a process of its own, one after the other. Looking at the held-out loss stops every clock.
Arms: ours (the budget recipe); run_mlm at its defaults (rate 5e-5, 8 rows of 512, 15 % masked, no warm-up, fp32);
run_mlm at our rate and batch (1e-3, 32 rows of 64, our warm-up), where only the rest of the recipe differs.

Run:  python benchmarks/pretraining_peer.py 2/128 --seconds 240     (about 25 minutes on 2 quiet cores: 2 rounds of 3 arms)
Writes benchmarks/results/pretraining_peer.json.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from pdstudy import stages
from pdstudy.models import encoder, evaluate
from pdstudy.models.train import Stopped, Watch
from pdstudy.run import execute, model_steps, result_tables
from pdstudy.sizes import Size
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import Study

OUT = Path(__file__).parent / "results" / "pretraining_peer.json"
ARMS = ("ours", "run_mlm, its defaults", "run_mlm, our rate")
LEVELS = (6.0, 5.5, 5.0, 4.5)  # nats
LOOKS = 12  # at the held-out loss in a run


class Clock:
    """Seconds of training: it stands still while somebody looks at the model."""

    def __init__(self, seconds: float, look):
        self.limit, self.look, self.aside, self.begun, self.curve = seconds, look, 0.0, time.perf_counter(), []

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begun - self.aside

    def tick(self) -> bool:
        """Look at the model when it is time, and return whether time is up."""
        now = self.seconds
        if now >= (len(self.curve) + 1) * self.limit / LOOKS:
            stopped = time.perf_counter()
            self.curve.append({"seconds": round(now, 1), "loss": self.look()})
            self.aside += time.perf_counter() - stopped
        return now >= self.limit


def inputs_of(size: Size):
    """Return (the pre-train step's settings, its opened inputs), the word pieces and counts made if need be."""
    store, study = Store(families=()), Study.read("zoo")
    made = plan.pretraining(study, [size])
    for step in made.steps.values():
        if step.stage in ("texts", "tokenizer", "ids", "words") and store.find(step.digest) is None:
            execute.execute(step, store, Watch())
    (step,) = made.of_stage("pretrain")
    return step.settings, model_steps.Inputs(step, store)


def run(arm: str, size: Size, seconds: float, threads: int) -> dict:
    """Return one run's curve of held-out losses."""
    torch.set_num_threads(threads)
    settings, inputs = inputs_of(size)
    heldout, vocabulary = np.array(inputs.ids("heldout").flat), inputs.vocabulary()
    unigram, text = np.load(inputs.folder("ids") / "corpus.counts.npy"), np.array(inputs.ids("corpus").flat)

    def level(reader) -> float:
        loss = evaluate.heldout_mlm(reader, heldout, vocabulary, unigram, settings["precision"])["mlm_loss"]
        reader.train()
        return loss

    if arm == "ours":
        counted = np.load(inputs.folder("words") / "words.npy") * settings["words_std"]
        config = encoder.bert_config(size, vocabulary.size, settings["init_std"], dropout=0.0)
        reader = encoder.new_masked_lm(config, 0, settings["positions"], counted, unigram)
        clock = Clock(seconds, lambda: level(reader))
        speed = measured(reader, text, settings, vocabulary, inputs)
        clock.begun = time.perf_counter()
        corpus = stages.RunningText(text, np.load(inputs.folder("ids") / "continues.npy"))
        reader = encoder.new_masked_lm(config, 0, settings["positions"], counted, unigram)
        planned = settings | {"tokens": speed * seconds}  # a schedule that ends when the time does
        with contextlib.suppress(Stopped):
            stages.pretrain(reader, corpus, planned, vocabulary, Watch(stop=clock.tick))
        clock.curve.append({"seconds": round(clock.seconds, 1), "loss": level(reader)})
        return {"arm": arm, "curve": clock.curve}
    return {"arm": arm, "curve": trainer(arm, size, seconds, text, settings, vocabulary, inputs, level)}


def measured(reader, text, settings, vocabulary, inputs) -> float:
    """Return our pieces a second, from a short run that is thrown away."""
    corpus = stages.RunningText(text, np.load(inputs.folder("ids") / "continues.npy"))
    fitted = stages.pretrain(reader, corpus, settings | {"tokens": 100 * settings["batch"] * settings["row"]}, vocabulary, Watch())
    return fitted.tokens / fitted.seconds


def trainer(arm, size, seconds, text, settings, vocabulary, inputs, level) -> list[dict]:
    """Return the curve of Hugging Face Trainer, set up as transformers' examples/pytorch/language-modeling/run_mlm.py."""
    import tempfile

    import datasets
    from transformers import (
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        PreTrainedTokenizerFast,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    defaults = arm.endswith("defaults")
    row, batch = (512, 8) if defaults else (settings["row"], settings["batch"])
    n = len(text) // row
    rows = datasets.Dataset.from_dict({"input_ids": text[: n * row].astype(np.int64).reshape(n, row)}).with_format("torch")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_folder(inputs) / "tokenizer.json"), pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip
    config = encoder.bert_config(size, vocabulary.size, 0.02, dropout=0.1)
    config.attention_probs_dropout_prob = 0.1
    torch.manual_seed(0)
    model = BertForMaskedLM(config.for_transformers())
    reader = encoder.MaskedLanguageModel(config)

    def look() -> float:
        reader.bert.load_state_dict(model.state_dict())
        return level(reader)

    clock = Clock(seconds, look)

    class Stopwatch(TrainerCallback):
        """When each step ended."""

        ends: list[float] = []  # noqa: RUF012

        def on_step_end(self, *_, **__):
            self.ends.append(time.perf_counter())

    class Watcher(TrainerCallback):
        def on_train_begin(self, *_, **__):
            clock.begun, clock.aside = time.perf_counter(), 0.0

        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = clock.tick()
            return control

    def arguments(place: str, steps: int) -> TrainingArguments:
        ours = {} if defaults else {"learning_rate": 1e-3, "warmup_steps": max(1, round(0.03 * steps)), "weight_decay": 0.01}
        return TrainingArguments(
            output_dir=place, per_device_train_batch_size=batch, max_steps=steps, report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, use_cpu=True, seed=0, **ours,
        )  # fmt: skip

    collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15)
    with tempfile.TemporaryDirectory() as place:
        short = {"model": BertForMaskedLM(config.for_transformers()), "args": arguments(place, 16), "callbacks": [Stopwatch]}
        Trainer(**short, train_dataset=rows, data_collator=collator).train()
        steps = round(seconds * 12 / (Stopwatch.ends[15] - Stopwatch.ends[3]))  # the schedule ends about when the time does
        trainer = Trainer(
            model=model, args=arguments(place, steps), train_dataset=rows, data_collator=collator, callbacks=[Watcher()]
        )
        trainer.train()
    clock.curve.append({"seconds": round(clock.seconds, 1), "loss": look()})
    return clock.curve


def tokenizer_folder(inputs) -> Path:
    """Return the folder of the tokenizer that cut the corpus."""
    manifest = inputs.store.manifest(inputs.step.parents["ids"])
    return inputs.store.open(manifest["parents"]["tokenizer"])


def seconds_to(curve: list[dict], level: float) -> float | None:
    """Return when a curve first lies at or below a loss, interpolated; None where it never does."""
    last = None
    for point in curve:
        if point["loss"] <= level:
            if last is None:
                return point["seconds"]
            share = (last["loss"] - level) / (last["loss"] - point["loss"])
            return round(last["seconds"] + share * (point["seconds"] - last["seconds"]), 1)
        last = point
    return None


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("size")
    words.add_argument("--seconds", type=float, default=240)
    words.add_argument("--rounds", type=int, default=2)
    words.add_argument("--threads", type=int, default=2)
    words.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    asked = words.parse_args()
    size = Size.parse(asked.size)
    if asked.arm:
        print(json.dumps(run(asked.arm, size, asked.seconds, asked.threads)))
        return
    inputs_of(size)
    runs = []
    for _ in range(asked.rounds):
        for arm in ARMS:
            options = [asked.size, "--arm", arm, "--seconds", str(asked.seconds), "--threads", str(asked.threads)]
            done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
            curve = runs[-1]["curve"]
            reached = {level: seconds_to(curve, level) for level in LEVELS}
            print(f"{arm:24} after {curve[-1]['seconds']:.0f} s: {curve[-1]['loss']:.3f} nats; seconds to {reached}", flush=True)
    known = json.loads(OUT.read_text()) if OUT.exists() else {"sizes": {}}
    made = result_tables.environment(plan.pretraining(Study.read("zoo"), [size]), 0, 0, 0.0)
    record = {"seconds": asked.seconds, "threads": asked.threads, "runs": runs, "levels": LEVELS}
    record["seconds_to"] = {a: [[seconds_to(r["curve"], n) for n in LEVELS] for r in runs if r["arm"] == a] for a in ARMS}
    known["sizes"][asked.size] = record | {k: made[k] for k in ("commit", "date", "versions", "machine")}
    OUT.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
