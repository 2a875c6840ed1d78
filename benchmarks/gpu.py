"""Pre-training on one GPU: pieces a second of all 24 sizes, the share of the card's own matrix rate, and Trainer on the same card.

Three arms read the same rows of 128 word pieces, 256 a step, 15 % masked, vocabulary 30,522, AdamW, bf16: ours, ours with
`pretrain.compile`, and Hugging Face Trainer as `run_mlm` sets it up. The operations are those of ours, counted as they run; the
card's rate is that of products of bf16 squares. Where there is no GPU it runs on the processor, with fewer rows if asked: that is
how the command is tested.

Run:  python benchmarks/gpu.py                    (24 sizes, four of them with Trainer; minutes on one GPU)
      python benchmarks/gpu.py 2/128 --batch 4 --steps 3 --rounds 1 --square 512 --out /tmp/gpu.json      (anywhere)
Writes benchmarks/results/gpu.json.
"""

import argparse
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import steps
import torch
from torch.utils.flop_counter import FlopCounterMode

from pdstudy import machine, stages
from pdstudy.data.batches import Rows, Vocabulary
from pdstudy.models import encoder
from pdstudy.models.train import device
from pdstudy.sizes import PAPER_SIZES, Size

OUT = Path(__file__).parent / "results" / "gpu.json"
BESIDE = ("2/128", "4/256", "8/512", "12/768")  # those that Trainer pre-trains too
VOCABULARY, ROW, MASK, RATE = Vocabulary(30_522), 128, 0.15, 1e-4
ARMS = ("ours", "ours, compiled", "Trainer")


def matrix_rate(square: int) -> float:
    """Return the operations a second of products of two bf16 squares on the device."""
    a, b = (torch.randn(square, square, device=device(), dtype=torch.bfloat16) for _ in "ab")
    best, n = float("inf"), 20
    for _ in range(5):
        wait()
        begun = time.perf_counter()
        for _ in range(n):
            a @ b
        wait()
        best = min(best, (time.perf_counter() - begun) / n)
    return 2 * square**3 / best


def wait() -> None:
    """Return when the device has done what it was given."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def reader_of(size: Size) -> encoder.MaskedLanguageModel:
    """Return a masked reader at its random start."""
    return encoder.new_masked_lm(encoder.bert_config(size, VOCABULARY.size, 0.02, dropout=0.0), 0)


def ours(size: Size, text: np.ndarray, batch: int, n: int, compiled: bool) -> tuple[float, float]:
    """Pre-train for `n` steps and return (seconds, the last loss)."""
    settings = {"seed": 0, "batch": batch, "row": ROW, "mask": MASK, "cls_words": 0, "whole_words": False, "rate": RATE}
    settings |= {"muon_rate": None, "warmup": 0.1, "weight_decay": 0.01, "precision": "bf16", "compile": compiled}
    running = stages.RunningText(text, np.zeros(VOCABULARY.size, bool))
    fitted = stages.pretrain(reader_of(size), running, settings | {"tokens": n * batch * ROW}, VOCABULARY)
    assert fitted.steps == n
    return fitted.seconds, fitted.final_loss


def trainer(size: Size, text: np.ndarray, batch: int, n: int) -> tuple[float, float]:
    """Pre-train for `n` steps with Hugging Face Trainer and return (seconds, the last loss)."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import (
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        PreTrainedTokenizerFast,
        Trainer,
        TrainingArguments,
    )

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    words = {**{piece: i for i, piece in enumerate(special)}, **{f"w{i}": i for i in range(len(special), VOCABULARY.size)}}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="[UNK]")), pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip
    reader = reader_of(size)
    theirs = BertForMaskedLM(reader.bert.config.for_transformers())
    theirs.load_state_dict(reader.bert.state_dict(), strict=False)
    rows = Rows(text, ROW, 0, VOCABULARY)
    ids = torch.from_numpy(np.concatenate([rows.batch(step, batch) for step in range(n)]).astype(np.int64))
    items = [{"input_ids": row, "attention_mask": torch.ones_like(row), "special_tokens_mask": (row < 5).long()} for row in ids]
    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            output_dir=place, per_device_train_batch_size=batch, max_steps=n, learning_rate=RATE, warmup_steps=round(0.1 * n),
            weight_decay=0.01, adam_beta2=0.98, use_cpu=device().type == "cpu", bf16=True, seed=0, report_to=[],
            save_strategy="no", disable_tqdm=True, logging_steps=n,
        )  # fmt: skip
        collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=MASK)
        trainer = Trainer(model=theirs, args=arguments, train_dataset=items, data_collator=collator)
        wait()
        begun = time.perf_counter()
        done = trainer.train()
        wait()
        seconds = time.perf_counter() - begun
    assert done.global_step == n
    return seconds, done.training_loss


