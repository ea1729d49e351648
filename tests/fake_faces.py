"""A data set and judges small enough that every number can be worked out by hand."""

import cv2
import numpy as np
import torch

from s2flib.evaluation import Judges
from s2flib.presets import TINY


class Faces(torch.utils.data.Dataset):
    """people × shots random photos of 4 × 4 cells; the sketch is the photo's first channel in [0, 1]."""

    size = TINY.size

    def __init__(self, people: int, shots: int, seed: int = 0, first_person: int = 0):
        g = torch.Generator().manual_seed(seed)
        own = torch.rand(people, 1, 3, 4, 4, generator=g) * 1.6 - 0.8  # what a person looks like
        shot = own + torch.randn(people, shots, 3, 4, 4, generator=g) * 0.1
        photos = shot.flatten(0, 1).clamp(-1, 1)
        side = self.size // 4
        self.photos = photos.repeat_interleave(side, -1).repeat_interleave(side, -2)  # (N,3,size,size)
        self.identities = np.repeat(np.arange(people) + first_person, shots)
        self.names = [f"{i:03d}_{s}" for i in range(first_person, first_person + people) for s in range(shots)]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        photo = self.photos[i]
        return {
            "photo": photo,
            "sketch": (photo[:1] + 1) / 2,
            "identity": int(self.identities[i]),
            "name": self.names[i],
        }


class MeanAbsolute(torch.nn.Module):
    """Perceptual judge: mean absolute difference."""

    label = "mean absolute"

    def forward(self, x, y):
        return (x - y).abs().mean(dim=(1, 2, 3))


class Cells(torch.nn.Module):
    """Identity judge: the 4 × 4 cells of the photo, of unit norm."""

    label = "cells"

    def embed(self, x):
        return torch.nn.functional.normalize(torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1), dim=1)

    def similarity(self, x, y):
        return (self.embed(x) * self.embed(y)).sum(1)


def fake_judges() -> Judges:
    return Judges(MeanAbsolute(), Cells())


def crude_face(size=96, seed=0):
    """A crude face on a noisy ground: (photo, mask)."""
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
    mask = np.zeros((size, size), np.uint8)
    cv2.ellipse(mask, (size // 2, size // 2), (size // 3, size * 2 // 5), 0, 0, 360, 1, -1)
    skin = np.clip(np.linspace(110, 210, size)[None, :, None] * [1, 0.8, 0.7] + rng.normal(0, 2, photo.shape), 0, 255)
    photo = np.where(mask[..., None] > 0, skin, photo).astype(np.uint8)
    for x in (0.36, 0.64):
        cv2.circle(photo, (int(size * x), int(size * 0.42)), size // 20, (40, 25, 20), -1)
    cv2.ellipse(photo, (size // 2, size * 7 // 10), (size // 8, size // 30), 0, 0, 360, (150, 40, 50), -1)
    return photo, mask
