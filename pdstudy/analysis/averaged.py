"""Students averaged with the linear model, from the saved logits of both: nothing more is trained.

A compact BERT and a linear model of words make different errors, so the mean of their probabilities is often better than either. The
weights are equal: there is nothing to tune.
"""

import numpy as np
import pandas as pd

from pdstudy.averaging import log_mean
from pdstudy.recipes import LINEAR, RECIPES, WITH_LINEAR

Answers = dict[str, pd.DataFrame]  # by digest: split, item, label, predicted, logits


def with_averages(models: pd.DataFrame, answers: Answers, split: str) -> tuple[pd.DataFrame, Answers]:
    """Return models and answers, and with them each student averaged with the linear model; unchanged without one.

    `models` has a row for each model: recipe, size, seed, n_params, value, digest. The new `value` is the accuracy on `split`.
    Without saved logits, as in older tables, nothing is added.
    """
    linear = models[models.recipe == LINEAR]
    if linear.empty or "logits" not in answers[linear.digest.iloc[0]]:
        return models, answers
    linear, rows, more = linear.iloc[0], [], {}
    for _, student in models[models.recipe.isin(RECIPES)].iterrows():
        digest = f"{student.digest}{WITH_LINEAR}"
        more[digest] = table = average(answers[student.digest], answers[linear.digest])
        chosen = table[table.split == split]
        changes = {"recipe": student.recipe + WITH_LINEAR, "n_params": student.n_params + linear.n_params, "digest": digest}
        rows.append(student.to_dict() | changes | {"value": float((chosen.label == chosen.predicted).mean())})
    return pd.concat([models, pd.DataFrame(rows, columns=models.columns)], ignore_index=True) if rows else models, answers | more


def average(student: pd.DataFrame, linear: pd.DataFrame) -> pd.DataFrame:
    """Return a student's answers with `predicted` and `logits` of its mean with the linear model; both have the same texts in order."""
    logits = log_mean([np.stack(table.logits.to_numpy()) for table in (student, linear)])
    return student.assign(predicted=logits.argmax(axis=1), logits=list(logits))
