"""Latency and memory of classifiers on this machine, with any engine.

All classifiers of one call are measured together, in rounds in which each takes a turn, and the time of a text is its median over
the rounds. A moment in which the machine is busy therefore changes neither a number nor a comparison, and the percentiles are
over texts.
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
from typing import Any

import numpy as np

from pdstudy.data.batches import Ids, padded
from pdstudy.data.texts import joined
from pdstudy.models.inference import Answer, Input

N_TEXTS, BATCH, ROUNDS = 100, 32, 5
PARTS = ("ids", "mask", "segments")  # of an input
CHILD = "from pdstudy.models import latency; latency._report_memory()"  # what the child process runs


@dataclass(frozen=True)
class Opening:
    """How a classifier is opened: `function(*words, threads=...)` returns it as an `inference.Answer`.

    The function is at the top of a module and the words are text or numbers, so that a child process can call it too.
    """

    function: Callable[..., Answer]
    words: tuple[str | int | float, ...]
    precision: str  # of its matrix products, for the record


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
    throughput: float  # texts per second in batches of `batch` texts of similar length
    batch: int
    memory: float | None  # peak MB of a new process: interpreter, engine, model; None if it was not measured
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
    n: int = N_TEXTS,
    n_fixed: int = 20,
    batch: int = BATCH,
    rounds: int = ROUNDS,
    threads: int = 1,
    memory: bool = True,
) -> dict[str, Latency]:
    """Return the Latency of each classifier on the same `n` texts of `ids`, after one round of warming up.

    `lengths` are fixed lengths, in pieces, at which `n_fixed` texts are timed as well. The choice of texts depends on `ids`
    only. `memory` starts a process for each classifier, which takes seconds with torch. Raises ValueError without texts.
    """
    import torch

    threads_before, load = torch.get_num_threads(), _load()
    try:
        classifiers = {name: o.function(*o.words, threads=threads) for name, o in openings.items()}
        sample = sample_by_length(ids.lengths, n)
        fixed = sample[sample_by_length(ids.lengths[sample], n_fixed)]
        inputs = {
            "own": [padded(ids, np.array([i]), pad) for i in sample],
            **{length: [(at_length(ids, i, length), None, None) for i in fixed] for length in lengths},
            "batches": [padded(ids, sample[i : i + batch], pad) for i in range(0, len(sample), batch)],
        }
        seconds = _rounds(classifiers, inputs, rounds)
    finally:
        torch.set_num_threads(threads_before)
    return {
        name: _latency(
            seconds[name],
            ids.lengths[sample],
            fixed=tuple(AtLength(k, **_percentiles(seconds[name][k]), n=len(inputs[k])) for k in lengths),
            batch=batch,
            memory=peak_memory(opening, [*inputs["own"], *inputs["batches"]], threads) if memory else None,
            threads=threads,
            precision=opening.precision,
            rounds=rounds,
            load=load,
        )
        for name, opening in openings.items()
    }


def measure_on_texts(logits: Callable[[list], np.ndarray], texts: list) -> Latency:
    """Return the Latency of a classifier of texts, not word pieces: lengths are in words, and memory is not measured."""
    words, load = np.array([len(text.split()) for text in joined(texts)]), _load()
    sample = sample_by_length(words, N_TEXTS)
    batches = [sample[i : i + BATCH] for i in range(0, len(sample), BATCH)]
    inputs = {"own": [([texts[i]],) for i in sample], "batches": [([texts[i] for i in part],) for part in batches]}
    (seconds,) = _rounds({"": logits}, inputs, ROUNDS).values()
    return _latency(
        seconds, words[sample], fixed=(), batch=BATCH, memory=None, threads=1, precision="fp64", rounds=ROUNDS, load=load
    )


def _load() -> float:
    return round(os.getloadavg()[0], 2)


def _latency(seconds: dict[str, np.ndarray], lengths: np.ndarray, **conditions) -> Latency:
    """Return a Latency from the seconds of single texts ("own") and of batches ("batches"), and the texts' lengths."""
    from pdstudy.machine import processor

    lengths = np.sort(lengths)
    return Latency(
        **_percentiles(seconds["own"]),
        n=len(lengths),
        lengths=(int(lengths[0]), int(lengths[len(lengths) // 2]), int(lengths[-1])),
        throughput=round(len(lengths) / float(seconds["batches"].sum()), 1),
        processor=processor(),
        **conditions,
    )


def sample_by_length(lengths: np.ndarray, n: int) -> np.ndarray:
    """Return the indices of at most `n` texts, evenly spaced in the order of length. Raises ValueError without texts."""
    if not len(lengths):
        raise ValueError("there is no text to measure on; give at least one")
    order = np.argsort(lengths, kind="stable")
    return order[np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int)]


def at_length(ids: Ids, text: int, length: int) -> np.ndarray:
    """Return a text cut or continued to `length` pieces, (1, length) int64, with its own first and last piece."""
    first, last = ids.starts[text], ids.starts[text + 1] - 1
    row = np.take(ids.flat, np.arange(first, first + length), mode="wrap").astype(np.int64)
    row[-1] = ids.flat[last]
    return row[None]


def peak_memory(opening: Opening, inputs: Sequence[Input], threads: int) -> float:
    """Return the peak MB of a new process that opens a classifier and runs it on `inputs`, as the operating system counts it.

    Raises RuntimeError with the last line of the process's error if it fails.
    """
    function = opening.function
    with tempfile.TemporaryDirectory() as folder:
        for i, arrays in enumerate(inputs):
            np.savez(Path(folder) / f"{i}.npz", **{p: a for p, a in zip(PARTS, arrays, strict=True) if a is not None})
        words = json.dumps([function.__module__, function.__qualname__, opening.words, threads, folder, len(inputs)])
        done = subprocess.run(  # noqa: S603 - this Python, with our own words as one JSON argument
            [sys.executable, "-c", CHILD, words],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(p).resolve()) for p in sys.path)},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise RuntimeError(f"the Python process that measures memory failed: {reason}")
    return float(done.stdout.split()[-1])


