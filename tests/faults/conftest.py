"""The small study's unbroken run, with which every broken one is compared."""

from pathlib import Path

import pytest
import small


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> small.World:
    """The small task, for every process that a test starts."""
    return small.World.make(tmp_path_factory.mktemp("world") / "site", small.texts())


@pytest.fixture(scope="session")
def params(tmp_path_factory) -> Path:
    """The small study's params file."""
    return small.written(tmp_path_factory.mktemp("params"))


@pytest.fixture(scope="session")
def unbroken_run(world, params, make_once) -> Path:
    """The outputs of an unbroken run; a test that changes them copies them."""

    def run(folder: Path) -> None:
        folder.mkdir()
        done = world.run("run", params, "--workers", "1", outputs=folder / "outputs")
        assert done.returncode == 0, done.stderr

    return make_once("unbroken", run) / "outputs"


@pytest.fixture(scope="session")
def unbroken(unbroken_run) -> dict[str, bytes]:
    """The tables of an unbroken run."""
    return small.tables(unbroken_run)
