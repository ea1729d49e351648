"""Line drawings from geometry, as an artist would put them down: no shading of the photo enters.

A pencil sketch computed from a photo carries its light and tones; a model trained on it learns to read them
(the paper's "information leak"). Here the lines come from depth, surface orientation, region borders and the
flow of the hair, so skin tone, hair colour and light are simply not in the drawing.

Lines: silhouettes and depth steps; suggestive contours as valleys of n·v (image-space version of DeCarlo et
al. 2003); borders of lids, lips, brows, ears, hair, hat, glasses and clothes; irises; hair by hair strokes of
brow and beard; strands of the hair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter

from s2flib.synthfaces.buffers import Buffers
from s2flib.synthfaces.labels import LABEL
from s2flib.synthfaces.strokes import Stroke, ink, resample, smooth, split_at_corners, thin, trace


@dataclass(frozen=True)
class Hand:
    """How somebody draws. Lengths as shares of the picture's width."""

    width: float            # of an outline
    wobble: float           # amplitude of slow deviations from the true line
    gaps: float             # share of strokes broken off
    passes: int             # how often a line is gone over
    overshoot: float        # how far a stroke runs on
    hair: int               # strands drawn
    crease: float           # threshold of suggestive contours: lower draws more
    ink: float
    taper: float


_FINEST = 1.6      # pixels of the (doubled) drawing; thinner outlines would be grey
HANDS = {
    "clean": Hand(0.0075, 0.0008, 0.05, 1, 0.0, 150, 0.030, 0.95, 0.3),
    "sketchy": Hand(0.0050, 0.0042, 0.25, 3, 0.012, 330, 0.022, 0.62, 0.45),
    "composite": Hand(0.0085, 0.0016, 0.02, 1, 0.003, 620, 0.018, 0.85, 0.2),
}


