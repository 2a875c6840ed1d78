"""The training loop. Pre-training, fine-tuning and distillation differ only in their batches and their loss."""

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, send_to_device
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pdstudy.data.batches import Batches
from pdstudy.models.muon import Muon
from pdstudy.models.optimisers import AdamW, Optimiser, clip

BETAS = (0.9, 0.98)


class Diverged(RuntimeError):
    """Raised when a loss or gradient norm is not finite; the message names the step and the rate."""


@dataclass(frozen=True)
class Schedule:
    """Steps, warm-up and linear decay to zero, and the peak rates."""

    steps: int
    warmup: float  # share of the steps
    rate: float
    weight_decay: float
    muon_rate: float | None = None  # of the layers' matrices; None: AdamW trains all weights

    def factor(self, step: int) -> float:
        """Return the fraction of the peak rate at a step from 0 to steps - 1."""
        rising = max(1, round(self.warmup * self.steps))
        return min((step + 1) / rising, (self.steps - step) / max(1, self.steps - rising + 1))


@dataclass
class Watch:
    """A stage's log, progress callback, checkpoints and stop check. None of them changes the result."""

    log: Callable[[dict[str, Any]], None] = lambda record: None
    progress: Callable[[float], None] = lambda share: None
    checkpoints: Any = None  # store.Checkpoints, or None for short stages
    stop: Callable[[], bool] = lambda: False  # called between steps; True saves a checkpoint and raises Stopped
    log_every: int = 50
    save_every: float = 60.0  # seconds
    tracker: str | None = None  # any tracker that accelerate knows, such as "tensorboard"
    tracker_folder: Path | None = None
    label: str = ""


class Stopped(RuntimeError):
    """Raised after a step when a stop was asked for; a checkpoint is saved."""


class Loss(NamedTuple):
    """The return value of a step's loss function."""

    value: Tensor  # a scalar, minimised
    pieces: int  # without padding
    logged: Tensor | None = None  # the loss in the log; None: `value`


@dataclass
class Fitted:
    """The record of a training run."""

    steps: int
    tokens: int  # pieces, without padding
    seconds: float
    final_loss: float  # mean over the last tenth of the steps
    curve: list[dict[str, float]] = field(default_factory=list)


