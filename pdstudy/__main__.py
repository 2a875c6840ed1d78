"""The command line: `python -m pdstudy --help` lists its commands."""

import sys

from pdstudy.cli import own_texts, store, student, study, task  # each adds its commands
from pdstudy.console import app, print_error
from pdstudy.data.mirror import MirrorError
from pdstudy.storage import paths
from pdstudy.study.settings import ParamsError

__all__ = ["app", "main", "own_texts", "store", "student", "study", "task"]


def main() -> None:
    """Run the command line; bad input ends with one sentence and exit 2, a failed step with exit 1."""
    from pdstudy.storage import files
    from pdstudy.storage.store import StoreError

    try:
        app()
    except (ParamsError, MirrorError) as error:
        print_error(str(error))
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        if not isinstance(error, StoreError) and not files.is_disk_full(error):
            raise
        print_error(str(error) if isinstance(error, StoreError) else files.full_disk_message(paths.OUTPUTS))
        sys.exit(1)


if __name__ == "__main__":
    main()
