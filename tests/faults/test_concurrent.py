"""Several runs of one study at once: each step is computed once, nobody waits for nothing, a dead holder holds no lock."""

import json

import pytest
import small

from pdstudy.storage.store import Store

pytestmark = pytest.mark.faults


def test_three_runs_at_once_share_the_work_and_compute_each_step_once(world, params, unbroken, tmp_path):
    outputs = tmp_path / "outputs"
    processes = [world.start("run", params, "--workers", "1", outputs=outputs) for _ in range(3)]
    messages = [p.communicate(timeout=280)[1] for p in processes]
    assert [p.returncode for p in processes] == [0, 0, 0], messages
    assert small.tables(outputs) == unbroken
    logs = list((outputs / "small" / "logs").glob("*.jsonl"))
    trained = {p.name: [json.loads(line)["step"] for line in p.read_text().splitlines()] for p in logs}
    trained = {name: steps for name, steps in trained.items() if steps and "search" not in name}  # that may train below its rates
    assert len(trained) == 6, "the start, the teacher, Basic's and PD's two seeds"
    assert all(steps.count(max(steps)) == 1 for steps in trained.values()), f"trained twice: {trained}"
    computed = [line for text in messages for line in text.splitlines() if "steps done" in line]
    assert len(computed) == 3 and not list(outputs.glob("store/*/.*"))


def test_a_step_that_another_run_computes_holds_up_no_other_step(world, params, unbroken, unbroken_run, tmp_path):
    (label,) = (p.parent.name for p in small.artifacts(unbroken_run) if p.parent.parent.name == "label")
    outputs = tmp_path / "outputs"
    with Store(outputs / "store", families=()).lock(label):  # as another run would
        process = world.start("run", params, "--workers", "2", outputs=outputs)
        small.wait_for(outputs, 19 - 6, process)  # all but the labels, PD's two seeds, their search and their evaluations
        assert process.poll() is None
    _, message = process.communicate(timeout=200)
    assert process.returncode == 0, message
    assert small.tables(outputs) == unbroken
