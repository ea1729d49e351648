"""The networks that are trained together as a neural renderer (neural_renderer.py), and their critic."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.psp import GradualStyleEncoder
from s2flib.stylegan2 import Discriminator, Generator, channels


class CauseEncoder(nn.Module):
    """Causes (B, C) → w (B, style_dim): standardised, then three layers. It is needed in training only.

    A code has mean 0 and variance 1 over its entries. Synthesis hardly depends on the size of w (its convolutions are
    normalised), so without this w would grow by orders of magnitude.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_causes: int, style_dim: int, width: int = 512):
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_causes))
        self.register_buffer("std", torch.ones(n_causes))
        self.layers = nn.Sequential(
            nn.Linear(n_causes, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2),
            nn.Linear(width, style_dim),
        )  # fmt: skip
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, a=0.2)

    def fit(self, samples: np.ndarray) -> None:
        """Set mean and standard deviation from samples (N, C)."""
        self.mean.copy_(torch.from_numpy(samples.mean(0)))
        self.std.copy_(torch.from_numpy(samples.std(0)) + 1e-3)

    def standardise(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / self.std).clamp(-4, 4)

    def forward(self, x: Tensor) -> Tensor:
        w = self.layers(self.standardise(x))
        return F.layer_norm(w, w.shape[1:])


class CauseCritic(nn.Module):
    """StyleGAN2's discriminator, told the causes by projection (Miyato and Koyama 2018, arXiv:1802.05637).

    Pictures (B, 3, S, S) and standardised causes (B, C) → logits (B, 1): D(x) + ⟨h(x), Vc⟩ with D's last features h.
    """

    def __init__(self, preset, size: int, n_causes: int):
        super().__init__()
        self.discriminator = Discriminator.from_preset(preset, size)
        self.width = channels(4, preset.critic_base, preset.channel_max)
        self.project = nn.Linear(n_causes, self.width)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        d = self.discriminator
        features = d.final_conv(d.minibatch_stddev(d.convs(x.contiguous(memory_format=torch.channels_last))))
        h = d.final_linear[0](features.flatten(1))
        return d.final_linear[1](h) + (h * self.project(known)).sum(1, keepdim=True) / self.width


class RendererNetworks(nn.Module):
    """Everything that is trained, in one state dict."""

    def __init__(self, preset, n_causes: int, size: int):
        super().__init__()
        self.causes = CauseEncoder(n_causes, preset.style_dim)
        self.generator = Generator.from_preset(preset, size)
        # weights stay in the default memory format: in channels_last, oneDNN (torch 2.14) wrote out of bounds in the
        # backward pass of narrow convolutions
        self.encoder = GradualStyleEncoder.from_preset(preset)
        # No image below the feature map's resolution: G(w) is then the same as G(w, features=coarse_features(w)).
        to_rgbs = [self.generator.to_rgb1, *self.generator.to_rgbs]
        coarse = int(math.log2(preset.feature_side)) - 2
        for to_rgb in to_rgbs[:coarse]:
            to_rgb.conv.weight.data.zero_()
            to_rgb.requires_grad_(False)
        # stages below it see their features through a layer of their own: 8, 16, …
        widths = [channels(4 * 2**i, preset.channel_base, preset.channel_max) for i in range(1, coarse)]
        self.previews = nn.ModuleList(nn.Conv2d(width, 3, 1) for width in widths)

    def preview(self, w_plus: Tensor, noise: str | None = "const") -> Tensor:
        """The picture of a stage below the feature map's resolution, from codes w+."""
        size = self.generator.size
        return self.previews[int(math.log2(size)) - 3](self.generator.coarse_features(w_plus, size, noise))

    def encode(self, sketches: Tensor, w_avg: Tensor) -> tuple[Tensor, Tensor]:
        """Sketches (B, 1, H, W) → w+ (B, n_styles, D) and features (B, C, s, s)."""
        offsets, features = self.encoder.codes_and_features(sketches)
        assert features is not None
        return offsets[:, : self.generator.n_styles] + w_avg, features
