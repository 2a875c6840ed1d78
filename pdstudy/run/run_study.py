"""Runs a whole study: fetches the data and models it names, computes its steps and writes its tables."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from pdstudy.data import hub
from pdstudy.run.progress import Progress, notebook_listener
from pdstudy.run.scheduler import Engine, RunError, raise_failures, run
from pdstudy.sizes import Size
from pdstudy.storage import files, paths, results
from pdstudy.storage.store import Store
from pdstudy.study.plan import make, pretraining
from pdstudy.study.settings import Study
from pdstudy.study.steps import Plan


def run_study(
    study: Study,
    workers: int | None = None,
    listen: Callable[[Progress], None] | None = None,
    store: Store | None = None,
    tracker: str | None = None,
    engine: Engine | None = None,
    shard: tuple[int, int] | None = None,
    plan: Plan | None = None,
    supplied: bool = False,
):
    """Return the study's metrics as a pandas table, after computing the steps that the store lacks.

    `plan` is the study's plan or a part of it. With `supplied`, the mirror is not checked for data and models of the hub.
    `workers` is the number of processes (None: one per core; 0: this process); `engine` replaces the local one; `shard` (i, n)
    makes this one of n runs that share the work. Raises RunError if a step failed, after all steps that do not need it are
    done and the results so far are written.
    """
    if not supplied:
        hub.fetch_missing(*study.named_on_hub())
    plan, store = plan or make(study), store or Store()
    folder = writable(study)
    summary = run(plan, store, workers, listen or notebook_listener(), folder / "logs", tracker, engine, shard)
    from pdstudy.run import result_tables  # here: importing the package should not load pyarrow and numpy

    try:
        result_tables.write(plan, store, result_tables.environment(plan, summary.computed, summary.reused, summary.seconds))
    except OSError as error:
        if not files.is_disk_full(error):
            raise
        if not summary.failures:
            raise RunError(paths.scrub(files.full_disk_message(folder)), bad_input=False) from None
    raise_failures(summary)
    return results.load_results(study.name)


def pretrain_family(
    study: Study,
    workers: int | None = None,
    listen: Callable[[Progress], None] | None = None,
    engine: Engine | None = None,
    store: Store | None = None,
) -> Plan:
    """Return the plan of a family of miniatures after pre-training those that the store lacks. Raises RunError."""
    plan = pretraining(study, map(Size.parse, study.sizes))
    logs = writable(study) / "logs"
    raise_failures(run(plan, store or Store(), workers, listen or notebook_listener(), logs, engine=engine))
    return plan


def writable(study: Study) -> Path:
    """Return the study's folder, created if missing. Raises RunError where it cannot be written."""
    folder = paths.study_folder(study.name)
    places = (folder, *folder.rglob("*"), paths.STORE, *paths.STORE.glob("*"))
    if link := files.outside_link(places, paths.OUTPUTS):
        raise RunError(
            f"{paths.scrub(str(link))} is a link out of the outputs; remove it, or move all outputs with PDSTUDY_OUTPUTS", True
        )
    for place in (folder, paths.STORE):
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            if files.is_disk_full(error):
                raise RunError(paths.scrub(files.full_disk_message(paths.OUTPUTS)), bad_input=False) from None
            reason = f"{paths.scrub(str(place))} cannot be written ({error.strerror})"
            raise RunError(f"{reason}; change its permissions or set PDSTUDY_OUTPUTS to another folder", True) from None
    return folder
