"""Prepares a user's drawing for the encoder: dark lines on white, square, framed as in training.

User input includes scans, photos of paper, chalk on black, blue ink, and tablet drawings with transparent layers. The
encoder was trained only on clean sketches with a white background, so a drawing is first converted to look like one.
A sketch that is already clean (one computed by :mod:`s2flib.sketch`, for example) is only resized.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor

from s2flib.datasets.paper import even_paper, find_canvas, find_sheet, inside_frame, remove_rules
from s2flib.errors import ImageError
from s2flib.images import resize

WORK_SIZE = 1024  # px; larger drawings are first reduced to this longer side
CLEAN_WHITE = 0.96  # a border at least this bright counts as clean white paper
SMALL_DRAWING = 0.6  # a drawing that covers less than this share of its page is cropped

FRAMED = "a canvas or a frame around the drawing: cut out"
EMPTY = (
    "the image contains no drawing, only an empty page: use one with dark lines on a light background "
    "(or light lines on a dark one)."
)


@dataclass(frozen=True)
class Drawing:
    """sketch: (1, size, size) float in [0, 1], white 1.0; notes: the changes that were made to it, in words."""

    sketch: Tensor
    notes: list[str] = field(default_factory=list)


def prepare_drawing(array: np.ndarray, size: int) -> Drawing:
    """Convert a drawing to look like a training sketch.

    array:  (H, W, 3) or (H, W) uint8, any colour, any background, any shape
    size:   side of the result in pixels (the preset's ``size``)

    The steps, in this order; each is applied only if it is needed and is then listed in ``notes``: cut out the canvas
    of a screenshot, cut out and straighten the sheet (a photo of a sheet on a table, a scan with a dark edge), invert
    (light lines on dark), even out the paper (not white, or lit unevenly), remove the lines of ruled or squared paper
    and a frame, crop (a drawing much smaller than its page), pad to a square with white, darken (lines that have become
    too faint).

    Raises ImageError for an image that contains no drawing.
    """
    notes: list[str] = []
    canvas = find_canvas(array)  # before any scaling: it is found by exact colours
    if canvas is not None:
        array = canvas
        notes.append(FRAMED)
    array = _reduce(array)
    sheet = find_sheet(array)
    if sheet is not None:
        array = sheet
        notes.append("a sheet on a dark surface: cut out")
    coloured = _share_coloured(array)
    grey = (cv2.cvtColor(array, cv2.COLOR_RGB2GRAY) if array.ndim == 3 else array).astype(np.float32) / 255
    border = _border(grey)
    paper = float(np.median(border))
    # hair may cover most of a clean sketch's border, but the rest of the border is then pure white
    clean = paper >= CLEAN_WHITE or np.mean(border >= 0.99) > 0.25
    if np.ptp(grey) < 0.1:
        raise ImageError(EMPTY)
    lighter, darker = (np.where(d > 0.15, d, 0).sum() for d in (grey - paper, paper - grey))
    if paper < 0.5 and lighter > darker and not clean:  # dim paper is also dark, but its lines are darker
        grey, clean = 1 - grey, 1 - paper >= CLEAN_WHITE
        notes.append("light lines on a dark background: inverted")
    if not clean:
        grey = even_paper(grey)
        notes.append("the paper was not plain white: evened out")
    unruled = remove_rules(grey)
    if unruled is not None:
        grey = unruled
        notes.append("ruled paper: its lines removed")
    framed = inside_frame(grey)
    if framed is not None:
        grey = framed
        notes += [FRAMED] if canvas is None else []

    ink = 1 - grey
    if ink.max() < 0.1 or ink.mean() < 5e-4:
        raise ImageError(EMPTY)
    top, bottom, left, right = _extent(ink)
    longer = max(bottom - top, right - left)
    page = any(x is not None for x in (canvas, sheet, unruled, framed))  # its margins say nothing about the framing
    if page or longer < SMALL_DRAWING * min(grey.shape):
        grey = _framed(grey[top:bottom, left:right])
        if not page:
            notes.append("a small drawing on a large page: cut out")
    elif grey.shape[0] != grey.shape[1]:
        grey = _centred(grey, max(grey.shape))
        notes.append("not square: filled up with white")
    grey = np.clip(resize(grey, (size, size)), 0, 1)

    # Thin lines fade when a large page shrinks. In training sketches the darkest 2 % of the pixels have at least 0.45
    # of ink; scale fainter drawings to a typical 0.7, by a factor of at most 4 (noise is amplified too).
    ink = 1 - grey
    strength = float(np.percentile(ink, 98))
    if strength < 0.4:
        grey = 1 - np.clip(ink * min(4.0, 0.7 / max(strength, 1e-3)), 0, 1)
        notes.append("faint lines: darkened")
    if (1 - grey).mean() > 0.4 or coloured > 0.25:
        notes.append("little white or much colour: is this a photo? Then sketch it first (--from-photo)")
    return Drawing(torch.from_numpy(np.ascontiguousarray(grey, dtype=np.float32))[None], notes)


def _reduce(array: np.ndarray) -> np.ndarray:
    """Reduce the longer side to at most WORK_SIZE: enough for any encoder, and fast even for a 12,000-pixel scan."""
    scale = WORK_SIZE / max(array.shape[:2])
    if scale >= 1:
        return array
    height, width = (max(1, round(side * scale)) for side in array.shape[:2])
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA)


def _share_coloured(array: np.ndarray) -> float:
    """Share of pixels whose colour differs from the border's: low in drawings, high in photos."""
    if array.ndim == 2:
        return 0.0
    rgb = cv2.resize(array, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    tint = np.stack([np.median(_border(rgb[..., c])) for c in range(3)])
    balanced = rgb * (tint.mean() / np.clip(tint, 0.1, None))
    return float(np.mean(np.ptp(balanced, axis=2) > 0.12))


def _border(grey: np.ndarray) -> np.ndarray:
    """The page's border without its lower third, which necks and shoulders cross in most portraits."""
    rim = max(1, min(grey.shape) // 25)
    sides = grey[: 2 * grey.shape[0] // 3]
    return np.concatenate([grey[:rim].ravel(), sides[:, :rim].ravel(), sides[:, -rim:].ravel()])


def _extent(ink: np.ndarray) -> tuple[int, int, int, int]:
    """top, bottom, left, right of the drawing: all but the outer 0.5 % of its ink (specks)."""
    strong = np.where(ink > 0.1, ink, 0)
    ends = []
    for axis in (1, 0):
        share = np.cumsum(strong.sum(axis))
        share /= max(share[-1], 1e-9)
        ends += [int(np.searchsorted(share, 0.005)), int(np.searchsorted(share, 0.995)) + 1]
    return ends[0], ends[1], ends[2], ends[3]


def _framed(drawing: np.ndarray) -> np.ndarray:
    """A drawing without its page's margins, framed as in training, in a white square.

    A bust that ends in a straight line (shoulders cut off by the page of the original) stands on the lower edge; a head
    that floats on the page is centred with a margin of 8 %.
    """
    height, width = drawing.shape
    last = drawing[-max(1, height // 50) :].min(0) < 0.7
    if last.mean() < 0.4:
        longer = max(height, width)
        return _centred(drawing, longer + 2 * max(1, round(0.08 * longer)))
    side = max(height, width)
    page = np.ones((side, side), np.float32)
    x = (side - width) // 2
    page[side - height :, x : x + width] = drawing
    return page


def _centred(drawing: np.ndarray, side: int) -> np.ndarray:
    """The drawing in the middle of a white square."""
    height, width = drawing.shape
    page = np.ones((side, side), np.float32)
    y, x = (side - height) // 2, (side - width) // 2
    page[y : y + height, x : x + width] = drawing
    return page
