"""A person's own drawing, as the encoder wants it: dark lines on white, square, framed as in training.

People bring scans, photos of paper, chalk on black, blue ink, tablets with transparent layers. The encoder
has seen only clean sketches with a white background, so a drawing is first made to look like one. A sketch
that is clean already (one that :mod:`s2flib.sketch` computed, say) passes through unchanged but for its size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor

from s2flib.errors import ImageError

WORK_SIZE = 1024        # px; larger drawings are first reduced to this longer side
CLEAN_WHITE = 0.96      # a border at least this bright counts as clean white paper
PAPER_WHITE = 0.92      # of the paper's brightness; what is lighter is paper (grain, soft shadows)
SMALL_DRAWING = 0.6     # a drawing covering less than this share of its page is cut out

EMPTY = ("the picture holds no drawing, only an empty page: give one with dark lines on a light background "
         "(or light ones on dark).")


@dataclass(frozen=True)
class Drawing:
    """sketch: (1, size, size) float in [0, 1], white 1.0; notes: what was done to it, in words."""

    sketch: Tensor
    notes: list[str] = field(default_factory=list)


def prepare_drawing(array: np.ndarray, size: int) -> Drawing:
    """Make a drawing look like a training sketch.

    array:  (H, W, 3) or (H, W) uint8, any colour, any background, any shape
    size:   side of the result in pixels (the preset's ``size``)

    In this order, each step only where it is needed, each one named in ``notes``:
    inverted (light lines on dark), evened out (paper that is not white, or lit unevenly), cut out (a drawing
    much smaller than its page), filled up with white to a square, darkened (lines that grew too faint).

    Raises ImageError for a picture without a drawing in it.
    """
    notes: list[str] = []
    array = _reduce(array)
    coloured = _share_coloured(array)
    grey = (cv2.cvtColor(array, cv2.COLOR_RGB2GRAY) if array.ndim == 3 else array).astype(np.float32) / 255
    border = _border(grey)
    paper = float(np.median(border))
    # hair may cover most of a clean sketch's border, but what is left of it is then pure white
    clean = paper >= CLEAN_WHITE or np.mean(border >= 0.99) > 0.25
    if np.ptp(grey) < 0.1:
        raise ImageError(EMPTY)
    lighter, darker = (np.where(d > 0.15, d, 0).sum() for d in (grey - paper, paper - grey))
    if paper < 0.5 and lighter > darker and not clean:      # dim paper is dark, too, but its lines are darker
        grey, clean = 1 - grey, 1 - paper >= CLEAN_WHITE
        notes.append("light lines on a dark background: inverted")
    if not clean:
        grey = _even_paper(grey)
        notes.append("the paper was not plain white: evened out")

    ink = 1 - grey
    if ink.max() < 0.1 or ink.mean() < 5e-4:
        raise ImageError(EMPTY)
    top, bottom, left, right = _extent(ink)
    if max(bottom - top, right - left) < SMALL_DRAWING * min(grey.shape):
        grey = _cut_out(grey, top, bottom, left, right)
        notes.append("a small drawing on a large page: cut out")
    elif grey.shape[0] != grey.shape[1]:
        grey = _square(grey)
        notes.append("not square: filled up with white")
    interpolation = cv2.INTER_AREA if grey.shape[0] > size else cv2.INTER_CUBIC
    grey = np.clip(cv2.resize(grey, (size, size), interpolation=interpolation), 0, 1)

    # Thin lines fade when a large page shrinks. In training sketches the darkest 2 % of the picture hold at
    # least 0.45 of ink; lift fainter drawings to a usual 0.7, but by a factor of 4 at most (noise grows too).
    ink = 1 - grey
    strength = float(np.percentile(ink, 98))
    if strength < 0.4:
        grey = 1 - np.clip(ink * min(4.0, 0.7 / max(strength, 1e-3)), 0, 1)
        notes.append("faint lines: darkened")
    if (1 - grey).mean() > 0.4 or coloured > 0.25:
        notes.append("little white or much colour: is this a photo? Then sketch it first (--from-photo)")
    return Drawing(torch.from_numpy(np.ascontiguousarray(grey, dtype=np.float32))[None], notes)


def _reduce(array: np.ndarray) -> np.ndarray:
    """The longer side at most WORK_SIZE: enough for any encoder, and quick for a 12,000-pixel scan."""
    scale = WORK_SIZE / max(array.shape[:2])
    if scale >= 1:
        return array
    height, width = (max(1, round(side * scale)) for side in array.shape[:2])
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA)


def _share_coloured(array: np.ndarray) -> float:
    """Share of pixels whose colour differs from the border's: small in drawings, large in photos."""
    if array.ndim == 2:
        return 0.0
    rgb = cv2.resize(array, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    tint = np.stack([np.median(_border(rgb[..., c])) for c in range(3)])
    balanced = rgb * (tint.mean() / np.clip(tint, 0.1, None))
    return float(np.mean(np.ptp(balanced, axis=2) > 0.12))


def _border(grey: np.ndarray) -> np.ndarray:
    """The page's rim without its lower third, which necks and shoulders cross in most portraits."""
    rim = max(1, min(grey.shape) // 25)
    sides = grey[: 2 * grey.shape[0] // 3]
    return np.concatenate([grey[:rim].ravel(), sides[:, :rim].ravel(), sides[:, -rim:].ravel()])


def _even_paper(grey: np.ndarray) -> np.ndarray:
    """Divide by the paper's brightness: a quadratic surface through the bright end of a coarse grid.

    Cells darker than the surface (shaded hair, a beard) are dropped from the fit step by step, so the
    drawing's own tones do not count as shadows of the lamp.
    """
    cells = min(24, max(2, min(grey.shape) // 8))
    height, width = grey.shape
    rows, cols = np.linspace(0, height, cells + 1).astype(int), np.linspace(0, width, cells + 1).astype(int)
    bright = np.array([[np.percentile(grey[rows[i]:rows[i + 1], cols[j]:cols[j + 1]], 90)
                        for j in range(cells)] for i in range(cells)])

    def basis(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)

    middle = (np.arange(cells) + 0.5) / cells
    design = basis(*np.meshgrid(middle, middle, indexing="ij")).reshape(-1, 6)
    value = bright.ravel()
    keep = np.ones(value.size, dtype=bool)
    for _ in range(6):
        coefficients = np.linalg.lstsq(design[keep], value[keep], rcond=None)[0]
        still = value >= 0.95 * (design @ coefficients)
        if still.sum() < max(12, value.size // 8) or (still == keep).all():
            break
        keep = still
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    paper = np.clip(basis(y, x) @ coefficients, 0.05, None)
    return np.clip(grey / (PAPER_WHITE * paper), 0, 1).astype(np.float32)


def _extent(ink: np.ndarray) -> tuple[int, int, int, int]:
    """top, bottom, left, right of the drawing: all but the outer 0.5 % of its ink (specks)."""
    strong = np.where(ink > 0.1, ink, 0)
    ends = []
    for axis in (1, 0):
        share = np.cumsum(strong.sum(axis))
        share /= max(share[-1], 1e-9)
        ends += [int(np.searchsorted(share, 0.005)), int(np.searchsorted(share, 0.995)) + 1]
    return ends[0], ends[1], ends[2], ends[3]


def _cut_out(grey: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """A white square with the drawing in its middle and a margin of 8 % of its longer side all round."""
    longer = max(bottom - top, right - left)
    side = longer + 2 * max(1, round(0.08 * longer))
    page = np.ones((side, side), np.float32)
    y, x = (side - (bottom - top)) // 2, (side - (right - left)) // 2
    page[y:y + bottom - top, x:x + right - left] = grey[top:bottom, left:right]
    return page


def _square(grey: np.ndarray) -> np.ndarray:
    """Fill the shorter side up with white, evenly on both ends."""
    height, width = grey.shape
    side = max(height, width)
    page = np.ones((side, side), np.float32)
    y, x = (side - height) // 2, (side - width) // 2
    page[y:y + height, x:x + width] = grey
    return page
