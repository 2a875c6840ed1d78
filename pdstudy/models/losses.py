"""The losses of the paper (Algorithm 1) and of the [CLS] head, as pure functions of tensors; all return a mean in nats."""

import torch.nn.functional as F
from torch import Tensor


def mlm_loss(logits: Tensor, pieces: Tensor) -> Tensor:
    """Mean cross-entropy of the masked pieces, a scalar.

    `logits` is (n_masked, vocabulary), of masked positions only; `pieces` is (n_masked,), their ids before masking.
    """
    return F.cross_entropy(logits.float(), pieces)  # bf16 sums drift over thousands of classes


def row_words_loss(logits: Tensor, rows: Tensor) -> Tensor:
    """Mean cross-entropy of the pieces of each row under one distribution per row, a scalar.

    `logits` is (batch, vocabulary), `rows` (batch, length); the order of the pieces does not matter.
    """
    return -logits.float().log_softmax(dim=-1).gather(1, rows).mean()


def hard_label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy against the labels of D_L, a scalar.

    `logits` is (batch, n_classes), `labels` (batch,) of class numbers.
    """
    return F.cross_entropy(logits.float(), labels)


def soft_label_loss(logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean soft cross-entropy of the student against the teacher (Algorithm 1, line 3), a scalar.

    Both are (batch, n_classes) logits. It is a cross-entropy, not a KL divergence: its minimum is the teacher's entropy. The
    loss is scaled by the square of the temperature, so that gradients keep their size (Hinton et al., 2015); the paper uses 1.
    """
    soft_labels = (teacher_logits.float() / temperature).softmax(dim=-1)
    log_student = (logits.float() / temperature).log_softmax(dim=-1)
    return -(soft_labels * log_student).sum(dim=-1).mean() * temperature**2


def logit_loss(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean squared distance of the student's logits from the teacher's (Ba and Caruana, 2014), a scalar.

    Both are (batch, n_classes) and are centred first: a constant added to all logits of a text changes no probability.
    """
    difference = logits.float() - teacher_logits.float()
    return (difference - difference.mean(dim=-1, keepdim=True)).square().mean()
