"""pdstudy: pre-train, distil or both? The study of compact BERTs by Turc et al. (2019), and your own.

The package imports nothing heavy by itself: `from pdstudy import Study` opens no torch.
"""

__version__ = "0.1.0"

_HOME = {"Study": "study.settings", "run_study": "run.run_study", "load_results": "storage.results", "Size": "sizes"}

__all__ = ["Size", "Study", "load_results", "run_study"]

TYPE_CHECKING = False  # editors and type checkers read what stands below as if it were true; nothing runs
if TYPE_CHECKING:
    from pdstudy.run.run_study import run_study
    from pdstudy.sizes import Size
    from pdstudy.storage.results import load_results
    from pdstudy.study.settings import Study


def __getattr__(name: str):
    """Return a public name, importing its module on first use (torch loads only when work runs)."""
    if name not in _HOME:
        raise AttributeError(f"module 'pdstudy' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pdstudy.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, so that an editor completes them."""
    return sorted([*__all__, "__version__"])
