"""F1 and Matthews' r are scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from pdstudy.models import evaluate


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_f1_and_matthews_r_are_those_of_scikit_learn(n_classes):
    random = np.random.default_rng(n_classes)
    for _ in range(60):  # few texts, so that classes are missing on either side
        labels = random.integers(0, random.integers(1, n_classes + 1), random.integers(1, 12)).astype(np.int8)
        logits = random.normal(size=(len(labels), n_classes))
        logits[:, 0] += 3 * random.integers(2)
        scores, predicted = evaluate.metrics(logits, labels), logits.argmax(1)
        average = "binary" if n_classes == 2 else "macro"
        assert scores["f1"] == pytest.approx(f1_score(labels, predicted, average=average, zero_division=0.0), abs=1e-12)
        assert scores["mcc"] == pytest.approx(matthews_corrcoef(labels, predicted), abs=1e-12)
