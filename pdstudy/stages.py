"""The paper on one page: pre-train, fine-tune, label, distil, evaluate (Turc et al., 2019, Algorithm 1).

Each stage is a function of its inputs, settings and seed; where artifacts lie is not its business.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from pdstudy import evaluate, objectives
from pdstudy.models import Classifier, MaskedReader
from pdstudy.tokens import MASKING, Batches, Ids, Rows, Vocabulary, mask_rows, own_rows, stream
from pdstudy.train import Fitted, Loss, Schedule, Watch, device, fit, ranks

COLLAPSE_MARGIN = 0.02  # a model less than two points above the majority class, or Pearson's r of 0, has learned nothing


@dataclass(frozen=True)
class Labelled:
    """One split of D_L: texts as pieces, and their class numbers (n_texts,), or steps of a scale."""

    ids: Ids
    labels: np.ndarray
    scale: bool = False

    def majority(self) -> float:
        """Return the share of the largest class."""
        return float(np.bincount(self.labels).max() / len(self.labels))

    def above_nothing(self, scores: dict[str, float]) -> float:
        """Return how far scores on this split lie above those of one answer to all: in accuracy, of a scale in Pearson's r."""
        return scores["pearson"] if self.scale else scores["accuracy"] - self.majority()


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
    layer. With `long_row`, the last `long_share` of the steps read rows of that length, fewer in a step, so that all positions
    up to it are trained (BERT's second phase). With `cls_words` above 0, [CLS] is also asked for the words of its row, and that
    loss is added with this weight: masking alone never asks [CLS] anything, and it is [CLS] that a classifier reads. With
    `compile` the encoder is compiled first, for its batches have one shape. Under torchrun each rank reads its rows of the same
    batch, and its losses are weighed by its part of it: the ranks' mean is the batch's loss.
    """
    seed, n, weight = settings["seed"], settings["batch"], settings["cls_words"]
    rank, n_ranks = ranks()
    steps = max(1, round(settings["tokens"] / (n * settings["row"])))
    schedule = Schedule(steps, settings["warmup"], settings["rate"], settings["weight_decay"], settings.get("muon_rate"))
    rows = Rows(corpus.text, settings["row"], seed, vocabulary)
    short_steps, n_long, long_rows = steps, n, rows
    if settings.get("long_row"):
        short_steps = steps - round(settings["long_share"] * steps)
        long_rows = Rows(corpus.text, settings["long_row"], seed, vocabulary)
        n_long = max(1, n * settings["row"] // settings["long_row"])
    continues = corpus.continues if settings["whole_words"] else None
    if settings.get("compile"):
        model.compile_encoder(n, math.ceil(settings["mask"] * n * settings["row"]), graphs=device().type == "cuda")

    def batch(step: int):
        drawn = rows.batch(step, n) if step < short_steps else long_rows.batch(step, n_long)
        masked = mask_rows(drawn, settings["mask"], vocabulary, stream(seed, MASKING, step), continues)
        ids, positions, pieces = own_rows(*masked, rank, n_ranks)
        shares = n_ranks * len(pieces) / len(masked[2]), n_ranks * len(ids) / len(drawn)
        return [*map(torch.from_numpy, (ids, positions, pieces)), *shares]

    def loss(reader, data):
        ids, positions, pieces, share, share_of_rows = data
        found = reader(ids, positions, pieces, of_rows=bool(weight))
        masked, of_rows = found if weight else (found, None)
        shown = value = masked * share
        if weight:
            words = ids.flatten().index_copy(0, positions, pieces).view_as(ids)[:, 1:]  # as they were before masking
            value = value + weight * objectives.row_words_loss(of_rows, words) * share_of_rows
        return Loss(value, ids.numel(), shown)

    return fit(model, batch, loss, schedule, seed, settings["precision"], watch)


def finetune(
    model: Classifier, train: Labelled, dev: Labelled, settings: dict, vocabulary: Vocabulary, watch: Watch | None = None
) -> Outcome:
    """Train a classifier on the labels of D_L, in place (line 6 of Algorithm 1, and the baselines)."""

    def loss(student, data):
        ids, mask, segments, labels, real = data
        return Loss(objectives.hard_label_loss(student(ids, mask, segments), labels), real)

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
        return Loss(objectives.soft_label_loss(student(ids, mask, segments), teacher, settings["temperature"]), real)

    return _train(model, transfer, soft, loss, dev, settings, vocabulary, watch)


def label(teacher: Classifier, transfer: Ids, vocabulary: Vocabulary, precision: str) -> np.ndarray:
    """Return the teacher's logits over D_T, (n_texts, n_classes): computed once, read by every student."""
    return evaluate.logits(teacher, transfer, vocabulary.pad, precision)


def _train(model, ids, targets, loss, dev, settings, vocabulary, watch) -> Outcome:
    batches = Batches(ids, targets, settings["batch"], settings["seed"], vocabulary.pad)

    def batch(step: int):
        pieces, mask, *more = batches.batch(step)
        real = pieces.size if mask is None else int(mask.sum())  # counted here: asked of a GPU, the number would be waited for
        return [*(None if a is None else torch.from_numpy(a) for a in (pieces, mask, *more)), real]

    steps = max(1, round(settings["epochs"] * batches.per_epoch))
    schedule = Schedule(steps, settings["warmup"], settings["rate"], settings["weight_decay"])
    fitted = fit(model, batch, loss, schedule, settings["seed"], settings["precision"], watch)
    found = evaluate.metrics(evaluate.logits(model, dev.ids, vocabulary.pad, settings["precision"]), dev.labels, dev.scale)
    return Outcome(fitted, found, dev.above_nothing(found) < COLLAPSE_MARGIN)
