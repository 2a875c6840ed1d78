"""What of the smoke study the first question needs, for tests that run it again and again."""

FIRST_QUESTION = {
    "recipes": ["Basic", "Distillation", "PF", "PD"],
    "recipe_sizes": {},
    "curves": {},
    "domains": {},
    "compound": {},
}
