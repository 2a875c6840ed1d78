"""Pre-train a family on another machine: pack what it reads, train there, and put the artifacts into the store here.

The other machine needs torch, transformers, accelerate, pydantic and safetensors, no network and none of the texts: what
travels are word pieces, their counts and word vectors. What comes back are the store's own artifacts, each computed by the
step whose digest it carries, as `python -m pdstudy zoo` would have computed it.

Run:  PDSTUDY_DATA=MIRROR python benchmarks/gpu_family.py pack params/zoo-gpu.yaml FOLDER       (here: minutes of text, then xz)
      python benchmarks/gpu_family.py train FOLDER --out OUT --deadline 400                      (there: one process a size)
      python benchmarks/gpu_family.py search FOLDER --out OUT --tokens 3e7 --factors 1 2 4       (there: which rates, how fast)
      python benchmarks/gpu_family.py unpack OUT                                                 (here)
"""

import argparse
import json
import lzma
import multiprocessing
import queue
import shutil
import tarfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from pdstudy.storage.store import Store
from pdstudy.study.steps import Step

# Word pieces are numbers of two bytes: told so, xz makes them a quarter smaller than it would a text of letters.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 1, "pb": 1, "dict_size": 1 << 27}]
SPARE = 20  # seconds before the deadline at which unfinished sizes stop


def pack(params: Path, to: Path) -> None:
    """Compute the text steps and write them and the list of pre-training steps, compressed."""
    from pdstudy.run.scheduler import run
    from pdstudy.sizes import Size
    from pdstudy.study.plan import pretraining
    from pdstudy.study.settings import Study
    from pdstudy.study.steps import Plan

    study, store = Study.read(params), Store(families=())
    planned = pretraining(study, map(Size.parse, study.sizes))
    text = {digest: step for digest, step in planned.steps.items() if step.stage != "pretrain"}
    run(Plan(study, text), store, 1, lambda progress: None, to / "logs", None, None, None)
    (to / "parts").mkdir(parents=True, exist_ok=True)
    steps = [asdict(replace(step, task=None, folder=None)) for step in planned.of_stage("pretrain")]
    (to / "parts" / "steps.json").write_text(json.dumps(steps, indent=1))
    pack_artifacts(store, {parent for step in steps for parent in step["parents"].values()}, to)


def pack_artifacts(store: Store, digests: set[str], to: Path) -> None:
    """Write the files of artifacts, compressed, and print their size."""
    for digest in digests:
        folder = store.open(digest)
        for file in folder.iterdir():
            place = to / "parts" / folder.parent.name / digest / f"{file.name}.xz"
            if place.is_file():  # its folder is named by what it holds
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(lzma.compress(file.read_bytes(), filters=FILTERS))
    print(f"{to}: {sum(f.stat().st_size for f in (to / 'parts').rglob('*') if f.is_file()) / 2**20:.1f} MiB")


def open_parts(parts: Path, root: Path, without: tuple[str, ...] = ()) -> list[Step]:
    """Unpack the artifacts into a store, beside those of an earlier call, and return the steps; `without` these keys of the list."""
    for packed in parts.rglob("*.xz"):
        place = root / packed.relative_to(parts).with_suffix("")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(lzma.decompress(packed.read_bytes()))
    rows = json.loads((parts / "steps.json").read_text())
    return [Step(**{k: v for k, v in row.items() if k not in without}) for row in rows]


def work(step: Step, root: Path, deadline: float, results) -> None:
    """Execute one step; report its record, or how far it came by the deadline."""
    import torch

    from pdstudy.models.train import Stopped, Watch
    from pdstudy.run.execute import execute

    torch.set_num_threads(1)
    newest = {}
    watch = Watch(log=newest.update, log_every=200, save_every=float("inf"), stop=lambda: time.time() > deadline)
    try:
        folder = execute(step, Store(root, families=()), watch)
        results.put((step, json.loads((folder / "record.json").read_text()), str(folder)))
    except Stopped as error:
        results.put((step, {"stopped": str(error)} | newest, None))
    except Exception as error:  # one size must not cost the others
        results.put((step, {"failed": repr(error)[:2000]} | newest, None))


def compute(steps: list[Step], root: Path, deadline: float, out: Path, keep: bool) -> list[dict]:
    """Execute the steps side by side, one process each; write each artifact as a tar file when it is there."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    begun = time.time()
    out.mkdir(parents=True, exist_ok=True)
    workers = [context.Process(target=work, args=(step, root, deadline, results)) for step in steps]
    for worker in workers:
        worker.start()
    rows = []
    for _ in steps:
        try:
            step, record, folder = results.get(timeout=max(1.0, deadline + SPARE / 2 - time.time()))
        except queue.Empty:
            print("the deadline has passed; what is not there is lost", flush=True)
            break
        settings = {k: step.settings[k] for k in ("size", "rate", "muon_rate", "tokens", "batch", "long_row")}
        rows.append(settings | {"digest": step.digest, "wall": round(time.time() - begun, 1)} | record)
        print(json.dumps(rows[-1]), flush=True)
        (out / "rows.json").write_text(json.dumps(rows, indent=1))
        if keep and folder:
            size = step.settings["size"].replace("/", "-")
            with tarfile.open(out / f"{step.digest}-{size}.tar", "w") as tar:
                tar.add(folder, arcname=f"pretrain/{step.digest}")
    for worker in workers:
        worker.join(1)
        worker.kill()
    return rows


def unpack(out: Path) -> None:
    """Put the artifacts into the store, after verifying each manifest."""
    from pdstudy.storage.store import damage

    root = Store().root
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            tar.extractall(root, filter="data")
        digest = path.name.split("-")[0]
        print(path.name, damage(root / "pretrain" / digest, digest) or "verified")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("pack", "train", "search", "unpack"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sizes", nargs="*", help="the sizes that are trained. Default: all.")
    parser.add_argument("--tokens", type=float, help="pieces that each size reads. Default: the params file's.")
    parser.add_argument("--tokens-of", nargs="*", default=[], metavar="SIZE=PIECES")
    parser.add_argument("--factors", nargs="*", type=float, default=[1.0], help="of both rates; all are tried by `search`.")
    parser.add_argument("--factor-of", nargs="*", default=[], metavar="SIZE=FACTOR")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--deadline", type=float, default=480, help="seconds")
    asked = parser.parse_args()
    begun = time.time()
    if asked.command == "pack":
        pack(*asked.paths)
        return
    if asked.command == "unpack":
        unpack(*asked.paths)
        return
    root = Path("/tmp/family-store")
    shutil.rmtree(root / "pretrain", ignore_errors=True)
    steps = open_parts(asked.paths[0] / "parts", root)
    print(f"unpacked in {time.time() - begun:.1f} s", flush=True)
    tokens = dict(pair.split("=") for pair in asked.tokens_of)
    factors = dict(pair.split("=") for pair in asked.factor_of)
    chosen = []
    for step in steps:
        size = step.settings["size"]
        if asked.sizes and size not in asked.sizes:
            continue
        n = float(tokens.get(size, asked.tokens or step.settings["tokens"]))
        for factor in [float(factors[size])] if size in factors else asked.factors:
            rates = {key: float(f"{step.settings[key] * factor:.4g}") for key in ("rate", "muon_rate")}
            batch = {"batch": asked.batch} if asked.batch else {}
            chosen.append(replace(step, settings=step.settings | rates | batch | {"tokens": n}))
    compute(chosen, root, begun + asked.deadline - SPARE, asked.out, asked.command == "train")
    print(f"done in {time.time() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    main()
