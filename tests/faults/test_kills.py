"""Killed at any moment, the same command again gives the tables of an unbroken run, byte for byte."""

import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
import small

from pdstudy import stages
from pdstudy.data import batches
from pdstudy.data.batches import Ids, Vocabulary
from pdstudy.models import encoder
from pdstudy.run import worker
from pdstudy.sizes import Size
from pdstudy.storage.store import damage


def killed(process) -> str:
    """Kill a run as the kernel does, and return what it had said."""
    process.kill()
    return process.communicate(timeout=60)[1]


@pytest.fixture
def without_one(unbroken_run, tmp_path):
    """A copy of the unbroken run's outputs that lacks one evaluation; return the outputs and the artifact's folder."""
    outputs = tmp_path / "outputs"
    shutil.copytree(unbroken_run, outputs)
    place = next(p.parent for p in small.artifacts(outputs) if p.parent.parent.name == "evaluate")
    shutil.rmtree(place)
    return outputs, place


@pytest.mark.faults
def test_killed_at_three_moments_and_once_in_a_worker_the_tables_are_those_of_an_unbroken_run(world, params, unbroken, tmp_path):
    outputs = tmp_path / "outputs"
    for count in (1, 5, 10):
        process = world.start("run", params, "--workers", "2", outputs=outputs)
        small.wait_for(outputs, count, process)
        killed(process)
    process = world.start("run", params, "--workers", "2", outputs=outputs)
    small.wait_for(outputs, 12, process)
    os.kill(small.children(process.pid)[0], signal.SIGKILL)
    _, message = process.communicate(timeout=200)
    assert process.returncode == 0, message
    assert small.tables(outputs) == unbroken
    assert not list(outputs.glob("store/work/*")), "nothing is left of finished steps, nor of killed runs"
    assert not list(outputs.glob("store/*/.new-*"))


@pytest.mark.parametrize(
    "fault",
    [
        "die before the manifest of evaluate",
        pytest.param("die in evaluate", marks=pytest.mark.faults),
        pytest.param("die after the manifest of evaluate", marks=pytest.mark.faults),
        pytest.param("die after evaluate", marks=pytest.mark.faults),
    ],
)
def test_killed_anywhere_between_the_last_step_and_the_rename_an_artifact_is_whole_or_not_there(
    world, params, unbroken, without_one, fault
):
    outputs, place = without_one
    done = world.run("run", params, "--workers", "0", outputs=outputs, PDSTUDY_FAULT=fault)
    assert done.returncode == -signal.SIGKILL
    assert place.exists() == (fault == "die after evaluate")
    assert damage(place, place.name) is None or not place.exists()
    done = world.run("run", params, "--workers", "0", outputs=outputs)
    assert done.returncode == 0, done.stderr
    assert small.tables(outputs) == unbroken
    assert not list(place.parent.glob(".new-*"))


def test_killed_while_a_folder_is_replaced_the_next_run_makes_it_again(world, params, unbroken, without_one):
    outputs, place = without_one
    place.mkdir()
    (place / "test.logits.npy").write_bytes(b"half")  # no manifest: what an unfinished copy would leave
    done = world.run("run", params, "--workers", "0", outputs=outputs, PDSTUDY_FAULT="die while replacing evaluate")
    assert done.returncode == -signal.SIGKILL and not place.exists()
    done = world.run("run", params, "--workers", "0", outputs=outputs)
    assert done.returncode == 0 and damage(place, place.name) is None
    assert small.tables(outputs) == unbroken


