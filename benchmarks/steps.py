"""How fast one training step is, and which share of this machine's own matrix-product rate it reaches.

python benchmarks/steps.py [SIZE ...]        eight minutes for the five sizes on a quiet core
writes benchmarks/results/steps.json, or steps_bf16.json with `--precision bf16`, the default where bf16 is multiplied fastest

For each size a pre-training step (32 rows of 64 pieces, 30 % masked, Muon, vocabulary 8,192), the same as it was before the output
layer and its loss were made block by block, and a distillation step (32 texts of 5 to 47 pieces, AdamW), on one thread, through the
stages that a study calls. The operations are counted as they
run (torch's FlopCounterMode), so the share tells how busy the multipliers are, not how few products are asked for. The
machine's rate, a product of squares of 512, is measured before and after each; where the time goes is torch's profile.
"""

import argparse
import json
import statistics
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from pdstudy import machine, stages
from pdstudy.data import batches
from pdstudy.data.batches import Ids, Vocabulary
from pdstudy.machine import best_precision
from pdstudy.models import encoder, fused_loss, losses
from pdstudy.sizes import Size

RESULTS = Path(__file__).parent / "results"
SIZES = ("2/128", "4/128", "2/256", "4/256", "4/512")
VOCABULARY, ROWS, ROW = Vocabulary(8192), 32, 64
REPEATS, SECONDS = 5, 4.0  # each repeat trains about so long
OPERATIONS = torch.ops.aten
UNCOUNTED = {  # from shapes; torch leaves these out. Fused attention is two products forward, four backward
    OPERATIONS.addmm_: lambda bias, a, b, **_: 2 * a[0] * a[1] * b[1],
    OPERATIONS._scaled_dot_product_flash_attention_for_cpu: lambda q, k, *_, **__: 4 * q.numel() * k[2],
    OPERATIONS._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, *_, **__: 8 * q.numel() * k[2],
}
KINDS = {  # an operation's name holds this
    "matrix products": ("addmm", "mm", "bmm", "attention"),
    "optimiser": ("adamw", "foreach"),
    "gelu": ("gelu",),
    "norm": ("layer_norm",),
    "softmax": ("softmax",),
    "dropout and its draws": ("random", "masked_fill", "bernoulli"),
}


def pieces(n: int) -> np.ndarray:
    """Return word pieces, as common as words are."""
    ranks = np.arange(1, VOCABULARY.size - 4)
    return (np.random.default_rng(0).choice(ranks, n, p=(1 / ranks) / (1 / ranks).sum()) + 4).astype(np.uint16)


def pretraining(size: Size, precision: str, **changes):
    """Return what trains a masked reader for so many steps; `changes` are other settings than the table's."""
    read = pieces(2_000_000)
    unigram = np.bincount(read, minlength=VOCABULARY.size)
    reader = encoder.new_masked_lm(encoder.bert_config(size, VOCABULARY.size, 0.03, 0.0), 0, "sinusoid", unigram=unigram)
    text = stages.RunningText(read, np.zeros(VOCABULARY.size, bool))
    settings = {"seed": 0, "batch": ROWS, "row": ROW, "mask": 0.3, "cls_words": 0.5, "whole_words": False, "rate": 1e-3}
    settings |= {"muon_rate": 0.015, "warmup": 0.03, "weight_decay": 0.01, "precision": precision}
    settings |= changes
    return lambda n: stages.pretrain(reader, text, settings | {"tokens": n * ROWS * ROW}, VOCABULARY)


def whole_logits(size: Size, precision: str):
    """Return what trains the same reader with its logits made whole, and torch's own gradient of the loss."""
    train, in_blocks = pretraining(size, precision), fused_loss.mlm_loss

    def plain(n: int):
        fused_loss.mlm_loss = lambda hidden, weight, bias, pieces: losses.mlm_loss(F.linear(hidden, weight, bias), pieces)
        try:
            return train(n)
        finally:
            fused_loss.mlm_loss = in_blocks

    return plain


def transfer() -> Ids:
    """Return texts of 5 to 47 pieces."""
    lengths = np.random.default_rng(1).integers(5, 48, 3200)
    return Ids(pieces(int(lengths.sum())), np.concatenate([[0], lengths.cumsum()]))


