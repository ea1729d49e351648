"""What every inversion method takes and returns.

A method has a ``name`` and ``invert(photos, watch=None) → Inversion``. Photos are (B, 3, H, W) in [−1, 1], square,
framed like the generator's training data. Methods differ in what they search: codes (W or W+), noise maps, or weights
of the generator; :class:`Inversion` has a place for each, so that they are edited, measured and shown in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.errors import ImageError
from s2flib.stylegan2 import Generator

Weights = Mapping[str, Tensor]  # parameters or buffers of one photo's generator that replace the shared one's, by name


@dataclass(frozen=True)
class Step:
    """Where a method stood after ``seconds``; a point of :attr:`Inversion.trace`."""

    step: int  # updates or passes so far; 0: the method's starting point
    seconds: float  # since the start of ``invert``
    error: Tensor  # (B,) mean squared error of each reconstruction, at the losses' size
    reconstruction: Tensor  # (B, 3, S, S) on the CPU


@dataclass(frozen=True)
class Inversion:
    """The result for a batch of photos.

    w_plus:          (B, n_styles, D)
    reconstruction:  (B, 3, S, S), roughly in [−1, 1]; equals ``generate()``
    trace:           at least the starting point and the result, in order
    seconds:         wall time of the whole batch
    weights:         for each photo what its own generator has instead of the shared weights or noise maps; None: the
                     generator is unchanged
    """

    generator: Generator
    w_plus: Tensor
    reconstruction: Tensor
    trace: tuple[Step, ...]
    seconds: float
    weights: tuple[Weights, ...] | None = None

    @torch.no_grad()
    def generate(self, w_plus: Tensor | None = None) -> Tensor:
        """The pictures (B, 3, S, S) of other codes, such as w+ plus a direction, by each photo's own generator."""
        return synthesise(self.generator, self.w_plus if w_plus is None else w_plus, self.weights)


Watch = Callable[[Step], None]  # called at every point of the trace, while the method runs


class Method(Protocol):
    """An inversion method, ready to use."""

    name: str

    def invert(self, photos: Tensor, watch: Watch | None = None) -> Inversion: ...


class _Synthesis(nn.Module):
    """``generator.synthesis`` as a module's forward pass, which is what ``functional_call`` can replace tensors of."""

    def __init__(self, generator: Generator):
        super().__init__()
        self.generator = generator

    def forward(self, w_plus: Tensor) -> Tensor:
        return self.generator.synthesis(w_plus)


def synthesise(generator: Generator, w_plus: Tensor, weights: Sequence[Weights] | None = None) -> Tensor:
    """w+ (B, n_styles, D) → (B, 3, S, S); with ``weights``, each code by its own generator. Differentiable."""
    if weights is None:
        return generator.synthesis(w_plus)
    module = _Synthesis(generator)
    pictures = [
        torch.func.functional_call(module, {f"generator.{k}": v for k, v in own.items()}, (w_plus[i : i + 1],))
        for i, own in enumerate(weights)
    ]
    return torch.cat(pictures)


def pooled(photos: Tensor, size: int) -> Tensor:
    """Square pictures average-pooled to ``size``, if they are larger; smaller ones are unchanged."""
    return F.adaptive_avg_pool2d(photos, size) if photos.shape[-1] > size else photos


def check_photos(photos: Tensor) -> Tensor:
    """The photos as float; ImageError unless they are (B, 3, H, H), B ≥ 1, finite, and in [−1, 1] up to rounding."""
    if photos.ndim != 4 or photos.shape[1] != 3 or photos.shape[2] != photos.shape[3] or len(photos) == 0:
        raise ImageError(
            f"an inversion takes square photos (B, 3, H, H), not {tuple(photos.shape)}: convert them with "
            "s2flib.images.to_photo, a single one with [None]."
        )
    photos = photos.detach().float()
    if not (photos.abs() <= 1.01).all():
        raise ImageError("photos must have values from -1 to 1: convert them with s2flib.images.to_photo.")
    return photos


class Recorder:
    """Collects the trace: ``record(step, reconstruction)``; calls ``watch`` with every point.

    photos: (B, 3, H, H), the targets; size: the side at which errors are measured, in pixels.
    """

    def __init__(self, photos: Tensor, size: int, watch: Watch | None = None):
        self.start, self.watch, self.size = time.monotonic(), watch, size
        self.target = pooled(photos, size)
        self.steps: list[Step] = []

    def seconds(self) -> float:
        return time.monotonic() - self.start

    @torch.no_grad()
    def record(self, step: int, reconstruction: Tensor) -> None:
        seconds = self.seconds()
        now = pooled(reconstruction.detach(), self.target.shape[-1]).float()
        target = pooled(self.target, now.shape[-1])
        error = (now - target).square().mean((1, 2, 3)).cpu()
        self.steps.append(Step(step, seconds, error, reconstruction.detach().float().cpu()))
        if self.watch is not None:
            self.watch(self.steps[-1])

    def finish(
        self, generator: Generator, w_plus: Tensor, reconstruction: Tensor, weights: tuple[Weights, ...] | None = None
    ) -> Inversion:
        """The inversion, with the points recorded so far as its trace."""
        reconstruction = reconstruction.detach().float()
        return Inversion(generator, w_plus.detach(), reconstruction, tuple(self.steps), self.seconds(), weights)


def recorded_steps(steps: int, points: int = 8) -> set[int]:
    """Which of ``steps`` updates are recorded: 0, the last, and about ``points`` between them, denser at the start."""
    return {round(steps * (k / points) ** 2) for k in range(points + 1)}
