"""The one training loop. Pre-training, fine-tuning and distillation differ only in the batch and the loss."""

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

from pdstudy.models.muon import Muon

CLIP = 1.0  # gradient norm, BERT's
BETAS = (0.9, 0.98)


class Diverged(RuntimeError):
    """Raised when a loss is no longer a number; the message names the step and the rate."""


@dataclass(frozen=True)
class Schedule:
    """Steps, warm-up and linear decay to zero; rates are the optimisers' own."""

    steps: int
    warmup: float  # share of the steps
    rate: float
    weight_decay: float
    muon_rate: float | None = None  # for the layers' matrices; None leaves all to AdamW

    def factor(self, step: int) -> float:
        """Return the share of the peak rate at step 0 .. steps - 1."""
        rising = max(1, round(self.warmup * self.steps))
        return min((step + 1) / rising, (self.steps - step) / max(1, self.steps - rising + 1))


@dataclass
class Watch:
    """Who looks on while a stage trains: a log, a progress callback, checkpoints. None of it changes the result."""

    log: Callable[[dict[str, Any]], None] = lambda record: None
    progress: Callable[[float], None] = lambda share: None
    checkpoints: Any = None  # store.Checkpoints, or None for stages too short to be worth it
    stop: Callable[[], bool] = lambda: False  # asked between steps; True saves a checkpoint and raises Stopped
    log_every: int = 50
    save_every: float = 60.0  # seconds
    tracker: str | None = None  # any tracker that accelerate knows, such as "tensorboard"
    tracker_folder: Path | None = None
    label: str = ""


class Stopped(RuntimeError):
    """Raised at a safe point after a request to stop; the state is saved."""


class Loss(NamedTuple):
    """What a step's loss function returns."""

    value: Tensor  # a scalar, what is minimised
    pieces: int  # real pieces read, padding apart
    shown: Tensor | None = None  # what the curve shows, where that is a part of the value


