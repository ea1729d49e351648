"""Small identity network: R in the ID loss 1 − ⟨R(x), R(D(E(x)))⟩ of the tiny preset.

Trained on SynthFaces' train identities by ``s2f train --what id`` with ArcFace's additive angular margin
(Deng et al., CVPR 2019, https://arxiv.org/abs/1801.07698). It is used for training only; dlib's network is used
for evaluation.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.errors import ImageError

# position of the face in a SynthFaces portrait, as fractions of the image: centre (x, y) and side of the square
FACE_CENTRE = (0.5, 0.55)
FACE_SIDE = 0.7


def face_crop(x: Tensor, size: int, side: float = FACE_SIDE) -> Tensor:
    """Square crop around the face in portraits framed like SynthFaces: (B,3,H,H) -> (B,3,size,size), differentiable.

    ``side`` is a fraction of H. Use align_face first for photos with any other framing.
    """
    if x.ndim != 4 or x.shape[1] != 3:
        raise ImageError(
            f"an identity network takes (B,3,H,W) photos, got {tuple(x.shape)}: pass the photo, not the sketch."
        )
    height, width = x.shape[2:]
    pixels = round(side * min(height, width))
    top = round(FACE_CENTRE[1] * height - pixels / 2)
    left = round(FACE_CENTRE[0] * width - pixels / 2)
    crop = x[:, :, top : top + pixels, left : left + pixels]
    if crop.shape[-1] == size:
        return crop
    return F.interpolate(crop, (size, size), mode="bilinear", align_corners=False, antialias=pixels > size)


class ResidualBlock(nn.Module):
    """conv → BN → PReLU → conv(stride 2) → BN, plus a 1×1 shortcut: (B,C,H,W) -> (B,channels,H/2,W/2)."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.PReLU(in_channels),
            nn.Conv2d(in_channels, channels, 3, 2, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(in_channels, channels, 1, bias=False))
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.residual(x) + self.shortcut(x))


class SynthFaceID(nn.Module):
    """(B,3,64,64) face crops in [-1,1] -> (B,128) unit-length embeddings; 0.7 M parameters, 17 M multiply-adds."""

    size = 64
    dim = 128

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 48, 7, 4, 3, bias=False), nn.BatchNorm2d(48), nn.PReLU(48))
        self.blocks = nn.Sequential(ResidualBlock(48, 96), ResidualBlock(96, 160))
        # 64 px -> stem 16 -> blocks 8, 4; the map is flattened, not pooled, to preserve positions
        self.head = nn.Sequential(
            nn.BatchNorm2d(160),
            nn.Flatten(),
            nn.Linear(160 * 16, self.dim, bias=False),
            nn.BatchNorm1d(self.dim, affine=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != (3, self.size, self.size):
            raise ImageError(f"SynthFaceID takes (B,3,64,64) crops, got {tuple(x.shape)}: use face_crop.")
        x = self.stem(x.contiguous(memory_format=torch.channels_last))  # faster for few channels
        return F.normalize(self.head(self.blocks(x)), dim=1)


def verification_auc(embedding: Tensor, identity: Tensor) -> float:
    """Probability that a same-person pair is more similar than a different-person pair (ties count half).

    embedding: (N,d), unit length; identity: (N,). Uses all pairs; 0.5 is chance, 1 is perfect.
    """
    similarity = embedding @ embedding.T
    i, j = torch.triu_indices(len(embedding), len(embedding), 1, device=embedding.device)
    same = identity[i] == identity[j]
    positive, negative = similarity[i, j][same], similarity[i, j][~same].sort().values
    below = torch.searchsorted(negative, positive, right=False)
    not_above = torch.searchsorted(negative, positive, right=True)
    return float(((below + not_above).double() / 2 / len(negative)).mean())


def rank_1(embedding: Tensor, identity: Tensor) -> float:
    """Rank-1 accuracy: the gallery is each person's first photo, all other photos are probes."""
    first = torch.zeros(len(identity), dtype=torch.bool, device=embedding.device)
    first[np.unique(identity.cpu().numpy(), return_index=True)[1]] = True
    nearest = (embedding[~first] @ embedding[first].T).argmax(1)
    return float((identity[first][nearest] == identity[~first]).float().mean())