def flops_of(size: Size, text: np.ndarray, batch: int) -> float:
    """Return the operations of one of our steps, as they are counted while two run."""
    with FlopCounterMode(display=False, custom_mapping=steps.UNCOUNTED) as counted:
        ours(size, text, batch, 2, compiled=False)
    return counted.get_total_flops() / 2


def measured(size: Size, text: np.ndarray, batch: int, n: int, rounds: int, rate: float, beside: bool) -> dict:
    """Return what each arm reads in a second, in turn, and ours as a share of the card's rate."""
    run = {
        "ours": lambda n: ours(size, text, batch, n, compiled=False),
        "ours, compiled": lambda n: ours(size, text, batch, n, compiled=True),
        "Trainer": lambda n: trainer(size, text, batch, n),
    }
    arms = ARMS if beside else ARMS[:2]
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    losses = {}
    for arm in arms:
        run[arm](2)  # compiles, and wakes the card
    for i in range(rounds):
        for arm in arms if i % 2 == 0 else arms[::-1]:
            spent, losses[arm] = run[arm](n)
            seconds[arm].append(spent / n)
    flops, step = flops_of(size, text, batch), {arm: statistics.median(of) for arm, of in seconds.items()}
    row = {"size": str(size), "gflop_a_step": round(flops / 1e9, 3), "ms": {arm: round(1000 * s, 3) for arm, s in step.items()}}
    row["pieces_a_second"] = {arm: round(batch * ROW / s) for arm, s in step.items()}
    row["share"] = {arm: round(flops / s / rate, 3) for arm, s in step.items() if arm != "Trainer"}
    row["last loss"] = {arm: round(loss, 3) for arm, loss in losses.items()}
    if beside:
        pairs = {arm: [a / b for a, b in zip(seconds["Trainer"], seconds[arm], strict=True)] for arm in ARMS[:2]}
        row["Trainer takes"] = {
            arm: {"median": round(statistics.median(of), 2), "low": round(min(of), 2), "high": round(max(of), 2), "pairs": len(of)}
            for arm, of in pairs.items()
        }
    return row


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("sizes", nargs="*", default=list(map(str, PAPER_SIZES)), metavar="SIZE")
    words.add_argument("--beside", nargs="*", default=BESIDE, metavar="SIZE", help="sizes that Trainer pre-trains too")
    words.add_argument("--batch", type=int, default=256)
    words.add_argument("--steps", type=int, default=50)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--square", type=int, default=8192)
    words.add_argument("--out", type=Path, default=OUT)
    asked = words.parse_args()
    rng = np.random.default_rng(0)
    ranks = np.arange(1, VOCABULARY.size - 4)
    text = (rng.choice(ranks, 2_000_000, p=(1 / ranks) / (1 / ranks).sum()) + 4).astype(np.uint16)
    cuda = device().type == "cuda"
    name = torch.cuda.get_device_name() if cuda else machine.processor()
    record = {"command": "python benchmarks/gpu.py", "processor": name, "commit": machine.commit(), "torch": torch.__version__}
    record |= {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "batch": asked.batch, "row": ROW, "sizes": []}
    for size in map(Size.parse, asked.sizes):
        rate = matrix_rate(asked.square)
        row = measured(size, text, asked.batch, asked.steps, asked.rounds, rate, str(size) in asked.beside)
        record["sizes"].append(row | {"matrix_tflops": round(rate / 1e12, 2)})
        print(json.dumps(record["sizes"][-1]), flush=True)
        asked.out.write_text(json.dumps(record, indent=1) + "\n")  # a lease may end before the last size


if __name__ == "__main__":
    main()
