"""What several test files share: a small valid study, and how to ask a fresh Python something."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock
from hub_server import HUB

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test reaches the network
os.environ |= {"HF_ENDPOINT": HUB.endpoint, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
_HUB_CACHE = tempfile.TemporaryDirectory(prefix="pdstudy-tests-hub-")
os.environ["HF_HOME"] = _HUB_CACHE.name
for _mirror in ("PDSTUDY_DATA", "PDSTUDY_MODELS"):  # no test reads a mirror of whoever runs it
    os.environ.pop(_mirror, None)
# No test writes into the checkout, nor do tests that run side by side into each other's outputs.
_OUTPUTS = tempfile.TemporaryDirectory(prefix="pdstudy-tests-")
os.environ["PDSTUDY_OUTPUTS"] = _OUTPUTS.name

from pdstudy.storage import paths  # noqa: E402

SETTINGS = {
    "name": "tests",
    "task": "movies",
    "sizes": ["1/64", "2/64"],
    "recipes": ["Basic", "PD"],
    "seeds": [0, 1],
    "init_std": {"64": 0.06, "128": 0.05},
    "teacher": {"size": "2/128", "margin": -1},
    "finetune": {"rates": [1e-4, 1e-3]},
    "distill": {"rates": [1e-4, 1e-3]},
    "precision": "fp32",
}


@pytest.fixture
def settings():
    """A small study's settings, to be changed at will."""
    import copy

    return copy.deepcopy(SETTINGS)


@pytest.fixture
def fresh_python():
    """Run code in a new interpreter and return what it printed."""

    def run(code: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture(scope="session")
def smoke(tmp_path_factory, worker_id):
    """The smoke study, run once for all tests by the local pool; of tests on several workers, by one of them.

    It is made in the folder PDSTUDY_TESTS_SMOKE, where that is set: `make test` lets the notebooks find it there afterwards, and
    `.ci/run` all its suites.
    """
    from pdstudy import Study

    folder = tmp_path_factory.getbasetemp()
    kept = os.environ.get("PDSTUDY_TESTS_SMOKE")
    made = Path(kept) if kept else (folder if worker_id == "master" else folder.parent) / "smoke"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            environment = os.environ | {"PDSTUDY_OUTPUTS": str(made)}
            subprocess.run([sys.executable, "-m", "pdstudy", "run", "smoke"], env=environment, cwd=paths.ROOT, check=True)
    shutil.copytree(made, paths.OUTPUTS, dirs_exist_ok=True)
    return Study.read("smoke")


@pytest.fixture(scope="session")
def exported(smoke, tmp_path_factory):
    """A student of the smoke study, exported once for all tests by the command line; a test that changes it copies it."""
    from typer.testing import CliRunner

    from pdstudy.__main__ import app

    folder = tmp_path_factory.mktemp("exported") / "model"
    said = CliRunner().invoke(app, ["export", "smoke", "--student", "2/64-pf-S0", "--to", str(folder)])
    assert said.exit_code == 0, said.output
    return folder


@pytest.fixture
def written(tmp_path):
    """Write text as a params file and return its path."""

    def write(text: str | bytes):
        path = tmp_path / "mine.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write
