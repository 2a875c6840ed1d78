"""What everybody waits for: starting, planning, a report from a full store.

python benchmarks/everyday.py [STUDY]        STUDY, "quick" by default, is computed already; writes benchmarks/results/everyday.json

- the package in a new Python, beside Python's own start; that it leaves torch unloaded is a test;
- a plan of 10,000 steps and more, in a new Python: a params file with ever more seeds;
- every report of the study, each step of which lies in the store: as a user types it, and the kernels' starts with it.
Each is done in a process of its own, five times (the reports once); median, least and most seconds are kept.
"""

import json
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pdstudy import Study, machine
from pdstudy.run import estimate
from pdstudy.storage.store import Store
from pdstudy.study import plan

OUT = Path(__file__).parent / "results" / "everyday.json"
TIMES = 5
IMPORT = "from pdstudy import Study, run_study, load_results"
PLANNED = """
import sys, time
from pdstudy import Study, plan
from pdstudy.study.yaml_file import load
from pdstudy.storage.paths import PARAMS
settings = load(PARAMS / "desk.yaml") | {"seeds": list(range(int(sys.argv[1])))}
begun = time.perf_counter()
made = plan.make(Study.checked(settings))
print(len(made.steps), time.perf_counter() - begun)
"""


def started(code: str, *words: str) -> tuple[float, str]:
    """Return the seconds of a Python that runs this code, its start and end with it, and what it printed."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return time.perf_counter() - begun, done.stdout


def spread(seconds: list[float]) -> dict[str, float]:
    """Return median, least and most."""
    return {"seconds": round(statistics.median(seconds), 3), "least": round(min(seconds), 3), "most": round(max(seconds), 3)}


def main() -> None:
    study = sys.argv[1] if len(sys.argv) > 1 else "quick"
    pairs = [(started("pass")[0], started(IMPORT)[0]) for _ in range(TIMES)]
    seconds_of = {
        IMPORT: spread([theirs - bare for bare, theirs in pairs]),
        "Python alone": spread([bare for bare, _ in pairs]),
    }
    plans = [started(PLANNED, "80")[1].split() for _ in range(TIMES)]
    seconds_of["plan"] = {"steps": int(plans[0][0])} | spread([float(seconds) for _, seconds in plans])
    made, here = plan.make(Study.read(study)), Store().digests()
    if rest := estimate.needed(made, {digest: step for digest, step in made.steps.items() if digest not in here}):
        sys.exit(f"{len(rest)} steps of {study} are to be computed first: python -m pdstudy run {study}")
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "pdstudy", "report", study], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    seconds_of["reports"] = {"study": study, "steps": len(made.steps), "seconds": round(time.perf_counter() - begun, 1)}
    for name, row in seconds_of.items():
        print(name, row, flush=True)
    versions = {name: version(name) for name in ("torch", "transformers", "papermill")}
    place = {"command": f"python benchmarks/everyday.py {study}", "commit": machine.commit(), "processor": machine.processor()}
    place |= {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "versions": versions}
    OUT.write_text(json.dumps(seconds_of | place, indent=1) + "\n")


if __name__ == "__main__":
    main()
