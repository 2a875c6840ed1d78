"""A small world for fault tests: a task of a few hundred texts, a study of some seconds, and runs of it in real processes."""

import csv
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pdstudy.storage import paths, results

SITE = Path(__file__).parent / "site" / "sitecustomize.py"
TABLES = (results.METRICS, results.PREDICTIONS, results.SEARCHES)
STUDY = {
    "name": "small",
    "task": "small",
    "sizes": ["1/64"],
    "recipes": ["Basic", "PD"],
    "seeds": [0, 1],
    "splits": {"train": 0, "dev": 40, "test": 60},
    "corpus": {"documents": None, "heldout": 0.1},
    "tokenizer": {"vocabulary": 200, "folder": None},
    "max_length": 24,
    "init_std": {"64": 0.06},
    "pretrain": {"tokens": 8000, "row": 16, "batch": 16, "mask": 0.3},
    "teacher": {"size": "1/64", "folder": None, "margin": -1},
    "transfer": {"texts": 80},
    "finetune": {"epochs": 1, "batch": 16, "rates": [0.001]},
    "distill": {"epochs": 1, "batch": 16, "rates": [0.001]},
    "precision": "fp32",
}
WORDS = [
    a + b
    for a in ["ba", "de", "fi", "go", "lu", "ma", "ne", "po", "ri", "so", "tu", "va"]
    for b in ["ck", "ll", "mp", "nt", "rd", "st", "x", "z"]
]


def texts(snippets: int = 300, reviews: int = 120, add: list[str] | None = None) -> list[tuple[str, int, str]]:
    """Return rows of text, label and source, always the same ones; `add` goes into every snippet and review by turns."""
    rng, rows = random.Random(7), []
    for i in range(snippets + reviews):
        label = i % 2
        sentences = [
            " ".join([*rng.choices(WORDS[label * 30 : 66 + label * 30], k=7), f"{rng.randrange(10**6)}."])
            for _ in range(1 if i < snippets else 6)
        ]
        if add:
            sentences[-1] = f"{add[i % len(add)]} {sentences[-1]}"  # first, for a table shows the beginning of a text
        rows.append((" ".join(sentences), label, "rotten_tomatoes" if i < snippets else "imdb"))
    return rows


@dataclass(frozen=True)
class World:
    """A folder that Python finds first: the small task's package and what puts the task on the list."""

    environment: dict[str, str]

    @classmethod
    def make(cls, folder: Path, rows: list[tuple[str, int, str]], labels=("bad", "good"), task: str = "small") -> "World":
        """Return a world whose task has these texts and labels."""
        (folder / "small_texts").mkdir(parents=True)
        (folder / "small_texts-1.0.dist-info").mkdir()
        (folder / "small_texts-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: small-texts\nVersion: 1.0\n")
        shutil.copy(SITE, folder)
        file = folder / "small_texts" / "texts.csv"
        with file.open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([("text", "label", "source"), *rows])
        search = os.pathsep.join(filter(None, [str(folder), str(paths.ROOT), os.environ.get("PYTHONPATH")]))
        mine = {"PYTHONPATH": search, "PDSTUDY_SMALL_SHA256": hashlib.sha256(file.read_bytes()).hexdigest()}
        return cls(mine | {"PDSTUDY_SMALL_LABELS": "\n".join(labels), "PDSTUDY_SMALL_TASK": task})

    def start(self, *words, outputs: Path, cwd: Path | None = None, **more: str) -> subprocess.Popen:
        """Start `python -m pdstudy <words>` in a process group of its own, writing to `outputs`."""
        environment = os.environ | self.environment | {"PDSTUDY_OUTPUTS": str(outputs)} | more
        return subprocess.Popen(
            [sys.executable, "-m", "pdstudy", *map(str, words)],
            env=environment, cwd=cwd or outputs.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, *words, outputs: Path, timeout: float = 300, **more) -> subprocess.CompletedProcess:
        """Run `python -m pdstudy <words>` to its end."""
        process = self.start(*words, outputs=outputs, **more)
        try:
            streams = process.communicate(timeout=timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(words, process.returncode, *streams)


def written(folder: Path, **changes) -> Path:
    """Return a params file of the small study with changes."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "small.yaml"
    file.write_text(json.dumps(STUDY | changes))
    return file


def tables(outputs: Path, study: str = "small") -> dict[str, bytes]:
    """Return the bytes of a study's tables, seconds apart."""
    return {name: (outputs / study / name).read_bytes() for name in TABLES}


def artifacts(outputs: Path) -> list[Path]:
    """Return the artifacts in the store, as their manifests."""
    return sorted(outputs.glob("store/*/[0-9a-f]*/manifest.json"))


def wait_for(outputs: Path, count: int, process: subprocess.Popen, seconds: float = 200) -> None:
    """Wait until the store holds so many artifacts."""
    until = time.monotonic() + seconds
    while len(artifacts(outputs)) < count:
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """Return the workers that a run has started."""
    pids = [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
    return [c for c in pids if is_worker(c)]


def is_worker(pid: int) -> bool:
    """Return whether a process is a worker that lives."""
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for one that is dead and not yet buried
    except FileNotFoundError:
        return False
