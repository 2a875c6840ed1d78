"""Forty kills at random moments, twenty in runs and twenty in one pre-training: a file apart, so that a second worker takes it."""

import json
import os
import random
import shutil
import subprocess
import sys
import time

import pytest
import small


@pytest.mark.faults
@pytest.mark.night
def test_twenty_kills_at_random_moments_give_twenty_times_the_same_tables(world, params, unbroken, tmp_path, capsys):
    rng = random.Random(20)
    for i in range(20):
        outputs, workers = tmp_path / f"run-{i}", rng.choice((0, 1, 2))
        steps, more = rng.randrange(19), rng.uniform(0, 0.7)  # a moment in the work, not in the start of Python
        begun = time.monotonic()
        process = world.start("run", params, "--workers", str(workers), outputs=outputs)
        small.wait_for(outputs, steps, process)
        time.sleep(more)
        moment, finished = time.monotonic() - begun, process.poll() is not None
        process.kill()
        process.communicate(timeout=60)
        had = len(small.artifacts(outputs))
        done = world.run("run", params, "--workers", str(workers), outputs=outputs)
        assert done.returncode == 0, done.stderr
        same = small.tables(outputs) == unbroken
        with capsys.disabled():
            state = "had finished" if finished else f"killed with {had:2} of 19 steps done"
            print(
                f"\nkill {i + 1:2}: after {moment:5.2f} s, {workers} workers, {state}; tables {'equal' if same else 'DIFFER'}",
                end="",
            )
        assert same
        shutil.rmtree(outputs)


TRAINING = """
import sys
from pathlib import Path
import torch
from pdstudy.run import execute
from pdstudy.study import plan
from pdstudy.study.settings import Study
from pdstudy.storage.store import Store
from pdstudy.models.train import Watch
torch.set_num_threads(1)
step = plan.make(Study.read(sys.argv[1])).of_stage("pretrain")[0]
watch = Watch(log=lambda record: print(record, flush=True) if "resumed" in record else None,
              progress=lambda share: print(share, flush=True), log_every=1, save_every=0.0)
execute.execute(step, Store(), watch)
print("finished", flush=True)
"""


@pytest.mark.faults
@pytest.mark.night
def test_twenty_kills_in_one_pre_training_end_with_the_weights_of_an_unbroken_one(world, tmp_path, capsys):
    """Every kill falls on a random step of the same pre-training, which saves its state after each step."""
    longer = small.written(tmp_path / "params", pretrain=small.STUDY["pretrain"] | {"tokens": 80_000})
    steps = 80_000 // (16 * 16)
    study, rng = plan_of(longer, world), random.Random(21)
    outputs = tmp_path / "outputs"
    assert world.run("run", longer, "--workers", "1", outputs=outputs).returncode == 0
    place = outputs / "store" / "pretrain" / study
    expected = json.loads((place / "manifest.json").read_text())["files"]["model.safetensors"]["sha256"]
    shutil.rmtree(place)
    environment = os.environ | world.environment | {"PDSTUDY_OUTPUTS": str(outputs)}
    command, kills, before = [sys.executable, "-c", TRAINING, str(longer)], 0, 0
    while True:
        last = steps if kills == 20 else rng.randrange(before + 1, before + 2 * (steps - before) // (21 - kills))
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        share, resumed = 0.0, 0
        while share * steps < last and (line := process.stdout.readline().strip()):
            resumed = json.loads(line.replace("'", '"'))["resumed"] if line.startswith("{") else resumed
            share = float(line) if line[0].isdigit() else share
        if kills == 20:
            assert process.communicate(timeout=120)[0].strip().endswith("finished")
            break
        process.kill()
        process.communicate()
        kills, before = kills + 1, round(share * steps)
        with capsys.disabled():
            print(f"\npre-training, kill {kills:2}: begun at step {resumed:3}, killed at step {before:3} of {steps}", end="")
        assert resumed >= 0 and (kills == 1 or resumed > 0), "a state that was saved is used"
    sha256 = json.loads((place / "manifest.json").read_text())["files"]["model.safetensors"]["sha256"]
    with capsys.disabled():
        print(f"\npre-training, {kills} kills: weights {sha256[:16]}, unbroken {expected[:16]}")
    assert sha256 == expected


def plan_of(params, world) -> str:
    """Return the digest of the pre-training step, asked of a process that knows the small task."""
    code = "import sys; from pdstudy.study import plan; from pdstudy.study.settings import Study; print(plan.make(Study.read(sys.argv[1])).of_stage('pretrain')[0].digest)"
    environment = os.environ | world.environment
    return subprocess.run(
        [sys.executable, "-c", code, str(params)], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
