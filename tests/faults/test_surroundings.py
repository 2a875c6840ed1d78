"""Where, when and under which language a study is run changes nothing; who looks from outside gets nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import small

from pdstudy.storage import paths

ELSEWHERE = {"LANG": "C", "LC_ALL": "C", "TZ": "Asia/Kathmandu", "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "123"}


@pytest.mark.faults
def test_another_folder_language_clock_hash_seed_and_thread_count_change_no_byte(world, params, unbroken_run, unbroken, tmp_path):
    outputs, cwd = tmp_path / "mit Leerzeichen, été 日本" / "outputs", tmp_path / "cwd"
    cwd.mkdir()
    done = world.run("run", params, "--workers", "2", outputs=outputs, cwd=cwd, **ELSEWHERE)
    assert done.returncode == 0, done.stderr
    assert {p.parent.name for p in small.artifacts(outputs)} == {p.parent.name for p in small.artifacts(unbroken_run)}
    assert small.tables(outputs) == unbroken
    assert not list(cwd.iterdir())


def test_a_clock_that_was_moved_back_makes_nothing_new(world, params, unbroken_run, unbroken, tmp_path):
    outputs = tmp_path / "outputs"
    shutil.copytree(unbroken_run, outputs)
    future = time.time() + 10 * 365 * 86400
    for path in outputs.rglob("*"):  # as files look that were written before the clock was moved
        os.utime(path, (future, future))
    done = world.run("run", params, outputs=outputs)
    assert done.returncode == 0 and "of 19 steps" not in done.stderr, done.stderr
    assert small.tables(outputs) == unbroken


def test_a_plan_says_which_cached_steps_another_version_of_a_library_made(world, params, unbroken_run, tmp_path):
    outputs = tmp_path / "outputs"
    shutil.copytree(unbroken_run, outputs)
    for manifest in small.artifacts(outputs)[:3]:
        record = json.loads(manifest.read_text())
        record["versions"]["transformers"] = "5.0.0"
        manifest.write_text(json.dumps(record))
    done = world.run("plan", params, outputs=outputs)
    message = " ".join(done.stdout.split())
    assert done.returncode == 0 and re.search(r"3 cached steps were made with transformers 5\.0\.0; [\d.]+ is installed", message)


@pytest.mark.faults
def test_jupyterlab_as_make_lab_starts_it_answers_this_machine_only_and_only_with_its_token(tmp_path):
    (line,) = re.findall(r"^\t\$\(BIN\)/(jupyter lab .*)$", (paths.ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "token" not in line and "password" not in line
    words = [*line.removesuffix(" $(LAB)").split()[1:], "--no-browser", "--port=0", "--allow-root"]
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    server = subprocess.Popen([sys.executable, "-m", "jupyter", *words], cwd=paths.ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not (runtime_files := list(tmp_path.glob("runtime/jpserver-*.json"))):
            assert time.monotonic() < until and server.poll() is None
            time.sleep(0.2)
        time.sleep(1)
        server_info = json.loads(runtime_files[0].read_text())
        assert server_info["hostname"] == "127.0.0.1" and len(server_info["token"]) >= 40
        address = f"http://127.0.0.1:{server_info['port']}/api/contents"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(address, timeout=20)
        assert refused.value.code == 403
        with urllib.request.urlopen(f"{address}?token={server_info['token']}", timeout=20) as answer:
            assert answer.status == 200
        assert listens(server_info["port"]) == {"0100007F"}, "127.0.0.1, as the kernel writes it"
    finally:
        server.terminate()
        server.wait(30)


def listens(port: int) -> set[str]:
    """Return the addresses on which this machine listens at a port, in hexadecimal."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in open(f"/proc/net/{name}").read().splitlines()[1:]]  # noqa: PTH123, SIM115
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}
