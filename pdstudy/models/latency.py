"""Latency and memory of classifiers on this machine, with any engine.

All classifiers of one call are measured together, in rounds in which each has a turn, and a text's time is its median over
the rounds. So a moment in which the machine was busy changes neither a number nor a comparison, and the percentiles are over
texts, not over such moments.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pdstudy.data.batches import Ids, padded
from pdstudy.models.inference import Answer, Question

PARTS = ("ids", "mask", "segments")  # of a question
CHILD = "from pdstudy.models import latency; latency._report_memory()"  # what the child process runs


@dataclass(frozen=True)
class Opening:
    """How a classifier is opened: `function(*words, threads=...)` returns it as an `inference.Answer`.

    The function is in a module and the words are text or numbers, so that a child process can do the same.
    """

    function: Callable[..., Answer]
    words: tuple[str | int | float, ...]
    precision: str  # of its products, for the record


@dataclass(frozen=True)
class AtLength:
    """Milliseconds for one text of exactly `length` pieces: median and 95th percentile over `n` texts."""

    length: int
    p50: float
    p95: float
    n: int


@dataclass(frozen=True)
class Latency:
    """The measurements, and the conditions they depend on."""

    p50: float  # milliseconds for one text, alone and at its own length: median over `n` texts
    p95: float  # the 95th percentile over them
    n: int
    lengths: tuple[int, int, int]  # pieces of those texts: fewest, median, most
    fixed: tuple[AtLength, ...]
    throughput: float  # texts a second when `batch` texts of similar length are answered at once
    batch: int
    memory: float | None  # peak MB of a fresh process: interpreter, engine, model; None where it was not measured
    threads: int
    precision: str
    rounds: int
    processor: str
    load: float  # the machine's load average over the minute before


def measure(
    openings: Mapping[str, Opening],
    ids: Ids,
    pad: int,
    lengths: Sequence[int] = (16, 64),
    n: int = 100,
    n_fixed: int = 20,
    batch: int = 32,
    rounds: int = 5,
    threads: int = 1,
    memory: bool = True,
) -> dict[str, Latency]:
    """Return the Latency of each classifier on the same `n` texts of `ids`, after one round of warming up.

    `lengths` are stated lengths, in pieces, at which `n_fixed` texts are timed as well. The choice of texts depends on `ids`
    only. `memory` starts a process for each classifier, which takes seconds with torch. Raises ValueError without texts.
    """
    import torch

    from pdstudy.machine import processor

    before, load = torch.get_num_threads(), round(os.getloadavg()[0], 2)
    try:
        opened = {name: o.function(*o.words, threads=threads) for name, o in openings.items()}
        sample = sample_by_length(ids, n)
        asked = _questions(ids, sample, pad, lengths, n_fixed, batch)
        seconds = _rounds(opened, asked, rounds)
    finally:
        torch.set_num_threads(before)
    pieces = np.sort(ids.lengths[sample])
    return {
        name: Latency(
            **_percentiles(seconds[name]["own"]),
            n=len(sample),
            lengths=(int(pieces[0]), int(pieces[len(pieces) // 2]), int(pieces[-1])),
            fixed=tuple(AtLength(k, **_percentiles(seconds[name][k]), n=len(asked[k])) for k in lengths),
            throughput=round(len(sample) / float(seconds[name]["batches"].sum()), 1),
            batch=batch,
            memory=peak_memory(opening, [*asked["own"], *asked["batches"]], threads) if memory else None,
            threads=threads,
            precision=opening.precision,
            rounds=rounds,
            processor=processor(),
            load=load,
        )
        for name, opening in openings.items()
    }


def measure_on_texts(logits: Callable[[list], np.ndarray], texts: list, n: int = 100, batch: int = 32, rounds: int = 5) -> Latency:
    """Return the Latency of a classifier that takes texts, not word pieces: lengths are in words, and memory is not measured."""
    from pdstudy.machine import processor

    words = np.array([len((t if isinstance(t, str) else " ".join(t)).split()) for t in texts])
    order = np.argsort(words, kind="stable")
    sample = order[np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int)]
    load, alone, together = round(os.getloadavg()[0], 2), [], []
    for _ in range(rounds + 1):
        alone.append([_seconds_of(logits, [texts[i]]) for i in sample])
        together.append([_seconds_of(logits, [texts[i] for i in sample[k : k + batch]]) for k in range(0, len(sample), batch)])
    own, batches = np.median(alone[1:], axis=0), np.median(together[1:], axis=0)  # the first round warms up
    lengths = np.sort(words[sample])
    return Latency(
        **_percentiles(own), n=len(sample), lengths=(int(lengths[0]), int(lengths[len(lengths) // 2]), int(lengths[-1])), fixed=(),
        throughput=round(len(sample) / float(batches.sum()), 1), batch=batch, memory=None, threads=1, precision="fp64", rounds=rounds,
        processor=processor(), load=load,
    )  # fmt: skip


def _seconds_of(logits: Callable[[list], np.ndarray], texts: list) -> float:
    started = time.perf_counter()
    logits(texts)
    return time.perf_counter() - started


def sample_by_length(ids: Ids, n: int) -> np.ndarray:
    """Return the indices of at most `n` texts, evenly spaced in the order of length. Raises ValueError without texts."""
    if not len(ids):
        raise ValueError("there is no text to measure on; give at least one")
    order = np.argsort(ids.lengths, kind="stable")
    return order[np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int)]


def at_length(ids: Ids, text: int, length: int) -> np.ndarray:
    """Return one row of `length` real pieces, (1, length) int64: a text's, cut or continued, with its own first and last piece."""
    first, last = ids.starts[text], ids.starts[text + 1] - 1
    row = np.take(ids.flat, np.arange(first, first + length), mode="wrap").astype(np.int64)
    row[-1] = ids.flat[last]
    return row[None]


