"""Absolute paths of the folders of this project.

`PDSTUDY_OUTPUTS` moves all outputs, to a larger disk or to a shared folder of a cluster. `PDSTUDY_DATA` and `PDSTUDY_MODELS`
are copies of data sets and models of the Hugging Face hub, which can be filled on one machine and read on another.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the checkout: the package is installed with `pip install -e`
PARAMS = ROOT / "params"  # one study each
NOTEBOOKS = ROOT / "notebooks"  # one question each
ZOO = ROOT / "zoo"  # the released encoders, a read-only source of the store
OUTPUTS = Path(os.environ.get("PDSTUDY_OUTPUTS") or ROOT / "outputs").expanduser().resolve()
STORE = OUTPUTS / "store"  # artifacts by digest, shared by every study
DATA = Path(os.environ.get("PDSTUDY_DATA") or OUTPUTS / "hub" / "data").expanduser().resolve()  # <name>/<split>.parquet
MODELS = Path(os.environ.get("PDSTUDY_MODELS") or OUTPUTS / "hub" / "models").expanduser().resolve()  # <owner>/<name>/
HUB = "hub:"  # before "owner/name": a model of the hub in place of a folder


def study_folder(name: str) -> Path:
    """Return the folder of one study's results, `outputs/<name>`."""
    return OUTPUTS / name


def portable(path: str, folder: Path) -> str:
    """Return a path, given relative to `folder`, in the form that `absolute` reads: relative to the checkout or to ~ if inside."""
    full = (folder / Path(path).expanduser()).resolve()
    if full.is_relative_to(ROOT):
        return str(full.relative_to(ROOT))
    return f"~/{full.relative_to(Path.home())}" if full.is_relative_to(Path.home()) else str(full)


def absolute(path: str) -> Path:
    """Return the absolute path of `path`: absolute, from home (~), relative to the checkout, or a model of the hub ("hub:...")."""
    return MODELS / path.removeprefix(HUB) if path.startswith(HUB) else ROOT / Path(path).expanduser()


def scrub(text: str) -> str:
    """Return `text` without the paths of this machine, for publication."""
    import sys

    for path, word in ((str(ROOT), "."), (sys.prefix, "<env>"), (str(Path.home()), "~")):
        if len(path) > 1:
            text = text.replace(path, word)
    return text
