"""A study run as a whole: what it names is fetched, its steps are computed, its tables are written."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from pdstudy.data import hub
from pdstudy.run.progress import Progress, in_notebook
from pdstudy.run.scheduler import Engine, RunError, describe, run
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
    """Return the study's metrics as a pandas table, after computing what the store lacks.

    `plan` is the study's, or a part of it; `supplied` says that the hub was asked already for what the study names.
    `workers` is the number of processes (None: one a core; 0: in this process); `engine` other workers than this
    machine's; `shard` (i, n) makes this one of n runs that share the work. Raises RunError when a step failed,
    after everything that does not need it is done and the results so far are written.
    """
    if not supplied:
        hub.supply(*study.named_on_hub())
    plan, store = plan or make(study), store or Store()
    folder = writable(study)
    summary = run(plan, store, workers, listen or in_notebook(), folder / "logs", tracker, engine, shard)
    from pdstudy.run import result_tables  # here: whoever wants a name of the package should not wait for pyarrow and numpy

    try:
        result_tables.write(plan, store, result_tables.environment(plan, summary.computed, summary.reused, summary.seconds))
    except OSError as error:
        if not files.is_full(error):
            raise
        if not summary.failures:
            raise RunError(paths.scrub(files.full(folder)), bad_input=False) from None
    if summary.failures:
        raise RunError(describe(summary), any(f.bad_input for f in summary.failures))
    return results.load_results(study.name)


def pretrain_family(
    study: Study,
    workers: int | None = None,
    listen: Callable[[Progress], None] | None = None,
    engine: Engine | None = None,
    store: Store | None = None,
) -> Plan:
    """Return the plan of a family of miniatures after pre-training what the store lacks. Raises RunError."""
    plan = pretraining(study, map(Size.parse, study.sizes))
    folder = writable(study)
    summary = run(plan, store or Store(), workers, listen or in_notebook(), folder / "logs", engine=engine)
    if summary.failures:
        raise RunError(describe(summary), any(f.bad_input for f in summary.failures))
    return plan


def writable(study: Study) -> Path:
    """Return the study's folder, made if need be. Raises RunError before anything is trained where it cannot be written."""
    folder = paths.study_folder(study.name)
    own = (folder, *folder.rglob("*"), paths.STORE, *paths.STORE.glob("*"))
    if link := files.link_out(own, paths.OUTPUTS):
        where = paths.scrub(str(link))
        raise RunError(f"{where} leads out of the outputs; remove the link, or move all of it with PDSTUDY_OUTPUTS", True)
    for place in (folder, paths.STORE):
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            if files.is_full(error):
                raise RunError(paths.scrub(files.full(paths.OUTPUTS)), bad_input=False) from None
            where = paths.scrub(str(place))
            raise RunError(
                f"{where} cannot be written ({error.strerror}); free it or set PDSTUDY_OUTPUTS to another folder", True
            ) from None
    return folder