@pytest.mark.faults
def test_a_flipped_byte_is_found_warned_of_and_made_good(world, params, unbroken, unbroken_run, tmp_path):
    outputs = tmp_path / "outputs"
    shutil.copytree(unbroken_run, outputs)
    weights = next(outputs.glob("store/search/*/model.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    done = world.run("run", params, "--workers", "0", outputs=outputs)
    assert done.returncode == 0
    assert "model.safetensors differs from its manifest's sha256; it will be computed again" in done.stderr
    assert small.tables(outputs) == unbroken


@pytest.mark.faults
def test_a_step_that_kills_every_worker_is_tried_twice_and_reported_and_the_others_finish(world, params, unbroken, tmp_path):
    outputs = tmp_path / "outputs"
    done = world.run("run", params, "--workers", "2", outputs=outputs, PDSTUDY_FAULT="die in label")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "label 80 transfer texts: its process was killed twice" in done.stderr
    assert done.stderr.count("killed twice") == 1, "a worker's death is blamed on no other worker's step"
    stages = [p.parent.parent.name for p in small.artifacts(outputs)]
    assert "label" not in stages and "distill" not in stages
    assert stages.count("evaluate") == 4, "the teacher, Basic's two seeds and the linear model are done"
    done = world.run("run", params, "--workers", "0", outputs=outputs)
    assert done.returncode == 0 and small.tables(outputs) == unbroken


def test_a_step_that_fails_is_tried_again_and_reported_with_its_log_and_the_others_finish(world, params, tmp_path):
    outputs = tmp_path / "outputs"
    done = world.run("run", params, "--workers", "1", outputs=outputs, PDSTUDY_FAULT="raise in label")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "the shelf fell down" in line)
    (log,) = outputs.glob("small/logs/label*.error.txt")
    assert line.startswith("label 80 transfer texts: RuntimeError: the shelf fell down; see ") and line.endswith(log.name)
    assert "Traceback" in log.read_text() and "faulty_write" in log.read_text()
    assert [p.parent.parent.name for p in small.artifacts(outputs)].count("evaluate") == 4


def test_a_loss_that_is_no_number_stops_its_step_at_once_says_where_and_the_others_finish(world, params, tmp_path):
    outputs = tmp_path / "outputs"
    done = world.run("run", params, "--workers", "1", outputs=outputs, PDSTUDY_FAULT="lose the number in pretrain")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "pretrain 1/64 #0: loss is nan by step 31 of 31 at rate 0.001; see " in done.stderr
    labels = [json.loads(p.read_text())["label"] for p in small.artifacts(outputs)]
    evaluated = sorted(label for label in labels if label.startswith("evaluate"))
    assert evaluated == ["evaluate Basic 1/64 s0", "evaluate Basic 1/64 s1", "evaluate linear model"]
    assert not [label for label in labels if label.startswith("pretrain")], "nothing of it is saved as done"
    (log,) = outputs.glob("small/logs/pretrain*.jsonl")
    assert log.read_text() == "", "and it was not tried again: the same numbers would come"


@pytest.mark.parametrize(
    "soft", [np.full((4, 2), np.nan), np.zeros((3, 2)), np.zeros((4, 3))], ids=["nan", "a text short", "3 classes"]
)
def test_soft_labels_that_do_not_fit_are_refused_before_training(soft):
    ids = Ids(np.arange(5, 13, dtype=np.uint16), np.arange(0, 9, 2))
    student = encoder.new_classifier(encoder.bert_config(Size(1, 64), 20, 0.05, 0.0), 0)
    with pytest.raises(ValueError, match=r"soft labels are .*, expected finite \(4, 2\)"):
        stages.distill(student, ids, soft, batches.Labelled(ids, np.array([0, 1, 0, 1])), {"temperature": 1.0}, Vocabulary(20))


@pytest.mark.faults
def test_a_step_that_fails_once_is_done_at_the_second_try(world, params, unbroken, without_one, tmp_path):
    outputs, _ = without_one
    once = {"PDSTUDY_FAULT": "raise in evaluate", "PDSTUDY_FAULT_ONCE": str(tmp_path / "struck")}
    done = world.run("run", params, "--workers", "1", outputs=outputs, **once)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "struck").exists() and small.tables(outputs) == unbroken


@pytest.mark.faults
@pytest.mark.parametrize(
    ("number", "code", "steps"),
    [
        (signal.SIGTERM, 143, 4),
        pytest.param(signal.SIGINT, 130, 4, marks=pytest.mark.night),
        (signal.SIGINT, 130, 2),  # the second worker is starting
    ],
)
def test_a_request_to_stop_ends_cleanly_in_one_line_and_the_same_command_goes_on(
    world, params, unbroken, tmp_path, number, code, steps
):
    outputs = tmp_path / "outputs"
    process = world.start("run", params, "--workers", "2", outputs=outputs)
    small.wait_for(outputs, steps, process)
    workers = small.children(process.pid)
    if number == signal.SIGINT:  # a terminal sends it to all of them
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, message = process.communicate(timeout=30)
    assert process.returncode == code
    assert "the same command continues from there" in message and "Traceback" not in message
    assert workers and not any(map(small.is_worker, workers))
    done = world.run("run", params, "--workers", "0", outputs=outputs)
    assert done.returncode == 0 and small.tables(outputs) == unbroken


@pytest.mark.faults
def test_a_step_that_does_not_hear_is_killed_within_half_a_minute(world, params, without_one, tmp_path):
    outputs, _ = without_one
    assert worker.GRACE < 30
    asleep = tmp_path / "asleep"
    fault = {"PDSTUDY_FAULT": "sleep in evaluate", "PDSTUDY_FAULT_ONCE": str(asleep), "PDSTUDY_GRACE": "3"}
    process = world.start("run", params, "--workers", "1", outputs=outputs, **fault)
    until = time.monotonic() + 60
    while not asleep.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    workers, asked = small.children(process.pid), time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=30)
    assert 3 < time.monotonic() - asked < 13
    assert process.returncode == 143 and workers and not any(map(small.is_worker, workers)), message


@pytest.mark.faults
def test_a_worker_that_somebody_else_asks_to_stop_costs_nothing(world, params, unbroken, tmp_path):
    outputs = tmp_path / "outputs"
    process = world.start("run", params, "--workers", "2", outputs=outputs)
    small.wait_for(outputs, 4, process)
    for pid in small.children(process.pid):
        os.kill(pid, signal.SIGTERM)
    _, message = process.communicate(timeout=200)
    assert process.returncode == 0, message
    assert small.tables(outputs) == unbroken
