"""Strokes: from a map of edge pixels to polylines, and from polylines to ink."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import convolve, gaussian_filter1d

_RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


class Stroke(NamedTuple):
    """A polyline (n, 2) of x, y in pixels, its width in pixels and its darkness in [0, 1]."""

    points: np.ndarray
    width: float
    ink: float = 1.0


def thin(mask: np.ndarray) -> np.ndarray:
    """Skeleton of a boolean map, one pixel wide (Zhang and Suen 1984)."""
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
    """Follow a thin boolean map into polylines (n, 2) of x, y, longest first; shorter ones are dropped."""
    neighbours = convolve(lines.astype(np.int8), np.ones((3, 3), np.int8), mode="constant") - 1
    left = {(int(y), int(x)) for y, x in np.argwhere(lines)}
    starts = sorted(left, key=lambda p: (neighbours[p] != 1, p))   # ends first, then loops
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
            # straight on where paths cross
            direction = max(options, key=lambda o: o[0] * direction[0] + o[1] * direction[1] - 0.3 * abs(o[0] * o[1]))
            chain.append((y + direction[0], x + direction[1]))
            left.discard(chain[-1])
        if len(chain) >= shortest:
            found.append(np.array(chain, float)[:, ::-1])
    return sorted(found, key=len, reverse=True)


def smooth(points: np.ndarray, sigma: float) -> np.ndarray:
    """Polyline without pixel steps; its ends stay."""
    if len(points) < 4:
        return points
    return gaussian_filter1d(points, sigma, axis=0, mode="nearest")


def split_at_corners(points: np.ndarray, span: int, degrees: float) -> list[np.ndarray]:
    """Cut a polyline where it turns by more than ``degrees`` over ``span`` points."""
    if len(points) <= 2 * span:
        return [points]
    a, b = points[span:-span] - points[:-2 * span], points[2 * span:] - points[span:-span]
    cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-9)
    cuts, last = [0], -span
    for i in np.nonzero(cosine < np.cos(np.radians(degrees)))[0]:
        if i - last > 2 * span:
            cuts.append(int(i) + span)
            last = i
    return [points[i:j + 1] for i, j in zip(cuts, cuts[1:] + [len(points) - 1], strict=True) if j - i > 2]


def resample(points: np.ndarray, spacing: float) -> np.ndarray:
    """Points at equal arc length."""
    step = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0], np.cumsum(step)])
    if along[-1] < 1e-6:
        return points[:1]
    at = np.linspace(0, along[-1], max(2, int(np.ceil(along[-1] / spacing)) + 1))
    return np.stack([np.interp(at, along, points[:, c]) for c in (0, 1)], 1)


def ink(strokes: list[Stroke], size: int, taper: float = 0.35) -> np.ndarray:
    """Draw strokes on white, (size, size) float32 in [0, 1]: antialiased, thinner towards both ends.

    ``taper``: share of a stroke's length over which it swells and fades, 0 for none.
    """
    xs, ys, radii, darkness = [], [], [], []
    for stroke in strokes:
        p = resample(stroke.points, 0.6)
        n = len(p)
        t = np.linspace(0, 1, n)
        swell = np.clip(np.minimum(t, 1 - t) / max(taper, 1e-6), 0, 1) ** 0.7 if taper else np.ones(n)
        xs.append(p[:, 0])
        ys.append(p[:, 1])
        radii.append(stroke.width / 2 * (0.35 + 0.65 * swell))
        darkness.append(stroke.ink * (0.55 + 0.45 * swell))
    paper = np.zeros(size * size, np.float32)
    if not xs:
        return 1 - paper.reshape(size, size)
    x, y, r, d = (np.concatenate(v).astype(np.float32) for v in (xs, ys, radii, darkness))
    reach = int(np.ceil(r.max() + 0.5))
    ix, iy = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            px, py = ix + dx, iy + dy
            cover = np.clip(r + 0.5 - np.hypot(px + 0.5 - x, py + 0.5 - y), 0, 1) * d
            ok = (cover > 0) & (px >= 0) & (px < size) & (py >= 0) & (py < size)
            np.maximum.at(paper, py[ok] * size + px[ok], cover[ok])
    return 1 - paper.reshape(size, size)
