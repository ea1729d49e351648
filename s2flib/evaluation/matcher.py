"""The direct sketch-to-photo matcher: who is drawn, without drawing a face first?

Forensic recognition compares a sketch with mug shots in a common space of features (Klare et al., "Matching Forensic
Sketches to Mug Shot Photos", IEEE TPAMI 33(3), 2011), which is the alternative that a generated face must beat. Here a
small network embeds the drawing, and a linear map takes the gallery photo's embedding by the *training* identity judge
to the same space. The judge that measures has no part in it. ``s2f train --what matcher`` trains both on training
people only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.errors import DataError, ImageError
from s2flib.evaluation.evaluate import batches
from s2flib.files import weights_dir
from s2flib.judges.synthface_id import FACE_CENTRE, ResidualBlock, SynthFaceID
from s2flib.weights.load import load_network

KIND = "sketch-matcher"
SIDE = 0.85  # of the square crop around the face, a share of the drawing's side: more than a photo's, for the outline


def drawing_crop(x: Tensor, size: int = 96) -> Tensor:
    """The part of a drawing that the matcher sees: (B, 1, H, H) in [0, 1] → (B, 1, size, size)."""
    if x.ndim != 4 or x.shape[1] != 1 or x.shape[-1] != x.shape[-2]:
        raise ImageError(f"the matcher takes (B, 1, H, H) drawings, not {tuple(x.shape)}: pass grey, square drawings.")
    theta = x.new_tensor([[SIDE, 0, 2 * FACE_CENTRE[0] - 1], [0, SIDE, 2 * FACE_CENTRE[1] - 1]])
    grid = F.affine_grid(theta.expand(len(x), 2, 3), [len(x), 1, size, size], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


class SketchMatcher(nn.Module):
    """A drawing and a photo's embedding → a common space, compared by cosine; 1.7 M parameters, 113 M multiply-adds.

    forward: drawings (B, 1, 96, 96) in [0, 1], see :func:`drawing_crop` → (B, 128) of unit length.
    gallery: the training judge's embeddings of photos (B, 128) → (B, 128) of unit length.
    """

    size = 96
    dim = SynthFaceID.dim

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.PReLU(32))
        widths = (32, 64, 128, 192, 256)  # at sides 48, 24, 12, 6 and 3
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairs))
        # the map is flattened, not pooled, to preserve positions
        self.head = nn.Sequential(
            nn.BatchNorm2d(256),
            nn.Flatten(),
            nn.Linear(256 * 9, self.dim, bias=False),
            nn.BatchNorm1d(self.dim, affine=False),
        )
        self.photo = nn.Linear(self.dim, self.dim, bias=False)
        with torch.no_grad():  # starts as the judge's own space; training turns down what no drawing shows
            self.photo.weight.copy_(torch.eye(self.dim))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != (1, self.size, self.size):
            raise ImageError(f"SketchMatcher takes (B, 1, 96, 96) drawings, not {tuple(x.shape)}: use drawing_crop.")
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        return F.normalize(self.head(self.blocks(x)), dim=1)

    def gallery(self, embedding: Tensor) -> Tensor:
        return F.normalize(self.photo(embedding), dim=1)


def load_matcher(path: str | Path | None = None) -> SketchMatcher:
    """The trained matcher, frozen and in eval mode. path: another file than the shipped one."""
    return load_network(SketchMatcher(), Path(path or weights_dir() / "tiny-matcher.safetensors"), KIND)


@torch.no_grad()
def embed_drawings(matcher: SketchMatcher, drawings: Tensor, batch: int = 64) -> np.ndarray:
    """Drawings (N, 1, H, H) in [0, 1] → (N, 128) float32 of unit length, on the matcher's device."""
    if len(drawings) == 0:
        raise DataError("there are no drawings to embed: check the split and the limit.")
    device = next(matcher.parameters()).device
    parts = [matcher(drawing_crop(part.to(device))).float().cpu().numpy() for part in drawings.split(batch)]
    return np.concatenate(parts)


@torch.no_grad()
def embed_gallery(matcher: SketchMatcher, dataset, judge, size: int, batch: int = 64) -> np.ndarray:
    """All photos of a data set in the matcher's space: (N, 128) float32. judge: the *training* identity judge; size:
    the side in pixels to which photos are pooled (a preset's eval_size)."""
    device = next(matcher.parameters()).device
    parts = []
    for items in batches(dataset, batch, False, "embed photos"):
        photos = torch.stack([item["photo"] for item in items]).to(device)
        photos = photos if photos.shape[-1] == size else F.adaptive_avg_pool2d(photos, size)
        parts.append(matcher.gallery(judge.embed(photos)).float().cpu().numpy())
    return np.concatenate(parts)
