"""The paper of a drawing: finds the sheet in a photo of it, and evens out its light."""

from __future__ import annotations

import cv2
import numpy as np

PAPER_WHITE = 0.92  # of the paper's brightness; anything lighter is paper (grain, soft shadows)
SMALL = 400  # px; the sheet is searched at this longer side
RIM = 0.015  # width of the strips along the picture's sides that decide whether there is a dark surround
DARK = 0.65  # around its edge the surround is darker than this share of the sheet's brightness


def find_sheet(array: np.ndarray) -> np.ndarray | None:
    """The sheet of paper in a picture (H, W, 3) or (H, W) uint8 that shows something dark around it, straightened.

    None if the picture shows nothing but the drawing. There is a surround only if the picture's whole top, left or
    right side is dark, and a sheet only if the largest bright area is mostly bright inside and fills a quadrilateral. A
    chalk drawing on a black board has the first but not the second, a portrait with dark hair at the border neither.
    """
    grey = cv2.cvtColor(array, cv2.COLOR_RGB2GRAY) if array.ndim == 3 else array
    scale = min(1.0, SMALL / max(grey.shape))
    size = (max(8, round(grey.shape[1] * scale)), max(8, round(grey.shape[0] * scale)))
    small = cv2.GaussianBlur(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), (5, 5), 0)
    threshold, bright = cv2.threshold(small, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    if threshold < 8 or not _dark_sides(small, threshold):
        return None
    kernel = np.ones((5, 5), np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(bright, cv2.MORPH_OPEN, kernel))
    if count < 2:
        return None
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    sheet = (parts == largest).astype(np.uint8)
    outline = max(cv2.findContours(sheet, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0], key=cv2.contourArea)
    hull = cv2.convexHull(outline)
    area, hull_area = float(sheet.sum()), cv2.contourArea(hull)
    corners = _quadrilateral(hull)
    # bright inside (chalk lines are not), convex, and close to a quadrilateral
    if corners is None or area < 0.15 * small.size or area < 0.55 * hull_area:
        return None
    if not 0.9 < hull_area / cv2.contourArea(corners) < 1.1:
        return None
    # the paper ends at its edge, unlike a shade that darkens gradually
    inside = cv2.fillConvexPoly(np.zeros_like(small), corners.astype(np.int32), 1)
    ring = np.ones((2 * (max(small.shape) // 40) + 1,) * 2, np.uint8)
    within, around = inside - cv2.erode(inside, ring), cv2.dilate(inside, ring) - inside
    if not around.any() or np.median(small[around > 0]) > DARK * np.median(small[within > 0]):
        return None
    return _straighten(array, corners / np.array([size[0] / grey.shape[1], size[1] / grey.shape[0]]))


def _dark_sides(small: np.ndarray, threshold: float) -> bool:
    """Whether the whole top, left or right side of the picture is dark (the bottom alone may be a black shirt)."""
    rim = max(1, round(RIM * min(small.shape)))
    sides = (small[:rim], small[:, :rim], small[:, -rim:])
    return any(np.mean(side < threshold) > 0.95 for side in sides)


def _quadrilateral(hull: np.ndarray) -> np.ndarray | None:
    """The hull's four corners (4, 2) float32, clockwise from the top left; None if it has another shape."""
    length = cv2.arcLength(hull, True)
    for tolerance in (0.01, 0.02, 0.03, 0.05, 0.08):
        corners = cv2.approxPolyDP(hull, tolerance * length, True)
        if len(corners) == 4:
            points = corners[:, 0].astype(np.float32)
            centre = points - points.mean(0)
            points = points[np.argsort(np.arctan2(centre[:, 1], centre[:, 0]))]  # y points down: clockwise
            return np.roll(points, -int(points.sum(1).argmin()), axis=0)
    return None


def _straighten(array: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The quadrilateral (4, 2) as a rectangle, without its outermost hundredth (the sheet's edge and shadow)."""
    top, right, bottom, left = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    width, height = max(16, round(max(top, bottom))), max(16, round(max(left, right)))
    margin = 0.012 * np.array([width, height])
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    target += np.sign(target - np.array([width, height]) / 2).astype(np.float32) * margin.astype(np.float32)
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), target)
    return cv2.warpPerspective(array, matrix, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)


def even_paper(grey: np.ndarray) -> np.ndarray:
    """Divide by the paper's brightness: a quadratic surface fitted to the bright end of a coarse grid.

    Cells darker than the surface (shaded hair, a beard) are removed from the fit step by step, so that the drawing's
    own tones are not mistaken for uneven light.
    """
    cells = min(24, max(2, min(grey.shape) // 8))
    height, width = grey.shape
    rows, cols = np.linspace(0, height, cells + 1).astype(int), np.linspace(0, width, cells + 1).astype(int)
    bright = np.array(
        [
            [np.percentile(grey[rows[i] : rows[i + 1], cols[j] : cols[j + 1]], 90) for j in range(cells)]
            for i in range(cells)
        ]
    )

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
