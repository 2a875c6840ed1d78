"""A module imports only from modules above it in ORDER; the two wings meet only on disk."""

import ast

import pytest

from pdstudy import paths

PACKAGE = paths.ROOT / "pdstudy"
GROUND = [
    "paths",
    "visible",
    "disk",
    "sizes",
    "recipes",
    "dialects",
    "tasks",
    "mirror",
    "textfiles",
    "repeats",
    "classes",
    "losses",
    "scripts",
    "sources",
    "elsewhere",
    "paramsfile",
    "fields",
    "own",
    "mistakes",
    "precision",
    "sections",
    "params",
    "hub",
    "store",
    "steps",
    "reading",
    "plan",
    "estimate",
    "upkeep",
]
GROUND += ["record", "results", "tables"]
# The training wing: torch, never pandas; scipy comes with scikit-learn and is at home in both.
TRAINING = [
    "rare", "corpora", "domain", "tokens", "wordpieces", "owncuts", "counts", "bert", "readout", "models", "modelfiles", "objectives", "muon", "train", "answers", "evaluate", "stages", "latency", "prepare", "work",
    "progress", "crew", "run", "cluster", "ranks",
]  # fmt: skip
# The reading wing: pandas, scipy, seaborn, never torch.
READING = [
    "stats",
    "paper",
    "evidence",
    "contrasts",
    "claims",
    "fidelity",
    "promise",
    "advise",
    "reasons",
    "soundness",
    "suspects",
    "summary",
    "plots",
    "drawn",
    "figures_students",
    "figures_texts",
    "figures",
    "explore",
    "panel",
]
# The top may import anything.
TOP = [
    "zoo", "noticed", "columns", "guess", "budget", "predict", "student", "card", "onnxfiles", "faithful", "export", "page", "notebooks", "report", "measured", "pages", "serve", "console",
    "commands_study", "commands_store", "commands_task", "commands_model", "commands_hub", "__main__",
]  # fmt: skip
ORDER = [*GROUND, *TRAINING, *READING, *TOP]
TRAINERS = {"torch", "transformers", "accelerate", "safetensors"}
READERS = {"pandas", "seaborn", "scipy", "matplotlib"}
FORBIDDEN = (
    dict.fromkeys(GROUND, TRAINERS | READERS) | dict.fromkeys(TRAINING, READERS - {"scipy"}) | dict.fromkeys(READING, TRAINERS)
)
MODULES = [m for m in ORDER if (PACKAGE / f"{m}.py").is_file()]


def imported(source: str) -> set[str]:
    """Return the full names that a source imports anywhere, inside functions too: `from a import b` is "a.b"."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the order"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(source: str) -> set[str]:
    """Return the modules of pdstudy that a source imports."""
    return {name.split(".")[1] for name in imported(source) if name.startswith("pdstudy.")}


def read(module: str) -> str:
    return (PACKAGE / f"{module}.py").read_text()


def test_imports_are_found_wherever_they_stand():
    assert own("from pdstudy import plan, store\ndef f():\n  import pdstudy.run\n  from pdstudy.work import execute") == {
        "plan", "store", "run", "work",
    }  # fmt: skip
    assert imported("import os.path as p\nfrom torch import nn") == {"os.path", "torch.nn"}


def test_every_module_has_its_place_in_the_order():
    assert {p.stem for p in PACKAGE.glob("*.py")} - {"__init__"} <= set(ORDER)
    assert not list(PACKAGE.glob("*/*.py")), "the package is flat"
    assert len(ORDER) == len(set(ORDER))
    assert {"paths", "params", "plan", "store", "tokens", "train", "stages", "work", "run"} <= set(MODULES)


@pytest.mark.parametrize("module", [m for m in MODULES if m not in TOP])
def test_a_module_imports_only_from_above(module):
    assert own(read(module)) <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", [m for m in MODULES if m in READING])
def test_the_reading_wing_imports_nothing_of_the_training_wing(module):
    assert not own(read(module)) & set(TRAINING)


@pytest.mark.parametrize("module", [m for m in MODULES if m in FORBIDDEN])
def test_a_wing_does_not_import_the_other_wings_libraries(module):
    assert not {name.split(".")[0] for name in imported(read(module))} & FORBIDDEN[module]


def test_the_package_itself_imports_nothing_when_it_is_imported():
    tree = ast.parse(read("__init__"))
    assert not [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
