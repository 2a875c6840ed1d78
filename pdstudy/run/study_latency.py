"""How fast each size of a computed study answers on this machine, kept beside its results."""

import json
from dataclasses import asdict

from pdstudy.data.batches import Ids
from pdstudy.recipes import LINEAR, LINEAR_SIZE
from pdstudy.run.inputs import Lines
from pdstudy.storage import files, paths, results
from pdstudy.storage.store import Store
from pdstudy.study.plan import make
from pdstudy.study.settings import Study
from pdstudy.study.steps import Plan


def measure_latency(study: Study, store: Store | None = None):
    """Return how fast each size of a computed study answers on this machine, as a pandas table; measured once and kept."""
    plan, store, path = make(study), store or Store(), paths.study_folder(study.name) / results.LATENCY
    known = json.loads(path.read_text())["sizes"] if path.is_file() else {}
    reading = {s.size for s in plan.students if "ids" in plan.steps[s.evaluation].parents} | {LINEAR_SIZE}
    if reading - set(known) or any(found["memory"] is None for size, found in known.items() if size != LINEAR_SIZE):
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
        pieces = plan.steps[student.evaluation].parents.get("ids")  # none: it reads texts
        if student.model in here and pieces is not None:
            first.setdefault(pieces, {}).setdefault(student.size, student.model)
    longest = plan.study.max_length
    for digest, models in first.items():
        pieces = store.open(digest)
        pad = json.loads((pieces / "record.json").read_text())["vocabulary"]["pad"]
        openings = {
            size: latency.Opening(inference.open_torch, (str(store.open(model)),), "fp32") for size, model in models.items()
        }
        measured = latency.measure(openings, Ids.load(pieces, "test"), pad, sorted({min(16, longest), longest}), memory=memory)
        found |= {size: asdict(speed) for size, speed in measured.items()}
    if (speed := _of_linear(plan, store, here)) is not None:
        found[LINEAR_SIZE] = asdict(speed)
    return {"sizes": found}


def _of_linear(plan: Plan, store: Store, here: set[str]):
    """Return the Latency of the linear model on the test texts, or None where the store holds none. It opens no torch model."""
    from pdstudy.models import latency, linear

    models = [student for student in plan.students if student.recipe == LINEAR and student.model in here]
    texts = store.find(plan.of_stage("texts")[0].digest)
    if not models or texts is None:
        return None
    return latency.of_texts(linear.load(store.open(models[0].model)).logits, list(Lines(texts / "test.parquet")))
