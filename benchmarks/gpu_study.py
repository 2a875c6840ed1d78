"""Run a study on another machine that has a GPU but neither a network nor the texts, and bring back what its report needs.

Here the steps of text, the teacher's labels and the linear models are computed and packed. There the steps that train and
evaluate students run by the package's own scheduler, several workers on one GPU; those of the first seeds come first, so that
a deadline after them leaves these seeds complete. Back come answers, records and manifests without weights,
for a folder of outputs of its own: `report` needs no more, and `export` or the latency of a trained student would.
With --family the encoders of a family are pre-trained there too, and come back with the weights of the sizes that --weights names.

Run:  python benchmarks/gpu_study.py pack benchmarks/eight_sizes.yaml FOLDER --first 3    (here)
      python benchmarks/gpu_study.py train FOLDER --out OUT --deadline 480                (there; or --weights 2/128 4/256)
      PDSTUDY_OUTPUTS=OUTPUTS python benchmarks/gpu_study.py unpack benchmarks/eight_sizes.yaml OUT    (here; then report)
"""

import argparse
import json
import os
import shutil
import signal
import tarfile
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

from gpu_family import open_parts, pack_artifacts

from pdstudy.run.scheduler import run
from pdstudy.run.worker import Interrupted
from pdstudy.storage.store import MANIFEST, Store, seal
from pdstudy.study.steps import Plan, Step

TRAINING = ("pretrain", "finetune", "distill", "search")  # stages of students; their evaluations run there, too
PART = 15 << 20  # bytes of one file of the results


def steps_there(plan: Plan) -> dict[str, Step]:
    """Return the steps that train students, and their evaluations."""
    trained = {d for d, s in plan.steps.items() if s.stage in TRAINING}
    return {d: s for d, s in plan.steps.items() if d in trained or (s.stage == "evaluate" and s.parents["model"] in trained)}


def pack(params: Path, to: Path, first: int, family: Path | None) -> None:
    """Compute what is not trained there; write the list of steps and the artifacts that they read, compressed."""
    from pdstudy.sizes import Size
    from pdstudy.study.plan import make, pretraining
    from pdstudy.study.settings import Study

    study, store = Study.read(params), Store()
    plan, members = make(study), {}
    if family:
        relatives = Study.read(family)
        planned = pretraining(relatives, map(Size.parse, relatives.sizes))
        members = {s.digest: s for s in planned.of_stage("pretrain")}
        plan = Plan(study, planned.steps | plan.steps)
    there = steps_there(plan)
    needed_here = {p for s in there.values() for p in s.parents.values()} - there.keys()
    summary = run(Plan(study, {d: s for d, s in plan.steps.items() if d not in there}), store)
    assert not summary.failures, summary.failures
    early = steps_there(make(study.model_copy(update={"seeds": study.seeds[:first]}))) | members
    rows = [
        {"round": int(d not in early), "member": d in members} | asdict(replace(s, task=None, folder=None))
        for d, s in there.items()
    ]
    pack_artifacts(store, needed_here, to)
    (to / "parts" / "steps.json").write_text(json.dumps(rows))
    print(f"{len(early)} steps in the first round, {len(rows) - len(early)} in the second")


def train(folder: Path, root: Path, out: Path, seconds: float, workers: int, sizes: list[str]) -> None:
    """Compute the steps of one round after the other until the deadline; write the results, and the family's weights of `sizes`."""
    begun = time.time()
    timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.daemon = True  # it must not hold the process when all steps are done
    timer.start()
    rows = json.loads((folder / "parts" / "steps.json").read_text())
    for row, step in zip(rows, open_parts(folder / "parts", root, without=("round", "member")), strict=True):
        row["step"] = step
    store = Store(root, families=())
    wanted = {row["step"].digest for row in rows if row["member"] and row["step"].settings["size"] in sizes}
    print(f"unpacked in {time.time() - begun:.1f} s", flush=True)
    for last in (0, 1):
        steps = {row["step"].digest: row["step"] for row in rows if row["round"] <= last}
        try:
            summary = run(Plan(None, steps), store, workers, printer(begun), root / "logs")
        except Interrupted:
            print(f"stopped at {time.time() - begun:.1f} s", flush=True)
            break
        finally:
            collect(store, out, wanted)
        print(f"round {last}: {summary.computed} steps, {time.time() - begun:.1f} s", flush=True)
        for failure in summary.failures:
            print(failure.step.label, failure.reason, failure.trace[-1000:], flush=True)
    done = store.digests()
    missing = [row["step"].label for row in rows if row["step"].digest not in done]
    print(f"{len(rows) - len(missing)} of {len(rows)} steps are there; missing: {missing[:20]}", flush=True)


