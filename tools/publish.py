"""Copy a study's results into the committed evidence.

python tools/publish.py STUDY        from outputs/STUDY, or from the folder PDSTUDY_OUTPUTS, to outputs/published/STUDY

README, docs and tests read the evidence. Pictures, reports, logs and the answers to every text are too large for it.
"""

import argparse
import shutil
import sys
from pathlib import Path

from pdstudy.storage import paths, results

PUBLISHED = Path(__file__).resolve().parents[1] / "outputs" / "published"
FILES = (
    *(results.METRICS, results.COSTS, results.SEARCHES, results.CLAIMS, results.ENVIRONMENT, results.PARAMS, results.TEXTS),
    *(results.CLASSES, results.DOMAINS, results.LATENCY, "advice.json", "nearness.json", "spent.json", "lengths.json"),
    "cross_validation.json",
)


def publish(study: str, to: Path = PUBLISHED) -> Path:
    """Return the folder of a study's evidence after replacing it. Raises FileNotFoundError where the study has no results."""
    source = results.folder_of(paths.study_folder(study))
    folder = to / source.name
    shutil.rmtree(folder, ignore_errors=True)  # a file of an earlier run must not stay beside those of this one
    (folder / "figures").mkdir(parents=True)
    for file in (*(source / name for name in FILES), *sorted((source / "figures").glob("*.csv"))):
        if file.is_file():
            shutil.copyfile(file, folder / file.relative_to(source))
    return folder


def main(words: list[str] | None = None) -> int:
    """Return the exit status after publishing a study; 2 where it has no results."""
    parser = argparse.ArgumentParser(description="Copy a study's results into the committed evidence, outputs/published/.")
    parser.add_argument("study", help="A study's name.")
    try:
        print(paths.scrub(str(publish(parser.parse_args(words).study))))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
