"""The small study's unbroken run, against which every broken one is held."""

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
def whole(world, params, tmp_path_factory) -> Path:
    """The outputs of an unbroken run."""
    outputs = tmp_path_factory.mktemp("whole") / "outputs"
    done = world.run("run", params, "--workers", "1", outputs=outputs)
    assert done.returncode == 0, done.stderr
    return outputs


@pytest.fixture(scope="session")
def unbroken(whole) -> dict[str, bytes]:
    """The tables of an unbroken run."""
    return small.tables(whole)