def line_drawing(buffers: Buffers, hand: str | Hand = "clean", seed: int = 0) -> np.ndarray:
    """(H, W) uint8 drawing, white paper 255, at half the buffers' size (they are computed at twice it)."""
    hand = HANDS[hand] if isinstance(hand, str) else hand
    size = buffers.camera.width
    rng = np.random.default_rng([seed, 11])
    strokes = outline_strokes(buffers, hand, rng) + iris_strokes(buffers, hand)
    strokes += growth_strokes(buffers, hand, rng) + hair_strokes(buffers, hand, rng)
    paper = ink(strokes, size, hand.taper)
    small = paper.reshape(size // 2, 2, size // 2, 2).mean((1, 3))
    return (np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8)


def outline_strokes(b: Buffers, hand: Hand, rng: np.random.Generator) -> list[Stroke]:
    """Strokes of everything that is an edge, each kind with its own weight."""
    size = b.camera.width
    width = max(hand.width * size, _FINEST)
    strokes = []
    for lines, weight, softness in _line_maps(b, hand):
        for chain in trace(thin(lines), shortest=max(4, size // 48)):
            for part in split_at_corners(smooth(chain, softness), max(3, size // 64), 62):
                strokes += _by_hand(part, width * weight, hand, size, rng)
    return strokes


def iris_strokes(b: Buffers, hand: Hand) -> list[Stroke]:
    """Iris outline and a filled pupil, cut off by the lids."""
    size = b.camera.width
    strokes = []
    for points in b.irises:
        ij = np.clip(points.astype(int), 0, size - 1)
        seen = b.open_eye[ij[:, 1], ij[:, 0]]
        for part in _runs(points, seen):
            strokes.append(Stroke(part, hand.width * size * 0.8, hand.ink))
        centre = points.mean(0)
        radius = np.hypot(*(points - centre).T).mean()
        at = np.clip(centre.astype(int), 0, size - 1)
        if b.open_eye[at[1], at[0]]:
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
        line = resample(points if side > 0 else points[::-1], 1.0)       # from nose to temple
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
    """The visible part of some strands: the hair's mass and flow."""
    if b.hair is None:
        return []
    size = b.camera.width
    strokes = []
    for k in rng.choice(len(b.hair), min(len(b.hair), hand.hair), replace=False):
        strand = b.hair[k]
        p = np.nan_to_num(strand[:, :2], nan=-1)
        ij = np.clip(p.astype(int), 0, size - 1)
        inside = (p >= 0).all(1) & (p < size).all(1)
        seen = inside & (b.labels[ij[:, 1], ij[:, 0]] == LABEL["hair"])
        seen &= strand[:, 2] < b.hair_depth[ij[:, 1], ij[:, 0]] + 0.05
        for part in _runs(p, seen):
            if np.hypot(*np.diff(part, axis=0).T).sum() > 0.02 * size:
                strokes += _by_hand(part, hand.width * size * 0.55, hand, size, rng, passes=1, ink_factor=0.8)
    return strokes


def _line_maps(b: Buffers, hand: Hand) -> list[tuple[np.ndarray, float, float]]:
    """[(edge map, weight, smoothing)] from the strongest to the faintest."""
    size = b.camera.width
    label, depth = b.labels, b.depth
    person = label != LABEL["background"]
    # single strands and holes between them are not outlines
    hairy = gaussian_filter((label == LABEL["hair"]).astype(np.float32), size / 90) > 0.5
    groups = np.zeros_like(label)                     # regions whose common borders are drawn
    groups[person] = 1
    for value, names in ((2, ("hat",)), (3, ("cloth",)), (4, ("l_ear", "r_ear")), (5, ("ear_r",))):
        groups[np.isin(label, [LABEL[n] for n in names])] = value
    groups[(label == LABEL["hair"]) & ~hairy] = 1
    groups[hairy] = 6
    glasses = b.glasses
    outline = _border(groups)
    z = np.where(np.isfinite(depth), depth, depth[np.isfinite(depth)].max() + 1)
    step = np.zeros_like(person)
    step[:, :-1] |= np.abs(np.diff(z, axis=1)) > 0.10
    step[:-1] |= np.abs(np.diff(z, axis=0)) > 0.10
    features = ("l_eye", "r_eye", "u_lip", "l_lip", "mouth")
    borders = _border(np.where(np.isin(label, [LABEL[n] for n in features]), label, 0))
    # lids: the upper one carries the lashes
    valley = gaussian_filter(b.facing, size / 300) - gaussian_filter(b.facing, size / 75)
    away = ~binary_dilation(hairy | (label == LABEL["cloth"]), iterations=max(2, size // 100))
    flat = person & away & ~binary_dilation(_border(person.astype(np.uint8)), iterations=max(2, size // 80))
    crease = (valley < -hand.crease) & flat & ~binary_dilation(borders, iterations=2)
    silhouette = (outline | (step & person & away & ~glasses)) & ~binary_dilation(borders, iterations=1)
    out = [(silhouette, 1.0, 2.2), (borders, 0.85, 1.4), (crease, 0.55, 1.6)]
    if glasses.any():
        out.append((_border(glasses.astype(np.uint8)), 1.1, 2.0))
    return out


def _border(values: np.ndarray) -> np.ndarray:
    out = np.zeros(values.shape, bool)
    out[:, :-1] |= values[:, :-1] != values[:, 1:]
    out[:-1] |= values[:-1] != values[1:]
    return out


def _by_hand(points: np.ndarray, width: float, hand: Hand, size: int, rng: np.random.Generator,
             passes: int | None = None, ink_factor: float = 1.0) -> list[Stroke]:
    """One true line as this hand puts it down: wobble, overshoot, gaps, several passes."""
    out = []
    for _ in range(passes or hand.passes):
        p = resample(points, 2.0)
        n = len(p)
        if n < 2:
            continue
        if hand.overshoot and n > 4:
            run = hand.overshoot * size * rng.random(2)
            first, last = p[0] - p[2], p[-1] - p[-3]
            p = np.concatenate([[p[0] + first / max(np.hypot(*first), 1e-6) * run[0]], p,
                                [p[-1] + last / max(np.hypot(*last), 1e-6) * run[1]]])
            n = len(p)
        slow = smooth(rng.normal(0, 1, (n, 2)), max(2.0, n / 6))
        slow = slow / max(slow.std(), 1e-3) if n > 8 else slow
        p = p + slow * hand.wobble * size * 0.7 + rng.normal(0, hand.wobble * size * 0.5, 2)
        if rng.random() < hand.gaps and n > 10:
            a, b = np.sort(rng.integers(0, n, 2))
            pieces = [p[:a], p[b:]] if b - a < n // 3 else [p[a:b]]
        else:
            pieces = [p]
        weight, dark = width * rng.uniform(0.85, 1.15), hand.ink * ink_factor * rng.uniform(0.85, 1.0)
        out += [Stroke(q, weight, min(1.0, dark)) for q in pieces if len(q) >= 2]
    return out


def _runs(points: np.ndarray, keep: np.ndarray) -> list[np.ndarray]:
    """The consecutive stretches of a polyline where ``keep`` holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], keep.astype(np.int8), [0]])))
    return [points[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= 2]
