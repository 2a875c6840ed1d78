"""pdstudy: pre-train, distil or both? The study of compact BERTs by Turc et al. (2019), and a tool for your own task.

`import pdstudy` imports nothing heavy, and `from pdstudy import Study` does not import torch.
"""

__version__ = "0.1.0"

_HOME = {"Study": "study.settings", "run_study": "run.run_study", "load_results": "storage.results", "Size": "sizes"}

__all__ = ["Size", "Study", "load_results", "run_study"]

TYPE_CHECKING = False  # editors and type checkers treat it as true, and so know the types of the names below
if TYPE_CHECKING:
    from pdstudy.run.run_study import run_study
    from pdstudy.sizes import Size
    from pdstudy.storage.results import load_results
    from pdstudy.study.settings import Study


def __getattr__(name: str):
    """Return a public name, importing its module on first use. Raises AttributeError for other names."""
    if name not in _HOME:
        raise AttributeError(f"module 'pdstudy' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pdstudy.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, so that an editor completes them."""
    return sorted([*__all__, "__version__"])
