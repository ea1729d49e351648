"""A triangle rasteriser in numpy: scans bounding boxes and keeps the nearest depth.

``Hits`` contains the visible triangle and the position in it for each covered pixel; shading inputs are then
interpolated for these pixels only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_TINY = 1e-6


class Hits(NamedTuple):
    """Result of rasterisation. Pixels are flat indices y·width + x."""

    depth: np.ndarray  # (H·W,) float32, +inf for empty pixels
    pixel: np.ndarray  # (n,) int32, covered pixels in ascending order
    triangle: np.ndarray  # (n,) int32
    weights: np.ndarray  # (n, 3) float32, barycentric

    def gather(self, values: np.ndarray, tris: np.ndarray, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Interpolates vertex values (V, C) or (V,) at the hits → (n, C) or (n,)."""
        corner = tris[self.triangle[which]]
        w = self.weights[which].reshape(-1, 3, *[1] * (values.ndim - 1))
        out = values[corner[:, 0]] * w[:, 0]
        out += values[corner[:, 1]] * w[:, 1]
        out += values[corner[:, 2]] * w[:, 2]
        return out


def rasterise(screen: np.ndarray, tris: np.ndarray, height: int, width: int, cull: bool = False) -> Hits:
    """Depth-resolved view of triangles.

    screen (V, 3): pixel x, pixel y (y down), depth (smaller is nearer). A pixel belongs to a triangle if its
    centre is inside. ``cull`` drops triangles that are clockwise on the screen (seen from behind).
    """
    p = screen.astype(np.float32, copy=False)
    a, b, c = p[tris[:, 0]], p[tris[:, 1]], p[tris[:, 2]]
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    x0, x1 = _span(a[:, 0], b[:, 0], c[:, 0], width)
    y0, y1 = _span(a[:, 1], b[:, 1], c[:, 1], height)
    ok = (x1 > x0) & (y1 > y0)
    ok &= (area < -_TINY) if cull else (np.abs(area) > _TINY)
    t = np.nonzero(ok)[0]
    a, b, c, inverse = a[t], b[t], c[t], 1 / area[t]
    w, x0, y0 = (x1 - x0)[t], x0[t], y0[t]
    count = w * (y1[t] - y0)

    # barycentric coordinates are affine in the pixel: u = u0 + ux·dx + uy·dy from the first pixel of the box
    ux, uy = (c[:, 1] - a[:, 1]) * inverse, (a[:, 0] - c[:, 0]) * inverse
    vx, vy = (a[:, 1] - b[:, 1]) * inverse, (b[:, 0] - a[:, 0]) * inverse
    fx, fy = x0.astype(np.float32) + 0.5 - a[:, 0], y0.astype(np.float32) + 0.5 - a[:, 1]
    u0, v0 = fx * ux + fy * uy, fx * vx + fy * vy

    rep = np.repeat(np.arange(len(t), dtype=np.int32), count)
    start = (np.cumsum(count) - count).astype(np.int32)
    local = np.arange(len(rep), dtype=np.int32) - start[rep]
    dy, dx = np.divmod(local, w[rep])
    fx, fy = dx.astype(np.float32), dy.astype(np.float32)
    u = u0[rep] + ux[rep] * fx + uy[rep] * fy
    v = v0[rep] + vx[rep] * fx + vy[rep] * fy
    inside = np.nonzero((u >= 0) & (v >= 0) & (u + v <= 1))[0]
    rep, u, v, dx, dy = rep[inside], u[inside], v[inside], dx[inside], dy[inside]
    z = a[rep, 2] * (1 - u - v) + b[rep, 2] * u + c[rep, 2] * v
    pixel = (y0[rep] + dy) * width + x0[rep] + dx

    depth = np.full(height * width, np.inf, np.float32)
    np.minimum.at(depth, pixel, z)
    win = np.nonzero(z == depth[pixel])[0]
    owner = np.full(height * width, -1, np.int32)
    owner[pixel[win]] = win
    seen = np.nonzero(owner >= 0)[0].astype(np.int32)
    k = owner[seen]
    weights = np.stack([1 - u[k] - v[k], u[k], v[k]], 1)
    return Hits(depth, seen, t[rep[k]].astype(np.int32), weights)


def _span(a: np.ndarray, b: np.ndarray, c: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """The first pixel whose centre can be inside, and one past the last."""
    low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
    first, end = np.ceil(low - 0.5), np.floor(high + 0.5)
    return np.clip(first, 0, limit).astype(np.int32), np.clip(end, 0, limit).astype(np.int32)
