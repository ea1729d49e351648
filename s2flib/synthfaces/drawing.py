"""Line drawings computed from geometry, in the style of an artist, independent of the photo's shading.

A pencil sketch computed from a photo contains its light and tones, and a model trained on it learns to use them (the
paper's "information leak"). Here the lines come from depth, surface orientation, region borders and the flow of the
hair, so the drawing contains no information about skin tone, hair colour or light.

Lines: silhouettes and depth steps; suggestive contours as valleys of n·v (image-space version of DeCarlo et al.
2003); borders of lids, lips, brows, ears, hair, hat, glasses and clothes; irises; single hairs of brows and beard;
strands of the hair.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter

from s2flib.synthfaces.buffers import Buffers
from s2flib.synthfaces.labels import LABEL
from s2flib.synthfaces.strokes import Stroke, ink, resample, smooth, split_at_corners, thin, trace


@dataclass(frozen=True)
class Hand:
    """Parameters of a drawing style. Lengths are fractions of the picture's width."""

    width: float  # of an outline
    wobble: float  # amplitude of slow deviations from the true line
    gaps: float  # fraction of interrupted strokes
    passes: int  # number of strokes per line
    overshoot: float  # how far a stroke extends beyond its end
    hair: int  # number of strands
    crease: float  # threshold for suggestive contours: lower draws more
    ink: float
    taper: float


_FINEST = 1.6  # pixels of the (double-size) drawing; thinner outlines would look grey
HANDS = {
    "clean": Hand(0.0075, 0.0008, 0.05, 1, 0.0, 150, 0.030, 0.95, 0.3),
    "sketchy": Hand(0.0050, 0.0042, 0.25, 3, 0.012, 330, 0.022, 0.62, 0.45),
    "composite": Hand(0.0085, 0.0016, 0.02, 1, 0.003, 620, 0.018, 0.85, 0.2),
}


