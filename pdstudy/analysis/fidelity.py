"""How like its teacher a student answers: beside accuracy, for two students may be right on equally many texts and differ.

Agreement, divergence and calibration are read from the logits that every evaluation keeps.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pdstudy.storage import results

BINS = 10  # of confidence, for the calibration error


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of (n_texts, n_classes) logits."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def agreement(student: np.ndarray, teacher: np.ndarray) -> float:
    """Return the share of texts on which two (n_texts, n_classes) arrays name the same class."""
    return float((student.argmax(axis=1) == teacher.argmax(axis=1)).mean())


def divergence(student: np.ndarray, teacher: np.ndarray) -> float:
    """Return the mean Kullback-Leibler divergence of the teacher's distribution from the student's, in nats; probabilities in."""
    p, q = np.clip(teacher, 1e-12, 1), np.clip(student, 1e-12, 1)
    return float((p * np.log(p / q)).sum(axis=1).mean())


def calibration_error(p: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error: how far confidence and accuracy lie apart, over ten bins of confidence."""
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(sum(abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)))


def table(study: str | Path) -> pd.DataFrame:
    """Return one row a student of the study's own: recipe, size, seed, accuracy, agreement, divergence, calibration error, on test.

    Agreement and divergence are nan where the study holds no teacher's answers.
    """
    predictions = results.load_predictions(study)
    test = predictions[predictions.split == "test"]
    answers = {
        d: (probabilities(np.stack(rows.logits.to_numpy())), rows.label.to_numpy())
        for d, rows in test.groupby("digest", observed=True)
    }
    models = results.load_results(study)
    models = models[(models.split == "test") & (models.metric == "accuracy") & ~models.recipe.isin(["start", "majority"])]
    teachers = models[models.recipe == "teacher"].digest
    teacher = answers[teachers.iloc[0]][0] if len(teachers) else None
    rows = []
    for model in models.itertuples():
        p, labels = answers[model.digest]
        known = teacher is not None
        rows.append(
            {
                "recipe": model.recipe, "size": model.size, "seed": int(model.seed), "accuracy": model.value,
                "agreement": agreement(p, teacher) if known else np.nan,
                "divergence": divergence(p, teacher) if known else np.nan,
                "calibration_error": calibration_error(p, labels),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """Return the means over seeds as people read them, one row a recipe and size."""
    means = found.groupby(["recipe", "size"], sort=False)[["accuracy", "agreement", "divergence", "calibration_error"]].mean()
    columns = {
        "accuracy, %": (means.accuracy * 100).map("{:.1f}".format),
        "agrees with the teacher, %": (means.agreement * 100).map("{:.1f}".format),
        "divergence from it, nats": means.divergence.map("{:.3f}".format),
        "calibration error, points": (means.calibration_error * 100).map("{:.1f}".format),
    }
    return pd.DataFrame(columns).rename_axis([None, None])
