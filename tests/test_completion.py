"""What an editor offers: the public names, with the signatures of what they are, though importing the package opens nothing."""

import jedi
import pytest

import pdstudy


@pytest.mark.parametrize("name", pdstudy.__all__)
def test_a_public_name_is_listed_and_there(name):
    assert name in dir(pdstudy)
    assert getattr(pdstudy, name).__name__ == name and getattr(pdstudy, name).__doc__


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'run_studdy'"):
        _ = pdstudy.run_studdy


def test_an_editor_completes_the_public_names():
    offered = {c.name for c in jedi.Script("from pdstudy import ").complete()}
    assert set(pdstudy.__all__) <= offered


@pytest.mark.parametrize(
    ("call", "parameters"),
    [
        ("run_study", ["study", "workers", "listen", "store", "tracker", "engine", "shard", "plan"]),
        ("load_results", ["study"]),
        ("Study.read", ["path"]),
        ("Size.parse", ["text"]),
    ],
)
def test_an_editor_shows_the_parameters_of_a_call(call, parameters):
    code = f"from pdstudy import {call.split('.')[0]}\n{call}("
    (signature,) = jedi.Script(code).get_signatures()
    assert [p.name for p in signature.params if p.name != "cls"] == parameters
    assert all(": " in p.to_string() for p in signature.params if p.name != "cls"), "typed"
