"""One list of dependencies, nothing imported that is not on it, and nothing that opens a pickle or runs remote code."""

import ast
import importlib.metadata as metadata
import json
import platform
import re
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from pdstudy.storage import paths

PROJECT = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((paths.ROOT / "environment.yml").read_text())
REQUIRED = [Requirement(r) for r in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"])]
DECLARED = {canonicalize_name(r.name) for r in REQUIRED}
EVERYTHING = DECLARED | {canonicalize_name(Requirement(r).name) for rs in PROJECT["optional-dependencies"].values() for r in rs}
CHOSEN = ("torch", "transformers", "datasets", "jupyterlab", "papermill", "seaborn", "pandas", "pytest", "nbval")
SOURCES = sorted((paths.ROOT / "pdstudy").glob("*.py"))
OPENERS = {"yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "pickle.load", "pickle.loads", "eval", "exec"}
NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))


def code(path) -> str:
    """Return the Python of a module, or of a notebook's code cells."""
    if path.suffix == ".py":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(c["source"]) + "\n" for c in cells if c["cell_type"] == "code")


def imports(source: str) -> set[str]:
    """Return the top names that a source imports."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    return names | {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and n.module}


def calls(source: str) -> list[ast.Call]:
    return [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]


def keywords(call: ast.Call) -> dict[str, object]:
    return {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}


def forbidden(source: str) -> list[str]:
    """Return the calls of a source that could run somebody else's code."""
    unsafe = []
    for call in calls(source):
        name = ast.unparse(call.func)
        if name == "torch.load" and keywords(call).get("weights_only") is not True:
            unsafe.append(ast.unparse(call))
        if name in OPENERS:
            unsafe.append(ast.unparse(call))
        if keywords(call).get("trust_remote_code") or keywords(call).get("allow_pickle") or keywords(call).get("shell"):
            unsafe.append(ast.unparse(call))
    return unsafe


def test_environment_yml_only_wraps_pyproject():
    conda = [d for d in ENVIRONMENT["dependencies"] if isinstance(d, str)]
    [pip] = [d for d in ENVIRONMENT["dependencies"] if isinstance(d, dict)]
    assert [d.split("=")[0] for d in conda] == ["python", "pip"]
    assert pip == {"pip": ["-e .[test]"]}
    assert ENVIRONMENT["name"] == PROJECT["name"]


def test_the_environments_python_satisfies_pyproject_and_so_does_this_one():
    python = next(d for d in ENVIRONMENT["dependencies"] if isinstance(d, str) and d.startswith("python="))
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert python.split("=", 1)[1] in allowed
    assert platform.python_version() in allowed


@pytest.mark.parametrize("package", CHOSEN)
def test_a_package_the_project_is_built_on_is_declared(package):
    assert package in DECLARED


@pytest.mark.parametrize("requirement", [r for r in REQUIRED if r.name != "pdstudy"], ids=lambda r: r.name)
def test_the_installed_version_satisfies_the_declared_one(requirement):
    assert requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)


def test_the_constraints_pin_only_declared_packages_to_versions_that_are_allowed():
    lines = (paths.ROOT / "constraints-cpu.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    wanted = {canonicalize_name(r.name): r.specifier for r in REQUIRED}
    assert pins
    for pin in pins:
        [version] = pin.specifier
        assert wanted[canonicalize_name(pin.name)].contains(version.version)


@pytest.mark.parametrize("path", [*SOURCES, *NOTEBOOKS], ids=lambda p: p.name)
def test_everything_imported_is_declared(path):
    homes = metadata.packages_distributions()
    third = imports(code(path)) - set(sys.stdlib_module_names) - {"pdstudy"}
    undeclared = {name for name in third if not {canonicalize_name(d) for d in homes.get(name, [])} & EVERYTHING}
    assert not undeclared


def test_a_machine_without_a_gpu_carries_no_nvidia_package():
    import torch

    installed = {canonicalize_name(d.name) for d in metadata.distributions() if d.name}
    nvidia = {name for name in installed if name.startswith(("nvidia-", "cuda-")) or name == "triton"}
    assert not nvidia or torch.cuda.is_available()


@pytest.mark.parametrize("path", [*SOURCES, *NOTEBOOKS], ids=lambda p: p.name)
def test_no_call_opens_a_pickle_or_runs_foreign_code(path):
    assert forbidden(code(path)) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "M.from_pretrained(p, trust_remote_code=True)",
        "yaml.load(t, Loader=L)",
        "np.load(p, allow_pickle=True)",
        "run(c, shell=True)",
        "eval(t)",
    ],
)
def test_the_check_itself_sees_a_dangerous_call(source):
    assert forbidden(source) == [ast.unparse(ast.parse(source).body[0])]


def test_the_check_itself_lets_a_safe_call_pass():
    assert forbidden("torch.load(p, weights_only=True); yaml.safe_load(t); model.eval()") == []


def test_no_source_holds_a_path_of_the_machine_it_was_written_on():
    for path in (*SOURCES, *NOTEBOOKS):
        assert not re.search(r"/home/\w|/root/|/Users/\w|C:\\\\Users", path.read_text()), path.name
