"""One study, one table: whether the local pool computes it, Ray on one node or on two of which one dies, or four shards.

And one model on two ranks is the model of one process, or the job ends.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from first_question import FIRST_QUESTION
from safetensors.torch import load_file

from pdstudy import Study
from pdstudy.storage import paths, results
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import load

pytestmark = pytest.mark.faults

TINY = (
    load(paths.PARAMS / "smoke.yaml")
    | FIRST_QUESTION
    | {
        "name": "tiny",
        "sizes": ["2/64"],
        "recipes": ["Basic", "PD"],
        "splits": {"train": 200, "dev": 100, "test": 100},
        "corpus": {"documents": 200, "heldout": 0.05},
        "tokenizer": {"vocabulary": 1024, "folder": None},
        "teacher": {"size": "2/64", "folder": None, "margin": -1},
        "transfer": {"texts": 200},
    }
)
LONG = TINY["pretrain"] | {"tokens": 2_000_000}  # a minute: there is time to kill
PATIENCE = 240  # seconds


def start(outputs: Path, *words, launcher=(sys.executable,), settings=TINY, verb="run") -> subprocess.Popen:
    """Start pdstudy on the tiny study over the store in `outputs`."""
    outputs.mkdir(exist_ok=True)
    file = outputs / f"{settings['name']}.yaml"
    file.write_text(json.dumps(settings))
    command = [*launcher, "-m", "pdstudy", verb, str(file), *map(str, words)]
    log = (outputs / f"output-{time.monotonic_ns()}").open("w+")
    process = subprocess.Popen(
        command, env=os.environ | {"PDSTUDY_OUTPUTS": str(outputs)}, stdout=log, stderr=log, start_new_session=True
    )
    process.log = log
    return process


def end(process: subprocess.Popen, within: float = PATIENCE) -> str:
    """Wait for a process and return what it printed."""
    try:
        process.wait(within)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    process.log.seek(0)
    return process.log.read()


def table(outputs: Path) -> bytes:
    return (outputs / "tiny" / results.METRICS).read_bytes()


def until(true, process: subprocess.Popen, what: str):
    """Wait until something is true while a process lives; return it."""
    last = time.monotonic() + PATIENCE
    while not (value := true()):
        assert process.poll() is None and time.monotonic() < last, f"no {what}: {end(process, 0.1)}"
        time.sleep(0.02)
    return value


def made(outputs: Path) -> int:
    return len(list(outputs.glob("store/*/*/manifest.json")))


def family(pid: int) -> list[int]:
    """Return a process's children and theirs."""
    own = [int(c) for t in Path(f"/proc/{pid}/task").glob("*/children") for c in t.read_text().split()]
    return own + [g for c in own for g in family(c)]


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@pytest.fixture(scope="module")
def pool(make_once) -> Path:
    """The outputs of the local pool."""

    def run(outputs: Path) -> None:
        message = end(process := start(outputs))
        assert process.returncode == 0, message

    return make_once("tiny", run)


@pytest.fixture(scope="module")
def unbroken(pool) -> bytes:
    """The table of the local pool."""
    return table(pool)


def trained(outputs: Path) -> dict[str, int]:
    """Return how many records each step has logged, whoever computed it."""
    return {p.name: p.read_text().count("\n") for p in outputs.glob("tiny/logs/*.jsonl")}


@pytest.fixture
def two_nodes(monkeypatch):
    """A Ray of two nodes with one processor each, on loopback; returns the cluster and its second node."""
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_worker_niceness"):
        monkeypatch.setenv(name, "0")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    second = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()
    yield cluster, second
    cluster.shutdown()


def test_ray_listens_on_loopback_alone_and_sigterm_ends_it_as_it_ends_the_pool_which_goes_on(tmp_path):
    settings = TINY | {"pretrain": LONG}
    process = start(tmp_path, "--engine", "ray", settings=settings)
    (log,) = until(lambda: list(tmp_path.glob("tiny/logs/pretrain*.jsonl")), process, "pre-training")
    mine = {process.pid, *family(process.pid)}
    lines = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    places = [line.split()[3] for line in lines if any(f"pid={pid}," in line for pid in mine)]
    assert len(places) >= 5 and not [p for p in places if "127.0.0.1" not in p and "[::1]" not in p]
    process.send_signal(signal.SIGTERM)
    message = end(process, within=30)
    assert process.returncode == 143 and "the same command continues" in message and "Traceback" not in message, message
    assert list(tmp_path.glob("store/work/*/[0-9]*/state.safetensors")), "the pre-training has saved its state"
    assert not [pid for pid in mine if "ray" in title(pid)], "Ray outlives its run"
    logged = log.read_text().count("\n")
    again = start(tmp_path, settings=settings)
    until(lambda: log.read_text().count("\n") > logged, again, "further step")
    again.send_signal(signal.SIGTERM)
    end(again, within=60)


