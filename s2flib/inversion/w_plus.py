"""W+ optimisation: gradient descent on the code of each photo.

Abdal et al., "Image2StyleGAN: How to Embed Images Into the StyleGAN Latent Space?" (2019), arXiv:1904.03189, Alg. 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from s2flib.errors import S2FError
from s2flib.inversion.protocol import Inversion, Recorder, Watch, check_photos, recorded_steps
from s2flib.inversion.target import Target
from s2flib.stylegan2 import Generator


@torch.inference_mode(False)
@torch.enable_grad()
def optimise(
    decode: Callable[[Tensor], Tensor],  # w+ (B, n, D) → pictures (B, 3, S, S)
    start: Tensor,  # (B, n, D)
    loss: Callable[[Tensor], Tensor],  # pictures → (B,), each photo's own
    steps: int,
    lr: float,
    seen: Callable[[int, Tensor], None] = lambda step, pictures: None,  # called after 0, 1, …, steps updates
) -> tuple[Tensor, Tensor]:
    """Adam on every photo's own code: the codes (B, n, D) with the smallest loss of all steps, and their pictures.

    ``seen`` gets the best pictures so far. Losses are summed over the batch, so a photo's result does not depend on
    the other photos (up to rounding). Works in inference mode, too.
    """
    w = start.detach().float().clone().requires_grad_()
    optimiser = torch.optim.Adam([w], lr=lr)  # β₁ = 0.9, β₂ = 0.999, ε = 1e-8, as published
    best, best_w, best_pictures = torch.full((len(w),), torch.inf, device=w.device), w.detach().clone(), None
    for step in range(steps + 1):  # the last pass only evaluates the loss
        pictures = decode(w)
        now = loss(pictures)
        better = now.detach() < best
        best = torch.where(better, now.detach(), best)
        best_w = torch.where(better[:, None, None], w.detach(), best_w)
        kept = pictures.detach() if best_pictures is None else best_pictures
        best_pictures = torch.where(better[:, None, None, None], pictures.detach(), kept)
        seen(step, best_pictures)
        if step < steps:
            (w.grad,) = torch.autograd.grad(now.sum(), w)  # no gradients for the networks' parameters
            optimiser.step()
    assert best_pictures is not None
    return best_w, best_pictures


@dataclass
class WPlus:
    """Image2StyleGAN: w* = argmin_w  λ_lpips · L_percept(G(w), I) + λ_l2 · ‖G(w) − I‖²₂ / N  (its Eq. 1), from w̄.

    N is the number of values of a picture. The paper has VGG-16's features for L_percept, λ = 1 and 5,000 steps of
    0.01; here the perceptual judge and the weights are the preset's. Noise maps are the generator's.

    generator:   with w̄ in latent_avg, see weights.load.load_generator
    perceptual:  a perceptual judge
    loss_size:   side in pixels at which pictures are compared
    """

    generator: Generator
    perceptual: nn.Module
    loss_size: int
    lambda_l2: float
    lambda_lpips: float
    steps: int = 5000
    lr: float = 0.01

    name = "w-plus"

    def __post_init__(self):
        if self.steps < 1 or self.lr <= 0:
            raise S2FError("W+ optimisation needs steps of 1 or more and a learning rate above 0.")

    def invert(self, photos: Tensor, watch: Watch | None = None) -> Inversion:
        """photos (B, 3, H, H) in [−1, 1] → for each photo the best code of all steps. ImageError for other photos."""
        w_avg = self.generator.latent_avg
        photos = check_photos(photos).to(w_avg.device)
        recorder = Recorder(photos, self.loss_size, watch)
        target = Target(photos, self.perceptual, min(self.loss_size, self.generator.size))
        wanted = recorded_steps(self.steps)

        def loss(pictures: Tensor) -> Tensor:
            l2, lpips = target.distances(pictures)
            return self.lambda_l2 * l2 + self.lambda_lpips * lpips

        def seen(step: int, pictures: Tensor) -> None:
            if step in wanted:
                recorder.record(step, pictures)

        start = self.generator.expand(w_avg.expand(len(photos), -1))
        return recorder.finish(
            self.generator, *optimise(self.generator.synthesis, start, loss, self.steps, self.lr, seen)
        )
