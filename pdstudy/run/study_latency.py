"""The inference latency of each size of a computed study on this machine, stored with its results."""

import json
from dataclasses import asdict
from typing import Any

from pdstudy.data.batches import Ids
from pdstudy.recipes import LINEAR, LINEAR_SIZE
from pdstudy.run.inputs import Lines, read_record
from pdstudy.storage import files, paths, results
from pdstudy.storage.store import Store
from pdstudy.study.plan import make
from pdstudy.study.settings import Study
from pdstudy.study.steps import Plan


def measure_latency(study: Study, store: Store | None = None):
    """Return the latency of each size of a computed study on this machine, as a pandas table; measured once and stored."""
    plan, store, path = make(study), store or Store(), paths.study_folder(study.name) / results.LATENCY
    measured = json.loads(path.read_text())["sizes"] if path.is_file() else {}
    sizes = {s.size for s in plan.students if "ids" in plan.steps[s.evaluation].parents} | {LINEAR_SIZE}
    of_students = [latency for size, latency in measured.items() if size != LINEAR_SIZE]
    lacking = any(s["memory"] is None or study.max_length not in [fixed["length"] for fixed in s["fixed"]] for s in of_students)
    if sizes - set(measured) or lacking:
        with files.atomic_write(path) as new:
            new.write_text(json.dumps(of_study(plan, store, memory=True), indent=1) + "\n")
    return results.latency_table(study.name)


def of_study(plan: Plan, store: Store, memory: bool = False) -> dict[str, dict]:
    """Return {"sizes": {size: its Latency as a dict}}, from one model per size: training does not change the latency.

    Texts are the task's test texts, the stated lengths 16 pieces and the study's `max_length`. A size without a model in the
    store is left out.
    """
    from pdstudy.models import inference, latency  # here: reading results should not load torch

    models_of: dict[str, dict[str, str]] = {}  # by size, by the digest of word pieces: a given teacher may have its own
    here, sizes = store.digests(), {}
    for student in plan.students:
        ids = plan.steps[student.evaluation].parents.get("ids")  # None if the model takes texts
        if student.model in here and ids is not None:
            models_of.setdefault(ids, {}).setdefault(student.size, student.model)
    longest = plan.study.max_length
    for digest, models in models_of.items():
        pieces = store.open(digest)
        pad = read_record(pieces)["vocabulary"]["pad"]
        openings = {
            size: latency.Opening(inference.open_torch, (str(store.open(model)),), "fp32") for size, model in models.items()
        }
        measured = latency.measure(openings, Ids.load(pieces, "test"), pad, sorted({min(16, longest), longest}), memory=memory)
        sizes |= {size: asdict(speed) for size, speed in measured.items()}
    return {"sizes": sizes | _of_linear(plan, store, here)}


def _of_linear(plan: Plan, store: Store, here: set[str]) -> dict[str, dict[str, Any]]:
    """Return the latency of the linear model on the test texts by its size, empty if the store lacks the model or the texts."""
    from pdstudy.models import latency, linear

    models = [student for student in plan.students if student.recipe == LINEAR and student.model in here]
    texts = store.find(plan.of_stage("texts")[0].digest)
    if not models or texts is None:
        return {}
    speed = latency.measure_on_texts(linear.load(store.open(models[0].model)).logits, list(Lines(texts / "test.parquet")))
    return {LINEAR_SIZE: asdict(speed)}