def peak_memory(opening: Opening, asked: Sequence[Question], threads: int) -> float:
    """Return the peak MB of a fresh process that opens a classifier and answers `asked`, as the operating system counts it.

    Raises RuntimeError with the last line of the process's error when it fails.
    """
    function = opening.function
    with tempfile.TemporaryDirectory() as folder:
        for i, question in enumerate(asked):
            np.savez(Path(folder) / f"{i}.npz", **{p: a for p, a in zip(PARTS, question, strict=True) if a is not None})
        words = json.dumps([function.__module__, function.__qualname__, opening.words, threads, folder, len(asked)])
        done = subprocess.run(  # noqa: S603 - this Python, with our own words as one JSON argument
            [sys.executable, "-c", CHILD, words],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(p).resolve()) for p in sys.path)},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise RuntimeError(f"the fresh Python that measures memory failed: {reason}")
    return float(done.stdout.split()[-1])


def _questions(ids: Ids, sample: np.ndarray, pad: int, lengths: Sequence[int], n_fixed: int, batch: int) -> dict:
    """Return lists of questions by kind: "own" (single texts), each stated length, "batches"."""
    fixed = sample[np.linspace(0, len(sample) - 1, min(n_fixed, len(sample))).round().astype(int)]
    return {
        "own": [padded(ids, np.array([i]), pad) for i in sample],
        **{length: [(at_length(ids, i, length), None, None) for i in fixed] for length in lengths},
        "batches": [padded(ids, sample[i : i + batch], pad) for i in range(0, len(sample), batch)],
    }


def _rounds(opened: dict[str, Answer], asked: dict, rounds: int) -> dict[str, dict]:
    """Return the seconds of every question, (n_questions,), by classifier and kind: medians over the rounds."""
    taken = {name: {kind: [] for kind in asked} for name in opened}
    names = list(opened)
    for i in range(rounds + 1):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:  # the first one changes
            for kind, questions in asked.items():
                taken[name][kind].append([_seconds(opened[name], question) for question in questions])
    return {name: {kind: np.median(s[1:], axis=0) for kind, s in kinds.items()} for name, kinds in taken.items()}  # 0 warms up


def _seconds(answer: Answer, question: Question) -> float:
    begun = time.perf_counter()
    answer(*question)
    return time.perf_counter() - begun


def _percentiles(seconds: np.ndarray) -> dict[str, float]:
    return {f"p{p}": round(float(np.percentile(seconds, p)) * 1e3, 4) for p in (50, 95)}


def _report_memory() -> None:
    """Open the classifier that the command line describes, answer, and print the peak MB. Runs in the child process."""
    module, name, words, threads, folder, n = json.loads(sys.argv[1])
    answer = getattr(importlib.import_module(module), name)(*words, threads=threads)
    for i in range(n):
        question = np.load(Path(folder) / f"{i}.npz")
        answer(*(question.get(part) for part in PARTS))
    print(peak_of_this_process())


def peak_of_this_process() -> float:
    """Return the peak memory of this process in MB."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux getrusage starts a child's peak at its parent's
        return round(int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 / 1e6, 1)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1)  # bytes on macOS
