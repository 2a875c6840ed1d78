"""How fast each size of a computed study answers on this machine, kept beside its results."""

import json
from dataclasses import asdict

from pdstudy.data.batches import Ids
from pdstudy.storage import files, paths, results
from pdstudy.storage.store import Store
from pdstudy.study.plan import make
from pdstudy.study.settings import Study
from pdstudy.study.steps import Plan


def measure_latency(study: Study, store: Store | None = None):
    """Return how fast each size of a computed study answers on this machine, as a pandas table; measured once and kept."""
    plan, store, path = make(study), store or Store(), paths.study_folder(study.name) / results.LATENCY
    known = json.loads(path.read_text())["sizes"] if path.is_file() else {}
    if {s.size for s in plan.students} - set(known) or any(found["memory"] is None for found in known.values()):
        with files.whole(path) as new:
            new.write_text(json.dumps(of_study(plan, store, memory=True), indent=1) + "\n")
    return results.latency_table(study.name)


def of_study(plan: Plan, store: Store, memory: bool = False) -> dict[str, dict]:
    """Return {"sizes": {size: its Latency as a dict}} of one model a size: how fast it answers is not a matter of training.

    Texts are the task's test texts, the stated lengths 16 pieces and the study's longest. A size of which the store holds
    no model any more is left out.
    """
    from pdstudy.models import inference, latency  # here: whoever only reads results opens no torch

    first: dict[str, dict[str, str]] = {}  # by word pieces: a given teacher may have its own
    here, found = store.here(), {}
    for student in plan.students:
        if student.model in here:
            first.setdefault(plan.steps[student.evaluation].parents["ids"], {}).setdefault(student.size, student.model)
    longest = plan.study.max_length
    for digest, models in first.items():
        pieces = store.open(digest)
        pad = json.loads((pieces / "record.json").read_text())["vocabulary"]["pad"]
        openings = {
            size: latency.Opening(inference.open_torch, (str(store.open(model)),), "fp32") for size, model in models.items()
        }
        measured = latency.measure(openings, Ids.load(pieces, "test"), pad, sorted({min(16, longest), longest}), memory=memory)
        found |= {size: asdict(speed) for size, speed in measured.items()}
    return {"sizes": found}
