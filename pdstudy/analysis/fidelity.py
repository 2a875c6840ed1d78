"""How similar the answers of students are to their teacher's, and how well calibrated they are, computed from saved logits."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import rel_entr, softmax

from pdstudy.storage import results

MEASURES = ["accuracy", "agreement", "divergence", "calibration_error"]
BINS = 10  # of confidence, for the calibration error


def agreement(student: np.ndarray, teacher: np.ndarray) -> float:
    """Return the share of texts with the same most probable class in two (n_texts, n_classes) arrays."""
    return float((student.argmax(axis=1) == teacher.argmax(axis=1)).mean())


def divergence(student: np.ndarray, teacher: np.ndarray) -> float:
    """Return the mean Kullback-Leibler divergence KL(teacher || student) of probabilities (n_texts, n_classes), in nats."""
    return float(rel_entr(np.clip(teacher, 1e-12, 1), np.clip(student, 1e-12, 1)).sum(axis=1).mean())


def calibration_error(p: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy in ten bins of confidence."""
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(sum(abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)))


def table(study: str | Path) -> pd.DataFrame:
    """Return one row per student: recipe, size, seed, accuracy, agreement, divergence, calibration_error, all on test.

    Agreement and divergence are nan if the study has no answers of a teacher.
    """
    predictions = results.load_predictions(study)
    test = predictions[predictions.split == "test"]
    answers = {
        d: (softmax(np.stack(rows.logits.to_numpy()), axis=1), rows.label.to_numpy())
        for d, rows in test.groupby("digest", observed=True)
    }
    models = results.load_results(study)
    models = results.accuracies(models[~models.recipe.isin(["start", "majority"])])
    teachers = models[models.recipe == "teacher"].digest
    teacher, rows = answers[teachers.iloc[0]][0] if len(teachers) else None, []
    for model in models.itertuples():
        p, labels = answers[model.digest]
        similar = (agreement(p, teacher), divergence(p, teacher)) if teacher is not None else (np.nan, np.nan)
        rows.append((model.recipe, model.size, int(model.seed), model.value, *similar, calibration_error(p, labels)))
    return pd.DataFrame(rows, columns=["recipe", "size", "seed", *MEASURES])


def display_table(students: pd.DataFrame) -> pd.DataFrame:
    """Return the means over seeds as a table for readers, one row per recipe and size."""
    means = students.groupby(["recipe", "size"], sort=False)[MEASURES].mean()
    columns = {
        "accuracy, %": (means.accuracy * 100).map("{:.1f}".format),
        "agrees with the teacher, %": (means.agreement * 100).map("{:.1f}".format),
        "divergence from it, nats": means.divergence.map("{:.3f}".format),
        "calibration error, points": (means.calibration_error * 100).map("{:.1f}".format),
    }
    return pd.DataFrame(columns).rename_axis([None, None])