def distillation(size: Size, precision: str):
    """Return what distils a student for so many steps."""
    student = encoder.new_classifier(encoder.bert_config(size, VOCABULARY.size, 0.02, 0.1), 0)
    ids = transfer()
    soft = np.random.default_rng(2).normal(size=(3200, 2)).astype(np.float32)
    dev = batches.Labelled(Ids(ids.flat[: ids.starts[2]], ids.starts[:3]), np.array([0, 1]))
    settings = {
        "seed": 0,
        "batch": 32,
        "rate": 3e-4,
        "warmup": 0.1,
        "weight_decay": 0.01,
        "temperature": 1.0,
        "precision": precision,
    }
    return lambda n: stages.distill(student, ids, soft, dev, settings | {"epochs": n / 100}, VOCABULARY).fitted


def machine_rate(precision: str) -> float:
    """Return the floating-point operations a second of a product of two squares of 512, on one thread."""
    a, b = (torch.randn(512, 512, dtype=torch.bfloat16 if precision == "bf16" else torch.float32) for _ in "ab")
    best = float("inf")
    for _ in range(9):
        begun = time.perf_counter()
        for _ in range(40):
            a @ b
        best = min(best, (time.perf_counter() - begun) / 40)
    return 2 * 512**3 / best


def where_it_goes(train, steps: int) -> dict[str, float]:
    """Return the share of the time of each kind of operation."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        train(steps)
    spent: Counter = Counter()
    for event in seen.key_averages():
        name = event.key.lower()
        kind = next((k for k, parts in KINDS.items() if any(p in name for p in parts)), "the rest, copies and sums")
        spent[kind] += event.self_cpu_time_total
    return {kind: round(time / spent.total(), 3) for kind, time in spent.most_common()}


def measured(make, size: Size, precision: str) -> dict:
    """Return one step's milliseconds, operations and share of the machine's rate."""
    train = make(size, precision)
    fitted = train(20)
    n = max(20, round(SECONDS / (fitted.seconds / fitted.steps)))
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counted:
        few = train(20)
    flops = counted.get_total_flops() / few.steps
    before, steps = machine_rate(precision), []
    for _ in range(REPEATS):
        fitted = train(n)
        steps.append(fitted.seconds / fitted.steps)
    rate, step = (before + machine_rate(precision)) / 2, statistics.median(steps)
    row = {"ms": round(1000 * step, 2), "least": round(1000 * min(steps), 2), "most": round(1000 * max(steps), 2)}
    row |= {"pieces_a_second": round(fitted.tokens / fitted.steps / step), "gflop": round(flops / 1e9, 3)}
    row |= {
        "gflops": round(flops / step / 1e9, 1),
        "machine_gflops": round(rate / 1e9, 1),
        "share": round(flops / step / rate, 3),
    }
    return row | {"where": where_it_goes(train, 20)}


STAGES = {"pre-training": pretraining, "pre-training, logits whole": whole_logits, "distillation": distillation}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("sizes", nargs="*", default=SIZES, metavar="SIZE")
    words.add_argument("--precision", choices=("fp32", "bf16"), default=best_precision())
    asked = words.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size in map(Size.parse, asked.sizes):
        for stage, make in STAGES.items():
            rows.append({"size": str(size), "stage": stage} | measured(make, size, asked.precision))
            line = (
                "{size:6} {stage:26} {ms:7.1f} ms, {pieces_a_second:,} pieces a second, {share:.0%} of {machine_gflops:.0f} GFLOP/s"
            )
            print(line.format(**rows[-1]), rows[-1]["where"], flush=True)
    record = {"command": "python benchmarks/steps.py", "commit": machine.commit(), "date": datetime.now(UTC).strftime("%Y-%m-%d")}
    record |= {
        "processor": machine.processor(),
        "torch": torch.__version__,
        "threads": 1,
        "precision": asked.precision,
        "steps": rows,
    }
    out = RESULTS / ("steps_bf16.json" if asked.precision == "bf16" else "steps.json")
    out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
