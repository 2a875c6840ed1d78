"""The command line: `python -m pdstudy --help` lists its commands."""

import sys

from pdstudy.cli import hub, store, student, study, task  # each adds its commands
from pdstudy.console import app, say
from pdstudy.data.mirror import MirrorError
from pdstudy.storage import paths
from pdstudy.study.settings import ParamsError

__all__ = ["app", "hub", "main", "store", "student", "study", "task"]


def main() -> None:
    """Run the command line; bad input ends with one sentence and exit 2, a failed step with exit 1."""
    from pdstudy.storage import files
    from pdstudy.storage.store import StoreError

    try:
        app()
    except (ParamsError, MirrorError) as error:
        say(paths.scrub(str(error)))
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
    except StoreError as error:
        say(paths.scrub(str(error)))
        sys.exit(1)
    except OSError as error:
        if not files.is_full(error):
            raise
        say(paths.scrub(files.full(paths.OUTPUTS)))
        sys.exit(1)


if __name__ == "__main__":
    main()