@dataclass
class Fitted:
    """What a training run left behind beside the weights."""

    steps: int
    tokens: int  # real pieces, padding apart
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
    """Train `model` in place and return what happened.

    `batch(step)` returns the data of a step as a function of its number alone; its thread may be another (`batches`). Dropout is
    seeded by (seed, step). So a run that continues from a checkpoint ends with the same weights, bit for bit, as one that was
    never broken. Raises Diverged, Stopped.
    """
    watch = watch or Watch()
    accelerator = Accelerator(log_with=watch.tracker, project_dir=watch.tracker_folder)
    if watch.tracker:
        accelerator.init_trackers(watch.label.replace("/", "-").replace(" ", "_").replace("#", "n"))
    optimisers = [accelerator.prepare(o) for o in _optimisers(model, schedule, precision)]
    runner = accelerator.prepare(model)
    runner.train()
    first, state = 0, _Tally()
    if watch.checkpoints is not None:
        first = _restore(watch, model, optimisers, state, accelerator.is_main_process)
    begun = saved = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        steps = range(first, schedule.steps)
        for step, data in zip(steps, batches(batch, steps, accelerator.device), strict=True):
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = group["peak"] * schedule.factor(step)
            torch.manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1)[0]))  # torch reads 32 bits
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=precision == "bf16"):
                found = loss(runner, data)
            accelerator.backward(found.value)
            norm = clip(list(model.parameters()))
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            shown = found.value if found.shown is None else found.shown
            shown, pieces, stopping = _together(accelerator, shown.detach(), found.pieces, watch.stop())
            state.add(shown, pieces)
            last = step == schedule.steps - 1
            if last or (step + 1) % watch.log_every == 0:
                record = state.flush(step, schedule, float(norm), time.monotonic() - begun)
                if not math.isfinite(record["loss"]) or not math.isfinite(record["grad_norm"]):
                    raise Diverged(f"loss is {record['loss']} by step {step + 1} of {schedule.steps} at rate {schedule.rate:g}")
                watch.log(record)
                if watch.tracker:
                    accelerator.log({k: v for k, v in record.items() if k != "step"}, step=step + 1)
                watch.progress((step + 1) / schedule.steps)
            keeps = watch.checkpoints is not None and accelerator.is_main_process
            if keeps and not last and (stopping or time.monotonic() - saved > watch.save_every):
                state.seconds_before += time.monotonic() - begun
                begun = time.monotonic()
                watch.checkpoints.save(step + 1, lambda folder: _save(folder, model, optimisers, state))
                saved = time.monotonic()
            if stopping and not last:
                raise Stopped(f"stopped after step {step + 1} of {schedule.steps}")
    if watch.tracker:
        accelerator.end_training()
    seconds = state.seconds_before + time.monotonic() - begun
    tail = state.curve[-max(1, len(state.curve) // 10) :]
    return Fitted(schedule.steps, state.tokens, seconds, sum(r["loss"] for r in tail) / len(tail), state.curve)


def batches(batch: Callable[[int], Any], steps: range, device: torch.device, ahead: bool | None = None) -> Iterator[Any]:
    """Yield the data of each step on its device, made one step `ahead` by a thread of its own if the device is a GPU.

    A GPU fetches from pinned memory while it computes, and nobody waits for it. On a processor the thread would only
    take the training's own core (`python benchmarks/ways.py` says what a batch costs).
    """
    ahead = device.type == "cuda" if ahead is None else ahead
    if not ahead:
        yield from (send_to_device(batch(step), device) for step in steps)
        return

    def pinned(step: int) -> Any:
        data = batch(step)
        return [x.pin_memory() if torch.is_tensor(x) and device.type == "cuda" else x for x in data]

    with ThreadPoolExecutor(1, "batches") as thread:
        coming = [thread.submit(pinned, step) for step in steps[:1]]
        for step in steps:
            data = coming.pop().result()
            if step + 1 < steps.stop:
                coming.append(thread.submit(pinned, step + 1))
            yield send_to_device(data, device, non_blocking=True)


def clip(parameters: list[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients together, a scalar, after scaling them in place where it is above CLIP.

    As `torch.nn.utils.clip_grad_norm_`, bit for bit. That one multiplies whatever the norm is, for a GPU should not be asked; on a
    processor asking is free, and every multiplication is one more small call for each of the weights.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if norm.device.type != "cpu":
        torch.nn.utils.clip_grads_with_norm_(parameters, CLIP, norm)
    elif not (factor := float(CLIP / (norm + 1e-6))) >= 1:  # nor is no number
        torch._foreach_mul_(gradients, factor)
    return norm


def device() -> torch.device:
    """Return where a model answers: the device that `fit` would train it on."""
    return PartialState().device


def ranks() -> tuple[int, int]:
    """Return (rank, number of ranks) of this process: (0, 1) unless torchrun started several."""
    state = PartialState()
    return state.process_index, state.num_processes


def _together(accelerator: Accelerator, loss: Tensor, pieces: int, stopping: bool) -> tuple[Tensor, int, bool]:
    """Return the mean loss, all pieces, and whether any rank should stop, the same on every rank."""
    if accelerator.num_processes == 1:
        return loss, pieces, stopping
    told = torch.stack([loss.double(), *loss.new_tensor([pieces, stopping], dtype=torch.float64)])
    told = accelerator.reduce(told, "sum").tolist()
    return loss.new_tensor(told[0] / accelerator.num_processes), round(told[1]), told[2] > 0


def _optimisers(model: nn.Module, schedule: Schedule, precision: str) -> list[torch.optim.Optimizer]:
    """Return AdamW for everything, or Muon for the layers' matrices and AdamW for the rest."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if schedule.muon_rate and ".encoder.layer." in name and p.ndim == 2]
    taken = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": schedule.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},  # biases and norms, as in BERT
    ]
    optimisers = [torch.optim.AdamW([g for g in groups if g["params"]], lr=schedule.rate, betas=BETAS, fused=True)]
    if matrices:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        optimisers.append(Muon(matrices, schedule.muon_rate, schedule.weight_decay, dtype))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return optimisers


@dataclass
class _Tally:
    """Losses since the last log record, and the records so far."""

    losses: list[Tensor] = field(default_factory=list)
    tokens: int = 0
    seconds_before: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)

    def add(self, loss: Tensor, pieces: int) -> None:
        self.losses.append(loss)
        self.tokens += pieces

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


def _save(folder: Path, model: nn.Module, optimisers: list, state: _Tally) -> None:
    """Write weights, optimiser states and the tally; the data order and dropout are functions of the step."""
    weights = {f"model.{k}": v for k, v in model.state_dict().items()}
    for i, optimiser in enumerate(optimisers):
        for j, slots in optimiser.state_dict()["state"].items():
            weights |= {f"optimiser.{i}.{j}.{k}": v for k, v in slots.items()}
    losses = torch.stack(state.losses) if state.losses else torch.zeros(0)
    save_file({k: v.detach().cpu().clone() for k, v in (weights | {"losses": losses}).items()}, folder / "state.safetensors")
    tally = {"tokens": state.tokens, "seconds": state.seconds_before, "curve": state.curve}
    (folder / "tally.json").write_text(json.dumps(tally))


def _restore(watch: Watch, model: nn.Module, optimisers: list, state: _Tally, chooses: bool) -> int:
    """Put back the newest state that verifies; return the number of steps it had done, 0 for none. Rank 0 chooses it."""
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
        optimiser.load_state_dict(optimiser.state_dict() | {"state": slots})
    tally = json.loads((folder / "tally.json").read_text())
    state.tokens, state.seconds_before, state.curve = tally["tokens"], tally["seconds"], tally["curve"]
    state.losses = list(tensors["losses"])
    watch.log({"resumed": step})
    return step
