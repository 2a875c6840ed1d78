"""Cross-validation as steps: D_L without a fold trains a student and the linear model, and both are measured on that fold."""

from dataclasses import replace

from pdstudy.recipes import LINEAR, RECIPES
from pdstudy.study.plan import make
from pdstudy.study.settings import Study
from pdstudy.study.steps import Plan, Step

FOLDS = 10
UNCHANGED = ("start", "search", "tokenizer")  # parents that every fold shares: no label of D_L trains an encoder or word pieces


def can_be_validated(recipe: str) -> bool:
    """Return whether only the labels of D_L train a recipe: what a teacher knows of D_L it knows of every fold."""
    return recipe in RECIPES and RECIPES[recipe].stages == ("finetune",)


def cross_validation(study: Study, recipe: str, size: str) -> Plan:
    """Return the plan of a student's cross-validation: as its students the student, then the linear model, of each fold.

    The student has another seed in every fold, and the study's rate.
    """
    seeds = list(range(1, FOLDS + 1))  # seed 0 is that of the search
    whole = make(study, {(recipe, size): seeds})
    plan = replace(whole, steps=dict(whole.steps), students=[])
    (texts,) = whole.of_stage("texts")
    linear = next(s for s in whole.students if s.own and s.recipe == LINEAR)
    students = [s for s in whole.students if s.own and s.recipe == recipe]
    for fold, student in enumerate(sorted(students, key=lambda s: s.seed)):
        settings = {"fold": fold, "folds": FOLDS, "texts": study.splits.train}
        fold_texts = Step("fold", settings, {"texts": texts.digest}, f"fold {fold + 1} of D_L", room=texts.room)
        steps = {texts.digest: plan.add(fold_texts)}  # of all texts -> of the fold
        for model in (student, linear):
            trained, evaluated = (_over_fold(plan, digest, steps, fold) for digest in (model.model, model.evaluation))
            plan.students.append(replace(model, seed=fold, model=trained, evaluation=evaluated))
    return plan.only(plan.students)


def _over_fold(plan: Plan, digest: str, steps: dict[str, str], fold: int) -> str:
    """Return the step that does over the fold's texts what another one does over all of D_L; `steps` has those made so far."""
    if digest not in steps:
        step = plan.steps[digest]
        parents = {r: parent if r in UNCHANGED else _over_fold(plan, parent, steps, fold) for r, parent in step.parents.items()}
        settings = step.settings | ({"texts": 0} if "texts" in step.settings else {})  # 0: all that the fold leaves
        settings |= {"of": "labelled"} if step.stage == "ids" else {}
        steps[digest] = plan.add(replace(step, settings=settings, parents=parents, label=f"{step.label}, fold {fold + 1}"))
    return steps[digest]
