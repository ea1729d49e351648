"""The page of a drawing: finds the sheet in a photo of it or the canvas in a screenshot, evens out its light, and
removes printed lines and a frame."""

from __future__ import annotations

import cv2
import numpy as np

PAPER_WHITE = 0.92  # of the paper's brightness; anything lighter is paper (grain, soft shadows)
SMALL = 400  # px; the sheet is searched at this longer side
RIM = 0.015  # width of the strips along the picture's sides that decide whether there is a dark surround
LARGEST_SCREEN = 7680 * 4320  # pixels (8K); a larger picture is a scan
TILT = np.arange(-3, 3.01, 0.25)  # degrees; rules may be turned as much, as in a hasty scan
FEWEST_RULES = 5  # rules on a page; stripes of a shirt are fewer, and shorter
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
    if min(grey.shape) < 2:  # a long strip, reduced to one pixel: nothing to fit a surface to
        return np.clip(grey / (PAPER_WHITE * max(0.05, float(np.percentile(grey, 90)))), 0, 1).astype(np.float32)
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


def find_canvas(array: np.ndarray) -> np.ndarray | None:
    """The canvas (h, w, …) in a screenshot (H, W, 3) or (H, W) uint8; None if the picture is no screenshot.

    A canvas has one exact colour, its own sides are straight, and beyond them something else begins: tool bars, the
    window's grey, the bars of a phone's viewer. Where it touches the picture's border, nothing is cut.
    """
    if array.shape[0] * array.shape[1] > LARGEST_SCREEN:
        return None
    colour = array if array.ndim == 2 else array.dot(np.array([1 << 16, 1 << 8, 1], np.int32))
    values, counts = np.unique(colour.ravel()[::7], return_counts=True)
    boxes = [_canvas_of((colour == values[k]).astype(np.uint8)) for k in counts.argsort()[-4:]]
    best = max((box for box in boxes if box is not None), key=lambda box: box[2] * box[3], default=None)
    if best is None:
        return None
    x, y, width, height = best
    return array[y : y + height, x : x + width]