def printer(begun: float):
    """Return a listener that prints a line every 15 seconds."""
    last = [begun]

    def listen(progress) -> None:
        if time.time() - last[0] > 15:
            last[0] = time.time()
            print(f"{last[0] - begun:6.1f} s: {progress.done} of {progress.total} steps, {progress.share:.1%}", flush=True)

    return listen


def collect(store: Store, out: Path, wanted: set[str]) -> None:
    """Write evaluations whole, and of the other artifacts all but weights with a manifest of what is left, in files of 15 MiB.

    The artifacts in `wanted` are written whole, to files of their own.
    """
    begun, light = time.time(), store.root.parent / "light"
    shutil.rmtree(light, ignore_errors=True)
    for old in out.glob("part-*"):
        old.unlink()
    for stage in (*TRAINING, "evaluate"):
        for folder in sorted((store.root / stage).glob("[0-9a-f]*")):
            if folder.name in wanted:
                continue
            to = light / stage / folder.name
            shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors", MANIFEST))
            seal(to, {k: v for k, v in json.loads((folder / MANIFEST).read_text()).items() if k != "files"})
    archive = out / "results.tar.xz"
    with tarfile.open(archive, "w:xz", preset=1) as tar:
        tar.add(light, arcname=".")
    in_parts(archive, "part-light")
    with tarfile.open(archive := out / "weights.tar", "w") as tar:
        for folder in (f for digest in sorted(wanted) if (f := store.find(digest))):
            tar.add(folder, arcname=f"{folder.parent.name}/{folder.name}")
    in_parts(archive, "part-weights")
    print(
        f"{sum(f.stat().st_size for f in out.glob('part-*')) / 2**20:.1f} MiB of results, {time.time() - begun:.1f} s", flush=True
    )


def in_parts(archive: Path, name: str) -> None:
    """Cut a file into parts beside it."""
    data = archive.read_bytes()
    archive.unlink()
    for i in range(0, len(data), PART):
        (archive.parent / f"{name}-{i // PART:02d}").write_bytes(data[i : i + PART])


def unpack(params: Path, out: Path) -> None:
    """Put the results into the store of the outputs, and random weights into one model of each size: its latency is measured here."""
    from pdstudy.models.encoder import new_classifier
    from pdstudy.models.weights import load_config, save
    from pdstudy.study.plan import make
    from pdstudy.study.settings import Study

    store = Store()
    store.root.mkdir(parents=True, exist_ok=True)
    for name in ("part-light", "part-weights"):
        archive = store.root.parent / "results.tar"
        archive.write_bytes(b"".join(part.read_bytes() for part in sorted(out.glob(f"{name}-*"))))
        with tarfile.open(archive) as tar:
            tar.extractall(store.root, filter="data")
        archive.unlink()
    plan, here, sizes = make(Study.read(params)), store.digests(), set()
    for student in plan.students:
        step = plan.steps[student.model]
        if step.stage in TRAINING and student.model in here and student.size not in sizes:
            sizes.add(student.size)
            folder, record = store.open(student.model), store.manifest(student.model)
            config = load_config(folder)
            save(folder, config, new_classifier(config, 0).state(), "BertForSequenceClassification")
            (folder / MANIFEST).unlink()
            seal(folder, {k: v for k, v in record.items() if k != "files"} | {"weights": "random; for the latency only"})
    print(f"{len(here)} artifacts in the store, sizes {sorted(sizes)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("pack", "train", "unpack"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--first", type=int, default=3, help="seeds of the first round")
    parser.add_argument("--family", type=Path, help="parameters of a family to pre-train as well")
    parser.add_argument("--weights", nargs="*", default=[], metavar="SIZE", help="bring these of the family back with weights")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--root", type=Path, default=Path("/tmp/gpu-study/store"), help="the store there")
    parser.add_argument("--deadline", type=float, default=480, help="seconds")
    parser.add_argument("--workers", type=int, default=16)
    asked = parser.parse_args()
    if asked.command == "pack":
        pack(*asked.paths, asked.first, asked.family)
    elif asked.command == "unpack":
        unpack(*asked.paths)
    else:
        train(*asked.paths, asked.root, asked.out, asked.deadline, asked.workers, asked.weights)


if __name__ == "__main__":
    main()
