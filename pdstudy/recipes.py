"""The paper's four recipes and three ablations: how a student is initialised, and the stages that train it."""

from dataclasses import dataclass

RANDOM, PRETRAINED, EMBEDDINGS, TRUNCATED = "random", "pretrained", "embeddings", "truncated"


@dataclass(frozen=True)
class Recipe:
    """An initialisation, then distillation on D_T, fine-tuning on D_L, or both."""

    name: str
    start: str  # random, or the part taken from a pre-trained encoder
    stages: tuple[str, ...]  # "distill" on soft labels of D_T, "finetune" on labels of D_L
    meaning: str


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("Basic", RANDOM, ("finetune",), "trained on the labels alone"),
        Recipe("Distillation", RANDOM, ("distill",), "distilled from a random start"),
        Recipe("PF", PRETRAINED, ("finetune",), "pre-trained, then fine-tuned"),
        Recipe("PD", PRETRAINED, ("distill",), "pre-trained, then distilled"),
        Recipe("PD-F", PRETRAINED, ("distill", "finetune"), "pre-trained, distilled, fine-tuned"),
        Recipe("PD (embeddings)", EMBEDDINGS, ("distill",), "only the word embeddings pre-trained, then distilled"),
        Recipe("PD (truncated)", TRUNCATED, ("distill",), "bottom layers of a deeper pre-trained model, then distilled"),
    )
}
TEACHER = Recipe("teacher", PRETRAINED, ("finetune",), "the larger model that labels the transfer set")
LINEAR, LINEAR_TAUGHT = "Linear", "Linear, taught"  # TF-IDF and logistic regression, on D_L, and on D_T with soft labels as weights
LINEARS = (LINEAR, LINEAR_TAUGHT)
LINEAR_NAMES = {LINEAR: "linear", LINEAR_TAUGHT: "linear-taught"}  # by which `export` knows them
LINEAR_SIZE = "linear"  # in place of their size
WITH_LINEAR = " + linear"  # after a recipe: the student's probabilities averaged with those of the linear model


def is_averaged(recipe: str) -> bool:
    """Return whether a recipe is that of a student averaged with the linear model."""
    return recipe.endswith(WITH_LINEAR)


def without_linear(recipe: str) -> str:
    """Return the recipe of a student that is averaged with the linear model; another recipe unchanged."""
    return recipe.removesuffix(WITH_LINEAR)


def export_name(recipe: str, size: str, seed: int) -> str:
    """Return a model's name for `export`: "2/128-PF-s0", "2/128-PF+linear-s0" averaged with the linear model, or "linear"."""
    return LINEAR_NAMES.get(recipe) or f"{size}-{recipe.replace(WITH_LINEAR, '+linear')}-s{seed}"
