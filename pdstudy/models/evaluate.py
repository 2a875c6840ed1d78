"""Metrics of a classifier's logits, and the held-out MLM loss of a pre-trained encoder."""

import numpy as np
import torch

from pdstudy.data.batches import MASKING, Rows, Vocabulary, stream
from pdstudy.data.masking import mask_rows
from pdstudy.models.encoder import MaskedLanguageModel
from pdstudy.models.losses import mlm_loss

HELDOUT_SEED = 1  # the same held-out rows and masks for every model, so that losses can be compared
HELDOUT_ROWS = 2560
HELDOUT_ROW = 64
HELDOUT_MASK = 0.15


def metrics(logits: np.ndarray, labels: np.ndarray, scale: bool = False) -> dict[str, float]:
    """Return accuracy, F1 (of class 1 if there are two classes, else macro), Matthews' r and the mean loss in nats.

    If the classes are steps of a `scale`, also Pearson's and Spearman's r between the expected and the correct step. A correlation
    is 0 if either side is constant.
    """
    from scipy.special import log_softmax

    n_classes = logits.shape[1]
    predicted, log_p = logits.argmax(axis=1), log_softmax(logits, axis=1)
    pairs = labels.astype(np.int64) * n_classes + predicted
    confusion = np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes).astype(float)
    scores = {
        "accuracy": float((predicted == labels).mean()),
        "f1": _f1(confusion),
        "mcc": _matthews(confusion),
        "loss": float(-log_p[np.arange(len(labels)), labels].mean()),
    }
    return scores | (_correlations(np.exp(log_p) @ np.arange(n_classes), labels) if scale else {})


def _f1(confusion: np.ndarray) -> float:
    """Return F1 of class 1 of two, else the mean over the classes that occur; `confusion` is (correct, predicted).

    The value is scikit-learn's `f1_score`, whose import takes two seconds in every process that evaluates.
    """
    of_both = confusion.sum(axis=0) + confusion.sum(axis=1)
    f1 = 2 * confusion.diagonal() / np.maximum(of_both, 1)
    return float(f1[1] if len(confusion) == 2 else f1[of_both > 0].mean())


def _matthews(confusion: np.ndarray) -> float:
    """Return Matthews' r of any number of classes, 0 if either side is constant; as scikit-learn's `matthews_corrcoef`."""
    correct, predicted, n = confusion.sum(axis=1), confusion.sum(axis=0), confusion.sum()
    spread = (n**2 - predicted @ predicted) * (n**2 - correct @ correct)
    return float((confusion.trace() * n - correct @ predicted) / np.sqrt(spread)) if spread else 0.0


def _correlations(expected: np.ndarray, correct: np.ndarray) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr

    if np.ptp(expected) < 1e-6 or not np.ptp(correct):
        return {"pearson": 0.0, "spearman": 0.0}
    return {"pearson": float(pearsonr(expected, correct)[0]), "spearman": float(spearmanr(expected, correct)[0])}


@torch.inference_mode()
def heldout_mlm(
    model: MaskedLanguageModel, heldout: np.ndarray, vocabulary: Vocabulary, counts: np.ndarray, precision: str
) -> dict[str, float]:
    """Return the held-out MLM loss (nats) and accuracy of a model and of the unigram baseline.

    `heldout` is running text (n_pieces,); `counts` (vocabulary,) are the pieces' counts in D_LM, whose frequencies the baseline
    predicts everywhere. 15 % of the pieces in rows of 64 are masked, the same ones for every model.
    """
    model.eval()
    device = next(model.parameters()).device
    rows = Rows(heldout, HELDOUT_ROW, HELDOUT_SEED, vocabulary)
    n_batches = max(1, min(HELDOUT_ROWS, rows.per_epoch) // 128)
    size = min(128, rows.per_epoch)
    smoothed = np.log((counts + 1) / (counts + 1).sum())
    loss = hits = unigram_loss = unigram_hits = n = 0.0
    for i in range(n_batches):
        inputs, positions, pieces = mask_rows(rows.batch(i, size), HELDOUT_MASK, vocabulary, stream(HELDOUT_SEED, MASKING, i))
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(torch.from_numpy(inputs).to(device), torch.from_numpy(positions).to(device)).float().cpu()
        target = torch.from_numpy(pieces)
        loss += mlm_loss(logits, target).item() * len(pieces)
        hits += (logits.argmax(-1) == target).sum().item()
        unigram_loss += -smoothed[pieces].sum()
        unigram_hits += (pieces == counts.argmax()).sum()
        n += len(pieces)
    return {
        "mlm_loss": loss / n,
        "mlm_accuracy": hits / n,
        "unigram_loss": float(unigram_loss / n),
        "unigram_accuracy": float(unigram_hits / n),
        "masked_pieces": int(n),
    }