def test_one_of_two_nodes_is_killed_and_the_table_is_the_same(unbroken, tmp_path, two_nodes):
    cluster, second = two_nodes
    process = start(tmp_path, "--engine", "ray", "--address", cluster.address)
    raylet = second.all_processes["raylet"][0].process.pid

    def at_work():
        return made(tmp_path) >= 5 and [t for t in map(title, family(raylet)) if t.startswith("ray::") and "2/64" in t]

    assert until(at_work, process, "step on the second node")
    cluster.remove_node(second, allow_graceful=False)
    message = end(process)
    assert process.returncode == 0, message
    assert table(tmp_path) == unbroken


@pytest.mark.night  # a killed driver of the pool is resumed in test_kills; Ray loses a node in the test above
def test_a_driver_killed_on_ray_is_resumed_there_and_makes_the_same_table(unbroken, tmp_path):
    process = start(tmp_path, "--engine", "ray")
    until(lambda: made(tmp_path) >= 8, process, "artifact")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = start(tmp_path, "--engine", "ray")
    until(lambda: made(tmp_path) >= 9, again, "artifact")
    mine = {again.pid, *family(again.pid)}
    message = end(again)
    assert again.returncode == 0, message
    assert table(tmp_path) == unbroken
    assert not list(tmp_path.glob("store/work/*"))
    assert not [pid for pid in mine if "ray" in title(pid)], "Ray outlives its run"


def test_shards_of_which_one_never_starts_make_the_same_table_and_each_step_once(pool, unbroken, tmp_path):
    processes = [start(tmp_path, "--shard", f"{i}/4", "--workers", 1) for i in (0, 1, 3)]
    messages = [end(p) for p in processes]
    assert [p.returncode for p in processes] == [0] * 3, messages
    assert table(tmp_path) == unbroken
    assert trained(tmp_path) == trained(pool), "a step was trained twice"


# One model on two ranks

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def test_two_ranks_make_the_start_of_one_process_and_one_of_them_writes(pool, tmp_path):
    """Sums over two halves round otherwise than over the whole: loss to 1e-4, matrices to 0.1 % of their norm, the rest to 1 %."""
    process = start(tmp_path, "--to", tmp_path / "zoo", "--allow-plateau", launcher=TORCHRUN, verb="zoo")
    message = end(process)
    assert process.returncode == 0, message
    assert message.count("held-out loss") == 1
    (two,) = tmp_path.glob("store/pretrain/*")
    assert two.name == plan.make(Study(**TINY)).of_stage("pretrain")[0].digest
    assert not list(tmp_path.glob("store/pretrain/.*")) and Store(tmp_path / "store").find(two.name)
    one = pool / "store" / "pretrain" / two.name
    curves = [[json.loads(line) for line in (f / "curve.jsonl").read_text().splitlines()] for f in (one, two)]
    for a, b in zip(*curves, strict=True):
        assert a["tokens"] == b["tokens"] and a["loss"] == pytest.approx(b["loss"], abs=1e-4)
    a, b = (load_file(f / "model.safetensors") for f in (one, two))
    for name in a:
        x, y = a[name].float(), b[name].float()
        print(f"{name}: differs by {(x - y).norm() / x.norm().clamp(min=1e-3):.2%} of its norm")
        assert (x - y).norm() <= (0.001 if x.ndim == 2 else 0.01) * x.norm() + 1e-3, name


def test_a_dead_rank_ends_the_job_and_the_same_command_goes_on(tmp_path):
    settings = TINY | {"pretrain": LONG}
    words = ("--to", tmp_path / "zoo", "--allow-plateau")
    process = start(tmp_path, *words, launcher=TORCHRUN, settings=settings, verb="zoo")
    log = until(lambda: [p for p in tmp_path.glob("tiny/logs/pretrain*.jsonl") if p.stat().st_size], process, "pre-training")
    ranks = [pid for pid in family(process.pid) if " zoo " in title(pid) and title(pid).count("-m") == 1]
    os.kill(max(ranks), signal.SIGKILL)
    killed = time.monotonic()
    end(process, within=60)
    assert process.returncode != 0
    print(f"ended {time.monotonic() - killed:.1f} s after its rank")
    assert not [pid for pid in ranks if " zoo " in title(pid)], "a rank outlives the job"
    assert not list(tmp_path.glob("store/pretrain/*/manifest.json"))
    again = start(tmp_path, *words, launcher=TORCHRUN, settings=settings, verb="zoo")
    until(lambda: log[0].read_text().count("\n") > 2, again, "further step")
    again.send_signal(signal.SIGTERM)
    end(again, within=60)
    assert list(tmp_path.glob("store/work/*/[0-9]*/state.safetensors")), "a stop saves the state of all ranks"
