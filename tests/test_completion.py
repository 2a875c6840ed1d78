"""What Tab offers in a notebook: the public names, their methods and parameters, though importing the package opens nothing."""

import inspect

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

import pdstudy


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """The shell that a notebook's kernel has, with the public names imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        shell = InteractiveShell(user_ns={name: getattr(pdstudy, name) for name in pdstudy.__all__} | {"pdstudy": pdstudy})
    return shell


def offered(shell, text: str) -> set[str]:
    with provisionalcompleter():
        return {completion.text for completion in shell.Completer.completions(text, len(text))}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from pdstudy import ", {"Study", "Size", "run_study", "load_results", "report"}),
        ("pdstudy.", {"Study", "Size", "run_study", "load_results"}),
        ("Study.", {"read", "given"}),
        ("run_study(s", {"study=", "store=", "shard="}),
        ("load_results(s", {"study="}),
    ],
)
def test_tab_offers_what_there_is(shell, text, expected):
    assert expected <= offered(shell, text)


@pytest.mark.parametrize("name", pdstudy.__all__)
def test_a_public_name_says_what_it_is_and_what_it_takes(name):
    public = getattr(pdstudy, name)
    assert public.__name__ == name and public.__doc__
    parameters = inspect.signature(public).parameters.values()
    assert parameters and all(p.annotation is not p.empty for p in parameters)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'run_studdy'"):
        _ = pdstudy.run_studdy
