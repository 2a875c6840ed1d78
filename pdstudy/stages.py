"""The paper on one page: pre-train, fine-tune, label, distil, evaluate (Turc et al., 2019, Algorithm 1).

Each stage is a function of its inputs, settings and seed; where artifacts lie is not its business.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from pdstudy.data.batches import MASKING, Batches, Ids, Labelled, Rows, Vocabulary, stream
from pdstudy.data.masking import mask_rows, own_rows
from pdstudy.models import evaluate, inference, losses
from pdstudy.models.encoder import Classifier, MaskedReader
from pdstudy.models.train import Fitted, Loss, Schedule, Watch, device, fit, ranks

COLLAPSE_MARGIN = 0.02  # a model less than two points above the majority class, or Pearson's r of 0, has learned nothing


@dataclass(frozen=True)
class Outcome:
    """A trained student's record: how training went, and accuracy and loss on dev."""

    fitted: Fitted
    dev: dict[str, float]
    collapsed: bool  # no better than the majority class


@dataclass(frozen=True)
class Running:
    """D_LM as running text (n_pieces,), and which pieces of the vocabulary continue a word (vocabulary,)."""

    text: np.ndarray
    continues: np.ndarray


def pretrain(model: MaskedReader, corpus: Running, settings: dict, vocabulary: Vocabulary, watch: Watch | None = None) -> Fitted:
    """Train a masked reader on D_LM, in place (line 1 of Algorithm 1).

    Rows of `row` pieces begin with [CLS]; `mask` of their pieces are predicted, and only those reach the output
    layer. With `cls_words` above 0, [CLS] is also asked for the words of its row, and that loss is added with
    this weight: masking alone never asks [CLS] anything, and it is [CLS] that a classifier reads. With `compile` the
    encoder is compiled first, for its batches have one shape. Under torchrun each rank reads its rows of the same
    batch, and its losses are weighed by its part of it: the ranks' mean is the batch's loss.
    """
    seed, n, weight = settings["seed"], settings["batch"], settings["cls_words"]
    rank, n_ranks = ranks()
    steps = max(1, round(settings["tokens"] / (n * settings["row"])))
    schedule = Schedule(steps, settings["warmup"], settings["rate"], settings["weight_decay"], settings.get("muon_rate"))
    rows = Rows(corpus.text, settings["row"], seed, vocabulary)
    continues = corpus.continues if settings["whole_words"] else None
    if settings.get("compile"):
        model.compile_encoder(n, math.ceil(settings["mask"] * n * settings["row"]), graphs=device().type == "cuda")

    def batch(step: int):
        masked = mask_rows(rows.batch(step, n), settings["mask"], vocabulary, stream(seed, MASKING, step), continues)
        part = own_rows(*masked, rank, n_ranks)
        return [*map(torch.from_numpy, part), n_ranks * len(part[2]) / len(masked[2])]

    def loss(reader, data):
        ids, positions, pieces, share = data
        found = reader(ids, positions, pieces, of_rows=bool(weight))
        masked, of_rows = found if weight else (found, None)
        shown = value = masked * share
        if weight:
            words = ids.flatten().index_copy(0, positions, pieces).view_as(ids)[:, 1:]  # as they were before masking
            value = value + weight * losses.row_words_loss(of_rows, words) * (n_ranks * len(ids) / n)
        return Loss(value, ids.numel(), shown)

    return fit(model, batch, loss, schedule, seed, settings["precision"], watch)


def finetune(
    model: Classifier, train: Labelled, dev: Labelled, settings: dict, vocabulary: Vocabulary, watch: Watch | None = None
) -> Outcome:
    """Train a classifier on the labels of D_L, in place (line 6 of Algorithm 1, and the baselines)."""

    def loss(student, data):
        ids, mask, segments, labels, real = data
        return Loss(losses.hard_label_loss(student(ids, mask, segments), labels), real)

    return _train(model, train.ids, train.labels, loss, dev, settings, vocabulary, watch)


def distill(
    model: Classifier,
    transfer: Ids,
    soft: np.ndarray,
    dev: Labelled,
    settings: dict,
    vocabulary: Vocabulary,
    watch: Watch | None = None,
) -> Outcome:
    """Train a student on the teacher's distribution over D_T, in place (lines 2 to 5 of Algorithm 1).

    `soft` is (n_texts, n_classes), the teacher's logits. Dev labels only measure; they train nothing.
    """
    if soft.shape != (len(transfer), model.bert.config.num_labels) or not np.isfinite(soft).all():
        raise ValueError(
            f"soft labels are {soft.shape}, expected finite ({len(transfer)}, {model.bert.config.num_labels}): "
            "the teacher and the student must know the same classes, and every transfer text must be labelled"
        )

    def loss(student, data):
        ids, mask, segments, teacher, real = data
        return Loss(losses.soft_label_loss(student(ids, mask, segments), teacher, settings["temperature"]), real)

    return _train(model, transfer, soft, loss, dev, settings, vocabulary, watch)


def label(teacher: Classifier, transfer: Ids, vocabulary: Vocabulary, precision: str) -> np.ndarray:
    """Return the teacher's logits over D_T, (n_texts, n_classes): computed once, read by every student."""
    return inference.logits(teacher, transfer, vocabulary.pad, precision)


def _train(model, ids, targets, loss, dev, settings, vocabulary, watch) -> Outcome:
    batches = Batches(ids, targets, settings["batch"], settings["seed"], vocabulary.pad)

    def batch(step: int):
        pieces, mask, *more = batches.batch(step)
        real = pieces.size if mask is None else int(mask.sum())  # counted here: asked of a GPU, the number would be waited for
        return [*(None if a is None else torch.from_numpy(a) for a in (pieces, mask, *more)), real]

    steps = max(1, round(settings["epochs"] * batches.per_epoch))
    schedule = Schedule(steps, settings["warmup"], settings["rate"], settings["weight_decay"])
    fitted = fit(model, batch, loss, schedule, settings["seed"], settings["precision"], watch)
    found = evaluate.metrics(inference.logits(model, dev.ids, vocabulary.pad, settings["precision"]), dev.labels, dev.scale)
    return Outcome(fitted, found, dev.above_nothing(found) < COLLAPSE_MARGIN)
