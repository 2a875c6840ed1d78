"""Whether another seed of the better students can change the recommendation; if not, the time for it is better saved.

With another seed the mean of a student's seeds moves, by at most about `move` points at 95 %. The recommendation changes

- from the linear model to a student, if the student becomes significantly better on dev, which takes more points than the texts
  of dev alone leave open, however many seeds there are;
- from a student to another one, by an amount that matters if the other becomes more than MATTERS better;
- from a student to the linear model, if the student is no longer significantly better; not if cross-validation decided for it.
"""

import math

from pdstudy.advice.candidates import AdviceError, Candidates, in_words
from pdstudy.advice.choice import choose
from pdstudy.analysis.stats import POINTS, mean_interval
from pdstudy.recipes import LINEARS, without_linear

MATTERS = 0.5  # points on dev
# Points, the least standard deviation over seeds that is assumed: more than that of three quarters of the students of the
# published studies. Two or three seeds of a few students measure it badly.
SPREAD = 1.0
Z = 1.96  # of a 95 % interval


def why(candidates: Candidates, students: list[tuple[str, str]]) -> str:
    """Return why another seed of these (recipe, size) cannot change the recommendation; empty if it can."""
    try:
        chosen = choose(candidates)
    except AdviceError:
        return "no student is within the limits"
    table = candidates.table[candidates.table.fits]
    again = table[[student in students for student in zip(table.recipe.map(without_linear), table["size"], strict=True)]]
    if chosen.recipe in LINEARS:
        return _linear_stays(candidates, chosen, again)
    linear = table[table.recipe.isin(LINEARS)]
    by_folds = candidates.cross_validation is not None and candidates.cross_validation.supports(chosen)
    if not linear.empty and not by_folds:
        best = linear.loc[linear.dev.idxmax()]
        lead = candidates.difference(chosen, best).estimate
        if lead - move(candidates, chosen.seeds, 1) <= needed(candidates, chosen, best):
            return ""
    others = [row for _, row in again.iterrows() if (row.recipe, row["size"]) != (chosen.recipe, chosen["size"])]
    leads = [candidates.difference(row, chosen).estimate + move(candidates, min(row.seeds, chosen.seeds), 2) for row in others]
    if any(lead > MATTERS for lead in leads):
        return ""
    name = in_words(chosen)
    if not leads:
        return f"no other student is near {name} on dev"
    return f"with another seed no student can be more than {MATTERS} points above {name} on dev"


def _linear_stays(candidates: Candidates, linear, students) -> str:
    """Return why no student can become significantly better than the linear model; empty if one can."""
    reasons = []
    for _, row in students.iterrows():
        lead = candidates.difference(row, linear).estimate + move(candidates, row.seeds, 1)
        least = needed(candidates, row, linear)
        if lead > least:
            return ""
        reasons.append((lead - least, row, lead, least))
    if not reasons:
        return "no student is near the linear model on dev"
    _, row, lead, least = max(reasons, key=lambda reason: reason[0])
    return (
        f"another seed can bring {in_words(row)} to {lead:+.1f} points against the linear model on dev, and to be "
        f"significantly better it needs more than {least:+.1f}"
    )


def move(candidates: Candidates, n_seeds: int, n_moving: int) -> float:
    """Return by how many points a difference can change with one more seed of `n_moving` students that have `n_seeds` each.

    The means over n and n + 1 seeds of one student differ with a variance of spread^2 (1 / n - 1 / (n + 1)).
    """
    spread = max(SPREAD, candidates.spread() * POINTS)
    return Z * spread * math.sqrt(n_moving * (1 / n_seeds - 1 / (n_seeds + 1)))


def needed(candidates: Candidates, one, other) -> float:
    """Return the points on dev that are not significant because of the texts alone: half of the interval of the mean over seeds."""
    effect = mean_interval(candidates.differences(one, other).mean(axis=0))
    return (effect.high - effect.estimate) * POINTS if effect.known else 0.0
