"""How unusual an input is for an encoder, measured in the encoder's own features."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class InputDistance(nn.Module):
    """How far a sketch is from those that the encoder was trained on, by the encoder's own features.

    The Mahalanobis distance of the coarse map's mean over positions (Lee et al. 2018, arXiv:1807.03888), divided by
    its 99th percentile on validation sketches: above 1 lies one validation sketch in a hundred.
    """

    mean: Tensor  # (C,)
    whiten: Tensor  # (C, C), whitenᵀ · whiten = inverse covariance
    limit: Tensor  # ()

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("whiten", torch.eye(channels))
        self.register_buffer("limit", torch.ones(()))

    def fit(self, train: Tensor, val: Tensor) -> None:
        """Set the statistics from coarse maps (N, C, s, s) of training sketches, and the limit from validation's."""
        x = train.mean((2, 3)).double()
        self.mean.copy_(x.mean(0))
        covariance = torch.cov(x.T) + 1e-3 * x.var(0).mean() * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        values, vectors = torch.linalg.eigh(covariance)
        self.whiten.copy_((vectors * values.rsqrt()).T)
        self.limit.copy_(self.unscaled(val).quantile(0.99))

    def unscaled(self, maps: Tensor) -> Tensor:
        return ((maps.mean((2, 3)).float() - self.mean) @ self.whiten.T).norm(dim=1)

    def forward(self, maps: Tensor) -> Tensor:
        """The encoder's coarse map (B, C, s, s) → distances (B,)."""
        return self.unscaled(maps) / self.limit
