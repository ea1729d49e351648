"""Photos as an optimisation sees them: at the losses' size, with the perceptual judge's features computed once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from s2flib.inversion.protocol import pooled


class Target:
    """How far pictures are from their photos; no gradient flows into the photos.

    photos:      (B, 3, H, H) in [−1, 1]
    perceptual:  a perceptual judge (x, y) → (B,), see judges.perceptual_judge
    size:        the losses' size in pixels; photos smaller than this are compared at their own size
    """

    @torch.inference_mode(False)  # what was made in inference mode cannot be part of a graph
    @torch.no_grad()
    def __init__(self, photos: Tensor, perceptual: nn.Module, size: int):
        self.photos = pooled(photos.float(), size).clone()
        self.perceptual = perceptual
        # a judge without features, such as a function of two pictures, compares the pictures themselves
        features = getattr(perceptual, "features", None)
        self.features = None if features is None else features(self.photos)

    def distances(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """pictures (B, 3, S, S) → mean squared error (B,), perceptual distance (B,); differentiable.

        S must be at least the size at which the photos are compared.
        """
        pictures = pooled(pictures, self.photos.shape[-1])
        if self.features is None:
            perceptual = self.perceptual(pictures, self.photos)
        else:
            judge: Any = self.perceptual
            perceptual = judge.compare(judge.features(pictures), self.features)
        return (pictures - self.photos).square().mean((1, 2, 3)), perceptual.flatten()
