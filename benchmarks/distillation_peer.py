"""Distilling a grid of students from one teacher: ours against TextBrewer, torchdistill and Hugging Face Trainer.

Five sizes, several seeds, three epochs of the same texts, word pieces, batch, rate and schedule, from the same starts. The peers do
what their examples do: one student after the other on all cores, the teacher asked anew in every step. They are given dynamic
padding, which their examples do without. Ours asks the teacher once and trains two students side by side, one thread each; starting
its workers is inside the clock, as is labelling. Reading texts and evaluating are outside.

torchdistill wants torchvision, and PyPI's is built for torch's CUDA build: beside the CPU build it does not load, and that peer is left out.

Run:  pip install --no-deps textbrewer==0.2.1.post1 torchdistill==1.1.5 && pip install torchvision
      python benchmarks/distillation_peer.py            (hours on 2 quiet cores; --texts, --seeds and --rounds make it shorter)
Writes benchmarks/results/distillation_peer.json.
"""

import argparse
import itertools
import json
import logging
import multiprocessing
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import side_by_side
import torch
import torch.nn.functional as F

from pdstudy import machine, stages
from pdstudy.data import batches
from pdstudy.machine import best_precision
from pdstudy.models import encoder, inference
from pdstudy.models.optimisers import CLIP
from pdstudy.run import model_steps
from pdstudy.sizes import Size

OURS, ARMS = "ours", ("ours", "TextBrewer", "torchdistill", "Trainer")
BATCH, RATE, WARMUP, DECAY = 32, 3e-4, 0.1, 0.01


