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
os.environ["PDSTUDY_HOME"] = str(Path(__file__).resolve().parents[1])  # wherever a command is started

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
def make_once(tmp_path_factory, worker_id):
    """Make a folder once for all tests, of several workers too, and return it: `make_once(name, make)` calls `make(folder)`.

    It is made in the folder PDSTUDY_TESTS_SHARED, where that is set: `make test` lets the notebooks find the smoke study there
    afterwards, and `.ci/run` all its suites.
    """
    base = tmp_path_factory.getbasetemp()
    place = Path(os.environ.get("PDSTUDY_TESTS_SHARED") or (base if worker_id == "master" else base.parent))

    def once(name: str, make) -> Path:
        folder = place / name
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                make(unfinished := place / f"{name}.unfinished")
                unfinished.rename(folder)
        return folder

    return once


@pytest.fixture(scope="session")
def smoke(make_once):
    """The smoke study, run once for all tests by the local pool."""
    from pdstudy import Study

    def run(folder: Path) -> None:
        environment = os.environ | {"PDSTUDY_OUTPUTS": str(folder)}
        subprocess.run([sys.executable, "-m", "pdstudy", "run", "smoke"], env=environment, cwd=paths.ROOT, check=True)

    shutil.copytree(make_once("smoke", run), paths.OUTPUTS, dirs_exist_ok=True)
    return Study.read("smoke")


@pytest.fixture(scope="session")
def rendered(smoke, make_once) -> Path:
    """The folder of the smoke study's reports, rendered once for all tests."""
    from pdstudy.report import render

    study = paths.study_folder("smoke")

    def make(folder: Path) -> None:
        render.render(smoke)
        shutil.copytree(study, folder)

    pages = make_once("rendered", make)
    shutil.rmtree(study)  # so that the pages are of the files beside them
    shutil.copytree(pages, study)
    return study / "reports"


@pytest.fixture(scope="session")
def exported(smoke, make_once):
    """A student of the smoke study, exported once for all tests by the command line; a test that changes it copies it."""
    from typer.testing import CliRunner

    from pdstudy.__main__ import app

    def export(folder: Path) -> None:
        result = CliRunner().invoke(app, ["export", "smoke", "--student", "2/64-pf-S0", "--to", str(folder / "model")])
        assert result.exit_code == 0, result.output

    return make_once("exported", export) / "model"


@pytest.fixture
def written(tmp_path):
    """Write text as a params file and return its path."""

    def write(text: str | bytes):
        path = tmp_path / "mine.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=paths.ROOT, check=True, timeout=300
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """Run the installed wheel's command line in a folder outside the checkout."""
    target = tmp_path_factory.mktemp("installed")
    words = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", target, wheel]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, timeout=300)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PDSTUDY_")} | {"PYTHONPATH": str(target)}

    def run(*words, folder: Path, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=1800
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert str(paths.ROOT) not in done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    assert run("-c", "import pdstudy; print(pdstudy.__file__)", folder=target).startswith(str(target))
    return lambda *words, **more: run("-m", "pdstudy", *words, **more)


@pytest.fixture
def workspace(installed, tmp_path) -> Path:
    """A workspace as `start` makes it."""
    assert installed("start", "mine", folder=tmp_path).strip() == str(tmp_path / "mine")
    return tmp_path / "mine"
