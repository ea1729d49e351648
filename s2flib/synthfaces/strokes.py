"""Strokes: converts maps of edge pixels to polylines, and draws polylines as ink."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.ndimage import convolve, gaussian_filter1d

_RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


class Stroke(NamedTuple):
    """A polyline (n, 2) of x, y in pixels, with width in pixels and darkness in [0, 1]."""

    points: np.ndarray
    width: float
    ink: float = 1.0


def thin(mask: np.ndarray) -> np.ndarray:
    """Skeleton of a boolean map, one pixel wide (Zhang and Suen 1984).

    Kept instead of skimage.morphology.skeletonize, whose skeletons differ in some pixels, so that drawings remain
    reproducible.
    """
    m = np.pad(mask.astype(bool), 1)
    while True:
        removed = False
        for step in (0, 1):
            p = [np.roll(m, (-dy, -dx), (0, 1)) for dy, dx in _RING]
            count = sum(q.astype(np.int8) for q in p)
            turns = sum((~a & b).astype(np.int8) for a, b in zip(p, p[1:] + p[:1], strict=True))
            n, e, s, w = p[0], p[2], p[4], p[6]
            ends = ~(n & e & s) & ~(e & s & w) if step == 0 else ~(n & e & w) & ~(n & s & w)
            out = m & (count >= 2) & (count <= 6) & (turns == 1) & ends
            removed |= bool(out.any())
            m = m & ~out
        if not removed:
            return m[1:-1, 1:-1]


def trace(lines: np.ndarray, shortest: int = 5) -> list[np.ndarray]:
    """Traces a thin boolean map into polylines (n, 2) of x, y, longest first; drops those below ``shortest`` points."""
    neighbours = convolve(lines.astype(np.int8), np.ones((3, 3), np.int8), mode="constant") - 1
    left = {(int(y), int(x)) for y, x in np.argwhere(lines)}
    starts = sorted(left, key=lambda p: (neighbours[p] != 1, p))  # ends first, then loops
    found = []
    for start in starts:
        if start not in left:
            continue
        left.discard(start)
        chain, direction = [start], (0, 0)
        while True:
            y, x = chain[-1]
            options = [(dy, dx) for dy, dx in _RING if (y + dy, x + dx) in left]
            if not options:
                break
            # go straight on at crossings
            direction = max(options, key=lambda o: o[0] * direction[0] + o[1] * direction[1] - 0.3 * abs(o[0] * o[1]))
            chain.append((y + direction[0], x + direction[1]))
            left.discard(chain[-1])
        if len(chain) >= shortest:
            found.append(np.array(chain, float)[:, ::-1])
    return sorted(found, key=len, reverse=True)


def smooth(points: np.ndarray, sigma: float) -> np.ndarray:
    """Smooths the pixel steps of a polyline."""
    if len(points) < 4:
        return points
    return gaussian_filter1d(points, sigma, axis=0, mode="nearest")


def split_at_corners(points: np.ndarray, span: int, degrees: float) -> list[np.ndarray]:
    """Cuts a polyline where it turns by more than ``degrees`` over ``span`` points."""
    if len(points) <= 2 * span:
        return [points]
    middle = points[span:-span]
    a, b = middle - points[: -2 * span], points[2 * span :] - middle
    cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-9)
    cuts, last = [0], -span
    for i in np.nonzero(cosine < np.cos(np.radians(degrees)))[0]:
        if i - last > 2 * span:
            cuts.append(int(i) + span)
            last = i
    return [points[i : j + 1] for i, j in pairwise([*cuts, len(points) - 1]) if j - i > 2]


def resample(points: np.ndarray, spacing: float) -> np.ndarray:
    """Resamples a polyline at (nearly) ``spacing``, equal along its arc length."""
    step = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0], np.cumsum(step)])
    if along[-1] < 1e-6:
        return points[:1]
    at = np.linspace(0, along[-1], max(2, int(np.ceil(along[-1] / spacing)) + 1))
    return np.stack([np.interp(at, along, points[:, c]) for c in (0, 1)], 1)


def ink(strokes: list[Stroke], size: int, taper: float = 0.35) -> np.ndarray:
    """Draws strokes on white, (size, size) float32 in [0, 1]: antialiased, thinner towards both ends.

    ``taper``: fraction of a stroke's length over which it swells and fades, > 0.
    """
    dots = []  # (n, 4): x, y, radius, darkness
    for stroke in strokes:
        p = resample(stroke.points, 0.6)
        t = np.linspace(0, 1, len(p))
        swell = np.clip(np.minimum(t, 1 - t) / taper, 0, 1) ** 0.7
        radius, darkness = stroke.width / 2 * (0.35 + 0.65 * swell), stroke.ink * (0.55 + 0.45 * swell)
        dots.append(np.column_stack([p, radius, darkness]))
    paper = np.zeros(size * size, np.float32)
    if not dots:
        return 1 - paper.reshape(size, size)
    x, y, r, d = np.ascontiguousarray(np.concatenate(dots).astype(np.float32).T)
    reach = int(np.ceil(r.max() + 0.5))
    ix, iy = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            px, py = ix + dx, iy + dy
            cover = np.clip(r + 0.5 - np.hypot(px + 0.5 - x, py + 0.5 - y), 0, 1) * d
            ok = (cover > 0) & (px >= 0) & (px < size) & (py >= 0) & (py < size)
            np.maximum.at(paper, py[ok] * size + px[ok], cover[ok])
    return 1 - paper.reshape(size, size)
