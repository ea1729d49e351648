"""The base of every training: configuration, device and precision, updates, checkpoint state.

A training is a :class:`RunConfig` with further fields and a :class:`Trainer` with a ``train_step``; loop.py runs it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from s2flib.errors import S2FError
from s2flib.presets import get_preset
from s2flib.training.feed import seed_step

Stats = Mapping[str, "float | Tensor"]  # a step's losses; tensors need no detaching
PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The options of every training; each training adds its own options and defaults."""

    out: str  # folder for checkpoints, samples, logs and weights
    preset: str = "tiny"
    data: str | None = None  # a data set's folder; None: the preset's own
    steps: int | None  # total number of updates
    batch: int | None  # samples per step, over all processes
    lr: float | None
    seed: int = 0  # of weights, data order and augmentation
    mixed_precision: str = "auto"  # no, bf16, fp16; auto: bf16 or fp16 where the hardware supports it
    cpu: bool = False  # do not use the GPU
    resume: bool = False  # continue from the folder's checkpoint, if there is one
    max_time: float | None = None  # seconds after which to stop with a checkpoint
    save_every: float = 240.0  # seconds between checkpoints
    log_every: int = 50  # steps
    limit: int | None = None  # use only the first training samples

    def __post_init__(self):
        get_preset(self.preset)
        for name, low in (("steps", 1), ("batch", 1), ("seed", 0), ("log_every", 1), ("limit", 1)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and low <= value < 2**63):
                raise S2FError(f"{name} must be a whole number of {low} or more, not {value}.")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise S2FError(f"lr must be a number above 0, not {self.lr}.")
        if self.mixed_precision not in ("auto", *PRECISIONS):
            known = ", ".join(("auto", *PRECISIONS))
            raise S2FError(f"mixed_precision must be one of {known}, not {self.mixed_precision!r}.")


def make_accelerator(cpu: bool = False):
    """accelerate's Accelerator for devices and processes: the GPU if there is one, several processes if started by
    ``accelerate launch``. The :class:`Trainer` sets the precision."""
    from accelerate import Accelerator

    return Accelerator(mixed_precision="no", cpu=cpu)


def placed(module: nn.Module, device: torch.device) -> nn.Module:
    """The module on the device; on a GPU with its convolutions in channels_last, the layout of the activations."""
    module = module.to(device)
    return in_channels_last(module) if device.type == "cuda" else module


def in_channels_last(module: nn.Module) -> nn.Module:
    """Convolution weights in channels_last. ``module.to(memory_format=...)`` refuses weights of five axes."""
    for p in module.parameters():
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
    return module


