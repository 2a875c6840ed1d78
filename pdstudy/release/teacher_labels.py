"""The soft labels of a teacher as a release: logits in 16 bits for D_T and other transfer sets, its logits on dev and test, a card.

A released folder is an artifact of the store, byte for byte. So a study with the same label step takes it from there, and needs
neither the teacher nor the hours of labelling.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from pdstudy.analysis.fidelity import calibration_error
from pdstudy.recipes import TEACHER
from pdstudy.release.model_card import render
from pdstudy.release.student import interval
from pdstudy.release.zoo import copy_sealed
from pdstudy.run.inputs import Lines, read_record
from pdstudy.storage import paths
from pdstudy.storage.store import Store
from pdstudy.study.plan import make
from pdstudy.study.sections import NAME
from pdstudy.study.settings import Study
from pdstudy.study.steps import Plan, Step

TEACHERS = "teachers"  # in a family's folder
CONTENT = "texts.json"  # the number of texts of each part, and their sha256


class ReleaseError(ValueError):
    """Raised if a study has no soft labels that can be released; the message says what is missing."""


def release(study: Study, store: Store, name: str, to: Path) -> Path:
    """Return the folder `to`/teachers/`name` after writing the soft labels of a finished study, and their card.

    Raises ReleaseError for a teacher of the study's own family, whose labels depend on its word pieces, and if a label step is
    not computed yet.
    """
    if not NAME.fullmatch(name) or ".." in name:
        raise ReleaseError(f"--teacher {name!r}: use small letters, digits, '.', '_' or '-'")
    plan, here = make(study), store.digests()
    labels = {_part_name(plan, step): step for step in plan.of_stage("label") if "ids" not in step.parents}
    if "label" not in labels:
        raise ReleaseError("the study's teacher is one of its own sizes, or no recipe distils: only labels of texts are released")
    if missing := [step.label for step in labels.values() if step.digest not in here]:
        raise ReleaseError(f"not computed yet: {missing[0]}; run the study first")
    place = to / TEACHERS / name
    (teacher,) = [s for s in plan.students if s.recipe == TEACHER.name]
    for part, step in labels.items():
        copy_sealed(store.open(step.digest), place / part)
    copy_sealed(store.open(teacher.evaluation), place / "evaluate")
    contents = {part: _content(step, store) for part, step in labels.items()}
    (place / CONTENT).write_text(json.dumps(contents, indent=1, sort_keys=True) + "\n")
    parts = {
        part: contents[part] | {"class_counts": read_record(store.open(step.digest))["class_shares"]}
        for part, step in labels.items()
    }
    (place / "README.md").write_text(card(study, plan, store, name, parts), encoding="utf-8")
    return place


def card(study: Study, plan: Plan, store: Store, name: str, parts: dict[str, dict[str, Any]]) -> str:
    """Return the card: the teacher, how it was made, its scores, and the texts that it labelled."""
    (teacher,) = [s for s in plan.students if s.recipe == TEACHER.name]
    folder, step = store.open(teacher.evaluation), plan.steps[teacher.model]
    record, labels = read_record(folder), np.load(folder / "test.labels.npy")
    p = softmax(np.load(folder / "test.logits.npy"), axis=1)
    made_by = plan.steps[next(iter(step.parents.values()))] if step.stage == "choose" else step
    source = study.teacher.folder or ""  # a folder's last part is enough, and has no path of this machine
    source = source if source.startswith((paths.HUB, paths.WHEEL)) else Path(source).name
    return render(
        "soft_labels_card",
        **interval(int((p.argmax(1) == labels).sum()), len(labels)),
        **record["scores"],
        name=name,
        study=study,
        labels=read_record(store.open(plan.of_stage("texts")[0].digest))["labels"],
        teacher=source or teacher.size,
        model=record["model"],
        made_by=made_by,
        settings=json.dumps(made_by.settings, sort_keys=True),
        calibration_error=calibration_error(p, labels),
        parts=parts,
    )


def content(texts: list) -> str:
    """Return the sha256 of texts by content: each text, or pair, in JSON on a line of its own."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(json.dumps(text, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _part_name(plan: Plan, step: Step) -> str:
    """Return the name of a label step's folder: "label", or with the corpus or the split that was labelled."""
    if "of" in step.settings:
        return f"label-{step.settings['of']}"
    return f"label-{plan.steps[step.parents['transfer']].settings['corpus']}" if "transfer" in step.parents else "label"


def _content(step: Step, store: Store) -> dict[str, Any]:
    """Return the number of the texts of a label step, and their sha256."""
    folder = store.open(step.parents.get("transfer") or step.parents["texts"])
    n = len(np.load(store.open(step.digest) / "logits.npy", mmap_mode="r"))
    texts = list(Lines(folder / f"{step.settings.get('of', 'transfer')}.parquet"))[:n]
    return {"texts": len(texts), "sha256": content(texts)}
