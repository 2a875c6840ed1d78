"""Two programs on the same work: A B A B, each in a process of its own, and the ratio of their seconds.

What a benchmark shows is a ratio of one run on one machine; its spread is that of the pairs.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pdstudy.machine import best_precision
from pdstudy.models.train import Watch
from pdstudy.run import execute, model_steps, result_tables
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import Study

RESULTS = Path(__file__).parent / "results"


def inputs_of(stage: str) -> model_steps.Inputs:
    """Return the opened inputs of the quick study's first step of a stage; its text steps are made if need be."""
    store, made = Store(), plan.make(Study.read("quick"))
    step = made.of_stage(stage)[0]
    ids = made.steps[step.parents["ids"]]
    for digest in (*ids.parents.values(), ids.digest):
        if store.find(digest) is None:
            execute.execute(made.steps[digest], store, Watch())
    return model_steps.Inputs(step, store)


def tokenizer_file(stage: str) -> str:
    """Return the file of the word pieces that cut the texts of a stage."""
    inputs = inputs_of(stage)
    return str(inputs.store.open(inputs.store.manifest(inputs.step.parents["ids"])["parents"]["tokenizer"]) / "tokenizer.json")


def alternate(script: str, arms: tuple[str, ...], options: list[str], rounds: int) -> dict[str, list[dict]]:
    """Return what each arm printed last, as JSON, in every round; the first round's order is turned in the second."""
    runs_of: dict[str, list[dict]] = {arm: [] for arm in arms}
    for i in range(rounds):
        for arm in arms if i % 2 == 0 else arms[::-1]:
            done = subprocess.run([sys.executable, script, *options, "--arm", arm], capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{arm}: {done.stderr[-3000:]}")
            runs_of[arm].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {i + 1}, {arm}: {runs_of[arm][-1]['seconds']:.1f} s", flush=True)
    return runs_of


def ratios(runs_of: dict[str, list[dict]], ours: str) -> dict[str, dict]:
    """Return for each peer how many times as long it took as ours, pair by pair: median, lowest, highest, n."""
    row = {}
    for arm, runs in runs_of.items():
        if arm != ours:
            pairs = [theirs["seconds"] / mine["seconds"] for mine, theirs in zip(runs_of[ours], runs, strict=True)]
            row[arm] = {"median": round(statistics.median(pairs), 2), "low": round(min(pairs), 2), "high": round(max(pairs), 2)}
            row[arm]["pairs"] = len(pairs)
    return row


def agree(runs_of: dict[str, list[dict]], ours: str, measure: Callable[[dict], float], within: float) -> None:
    """Raise AssertionError where a peer's outcome lies farther than `within` from ours: then it did other work."""
    mine = statistics.mean(measure(run) for run in runs_of[ours])
    for arm, runs in runs_of.items():
        theirs = statistics.mean(measure(run) for run in runs)
        assert abs(theirs - mine) <= within, f"{arm} ends at {theirs:.4f}, {ours} at {mine:.4f}: not the same work"


def compare(
    script: str,
    doc: str,
    arms: tuple[str, ...],
    run: Callable[[str, str, int], dict],
    prepare: Callable[[str], object],
    same: tuple[str, ...],
    outcome: str,
    within: float,
    sizes: tuple[str, ...] = ("2/128", "4/256"),
    by_precision: bool = False,
    **more,
):
    """Run a benchmark's command line: every arm at every size, and its record with the ratios to the first arm.

    `run(arm, size, threads)` is one run, in a process of its own, after `prepare(size)` here; runs must be equal in `same` and
    may differ by `within` in `outcome`. `by_precision`: processors that are fastest in bf16 have a record of their own.
    """
    words = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--sizes", nargs="+", default=sizes)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--threads", type=int, default=2)
    words.add_argument("--arm", choices=arms, help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.arm:
        print(json.dumps(run(asked.arm, asked.sizes[0], asked.threads)))
        return
    runs, by_size = {}, {}
    for size in asked.sizes:
        prepare(size)
        runs[size] = alternate(script, arms, ["--sizes", size, "--threads", str(asked.threads)], asked.rounds)
        assert len({tuple(r[k] for k in same) for arm in runs[size].values() for r in arm}) == 1, "not the same work"
        agree(runs[size], arms[0], lambda r: r[outcome], within)
        by_size[size] = ratios(runs[size], arms[0])
    made = result_tables.environment(plan.make(Study.read("quick")), 0, 0, 0.0)
    place = {k: made[k] for k in ("commit", "date", "versions", "machine")}
    fastest = best_precision()
    name = Path(script).stem + "_bf16" * (by_precision and fastest == "bf16")
    keep(name, {"precision": fastest, "ratios": by_size, "threads": asked.threads, "runs": runs} | more | place)


def keep(name: str, record: dict) -> None:
    """Write a benchmark's record, and print its ratios."""
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    for place, by_arm in record["ratios"].items():
        for arm, ratio in by_arm.items():
            print(
                f"{place}: {arm} takes {ratio['median']} times as long ({ratio['low']} to {ratio['high']}, {ratio['pairs']} pairs)"
            )
