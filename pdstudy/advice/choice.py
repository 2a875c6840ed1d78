"""The choice among a study's candidates: a student only if it is significantly better than the linear model."""

import pandas as pd

from pdstudy.advice.candidates import AdviceError, Candidates
from pdstudy.recipes import LINEAR, LINEARS, is_averaged, without_linear
from pdstudy.study.plan_folds import can_be_validated


def choose(candidates: Candidates) -> pd.Series:
    """Return the row to recommend. Raises AdviceError if none is within the limits.

    It is the choice on dev. If that is a linear model, it is the student that cross-validation shows to be better than the linear
    model, if there is one.
    """
    chosen, validation = _choose_on_dev(candidates), candidates.cross_validation
    if chosen.recipe in LINEARS and validation is not None:
        for _, row in candidates.table[candidates.table.fits].iterrows():
            if validation.supports(row) and not _is_better(candidates, chosen, row):
                return row
    return chosen


def open_on_dev(candidates: Candidates) -> list[pd.Series]:
    """Return the students that a cross-validation may decide for, the best on dev first: only D_L's labels train them.

    Empty if dev decides: a student is significantly better than the linear model, or all are significantly worse.
    """
    try:
        linear = _choose_on_dev(candidates)
    except AdviceError:
        return []
    if linear.recipe != LINEAR:
        return []
    table = candidates.table[candidates.table.fits & candidates.table.recipe.map(without_linear).map(can_be_validated)]
    rows = [row for _, row in table.sort_values("dev", ascending=False, kind="stable").iterrows()]
    effects = [candidates.difference(row, linear) for row in rows]
    return [row for row, effect in zip(rows, effects, strict=True) if not (effect.known and effect.high < 0)]


def _choose_on_dev(candidates: Candidates) -> pd.Series:
    """Return the best on dev within the limits, but a simpler model unless that one is significantly better.

    The linear model is simpler than any student; a student alone is simpler than one that is averaged with the linear model.
    """
    table = candidates.table
    fitting = table[table.fits]
    if fitting.empty:
        students = table[table.recipe != "teacher"]
        raise AdviceError(
            f"no student is within the limits: the fastest takes {students.p50_ms.min():.2f} ms, the smallest "
            f"{students.mb.min():.1f} MB; allow more, or add smaller sizes"
        )

    best = fitting.loc[fitting.dev.idxmax()]
    linear = fitting[fitting.recipe.isin(LINEARS)].sort_values("recipe")  # of equal ones the one without a teacher
    best_linear = None if linear.empty else linear.loc[linear.dev.idxmax()]
    if best_linear is not None and (best.recipe in LINEARS or not _is_better(candidates, best, best_linear)):
        return best_linear
    alone = fitting[~fitting.recipe.map(is_averaged) & ~fitting.recipe.isin(LINEARS)]
    if not alone.empty:
        best_alone = alone.loc[alone.dev.idxmax()]
        proven = best_linear is None or _is_better(candidates, best_alone, best_linear)
        if proven and not _is_better(candidates, best, best_alone):
            return best_alone
    return best


def _is_better(candidates: Candidates, one: pd.Series, other: pd.Series) -> bool:
    """Return whether `one` is significantly better on dev."""
    effect = candidates.difference(one, other)
    return effect.known and effect.low > 0


def best_student(candidates: Candidates) -> pd.Series:
    """Return the student that is best on dev within the limits, without the linear models. Raises AdviceError if there is none."""
    students = candidates.table[candidates.table.fits & ~candidates.table.recipe.isin(LINEARS)]
    if students.empty:
        raise AdviceError("no student is within the limits")
    return students.loc[students.dev.idxmax()]