def line_drawing(buffers: Buffers, hand: str = "clean", seed: int = 0) -> np.ndarray:
    """(H, W) uint8 drawing on white (255), at half the size of the buffers. ``hand``: a key of HANDS."""
    style = HANDS[hand]
    size = buffers.camera.width
    rng = np.random.default_rng([seed, 11])
    strokes = outline_strokes(buffers, style, rng) + iris_strokes(buffers, style)
    strokes += growth_strokes(buffers, style, rng) + hair_strokes(buffers, style, rng)
    paper = ink(strokes, size, style.taper)
    small = paper.reshape(size // 2, 2, size // 2, 2).mean((1, 3))
    return (np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8)


def outline_strokes(b: Buffers, hand: Hand, rng: np.random.Generator) -> list[Stroke]:
    """Strokes along all edges, each kind with its own weight."""
    size = b.camera.width
    width = max(hand.width * size, _FINEST)
    strokes = []
    for lines, weight, softness in _line_maps(b, hand):
        for chain in trace(thin(lines), shortest=max(4, size // 48)):
            for part in split_at_corners(smooth(chain, softness), max(3, size // 64), 62):
                strokes += _by_hand(part, width * weight, hand, size, rng)
    return strokes


def iris_strokes(b: Buffers, hand: Hand) -> list[Stroke]:
    """Outline of the iris and a filled pupil, clipped by the lids."""
    size = b.camera.width
    strokes = []
    for points in b.irises:
        for part in _runs(points, _at(b.open_eye, points)):
            strokes.append(Stroke(part, hand.width * size * 0.8, hand.ink))
        centre = points.mean(0)
        radius = np.hypot(*(points - centre).T).mean()
        if _at(b.open_eye, centre):
            dot = centre + np.array([[-0.12, 0], [0.12, 0]]) * radius
            strokes.append(Stroke(dot, radius * 0.8, hand.ink))
    return strokes


def growth_strokes(b: Buffers, hand: Hand, rng: np.random.Generator) -> list[Stroke]:
    """Short strokes for the hairs of brows and beard."""
    size = b.camera.width
    strokes = []
    rows, columns = np.nonzero((b.brow > 0.35) & (b.labels != LABEL["hair"]))
    n = min(len(rows), int(70 + 0.25 * hand.hair))
    for side, points in ((-1, b.landmarks[17:22]), (1, b.landmarks[22:27])):
        line = resample(points if side > 0 else points[::-1], 1.0)  # from nose to temple
        tangent = np.gradient(line, axis=0)
        mine = np.nonzero((columns > b.landmarks[27, 0]) == (side > 0))[0]
        for k in rng.choice(mine, min(len(mine), n // 2), replace=False) if len(mine) else []:
            p = np.array([columns[k], rows[k]], float)
            i = np.hypot(*(line - p).T).argmin()
            along = tangent[i] / max(np.hypot(*tangent[i]), 1e-6)
            t = i / len(line)
            lean = (0.9 - 1.1 * t) * np.array([0, -1.0])
            step = (along + lean) * size * 0.012 * rng.uniform(0.7, 1.3)
            strokes.append(Stroke(np.stack([p - step / 2, p + step / 2]), hand.width * size * 0.6, hand.ink * 0.9))
    rows, columns = np.nonzero(b.beard)
    for k in rng.choice(len(rows), min(len(rows), hand.hair), replace=False) if len(rows) else []:
        p = np.array([columns[k], rows[k]], float)
        outward = np.array([(p[0] - b.landmarks[8, 0]) / size * 0.8, 1.0])
        step = outward * size * 0.016 * rng.uniform(0.6, 1.4)
        middle = p + step / 2 + rng.normal(0, size * 0.002, 2)
        strokes.append(Stroke(np.stack([p, middle, p + step]), hand.width * size * 0.55, hand.ink * 0.8))
    return strokes


def hair_strokes(b: Buffers, hand: Hand, rng: np.random.Generator) -> list[Stroke]:
    """The visible parts of some strands, which show the mass and flow of the hair."""
    if b.hair is None:
        return []
    size = b.camera.width
    strokes, light = [], replace(hand, passes=1, ink=hand.ink * 0.8)
    for k in rng.choice(len(b.hair), min(len(b.hair), hand.hair), replace=False):
        strand = b.hair[k]
        p = np.nan_to_num(strand[:, :2], nan=-1)
        inside = (p >= 0).all(1) & (p < size).all(1)
        seen = inside & (_at(b.labels, p) == LABEL["hair"]) & (strand[:, 2] < _at(b.hair_depth, p) + 0.05)
        for part in _runs(p, seen):
            if np.hypot(*np.diff(part, axis=0).T).sum() > 0.02 * size:
                strokes += _by_hand(part, hand.width * size * 0.55, light, size, rng)
    return strokes


def _line_maps(b: Buffers, hand: Hand) -> list[tuple[np.ndarray, float, float]]:
    """[(edge map, weight, smoothing)] from the strongest to the faintest."""
    size = b.camera.width
    label, depth = b.labels, b.depth
    person = label != LABEL["background"]
    # single strands and the gaps between them have no outlines
    hairy = gaussian_filter((label == LABEL["hair"]).astype(np.float32), size / 90) > 0.5
    groups = np.zeros_like(label)  # regions whose common borders are drawn
    groups[person] = 1
    for value, names in ((2, ("hat",)), (3, ("cloth",)), (4, ("l_ear", "r_ear")), (5, ("ear_r",))):
        groups[np.isin(label, [LABEL[n] for n in names])] = value
    groups[(label == LABEL["hair"]) & ~hairy] = 1
    groups[hairy] = 6
    z = np.where(np.isfinite(depth), depth, depth[np.isfinite(depth)].max() + 1)
    step = _border(z, 0.10)
    features = ("l_eye", "r_eye", "u_lip", "l_lip", "mouth")
    borders = _border(np.where(np.isin(label, [LABEL[n] for n in features]), label, 0))
    valley = gaussian_filter(b.facing, size / 300) - gaussian_filter(b.facing, size / 75)
    away = ~_grown(hairy | (label == LABEL["cloth"]), max(2, size // 100))
    flat = person & away & ~_grown(_border(person), max(2, size // 80))
    crease = (valley < -hand.crease) & flat & ~_grown(borders, 2)
    silhouette = (_border(groups) | (step & person & away & ~b.glasses)) & ~_grown(borders, 1)
    out = [(silhouette, 1.0, 2.2), (borders, 0.85, 1.4), (crease, 0.55, 1.6)]
    if b.glasses.any():
        out.append((_border(b.glasses), 1.1, 2.0))
    return out


def _grown(mask: np.ndarray, by: int) -> np.ndarray:
    """The mask, ``by`` pixels larger on every side."""
    return np.asarray(binary_dilation(mask, iterations=by))


def _at(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of (H, W) at pixel coordinates (..., 2) x, y, clipped to the image."""
    x, y = np.moveaxis(np.clip(points.astype(int), 0, len(image) - 1), -1, 0)
    return image[y, x]


def _border(values: np.ndarray, threshold: float = 0) -> np.ndarray:
    """Mask of the pixels that differ from their right or lower neighbour by more than ``threshold``."""
    out = np.zeros(values.shape, bool)
    values = values.astype(np.float32)  # labels and booleans have no signed difference
    out[:, :-1] |= np.abs(np.diff(values, axis=1)) > threshold
    out[:-1] |= np.abs(np.diff(values, axis=0)) > threshold
    return out


def _by_hand(points: np.ndarray, width: float, hand: Hand, size: int, rng: np.random.Generator) -> list[Stroke]:
    """Draws one true line in the style of the hand: with wobble, overshoot, gaps and several passes."""
    out = []
    for _ in range(hand.passes):
        p = resample(points, 2.0)
        n = len(p)
        if n < 2:
            continue
        if hand.overshoot and n > 4:
            run = hand.overshoot * size * rng.random(2)
            first, last = (v / max(np.hypot(*v), 1e-6) for v in (p[0] - p[2], p[-1] - p[-3]))
            p = np.concatenate([[p[0] + first * run[0]], p, [p[-1] + last * run[1]]])
            n = len(p)
        slow = smooth(rng.normal(0, 1, (n, 2)), max(2.0, n / 6))
        slow = slow / max(slow.std(), 1e-3) if n > 8 else slow
        p = p + slow * hand.wobble * size * 0.7 + rng.normal(0, hand.wobble * size * 0.5, 2)
        if rng.random() < hand.gaps and n > 10:
            a, b = np.sort(rng.integers(0, n, 2))
            pieces = [p[:a], p[b:]] if b - a < n // 3 else [p[a:b]]
        else:
            pieces = [p]
        weight, dark = width * rng.uniform(0.85, 1.15), hand.ink * rng.uniform(0.85, 1.0)
        out += [Stroke(q, weight, min(1.0, dark)) for q in pieces if len(q) >= 2]
    return out


def _runs(points: np.ndarray, keep: np.ndarray) -> list[np.ndarray]:
    """The consecutive runs of a polyline where ``keep`` is true, of at least two points."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], keep.astype(np.int8), [0]])))
    return [points[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= 2]
