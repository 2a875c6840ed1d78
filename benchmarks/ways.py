"""Ways to make a step faster that a study does not go by itself, each against the way it goes: what they are worth here.

- the encoder compiled (`pretrain.compile`), and after how many steps that pays for the compiling;
- three seeds of one student trained as one batched model (torch.func), at its best: the same texts in the same order for all three;
- the next batch made by a thread of its own: what it could save at most, the share of a step that a batch takes;
- lengths of batches in multiples of 4, which is how a study goes in bf16, against every length as it is: time and peak memory, each
  measurement in a new process, in both precisions;
- one student on two threads, against two students side by side, which is how a study goes.

Each pair of measurements follows in turn, one thread but for the last. Steps are those of `steps.py`.

Run:  python benchmarks/ways.py          (about 15 minutes on 2 quiet cores)
Writes benchmarks/results/ways.json, or ways_bf16.json with `--precision bf16`, the default where bf16 is multiplied fastest.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import steps
import torch
from torch.func import functional_call, stack_module_state, vmap

from pdstudy import machine, stages
from pdstudy.data.batches import MASKING, Batches, Rows, stream
from pdstudy.data.masking import mask_rows
from pdstudy.machine import best_precision
from pdstudy.models import encoder
from pdstudy.models import losses as objectives
from pdstudy.models.optimisers import CLIP
from pdstudy.models.train import BETAS
from pdstudy.sizes import Size

RESULTS = Path(__file__).parent / "results"
SIZES, SEEDS, ROUNDS = ("2/128", "4/256"), 3, 5
STEPS = {"2/128": 40, "4/256": 10}  # of one measurement


def in_turn(plain: Callable[[], float], other: Callable[[], float]) -> dict:
    """Return how many times as long the plain way takes as the other: median, lowest and highest of ROUNDS pairs, and both times."""
    pairs = [(plain(), other()) if i % 2 == 0 else (other(), plain())[::-1] for i in range(ROUNDS)]
    ratios = [a / b for a, b in pairs]
    row = {
        "median": round(statistics.median(ratios), 3),
        "low": round(min(ratios), 3),
        "high": round(max(ratios), 3),
        "pairs": ROUNDS,
    }
    for i, name in enumerate(("plain_ms", "other_ms")):
        row[name] = round(1000 * statistics.median(pair[i] for pair in pairs), 2)
    return row


def compiled(size: str, precision: str) -> dict:
    """Return what compiling the encoder is worth in pre-training, the seconds it takes, and the steps after which it pays."""
    ways = [steps.pretraining(Size.parse(size), precision, compile=way) for way in (False, True)]
    ways[0](3)
    begun = time.perf_counter()
    ways[1](3)
    seconds = time.perf_counter() - begun

    def measured(train):
        return lambda: (f := train(STEPS[size])).seconds / f.steps

    timing = in_turn(*map(measured, ways))
    losses = [train(STEPS[size]).final_loss for train in ways]  # each from where its turns have brought it: as many steps
    assert abs(losses[0] - losses[1]) < 0.05, f"compiled, the loss is {losses[1]:.4f}, else {losses[0]:.4f}"
    saved = (timing["plain_ms"] - timing["other_ms"]) / 1000
    return timing | {"compiling_s": round(seconds, 1), "pays_after_steps": round(seconds / saved) if saved > 0 else None}


def together(size: str, precision: str) -> dict:
    """Return what training three seeds as one batched model is worth, step for step."""
    config = encoder.bert_config(Size.parse(size), steps.VOCABULARY.size, 0.02, 0.0)
    students = [encoder.new_classifier(config, seed).train() for seed in range(SEEDS)]
    weights, buffers = stack_module_state(students)
    empty = encoder.new_classifier(config, 0).to("meta")
    one_by_one = [torch.optim.AdamW(s.parameters(), 3e-4, betas=BETAS, fused=True) for s in students]
    at_once = torch.optim.AdamW(weights.values(), 3e-4, betas=BETAS, fused=True)
    lengths = np.random.default_rng(1).integers(5, 48, 32)
    mask = torch.arange(int(lengths.max())) < torch.from_numpy(np.sort(lengths))[:, None]
    ids, soft = torch.randint(5, steps.VOCABULARY.size, mask.shape), torch.randn(len(lengths), 2)
    losses: list[list[float]] = [[], []]

    def autocast():
        return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")

    def plain() -> None:
        total = 0.0
        for student, optimiser in zip(students, one_by_one, strict=True):
            with autocast():
                loss = objectives.soft_label_loss(student(ids, mask), soft)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), CLIP)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            total += float(loss.detach())
        losses[0].append(total)

    def of_one(weights, buffers):
        return objectives.soft_label_loss(functional_call(empty, (weights, buffers), (ids, mask)), soft)

    def batched() -> None:
        with autocast():
            loss = vmap(of_one)(weights, buffers).sum()
        loss.backward()
        norms = torch.stack([w.grad.flatten(1).norm(dim=1) for w in weights.values()]).norm(dim=0)
        share = (CLIP / (norms + 1e-6)).clamp(max=1)
        for w in weights.values():
            w.grad.mul_(share.view(-1, *[1] * (w.ndim - 1)))
        at_once.step()
        at_once.zero_grad(set_to_none=True)
        losses[1].append(float(loss.detach()))

    def measured(train):
        def seconds() -> float:
            begun = time.perf_counter()
            for _ in range(STEPS[size]):
                train()
            return (time.perf_counter() - begun) / STEPS[size]

        return seconds

    for train in (plain, batched):
        train()
    timing = in_turn(measured(plain), measured(batched))
    # Near 0 the trajectories part by rounding; before that they are one.
    np.testing.assert_allclose(losses[0][:5], losses[1][:5], rtol=1e-2 if precision == "bf16" else 1e-4)
    return timing


def preparing(size: str, precision: str) -> dict:
    """Return the share of a step of pre-training and of distillation that making its batch takes."""
    text = steps.pieces(2_000_000)
    rows = Rows(text, steps.ROW, 0, steps.VOCABULARY)
    texts = steps.transfer()
    batches = Batches(texts, np.zeros((len(texts), 2), np.float32), 32, 0, steps.VOCABULARY.pad)

    def masked(step: int) -> None:
        mask_rows(rows.batch(step, steps.ROWS), 0.3, steps.VOCABULARY, stream(0, MASKING, step))

    taken = {}
    for name, batch, make in (("pre-training", masked, steps.pretraining), ("distillation", batches.batch, steps.distillation)):
        batch(0)
        begun = time.perf_counter()
        for step in range(100):
            batch(step)
        seconds = (time.perf_counter() - begun) / 100
        train = make(Size.parse(size), precision)
        train(5)
        fitted = train(STEPS[size])
        taken[name] = {"batch_ms": round(1000 * seconds, 3), "share": round(seconds * fitted.steps / fitted.seconds, 4)}
    return taken


def distilled(size: str, precision: str, multiple: int, n: int) -> tuple[float, float]:
    """Return the seconds of a distillation step and the peak memory of this process in MB, with such lengths of batches."""
    torch.set_num_threads(1)
    stages.length_multiple = lambda precision, positions: multiple
    train = steps.distillation(Size.parse(size), precision)
    train(100)  # every length occurs
    fitted = train(n)
    return fitted.seconds / fitted.steps, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def lengths(size: str, precision: str) -> dict:
    """Return what lengths in multiples of 4 are worth, and the peak memory without and with them."""
    n, peaks = 5 * STEPS[size], {1: [], stages.LENGTH_MULTIPLE: []}

    def measure(multiple: int) -> float:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            seconds, peak = pool.submit(distilled, size, precision, multiple, n).result()
        peaks[multiple].append(peak)
        return seconds

    row = in_turn(lambda: measure(1), lambda: measure(stages.LENGTH_MULTIPLE))
    return row | {name: round(statistics.median(p)) for name, p in zip(("plain_mb", "other_mb"), peaks.values(), strict=True)}


def one_student(size: str, precision: str, threads: int, n: int) -> float:
    """Return the seconds of a distillation step, in this process."""
    torch.set_num_threads(threads)
    train = steps.distillation(Size.parse(size), precision)
    train(5)
    fitted = train(n)
    return fitted.seconds / fitted.steps


def side_by_side(size: str, precision: str) -> dict:
    """Return how many times as long two students take one after the other, on two threads each, as side by side on one each."""
    n = 3 * STEPS[size]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:

        def after_another() -> float:
            return 2 * pool.submit(one_student, size, precision, 2, n).result()

        def beside() -> float:
            both = [pool.submit(one_student, size, precision, 1, n) for _ in range(2)]
            return max(job.result() for job in both)

        return in_turn(after_another, beside)


WAYS = {"the encoder compiled": compiled, "three seeds as one batched model": together}
WAYS |= {"batches by a thread": preparing, "two students side by side": side_by_side}
WAYS |= {f"lengths in multiples of 4, {p}": lambda size, _, p=p: lengths(size, p) for p in ("bf16", "fp32")}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--sizes", nargs="+", default=SIZES)
    words.add_argument("--precision", choices=("fp32", "bf16"), default=best_precision())
    asked = words.parse_args()
    torch.set_num_threads(1)
    by_way = {}
    for way, measure in WAYS.items():
        for size in asked.sizes:
            by_way.setdefault(way, {})[size] = measure(size, asked.precision)
            print(way, size, by_way[way][size], flush=True)
    record = {
        "ways": by_way,
        "precision": asked.precision,
        "commit": machine.commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    out = RESULTS / ("ways_bf16.json" if asked.precision == "bf16" else "ways.json")
    out.write_text(json.dumps(record | {"processor": machine.processor()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