def fit(
    model: nn.Module,
    batch: Callable[[int], Any],
    loss: Callable[[nn.Module, Any], Loss],
    schedule: Schedule,
    seed: int,
    precision: str,
    watch: Watch | None = None,
) -> Fitted:
    """Train `model` in place and return the record. Raises Diverged, Stopped.

    `batch(step)` returns the data of a step and depends on the step's number only; it may run in another thread (`batches`).
    Dropout is seeded by (seed, step). So a run continued from a checkpoint ends with the same weights, bit for bit, as an
    uninterrupted one.
    """
    watch = watch or Watch()
    accelerator = Accelerator(log_with=watch.tracker, project_dir=watch.tracker_folder)
    if watch.tracker:
        accelerator.init_trackers(watch.label.replace("/", "-").replace(" ", "_").replace("#", "n"))
    # accelerate prepares the model of several ranks only, because that imports torch's distributed tensors, a second for every worker
    # process. Its own backward and step are not used: they look for a package at every call, 0.3 ms a step.
    optimisers, parameters = _optimisers(model, schedule, precision), list(model.parameters())
    runner = model.to(accelerator.device) if accelerator.num_processes == 1 else accelerator.prepare(model)
    runner.train()
    first, state = 0, _Record()
    if watch.checkpoints is not None:
        first = _restore(watch, model, optimisers, state, accelerator.is_main_process)
    started = saved = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        steps = range(first, schedule.steps)
        for step, data in zip(steps, batches(batch, steps, accelerator.device), strict=True):
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = group["peak"] * schedule.factor(step)
            _seed(seed, step, accelerator.device)
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=precision == "bf16"):
                step_loss = loss(runner, data)
            step_loss.value.backward()
            norm = clip(parameters)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()
            logged = step_loss.value if step_loss.logged is None else step_loss.logged
            logged, pieces, stopping = _over_ranks(accelerator, logged.detach(), step_loss.pieces, watch.stop())
            state.losses.append(logged)
            state.tokens += pieces
            last = step == schedule.steps - 1
            if last or (step + 1) % watch.log_every == 0:
                record = state.flush(step, schedule, float(norm), time.monotonic() - started)
                if not math.isfinite(record["loss"]) or not math.isfinite(record["grad_norm"]):
                    raise Diverged(f"loss is {record['loss']} by step {step + 1} of {schedule.steps} at rate {schedule.rate:g}")
                watch.log(record)
                if watch.tracker:
                    accelerator.log({k: v for k, v in record.items() if k != "step"}, step=step + 1)
                watch.progress((step + 1) / schedule.steps)
            saves = watch.checkpoints is not None and accelerator.is_main_process
            if saves and not last and (stopping or time.monotonic() - saved > watch.save_every):
                state.seconds_before += time.monotonic() - started
                started = time.monotonic()
                watch.checkpoints.save(step + 1, lambda folder: _save(folder, model, optimisers, state))
                saved = time.monotonic()
            if stopping and not last:
                raise Stopped(f"stopped after step {step + 1} of {schedule.steps}")
    if watch.tracker:
        accelerator.end_training()
    seconds = state.seconds_before + time.monotonic() - started
    tail = state.curve[-max(1, len(state.curve) // 10) :]
    return Fitted(schedule.steps, state.tokens, seconds, sum(r["loss"] for r in tail) / len(tail), state.curve)


def _seed(seed: int, step: int, device: torch.device) -> None:
    """Seed dropout. `torch.manual_seed` formats the call stack for every kind of device that is absent, 0.2 ms a step."""
    number = int(np.random.SeedSequence((seed, step)).generate_state(1)[0])  # torch uses 32 bits
    if device.type == "cpu":
        torch.default_generator.manual_seed(number)
    else:
        torch.manual_seed(number)


def text_batch(batches: Batches) -> Callable[[int], list]:
    """Return the function that `fit` calls for a step's [ids, mask, segments, targets, number of pieces without padding]."""

    def batch(step: int) -> list:
        ids, mask, *others = batches.batch(step)
        n_pieces = ids.size if mask is None else int(mask.sum())  # counted on the CPU, because a GPU would have to wait
        return [*(None if a is None else torch.from_numpy(a) for a in (ids, mask, *others)), n_pieces]

    return batch


def batches(batch: Callable[[int], Any], steps: range, device: torch.device, ahead: bool | None = None) -> Iterator[Any]:
    """Yield the data of each step on the device. For a GPU a thread prepares them one step `ahead`.

    A GPU copies from pinned memory while it computes. On a CPU the thread would take the core that trains
    (`python benchmarks/ways.py` measures what a batch costs).
    """
    ahead = device.type == "cuda" if ahead is None else ahead
    if not ahead:
        yield from (send_to_device(batch(step), device) for step in steps)
        return

    def pinned(step: int) -> Any:
        data = batch(step)
        return [x.pin_memory() if torch.is_tensor(x) and device.type == "cuda" else x for x in data]

    with ThreadPoolExecutor(1, "batches") as thread:
        pending = [thread.submit(pinned, step) for step in steps[:1]]
        for step in steps:
            data = pending.pop().result()
            if step + 1 < steps.stop:
                pending.append(thread.submit(pinned, step + 1))
            yield send_to_device(data, device, non_blocking=True)


def device() -> torch.device:
    """Return the device that `fit` trains on."""
    return PartialState().device


def ranks() -> tuple[int, int]:
    """Return (rank, number of ranks) of this process: (0, 1) unless torchrun started several."""
    state = PartialState()
    return state.process_index, state.num_processes


def _over_ranks(accelerator: Accelerator, loss: Tensor, pieces: int, stopping: bool) -> tuple[Tensor, int, bool]:
    """Return the mean loss, the sum of pieces, and whether any rank should stop; every rank gets the same."""
    if accelerator.num_processes == 1:
        return loss, pieces, stopping
    values = torch.stack([loss.double(), *loss.new_tensor([pieces, stopping], dtype=torch.float64)])
    total, all_pieces, stops = accelerator.reduce(values, "sum").tolist()
    return loss.new_tensor(total / accelerator.num_processes), round(all_pieces), stops > 0


def _optimisers(model: nn.Module, schedule: Schedule, precision: str) -> list[Optimiser]:
    """Return AdamW for all weights, or Muon for the layers' matrices and AdamW for the rest."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if schedule.muon_rate and ".encoder.layer." in name and p.ndim == 2]
    ids = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in ids]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": schedule.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},  # biases and norms, as in BERT
    ]
    optimisers = [AdamW([g for g in groups if g["params"]], schedule.rate, BETAS)]
    if matrices:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        optimisers.append(Muon(matrices, schedule.muon_rate, schedule.weight_decay, dtype))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return optimisers


@dataclass
class _Record:
    """Losses since the last log record, and the records so far."""

    losses: list[Tensor] = field(default_factory=list)
    tokens: int = 0
    seconds_before: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)

    def flush(self, step: int, schedule: Schedule, norm: float, seconds: float) -> dict[str, float]:
        record = {
            "step": step + 1,
            "loss": float(torch.stack(self.losses).mean()),
            "rate": schedule.rate * schedule.factor(step),
            "grad_norm": norm,
            "tokens": self.tokens,
            "seconds": round(self.seconds_before + seconds, 3),
        }
        self.losses.clear()
        self.curve.append(record)
        return record


def _save(folder: Path, model: nn.Module, optimisers: list, state: _Record) -> None:
    """Write weights, optimiser states and the record; the order of the data and dropout depend on the step only."""
    weights = {f"model.{k}": v for k, v in model.state_dict().items()}
    for i, optimiser in enumerate(optimisers):
        for j, slots in optimiser.slots().items():
            weights |= {f"optimiser.{i}.{j}.{k}": v for k, v in slots.items()}
    losses = torch.stack(state.losses) if state.losses else torch.zeros(0)
    save_file({k: v.detach().cpu().clone() for k, v in (weights | {"losses": losses}).items()}, folder / "state.safetensors")
    totals = {"tokens": state.tokens, "seconds": state.seconds_before, "curve": state.curve}
    (folder / "tally.json").write_text(json.dumps(totals))


def _restore(watch: Watch, model: nn.Module, optimisers: list, state: _Record, chooses: bool) -> int:
    """Load the newest valid checkpoint; return its number of steps, 0 for none. Rank 0 `chooses` it."""
    newest = watch.checkpoints.newest(lambda text: watch.log({"warning": text})) if chooses else None
    (newest,) = broadcast_object_list([newest])
    if newest is None:
        return 0
    step, folder = newest
    tensors = load_file(folder / "state.safetensors")
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    for i, optimiser in enumerate(optimisers):
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(f"optimiser.{i}."):
                j, slot = name.split(".")[2:]
                slots.setdefault(int(j), {})[slot] = value
        optimiser.load(slots)
    totals = json.loads((folder / "tally.json").read_text())
    state.tokens, state.seconds_before, state.curve = totals["tokens"], totals["seconds"], totals["curve"]
    state.losses = list(tensors["losses"])
    watch.log({"resumed": step})
    return step
