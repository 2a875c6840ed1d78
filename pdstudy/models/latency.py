"""How fast a classifier answers on this machine, and the memory it takes: one clock for every engine.

All classifiers of one call are measured together, in rounds in which each has its turn, and a text's time is its
median over the rounds. So a moment in which the machine was busy elsewhere decides neither a number nor a
comparison, and the percentiles are over texts, long and short, not over such moments.
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
APART = "from pdstudy.models import latency; latency._apart()"  # what the fresh Python runs


@dataclass(frozen=True)
class Opening:
    """How a classifier is opened: `function(*words, threads=...)` returns it as an `inference.Answer`.

    The function stands in a module and the words are text or numbers, so that a fresh Python can do the same.
    """

    function: Callable[..., Answer]
    words: tuple[str | int | float, ...]
    precision: str  # of its products, as it is to be stated


@dataclass(frozen=True)
class AtLength:
    """Milliseconds for one text of exactly `length` pieces: median and 95th percentile over `n` texts."""

    length: int
    p50: float
    p95: float
    n: int


@dataclass(frozen=True)
class Latency:
    """What was measured, and all it depends on."""

    p50: float  # milliseconds for one text, alone and at its own length: median over `n` texts
    p95: float  # the 95th percentile over them
    n: int
    lengths: tuple[int, int, int]  # pieces of those texts: fewest, median, most
    fixed: tuple[AtLength, ...]
    throughput: float  # texts a second when `batch` texts of similar length are answered at once
    batch: int
    memory: float | None  # MB that a fresh Python held at most: interpreter, engine, model; None where it was not asked for
    threads: int
    precision: str
    rounds: int
    processor: str
    load: float  # processes that wanted a core of this machine, a mean over the minute before: others', for the most part


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
    """Return the Latency of each classifier, all asked the same `n` texts of `ids` in turn, after one round of warming up.

    `lengths` are the stated lengths, in pieces, at which `n_fixed` texts are timed as well. The choice of texts
    depends on nothing but `ids`. `memory` takes a fresh Python for each, seconds where it needs torch. Raises
    ValueError when there is no text.
    """
    import torch

    from pdstudy.machine import processor

    before, load = torch.get_num_threads(), round(os.getloadavg()[0], 2)
    try:
        opened = {name: o.function(*o.words, threads=threads) for name, o in openings.items()}
        sample = chosen(ids, n)
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


def chosen(ids: Ids, n: int) -> np.ndarray:
    """Return the indices of at most `n` texts, evenly spaced among all sorted by length: their lengths are the set's."""
    if not len(ids):
        raise ValueError("there is no text to measure on; give at least one")
    order = np.argsort(ids.lengths, kind="stable")
    return order[np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int)]


def at_length(ids: Ids, text: int, length: int) -> np.ndarray:
    """Return one row of `length` real pieces, (1, length) int64: those that begin with a text, its own first and last at the ends."""
    first, last = ids.starts[text], ids.starts[text + 1] - 1
    row = np.take(ids.flat, np.arange(first, first + length), mode="wrap").astype(np.int64)
    row[-1] = ids.flat[last]
    return row[None]


def peak_memory(opening: Opening, asked: Sequence[Question], threads: int) -> float:
    """Return the MB that a fresh Python holds at most while it opens a classifier and answers `asked`.

    It is the whole process, as the operating system counts it: what a server that does nothing else would need.
    Raises RuntimeError with the last line of its error when it fails.
    """
    function = opening.function
    with tempfile.TemporaryDirectory() as folder:
        for i, question in enumerate(asked):
            np.savez(Path(folder) / f"{i}.npz", **{p: a for p, a in zip(PARTS, question, strict=True) if a is not None})
        words = json.dumps([function.__module__, function.__qualname__, opening.words, threads, folder, len(asked)])
        found = subprocess.run(  # noqa: S603 - this Python, with our own words as one JSON argument
            [sys.executable, "-c", APART, words],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(p).resolve()) for p in sys.path)},
            capture_output=True,
            text=True,
        )
    if found.returncode:
        why = (found.stderr.strip().splitlines() or [f"it ended with {found.returncode}"])[-1]
        raise RuntimeError(f"the fresh Python that measures memory failed: {why}")
    return float(found.stdout.split()[-1])


def _questions(ids: Ids, sample: np.ndarray, pad: int, lengths: Sequence[int], n_fixed: int, batch: int) -> dict:
    """Return what is asked, by kind: "own", each stated length, "batches"; each a list of questions."""
    fixed = sample[np.linspace(0, len(sample) - 1, min(n_fixed, len(sample))).round().astype(int)]
    return {
        "own": [padded(ids, np.array([i]), pad) for i in sample],
        **{length: [(at_length(ids, i, length), None, None) for i in fixed] for length in lengths},
        "batches": [padded(ids, sample[i : i + batch], pad) for i in range(0, len(sample), batch)],
    }


def _rounds(opened: dict[str, Answer], asked: dict, rounds: int) -> dict[str, dict]:
    """Return, by classifier and kind, the seconds of every question, (n_questions,): medians over the rounds."""
    taken = {name: {kind: [] for kind in asked} for name in opened}
    names = list(opened)
    for i in range(rounds + 1):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:  # nobody always goes first
            for kind, questions in asked.items():
                taken[name][kind].append([_seconds(opened[name], question) for question in questions])
    return {name: {kind: np.median(s[1:], axis=0) for kind, s in kinds.items()} for name, kinds in taken.items()}  # 0 warms up


def _seconds(answer: Answer, question: Question) -> float:
    begun = time.perf_counter()
    answer(*question)
    return time.perf_counter() - begun


def _percentiles(seconds: np.ndarray) -> dict[str, float]:
    return {f"p{p}": round(float(np.percentile(seconds, p)) * 1e3, 4) for p in (50, 95)}


def _apart() -> None:
    """In a fresh Python: open the classifier that the command line describes, answer, and print the MB held at most."""
    module, name, words, threads, folder, n = json.loads(sys.argv[1])
    answer = getattr(importlib.import_module(module), name)(*words, threads=threads)
    for i in range(n):
        question = np.load(Path(folder) / f"{i}.npz")
        answer(*(question.get(part) for part in PARTS))
    print(peak_of_this_process())


def peak_of_this_process() -> float:
    """Return the MB of memory that this process has held at most."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux, where getrusage begins a child's count at what its parent held
        return round(int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 / 1e6, 1)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1)  # bytes on macOS
