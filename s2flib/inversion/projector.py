"""StyleGAN2's own projector: one w for all layers, found together with the noise maps.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), arXiv:1912.04958, App. D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.errors import S2FError
from s2flib.inversion.protocol import Inversion, Recorder, Watch, check_photos, recorded_steps
from s2flib.inversion.target import Target
from s2flib.stylegan2 import Generator

SAMPLES = 10_000  # random codes for μ_w and σ_w
ALPHA = 1e5  # α, the weight of the noise regularisation


def learning_rate(t: float, highest: float) -> float:
    """λ at progress t in [0, 1]: up linearly in the first 5 %, down as a cosine in the last 25 %; highest: λ_max."""
    return highest * min(1.0, t / 0.05) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / 0.25)))


def noise_strength(t: float, sigma_w: float) -> float:
    """Standard deviation of the noise on w at progress t in [0, 1]: 0.05 σ_w times a square that is 0 from 0.75 on."""
    return 0.05 * sigma_w * max(0.0, 1 - t / 0.75) ** 2


def code_statistics(generator: Generator, seed: int) -> tuple[Tensor, float]:
    """μ_w (D,) = E_z f(z) and σ_w = √E_z ‖f(z) − μ_w‖²₂, one number for the whole vector."""
    w = generator.random_codes(SAMPLES, seed)
    mu_w = w.mean(0)
    return mu_w, float((w - mu_w).square().sum(1).mean().sqrt())


def noise_regularisation(maps: Sequence[Tensor]) -> Tensor:
    """Σ_{i,j} L_{i,j} of noise maps n_i (B, 1, r_i, r_i) → (B,): zero when neighbouring values are uncorrelated.

    L_{i,j} = (1/r² Σ_{x,y} n_{i,j}(x, y) n_{i,j}(x − 1, y))² + (1/r² Σ_{x,y} n_{i,j}(x, y) n_{i,j}(x, y − 1))², where
    maps wrap at the edges; n_{i,0} = n_i, and n_{i,j+1} averages 2×2 values of n_{i,j} and multiplies by 2, which keeps
    the variance of white noise, down to 8×8. (The authors' code leaves out the factor of 2.)
    """
    total = maps[0].new_zeros(len(maps[0]))
    for n in maps:
        while True:
            for axis in (2, 3):
                total = total + (n * n.roll(1, axis)).mean((1, 2, 3)).square()
            if n.shape[-1] <= 8:
                break
            n = 2 * F.avg_pool2d(n, 2)
    return total


@torch.no_grad()
def normalise(maps: Sequence[Tensor]) -> None:
    """In place: every map of every photo gets mean 0 and variance 1."""
    for n in maps:
        n -= n.mean((2, 3), keepdim=True)
        n *= n.square().mean((2, 3), keepdim=True).rsqrt()


@dataclass
class Projector:
    """Minimises L_image + α Σ L_{i,j} over w ∈ W and the noise maps n_i; L_image = LPIPS + λ_l2 · MSE.

    w starts from μ_w and the maps from N(0, I); after every update the maps are normalised. While t < 0.75 the loss is
    that of w plus noise. The result is the last step's, as published. Every photo gets the same random numbers, so its
    result depends on ``seed`` but, up to rounding, neither on the other photos nor on its place in the batch.

    generator, perceptual, loss_size: as of :class:`s2flib.inversion.w_plus.WPlus`; latent_avg is not used
    steps, lr: as published; lr is λ_max. Fewer steps shorten all ramps.
    lambda_l2: 0 as published, with VGG-16's LPIPS; ST-LPIPS hardly sees brightness and contrast: they drift without it
    """

    generator: Generator
    perceptual: nn.Module
    loss_size: int
    steps: int = 1000
    lr: float = 0.1
    lambda_l2: float = 0.0
    seed: int = 0

    name = "projector"

    def __post_init__(self):
        if self.steps < 1 or self.lr <= 0:
            raise S2FError("the projector needs steps of 1 or more and a learning rate above 0.")

    @torch.inference_mode(False)
    @torch.enable_grad()
    def invert(self, photos: Tensor, watch: Watch | None = None) -> Inversion:
        """photos (B, 3, H, H) in [−1, 1] → equal rows of w+, and each photo's noise maps as its weights."""
        generator = self.generator
        stored: list[Tensor] = [getattr(generator.noises, f"noise_{i}") for i in range(generator.n_styles - 1)]
        photos = check_photos(photos).to(stored[0].device)
        recorder = Recorder(photos, self.loss_size, watch)
        target = Target(photos, self.perceptual, min(self.loss_size, generator.size))
        mu_w, sigma_w = code_statistics(generator, self.seed)
        random = torch.Generator().manual_seed(self.seed)

        def same_for_all(*shape: int) -> Tensor:
            drawn = torch.randn(1, *shape, generator=random).to(photos.device)
            return drawn.expand(len(photos), *shape)

        w = mu_w.expand(len(photos), -1).clone().requires_grad_()
        maps = [same_for_all(*n.shape[1:]).clone().requires_grad_() for n in stored]
        optimiser = torch.optim.Adam([w, *maps])

        def pictures_of(w: Tensor) -> Tensor:
            return generator.synthesis(generator.expand(w), noise=maps)

        shown, wanted = torch.no_grad()(pictures_of), recorded_steps(self.steps)
        for step in range(self.steps):
            if step in wanted:
                recorder.record(step, shown(w))
            t = step / self.steps
            optimiser.param_groups[0]["lr"] = learning_rate(t, self.lr)
            noisy = w + noise_strength(t, sigma_w) * same_for_all(generator.style_dim)
            l2, lpips = target.distances(pictures_of(noisy))
            loss = lpips + self.lambda_l2 * l2 + ALPHA * noise_regularisation(maps)  # (B,)
            gradients = torch.autograd.grad(loss.sum(), [w, *maps])
            for leaf, gradient in zip([w, *maps], gradients, strict=True):
                leaf.grad = gradient
            optimiser.step()
            normalise(maps)
        pictures = shown(w)
        recorder.record(self.steps, pictures)
        found = [n.detach() for n in maps]
        weights = tuple({f"noises.noise_{i}": n[b : b + 1] for i, n in enumerate(found)} for b in range(len(photos)))
        return recorder.finish(generator, generator.expand(w).contiguous(), pictures, weights)
