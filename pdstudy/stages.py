"""The paper on one page: pre-train, fine-tune, label, distil, evaluate (Turc et al., 2019, Algorithm 1).

Each stage is a function of its inputs, settings and seed. The steps that read and write artifacts are in run/.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from pdstudy.data.batches import MASKING, Batches, Ids, Labelled, Rows, Vocabulary, stream
from pdstudy.data.masking import mask_rows, own_rows
from pdstudy.models import evaluate, inference, losses
from pdstudy.models.encoder import Classifier, MaskedLanguageModel
from pdstudy.models.train import Fitted, Loss, Schedule, Watch, device, fit, ranks, text_batch

SHIFT_STEPS, SHIFT_ERROR = 1000, 1e-5  # of `matching_shift`: the most steps, and the difference of a class share at which it stops
LENGTH_MULTIPLE = 4  # of batches in bf16; 8 costs more padding, and is no faster
COLLAPSE_MARGIN = 0.02  # a model less than two points above the majority class (or a Pearson's r of 0) has collapsed


@dataclass(frozen=True)
class Outcome:
    """A trained student: its training record, and its metrics on dev."""

    fitted: Fitted
    dev: dict[str, float]
    collapsed: bool  # no better than the majority class


@dataclass(frozen=True)
class RunningText:
    """D_LM as one running text."""

    text: np.ndarray  # (n_pieces,)
    continues: np.ndarray  # (vocabulary,) bool: the pieces that continue a word


def pretrain(
    model: MaskedLanguageModel, corpus: RunningText, settings: dict, vocabulary: Vocabulary, watch: Watch | None = None
) -> Fitted:
    """Return the training record of a masked language model, pre-trained on D_LM in place (Algorithm 1, line 1).

    Rows of `row` pieces begin with [CLS], and a share `mask` of their pieces is predicted. With `long_row`, the last
    `long_share` of the steps use fewer rows of that length, so that all positions up to it are trained (BERT's second phase).
    With `cls_words` above 0, [CLS] also predicts the words of its row, and that loss is added with this weight: masking alone
    does not train [CLS], whose state the classifier uses. With `compile` the encoder is compiled first; all batches have one
    shape. Under torchrun each rank computes its rows of the same batch and weights its losses by its share, so that the mean
    over ranks is the batch's loss.
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
        sample = rows.batch(step, n) if step < short_steps else long_rows.batch(step, n_long)
        masked = mask_rows(sample, settings["mask"], vocabulary, stream(seed, MASKING, step), continues)
        ids, positions, pieces = own_rows(*masked, rank, n_ranks)
        shares = n_ranks * len(pieces) / len(masked[2]), n_ranks * len(ids) / len(sample)
        return [*map(torch.from_numpy, (ids, positions, pieces)), *shares]

    def loss(runner, data):
        ids, positions, pieces, share, share_of_rows = data
        if not weight:
            return Loss(runner(ids, positions, pieces, of_rows=False) * share, ids.numel())
        mlm, row_logits = runner(ids, positions, pieces, of_rows=True)
        words = ids.flatten().index_copy(0, positions, pieces).view_as(ids)[:, 1:]  # the row before masking
        mlm = mlm * share
        return Loss(mlm + weight * losses.row_words_loss(row_logits, words) * share_of_rows, ids.numel(), logged=mlm)

    return fit(model, batch, loss, schedule, seed, settings["precision"], watch)


def finetune(
    model: Classifier, train: Labelled, dev: Labelled, settings: dict, vocabulary: Vocabulary, watch: Watch | None = None
) -> Outcome:
    """Return the outcome of training a classifier on the labels of D_L, in place (Algorithm 1, line 6, and the baselines)."""

    def loss(student, data):
        ids, mask, segments, labels, n_pieces = data
        return Loss(losses.hard_label_loss(student(ids, mask, segments), labels), n_pieces)

    return _train(model, train.ids, train.labels, loss, dev, settings, vocabulary, watch)


def distill(
    model: Classifier,
    transfer: Ids,
    soft: np.ndarray,
    dev: Labelled,
    settings: dict,
    vocabulary: Vocabulary,
    watch: Watch | None = None,
    labelled: Labelled | None = None,
) -> Outcome:
    """Return the outcome of training a student on the teacher's soft labels of D_T, in place (Algorithm 1, lines 2 to 5).

    `soft` is (n_texts, n_classes), the teacher's logits. The labels of `dev` are for evaluation only. With `labelled`, texts of D_L,
    `match_classes` follows. Raises ValueError if the soft labels do not fit the texts or the classes.
    """
    if soft.shape != (len(transfer), model.bert.config.num_labels) or not np.isfinite(soft).all():
        raise ValueError(
            f"soft labels are {soft.shape}, expected finite ({len(transfer)}, {model.bert.config.num_labels}): "
            "the teacher and the student must know the same classes, and every transfer text must be labelled"
        )

    def loss(student, data):
        ids, mask, segments, teacher_logits, n_pieces = data
        logits = student(ids, mask, segments)
        if settings.get("loss") == "logits":
            return Loss(losses.logit_loss(logits, teacher_logits), n_pieces)
        return Loss(losses.soft_label_loss(logits, teacher_logits, settings["temperature"]), n_pieces)

    return _train(model, transfer, soft, loss, dev, settings, vocabulary, watch, labelled)


def match_classes(model: Classifier, labelled: Labelled, vocabulary: Vocabulary, precision: str) -> None:
    """Shift the classifier's bias until its mean probabilities over labelled texts are the class shares there, in place.

    Transfer text often has other class shares than D_L, and a student learns those before it learns the words.
    """
    logits = inference.logits(model, labelled.ids, vocabulary.pad, precision)
    counts = np.bincount(labelled.labels, minlength=logits.shape[1])
    shift = torch.from_numpy(matching_shift(logits, (counts + 0.5) / (counts + 0.5).sum())).float()
    with torch.no_grad():
        model.bert.classifier.bias += shift.to(model.bert.classifier.bias.device)


def matching_shift(logits: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the shift (n_classes,) with which the mean of softmax(logits + shift) over (n_texts, n_classes) is `shares` (n_classes,)."""
    shift = np.zeros(len(shares))
    for _ in range(SHIFT_STEPS):
        shifted = logits.astype(np.float64) + shift
        p = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        p = (p / p.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(p - shares).max() < SHIFT_ERROR:
            break
        shift += np.log(shares) - np.log(p)
    return shift - shift.mean()


def mixed(logits: np.ndarray, labels: np.ndarray, weight: float) -> np.ndarray:
    """Return the teacher's logits with the true labels mixed in: log((1 - weight) p + weight onehot), (n_texts, n_classes).

    `logits` is (n_texts, n_classes), `labels` (n_texts,). A probability of 0 becomes 1e-6, so that its logarithm is finite.
    """
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p *= (1 - weight) / p.sum(axis=1, keepdims=True)
    p[np.arange(len(labels)), labels] += weight
    return np.log(np.maximum(p, 1e-6)).astype(np.float32)


def label(teacher: Classifier, transfer: Ids, vocabulary: Vocabulary, precision: str) -> np.ndarray:
    """Return the teacher's logits over D_T, (n_texts, n_classes): computed once for all students."""
    return inference.logits(teacher, transfer, vocabulary.pad, precision)


def length_multiple(precision: str, positions: int) -> int:
    """Return the multiple that lengths of batches are rounded up to, for a model of so many positions.

    In bf16 torch compiles a kernel for each shape of a product and keeps 1,024 of them. With every length a shape of its own these
    are too few even for a 2-layer student: kernels are compiled again and again, and each takes half a megabyte. In fp32 there are
    no such kernels, and padding gains nothing (docs/speed.md).
    """
    return LENGTH_MULTIPLE if precision == "bf16" and positions % LENGTH_MULTIPLE == 0 else 1


def _train(model, ids, targets, loss, dev, settings, vocabulary, watch, matched: Labelled | None = None) -> Outcome:
    multiple = length_multiple(settings["precision"], model.bert.config.max_position_embeddings)
    batches = Batches(ids, targets, settings["batch"], settings["seed"], vocabulary.pad, multiple)
    steps = max(1, round(settings["epochs"] * batches.per_epoch))
    schedule = Schedule(steps, settings["warmup"], settings["rate"], settings["weight_decay"])
    fitted = fit(model, text_batch(batches), loss, schedule, settings["seed"], settings["precision"], watch)
    if matched is not None:
        match_classes(model, matched, vocabulary, settings["precision"])
    scores = evaluate.metrics(inference.logits(model, dev.ids, vocabulary.pad, settings["precision"]), dev.labels, dev.scale)
    return Outcome(fitted, scores, dev.above_baseline(scores) < COLLAPSE_MARGIN)