def _rounds(classifiers: dict[str, Callable], inputs: dict[Any, list[tuple]], rounds: int) -> dict[str, dict]:
    """Return the seconds of every input, (n_inputs,), by classifier and kind of input: medians over the rounds."""
    seconds = {name: {kind: [] for kind in inputs} for name in classifiers}
    names = list(classifiers)
    for i in range(rounds + 1):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:  # another one is first in each round
            for kind, arguments in inputs.items():
                seconds[name][kind].append([_seconds(classifiers[name], one) for one in arguments])
    # The first round warms up.
    return {name: {kind: np.median(s[1:], axis=0) for kind, s in kinds.items()} for name, kinds in seconds.items()}


def _seconds(classifier: Callable, arguments: tuple) -> float:
    started = time.perf_counter()
    classifier(*arguments)
    return time.perf_counter() - started


def _percentiles(seconds: np.ndarray) -> dict[str, float]:
    return {f"p{p}": round(float(np.percentile(seconds, p)) * 1e3, 4) for p in (50, 95)}


def _report_memory() -> None:
    """Open the classifier that the command line describes, run it, and print the peak MB. Runs in the child process."""
    module, name, words, threads, folder, n = json.loads(sys.argv[1])
    answer = getattr(importlib.import_module(module), name)(*words, threads=threads)
    for i in range(n):
        arrays = np.load(Path(folder) / f"{i}.npz")
        answer(*(arrays.get(part) for part in PARTS))
    print(peak_of_this_process())


def peak_of_this_process() -> float:
    """Return the peak memory of this process in MB."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux the peak that getrusage returns starts at the parent's
        return round(int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 / 1e6, 1)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1)  # bytes on macOS