@dataclass(frozen=True)
class Grid:
    """The work: which students, of which teacher, on how many texts."""

    sizes: list[str]
    seeds: int
    epochs: int
    texts: int
    teacher: str

    @property
    def students(self) -> list[tuple[str, int]]:
        """Return (size, seed) of every student, the dearest first, as a run orders them."""
        sizes = sorted(self.sizes, key=lambda s: -Size.parse(s).flops_per_token(32))
        return [(size, seed) for size in sizes for seed in range(self.seeds)]

    @cached_property
    def inputs(self) -> model_steps.Inputs:
        """Return the opened texts of the quick study, as word pieces; they are made if need be."""
        return side_by_side.inputs_of("distill")

    @cached_property
    def transfer(self):
        """Return D_T's first texts."""
        return self.inputs.ids("transfer").head(self.texts)

    def model(self, size: str, seed: int) -> encoder.Classifier:
        """Return a student, or the teacher, at its start. The teacher's is wild, so that its answers differ from text to text."""
        parsed = Size.parse(size)
        std = 0.08 if size == self.teacher else 0.04 if parsed.hidden == 256 else 0.02
        return encoder.new_classifier(encoder.bert_config(parsed, self.inputs.vocabulary().size, std, dropout=0.1), seed)

    def steps(self) -> int:
        """Return the optimiser steps of one student."""
        return self.epochs * -(-self.texts // BATCH)

    def off(self, model: encoder.Classifier, soft: np.ndarray) -> float:
        """Return the mean soft cross-entropy of a student on D_T, less its floor, the teacher's entropy."""
        logits = inference.logits(model, self.transfer, self.inputs.vocabulary().pad, "fp32")
        share, log = (torch.from_numpy(x).float().log_softmax(-1) for x in (soft, logits))
        return float((share.exp() * (share - log)).sum(-1).mean())


def ours(grid: Grid) -> dict[tuple[str, int], encoder.Classifier]:
    """Label once, then train two students at a time, each in a process of one thread."""
    torch.set_num_threads(2)
    soft = stages.label(grid.model(grid.teacher, 99), grid.transfer, grid.inputs.vocabulary(), best_precision())
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        jobs = {student: pool.submit(one_of_ours, grid, *student, soft) for student in grid.students}
        states = {student: job.result() for student, job in jobs.items()}
    students = {}
    for (size, seed), state in states.items():
        students[size, seed] = grid.model(size, seed)
        students[size, seed].bert.load_state_dict(state)
    return students


def one_of_ours(grid: Grid, size: str, seed: int, soft: np.ndarray) -> dict:
    """Return the weights of one distilled student."""
    torch.set_num_threads(1)
    dev = grid.inputs.labelled("dev")
    settings = {"epochs": grid.epochs, "batch": BATCH, "rate": RATE, "warmup": WARMUP, "weight_decay": DECAY}
    settings |= {"seed": seed, "temperature": 1.0, "precision": best_precision()}
    model, first = grid.model(size, seed), batches.Labelled(dev.ids.head(1), dev.labels[:1])
    stages.distill(model, grid.transfer, soft, first, settings, grid.inputs.vocabulary())
    return model.state()


def rows(grid: Grid) -> list[dict]:
    """Return D_T as the peers' data loaders want it."""
    starts, flat = grid.transfer.starts, np.asarray(grid.transfer.flat).astype(np.int64)
    return [{"input_ids": torch.from_numpy(flat[a:b])} for a, b in itertools.pairwise(starts)]


def collate(items: list[dict]) -> dict:
    """Return a batch, padded to its longest text."""
    ids = torch.nn.utils.rnn.pad_sequence([item["input_ids"] for item in items], batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def theirs(model: encoder.Classifier):
    """Return transformers' own model with the same weights."""
    from transformers import BertForSequenceClassification

    theirs = BertForSequenceClassification(model.bert.config.for_transformers())
    theirs.load_state_dict(model.state(), strict=False)
    return theirs


def optimiser_of(model, steps: int):
    """Return AdamW and the schedule of `run_glue`."""
    from transformers import get_linear_schedule_with_warmup

    plain = ("bias", "LayerNorm.weight")
    groups = [
        {"params": [p for n, p in model.named_parameters() if not n.endswith(plain)], "weight_decay": DECAY},
        {"params": [p for n, p in model.named_parameters() if n.endswith(plain)], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=RATE)
    return optimiser, get_linear_schedule_with_warmup, {"num_warmup_steps": round(WARMUP * steps), "num_training_steps": steps}


def textbrewer(grid: Grid, model, teacher, items: list[dict]) -> None:
    """Distil as TextBrewer's README does: GeneralDistiller, soft cross-entropy of the logits."""
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    def adaptor(batch, outputs):
        return {"logits": (outputs.logits,)}

    loader = torch.utils.data.DataLoader(items, BATCH, shuffle=True, collate_fn=collate)
    optimiser, schedule, arguments = optimiser_of(model, grid.steps())
    with tempfile.TemporaryDirectory() as place:
        distiller = GeneralDistiller(
            TrainingConfig(output_dir=place, log_dir=None, device="cpu"),
            DistillationConfig(temperature=1, hard_label_weight=0, kd_loss_type="ce"),
            teacher, model, adaptor, adaptor,
        )  # fmt: skip
        with distiller:
            distiller.train(optimiser, loader, grid.epochs, schedule, arguments, max_grad_norm=CLIP, callback=None)


def torchdistill(grid: Grid, model, teacher, items: list[dict]) -> None:
    """Distil as torchdistill's text classification example does: a distillation box, KD loss."""
    from torchdistill.core.distillation import get_distillation_box
    from torchdistill.core.registry import register_forward_proc_func as register
    from torchdistill.datasets.registry import register_collate_func

    register(key="logits")(lambda model, batch, targets=None, supp_dict=None, **more: model(**batch).logits)
    register_collate_func(key="pad")(lambda items: (collate([item for item, *_ in items]), None, {}))
    loader = {"dataset_id": "D_T", "sampler": {"class_or_func": torch.utils.data.RandomSampler}, "collate_fn": "pad"}
    side = {"forward_proc": "logits", "sequential": []}
    term = {"key": "KDLoss", "kwargs": {"temperature": 1.0, "alpha": 0.0, "reduction": "batchmean"}}
    for who in ("student", "teacher"):
        term["kwargs"] |= {f"{who}_module_path": ".", f"{who}_module_io": "output"}
    warm, steps = round(WARMUP * grid.steps()), grid.steps()
    setting = {
        "num_epochs": grid.epochs, "train_data_loader": loader | {"kwargs": {"batch_size": BATCH}},
        "teacher": side | {"requires_grad": False}, "student": side | {"requires_grad": True},
        "optimizer": {"key": "AdamW", "kwargs": {"lr": RATE, "weight_decay": DECAY}, "max_grad_norm": CLIP},
        "scheduler": {
            "key": "LambdaLR", "scheduling_step": 1,
            "kwargs": {"lr_lambda": lambda i: min((i + 1) / max(1, warm), (steps - i) / max(1, steps - warm))},
        },
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": term, "weight": 1.0}}}},
    }  # fmt: skip
    labelled = [(item, 0) for item in items]
    box = get_distillation_box(teacher, model, {"D_T": labelled}, setting, torch.device("cpu"), None, False, 1.0)
    for epoch in range(box.num_epochs):
        box.pre_epoch_process(epoch=epoch)
        for batch, targets, more in box.train_data_loader:
            box.post_forward_process(box.forward_process(batch, targets, more))
        box.post_epoch_process()
    box.clean_modules()


def trainer(grid: Grid, model, teacher, items: list[dict]) -> None:
    """Distil with Hugging Face Trainer, the teacher in `compute_loss`."""
    from transformers import Trainer, TrainingArguments

    class Distiller(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **more):
            with torch.no_grad():
                soft = teacher(**inputs).logits.softmax(-1)
            outputs = model(**inputs)
            loss = -(soft * F.log_softmax(outputs.logits, -1)).sum(-1).mean()
            return (loss, outputs) if return_outputs else loss

    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            output_dir=place, per_device_train_batch_size=BATCH, num_train_epochs=grid.epochs, learning_rate=RATE,
            warmup_steps=WARMUP, weight_decay=DECAY, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
            remove_unused_columns=False,
        )  # fmt: skip
        Distiller(model=model, args=arguments, train_dataset=items, data_collator=collate).train()


PEERS = {"TextBrewer": textbrewer, "torchdistill": torchdistill, "Trainer": trainer}


def run(arm: str, grid: Grid) -> dict:
    """Return the seconds that an arm took for the grid, and how far its students are from the teacher, by size."""
    logging.disable(logging.WARNING)
    teacher = grid.model(grid.teacher, 99).eval()
    soft = inference.logits(teacher, grid.transfer, grid.inputs.vocabulary().pad, "fp32")
    if arm == OURS:
        begun = time.perf_counter()
        students = ours(grid)
        seconds = time.perf_counter() - begun
    else:
        torch.set_num_threads(2)
        items, master, students, seconds = rows(grid), theirs(teacher).eval(), {}, 0.0
        for size, seed in grid.students:
            torch.manual_seed(seed)
            students[size, seed] = grid.model(size, seed)
            model = theirs(students[size, seed])
            begun = time.perf_counter()
            PEERS[arm](grid, model, master, items)
            seconds += time.perf_counter() - begun
            students[size, seed].bert.load_state_dict(model.state_dict(), strict=False)
    off = {size: [round(grid.off(students[size, seed], soft), 4) for seed in range(grid.seeds)] for size in grid.sizes}
    return {"arm": arm, "seconds": round(seconds, 2), "steps": grid.steps(), "KL from the teacher": off}


def unloadable(arm: str) -> str | None:
    """Return why a peer cannot be imported here, such as a torchvision of another build than torch's; None where it can."""
    module = {"TextBrewer": "textbrewer", "torchdistill": "torchdistill.core.distillation"}.get(arm, "transformers")
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--sizes", nargs="+", default=["2/128", "4/128", "6/128", "2/256", "4/256"])
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--epochs", type=int, default=3)
    words.add_argument("--texts", type=int, default=2000)
    words.add_argument("--teacher", default="12/768")
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    asked = words.parse_args()
    grid = Grid(asked.sizes, asked.seeds, asked.epochs, asked.texts, asked.teacher)
    if asked.arm:
        print(json.dumps(run(asked.arm, grid)))
        return
    assert grid.texts == len(grid.transfer), f"D_T has {len(grid.transfer):,} texts"
    options = ["--sizes", *grid.sizes, "--seeds", str(grid.seeds), "--epochs", str(grid.epochs), "--texts", str(grid.texts)]
    lacking = {arm: why for arm in ARMS if (why := unloadable(arm))}
    for arm, why in lacking.items():
        print(f"{arm} is left out, it does not load: {why}", flush=True)
    arms = tuple(arm for arm in ARMS if arm not in lacking)
    runs = side_by_side.alternate(__file__, arms, [*options, "--teacher", grid.teacher], asked.rounds)
    side_by_side.agree(runs, OURS, lambda r: float(np.mean([v for of in r["KL from the teacher"].values() for v in of])), 0.05)
    record = {"command": "python benchmarks/distillation_peer.py", "grid": asdict(grid)}
    record |= {
        "runs": runs,
        "left out": lacking,
        "ratios": {"the grid": side_by_side.ratios(runs, OURS)},
        "commit": machine.commit(),
    }
    side_by_side.keep("distillation_peer", record | {"processor": machine.processor(), "precision of ours": best_precision()})


if __name__ == "__main__":
    main()