def autocast_dtype(mixed_precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype to autocast to; None: float32 only.

    "auto" is bf16 where the hardware supports it (NVIDIA Ampere and later, CPUs with AMX or AVX-512 BF16), fp16 on
    older GPUs, otherwise float32.
    """
    if mixed_precision != "auto":
        return PRECISIONS[mixed_precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    return torch.bfloat16 if cpu_has_fast_bf16() else None


def cpu_has_fast_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; otherwise it is emulated and slower than float32."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in names)


def average_gradients(parameters: Iterable[nn.Parameter], accelerator) -> None:
    """Average the gradients over processes in one all-reduce (as StyleGAN2-ADA does; no-op for one process)."""
    if accelerator.num_processes == 1:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = accelerator.reduce(torch.cat([g.flatten() for g in grads]), reduction="mean")
    for g, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        g.copy_(part.view_as(g))


def average_buffers(module: nn.Module, accelerator) -> None:
    """Average floating-point buffers (batch-norm statistics) over processes."""
    if accelerator.num_processes > 1:
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(accelerator.reduce(buffer, reduction="mean"))


@torch.no_grad()
def update_average(average: nn.Module, now: nn.Module, batch: int, half_life: float, step: int) -> None:
    """Exponential moving average of the weights after update ``step`` (from 1) of ``batch`` samples; copies buffers.

    Parameters of ``now`` that are not trained are left alone: an average of equal numbers may turn −0 into 0, which
    changes a fingerprint.

    half_life: in samples, and at most a twentieth of those seen (StyleGAN2-ADA's ramp), so that the first weights are
    forgotten; 0: no average, the weights themselves.
    """
    span = min(half_life, 0.05 * step * batch)
    decay = 0.5 ** (batch / span) if span else 0.0
    pairs = [(a, p) for a, p in zip(average.parameters(), now.parameters(), strict=True) if p.requires_grad]
    if pairs:
        torch._foreach_lerp_([a for a, _ in pairs], [p for _, p in pairs], 1 - decay)
    if buffers := list(average.buffers()):
        torch._foreach_copy_(buffers, list(now.buffers()))


class Updates:
    """An optimiser with loss scaling in float16 (Micikevicius et al. 2018, arXiv:1710.03740), averaging of gradients
    over processes, and clipping.

    ``update(loss)`` is a complete update. With micro-batches: ``start()``, ``backward(loss)`` for each, ``finish()``.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, trainer: Trainer, clip: float | None = None):
        """clip: maximum norm of all gradients together; None: no clipping."""
        self.optimiser, self.acc, self.clip = optimiser, trainer.acc, clip
        self.scaler = torch.amp.GradScaler(trainer.device.type, enabled=trainer.dtype == torch.float16)

    @property
    def params(self) -> list[nn.Parameter]:
        return [p for group in self.optimiser.param_groups for p in group["params"]]

    def start(self, lr: float | None = None) -> None:
        """Clear the gradients. lr: this step's learning rate, times each group's "share" (default 1)."""
        for group in self.optimiser.param_groups if lr is not None else ():
            group["lr"] = lr * group.get("share", 1.0)
        self.optimiser.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def finish(self) -> None:
        average_gradients(self.params, self.acc)
        self.scaler.unscale_(self.optimiser)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.params, self.clip)
        self.scaler.step(self.optimiser)  # skipped if the scaled gradients overflowed
        self.scaler.update()

    def __call__(self, loss: Tensor, lr: float | None = None) -> None:
        self.start(lr)
        self.backward(loss)
        self.finish()

    def state_dict(self) -> dict:
        return {"optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.optimiser.load_state_dict(state["optimiser"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])


class Trainer:
    """Base class of every training. A subclass builds networks and :class:`Updates` and implements ``train_step``.

    The next step depends only on ``saved``, the step number and the configuration: a killed run that is resumed gives
    the same results.
    """

    kind: str  # written into checkpoints
    saved: tuple[str, ...]  # attributes in the checkpoint: objects with a state_dict, or tensors
    several_processes = True
    cfg: Any  # the training's own RunConfig

    def __init__(self, cfg: RunConfig, accelerator):
        if accelerator.num_processes > 1 and not self.several_processes:
            raise S2FError("this network trains on one process: start it without accelerate launch.")
        self.cfg, self.acc, self.device, self.done = cfg, accelerator, accelerator.device, 0
        self.dtype = autocast_dtype(cfg.mixed_precision, self.device)
        torch.manual_seed(cfg.seed)

    def autocast(self):
        """The precision of forward passes; weights, losses and updates remain float32."""
        enabled = self.dtype is not None
        return torch.autocast(self.device.type, self.dtype if enabled else torch.bfloat16, enabled=enabled)

    def step(self) -> Stats:
        """One update of everything; returns the losses."""
        seed_step(self.cfg.seed, self.done, self.acc.process_index)
        stats = self.train_step()
        self.done += 1
        return stats

    def train_step(self) -> Stats:
        raise NotImplementedError

    def validate(self) -> dict[str, float]:
        """Metrics on held-out samples, written to the log at each checkpoint."""
        return {}

    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8, written to samples/ at each checkpoint."""
        raise NotImplementedError

    def export(self, out: Path) -> None:
        """Write the final weights."""
        raise NotImplementedError

    def state(self) -> dict:
        """The contents of a checkpoint."""
        parts = {name: getattr(self, name) for name in self.saved}
        return {"step": self.done} | {k: v if isinstance(v, Tensor) else v.state_dict() for k, v in parts.items()}

    def load(self, state: dict) -> None:
        for name in self.saved:
            if isinstance(getattr(self, name), Tensor):
                setattr(self, name, state[name].to(self.device))
            else:
                getattr(self, name).load_state_dict(state[name])
        self.done = state["step"]
