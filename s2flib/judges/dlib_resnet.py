"""dlib's face recognition ResNet in PyTorch: the identity network used for evaluation, never for training.

Architecture: Davis King's ``dnn_face_recognition_ex.cpp`` (dlib, 2017), a ResNet with 29 convolutions, trained
with a metric loss on about 3 million photos of 7,485 people; weights CC0 (https://github.com/davisking/dlib-models).
``scripts/convert_dlib.py`` converts the published file; each affine layer is folded into the preceding
convolution, which only affects speed.

Note the training data: mostly adult Western celebrities. Error rates differ between groups of people, so a
distance from this network is a measure for experiments, not evidence about a person.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.errors import ImageError

SIZE = 150  # px, the only input size dlib's network supports
_MEAN_RGB = (122.782, 117.001, 104.298)

# (channels, stride) of the 14 residual blocks, from input to output
BLOCKS = (
    (32, 1), (32, 1), (32, 1),
    (64, 2), (64, 1), (64, 1), (64, 1),
    (128, 2), (128, 1), (128, 1),
    (256, 2), (256, 1), (256, 1),
    (256, 2),
)  # fmt: skip


def _pad_to(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Zero-pads at the end of channels, rows and columns, as dlib's add_prev does when shapes differ."""
    return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2], 0, channels - x.shape[1]))


class DlibBlock(nn.Module):
    """conv3×3(stride) → ReLU → conv3×3, plus the input (average-pooled and zero-padded if the stride is 2)."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        # dlib pads a convolution only if its stride is 1
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1 if stride == 1 else 0)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x)))
        skip = x if self.stride == 1 else F.avg_pool2d(x, 2)
        if skip.shape != h.shape:
            shape = [max(a, b) for a, b in zip(skip.shape[1:], h.shape[1:], strict=True)]
            h, skip = _pad_to(h, *shape), _pad_to(skip, *shape)
        return F.relu(h + skip)


class DlibResNet(nn.Module):
    """(B,3,150,150) photos in [-1,1] -> (B,128) embeddings, to be compared by L2 distance.

    Embeddings are not of unit length (norms are near 1.4). For real, aligned photos, a distance below 0.6 means
    "same person".
    """

    mean: Tensor

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, stride=2)
        channels, blocks = 32, []
        for width, stride in BLOCKS:
            blocks.append(DlibBlock(channels, width, stride))
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(256, 128, bias=False)
        self.register_buffer("mean", torch.tensor(_MEAN_RGB).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1:] != (3, SIZE, SIZE):
            raise ImageError(f"DlibResNet takes (B,3,{SIZE},{SIZE}) photos, got {tuple(x.shape)}: use face_crop.")
        x = ((x + 1) * 127.5 - self.mean) / 256
        h = F.max_pool2d(F.relu(self.stem(x)), 3, 2)  # (B, 32, 35, 35)
        h = self.blocks(h)  # (B, 256, 2, 2)
        return self.fc(h.mean((2, 3)))
