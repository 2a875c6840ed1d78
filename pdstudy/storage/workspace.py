"""A new workspace: the notebooks and the params files of the package, copied into a folder of the user's."""

import shutil
from pathlib import Path

from pdstudy.storage import paths

README = """\
# A workspace of pdstudy

- `jupyter lab notebooks` opens the notebooks; begin with `00_one_student.ipynb`.
- The first code cell of a notebook names its study: `study` is a name in `params/` or a path, `settings` what differs from it.
- `pdstudy plan quick` shows the steps of a study and about how long they take; `pdstudy report quick` runs it and writes its reports.
- `pdstudy init reviews.csv` writes a params file for your own labelled texts, `pdstudy advise reviews.yaml` says which student to take.
- Results are in `outputs/<study>/`; the environment variable `PDSTUDY_OUTPUTS` moves `outputs/` elsewhere.
- Edit `params/` and `notebooks/` as you like. `pdstudy report` renders the notebooks of the package, not these.
"""


def start(folder: Path) -> Path:
    """Return the path of a workspace after making it: `notebooks/`, `params/` and a README. Raises FileExistsError."""
    parts = {paths.NOTEBOOKS: folder / "notebooks", paths.PARAMS: folder / "params"}
    for new in (*parts.values(), folder / "README.md"):
        if new.exists():
            raise FileExistsError(f"{new} is there already; give another folder")
    for source, new in parts.items():
        shutil.copytree(source, new, ignore=shutil.ignore_patterns(".*"))
    (folder / "README.md").write_text(README, encoding="utf-8")
    return folder.resolve()
