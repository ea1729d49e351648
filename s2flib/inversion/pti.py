"""Pivotal tuning: a code that is easy to edit, and a generator tuned until it shows the photo there.

Roich et al., "Pivotal Tuning for Latent-based Editing of Real Images" (2021), arXiv:2106.05744.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from s2flib.errors import S2FError
from s2flib.inversion.protocol import (
    Inversion,
    Method,
    Recorder,
    Watch,
    Weights,
    check_photos,
    recorded_steps,
    synthesise,
)
from s2flib.inversion.target import Target
from s2flib.stylegan2 import Generator


def tunable(generator: Generator) -> dict[str, Tensor]:
    """The synthesis network's parameters θ by name: all but the mapping network's, noise maps and filters."""
    return {k: p.detach() for k, p in generator.named_parameters() if not k.startswith("style.")}


def local_code(w_p: Tensor, w_z: Tensor, alpha: float) -> Tensor:
    """w_r = w_p + α (w_z − w_p) / ‖w_z − w_p‖₂, all (1, n_styles, D): at distance α from the pivot (Sec. 3.3).

    The norm is that of all rows together, as in the authors' code.
    """
    return w_p + alpha * (w_z - w_p) / (w_z - w_p).norm()


@dataclass
class PTI:
    """Tunes a copy of the generator for each photo, at the pivot w_p that another method finds.

    Pivotal tuning (Sec. 3.2): θ* = argmin L_pt, L_pt = L_LPIPS(x, x^p) + λ_L2 L_L2(x, x^p), x^p = G(w_p; θ*). Adam
    starts from θ; a photo is finished after ``steps`` updates, or as soon as L_LPIPS is at most ``threshold``.

    Locality regularisation (Sec. 3.3) adds λ_R L_R, L_R = L_LPIPS(x_r, x_r*) + λ_L2 L_L2(x_r, x_r*), where x_r and
    x_r* are the pictures of the original and of the tuned generator at w_r (:func:`local_code`), for one new w_z = f(z)
    in each update. It keeps other faces as they were. λ_R = 0, the default here, leaves it out and
    saves half of the time; the paper has λ_R = 0.1. (The authors' code truncates w_z with ψ = 0.5.)

    generator, perceptual, loss_size: as of :class:`s2flib.inversion.w_plus.WPlus`; the generator is never changed
    pivot:      the method that finds w_p; weights or noise maps of its own are kept and are where the tuning starts
    threshold:  of the perceptual distance; the default is for LPIPS (alex). 0: always all steps
    seed:       of the z; every photo gets the same ones, so its result does not depend on the other photos
    """

    generator: Generator
    perceptual: nn.Module
    loss_size: int
    pivot: Method
    steps: int = 350
    lr: float = 3e-4
    lambda_l2: float = 1.0
    threshold: float = 0.06
    lambda_r: float = 0.0
    alpha: float = 30.0
    seed: int = 0

    name = "pti"

    def __post_init__(self):
        if self.steps < 1 or self.lr <= 0:
            raise S2FError("pivotal tuning needs steps of 1 or more and a learning rate above 0.")

    @torch.inference_mode(False)
    @torch.enable_grad()
    def invert(self, photos: Tensor, watch: Watch | None = None) -> Inversion:
        """photos (B, 3, H, H) in [−1, 1] → the pivots, and each photo's tuned parameters as its weights.

        The trace begins with the pivot's; its last step is the tuning's step 0.
        """
        photos = check_photos(photos).to(self.generator.input.input.device)
        recorder = Recorder(photos, self.loss_size, watch)
        pivot = self.pivot.invert(photos, watch)
        recorder.steps += pivot.trace
        given: tuple[Weights, ...] = pivot.weights or ({},) * len(photos)
        tunings = [_Tuning(self, photos[i : i + 1], pivot.w_plus[i : i + 1], own) for i, own in enumerate(given)]
        first, wanted = pivot.trace[-1].step, recorded_steps(self.steps)
        for step in range(self.steps + 1):
            done = all([tuning.advance(step < self.steps) for tuning in tunings])  # all photos, not up to the first
            if step and (done or step in wanted):
                recorder.record(first + step, torch.cat([tuning.picture for tuning in tunings]))
            if done:
                break
        weights = tuple({k: v.detach() for k, v in tuning.weights.items()} for tuning in tunings)
        final = torch.cat([tuning.picture for tuning in tunings])
        return recorder.finish(self.generator, pivot.w_plus, final, weights)


class _Tuning:
    """One photo's generator: ``advance`` makes its picture x^p and then updates the weights."""

    picture: Tensor  # (1, 3, S, S)

    def __init__(self, method: PTI, photo: Tensor, w_p: Tensor, given: Mapping[str, Tensor]):
        self.method, self.w_p, self.original = method, w_p.detach().clone(), given
        self.size = min(method.loss_size, method.generator.size)
        self.target = Target(photo, method.perceptual, self.size)
        start = tunable(method.generator)
        self.theta = {k: given.get(k, v).detach().clone().requires_grad_() for k, v in start.items()}
        self.weights: dict[str, Tensor] = {**given, **self.theta}
        self.optimiser = torch.optim.Adam(self.theta.values(), lr=method.lr)
        self.random = torch.Generator().manual_seed(method.seed)
        self.finished = False

    def advance(self, update: bool) -> bool:
        """The picture, then one update; → whether the photo is finished, because ``update`` is False or by the
        threshold. A finished photo stays as it is."""
        if self.finished:
            return True
        method = self.method
        x_p = synthesise(method.generator, self.w_p, [self.weights])
        self.picture = x_p.detach()
        l2, lpips = self.target.distances(x_p)
        self.finished = not update or bool(lpips.detach() <= method.threshold)
        if not self.finished:
            loss = lpips + method.lambda_l2 * l2  # L_pt
            if method.lambda_r:
                loss = loss + method.lambda_r * self.locality()
            gradients = torch.autograd.grad(loss.sum(), list(self.theta.values()))
            for parameter, gradient in zip(self.theta.values(), gradients, strict=True):
                parameter.grad = gradient
            self.optimiser.step()
        return self.finished

    def locality(self) -> Tensor:
        """L_R for a new w_z: (1,)."""
        generator = self.method.generator
        z = torch.randn(1, generator.style_dim, generator=self.random).to(self.w_p)
        with torch.no_grad():
            w_r = local_code(self.w_p, generator.expand(generator.mapping(z)), self.method.alpha)
            x_r = synthesise(generator, w_r, [self.original])
        l2, lpips = Target(x_r, self.method.perceptual, self.size).distances(synthesise(generator, w_r, [self.weights]))
        return lpips + self.method.lambda_l2 * l2
