"""Where things are. The only file that knows this tree; every path is absolute.

`PDSTUDY_OUTPUTS` moves everything that is written (a larger disk, a shared folder of a cluster); `PDSTUDY_DATA` and
`PDSTUDY_MODELS` are the mirrors of the hub, which one machine may fill and another read.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the checkout: the package is installed with `pip install -e`
PARAMS = ROOT / "params"  # one study each
NOTEBOOKS = ROOT / "notebooks"  # one question each
ZOO = ROOT / "zoo"  # the released miniatures, a read-only source of the store
OUTPUTS = Path(os.environ.get("PDSTUDY_OUTPUTS") or ROOT / "outputs").expanduser().resolve()
STORE = OUTPUTS / "store"  # artifacts by digest, shared by every study
DATA = Path(os.environ.get("PDSTUDY_DATA") or OUTPUTS / "hub" / "data").expanduser().resolve()  # <name>/<split>.parquet
MODELS = Path(os.environ.get("PDSTUDY_MODELS") or OUTPUTS / "hub" / "models").expanduser().resolve()  # <owner>/<name>/
HUB = "hub:"  # before "owner/name": a model of the hub, in the place of a folder


def study_folder(name: str) -> Path:
    """Return the folder of one study's results, `outputs/<name>`."""
    return OUTPUTS / name


def portable(path: str, folder: Path) -> str:
    """Return a path that is relative to `folder` as `whole` reads it: from the checkout, or from home, where it lies there."""
    found = (folder / expanded(path)).resolve()
    if found.is_relative_to(ROOT) and not str(found.relative_to(ROOT)).startswith(HUB):
        return str(found.relative_to(ROOT))
    return f"~/{found.relative_to(Path.home())}" if found.is_relative_to(Path.home()) else str(found)


def expanded(path: str) -> Path:
    """Return a path, with the home folder in the place of a first "~/"; a name that only begins with "~" is a name."""
    return Path.home() / path[2:] if path == "~" or path.startswith("~/") else Path(path)


def whole(path: str) -> Path:
    """Return the absolute path of one that is absolute, from home (~), from the checkout, or of a model of the hub."""
    return MODELS / path.removeprefix(HUB) if path.startswith(HUB) else ROOT / expanded(path)


def scrub(text: str) -> str:
    """Return `text` without this machine's paths, for anything that will be published."""
    import sys

    for path, word in ((str(ROOT), "."), (sys.prefix, "<env>"), (str(Path.home()), "~")):
        if len(path) > 1:
            text = text.replace(path, word)
    return text