def _canvas_of(page: np.ndarray) -> tuple[int, int, int, int] | None:
    """x, y, width and height of the canvas among the pixels (H, W) of one colour."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(page, connectivity=4)
    if count < 2:
        return None
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    x, y, width, height, area = (int(v) for v in stats[largest])
    inner = (parts == largest)[y : y + height, x : x + width]
    if area < 0.1 * page.size or min(width, height) < 16:
        return None
    if area == width * height or page[y : y + height, x : x + width].mean() < 0.4:  # an empty tool bar; a thick line
        return None
    (rows, cols), sides = page.shape, []  # (the canvas's own outermost line, the line beyond it), where there is one
    if y > 0:
        sides.append((inner[0], page[y - 1, x : x + width]))
    if y + height < rows:
        sides.append((inner[-1], page[y + height, x : x + width]))
    if x > 0:
        sides.append((inner[:, 0], page[y : y + height, x - 1]))
    if x + width < cols:
        sides.append((inner[:, -1], page[y : y + height, x + width]))
    if not sides or any(own.mean() < 0.7 or beyond.mean() > 0.02 for own, beyond in sides):
        return None
    return x, y, width, height


def remove_rules(grey: np.ndarray) -> np.ndarray | None:
    """Evenly lit paper (H, W) in [0, 1] without its printed lines, straightened; None if it is not ruled.

    Rules are thin lines at equal distances across the whole page, lines of a grid in both directions. Each is replaced
    by what is above and below it, so that the drawing's strokes continue across.
    """
    strip = max(4, min(grey.shape) // 25)  # at the page's border, where a drawing rarely is; narrow enough for any tilt
    if len(_rules(grey[:, :strip])) < FEWEST_RULES and len(_rules(grey.T[:, :strip])) < FEWEST_RULES:
        return None
    scale = min(1.0, SMALL / max(grey.shape))
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)

    def clarity(tilt: float) -> float:
        turned = _turned(small, tilt)
        return max(float(np.sort(_profile(lines))[-len(lines) // 20 :].sum()) for lines in (turned, turned.T))

    grey, found = _turned(grey, float(max(TILT, key=clarity))), False
    for lines in (grey, grey.T):  # views: both change grey
        for first, end in _rules(lines):
            above, below = lines[max(0, first - 1)].copy(), lines[min(len(lines) - 1, end)].copy()
            share = (np.arange(end - first) + 1)[:, None] / (end - first + 1)
            lines[first:end] = above * (1 - share) + below * share
            found = True
    return grey if found else None


def _turned(grey: np.ndarray, degrees: float) -> np.ndarray:
    if not degrees:
        return grey.copy()
    height, width = grey.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return cv2.warpAffine(grey, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=1.0)


def _profile(grey: np.ndarray) -> np.ndarray:
    """Ink of each row (H,) that runs across most of it: the 30th percentile, above that of the rows around it."""
    k = int(0.7 * (grey.shape[1] - 1))
    ink = 1 - np.partition(grey, k, axis=1)[:, k].astype(np.float32)
    reach = max(3, len(ink) // 60)
    around = cv2.erode(ink[:, None], np.ones((2 * reach + 1, 1), np.uint8))[:, 0]
    return ink - around


def _rules(grey: np.ndarray) -> list[tuple[int, int]]:
    """The rows [first, end) of each of the rules across a page; empty if they are not at equal distances."""
    profile = _profile(grey)
    for strong in np.percentile(profile, (99, 96, 92)):  # something darker than the rules may cross the page: a shirt
        rows = np.concatenate([[False], profile > max(0.02, 0.4 * strong), [False]])
        first, end = np.nonzero(rows[1:] & ~rows[:-1])[0], np.nonzero(~rows[1:] & rows[:-1])[0]
        thin = end - first <= max(3, len(grey) // 60)
        first, end = first[thin], end[thin]
        if len(first) < FEWEST_RULES:
            continue
        middle = (first + end) / 2
        steps = np.diff(middle) / np.median(np.diff(middle))
        regular = np.abs(steps - np.round(steps)) < 0.2  # a step may be a multiple: one is covered
        if regular.mean() >= 0.9 and middle[-1] - middle[0] >= 0.5 * len(grey):
            # with a margin of a row for the line's soft edge
            return [(max(0, int(a) - 1), min(len(grey), int(b) + 1)) for a, b in zip(first, end, strict=True)]
    return []


def inside_frame(grey: np.ndarray) -> np.ndarray | None:
    """What a frame around the drawing encloses, (h, w) in [0, 1]; None if there is no frame on at least three sides,
    or nothing in it: then the frame is the drawing.

    A side of a frame is a thin straight line, within a fifth of the page's side from its border, with white on both
    sides of it.
    """
    cuts = [_frame_line(side) for side in (grey, grey[::-1], grey.T, grey.T[::-1])]  # top, bottom, left, right
    if sum(cut is not None for cut in cuts) < 3:
        return None
    height, width = grey.shape
    top, bottom, left, right = (cut or 0 for cut in cuts)
    inside = grey[top : height - bottom, left : width - right]
    return inside if np.mean(inside < 0.75) > 5e-4 else None


def _frame_line(grey: np.ndarray) -> int | None:
    """Where the area inside a frame's upper line begins, as a row; None if there is no such line."""
    reach, thick = len(grey) // 5, max(2, len(grey) // 50)
    dark = (grey[: reach + 3 * thick] < 0.75).mean(1)
    for row in np.nonzero(dark[:reach] > 0.6)[0]:
        end = int(row) + 1
        while end < len(dark) and dark[end] > 0.3:
            end += 1
        if end - row <= thick and end + thick <= len(dark):
            before = dark[max(0, row - thick) : row]
            if dark[end : end + thick].mean() < 0.25 and (not len(before) or before.max() < 0.3):
                return end + 1
        return None
    return None
