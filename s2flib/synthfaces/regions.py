"""Regions of the face as smooth functions of canonical coordinates.

They are defined on the neutral head, so they follow every morph: hairline, brows, beard, coloured areas, nose, neck,
collar.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from s2flib.synthfaces.assets import Head
from s2flib.synthfaces.mesh import smoothstep

# height of the hairline (dm) by azimuth from straight ahead (degrees)
_HAIRLINE = ([0, 14, 26, 38, 48, 57, 66, 78, 92, 105, 125, 180],
             [8.00, 8.01, 7.96, 7.86, 7.70, 7.50, 7.20, 7.16, 7.20, 6.98, 6.66, 6.50])  # fmt: skip


@lru_cache(maxsize=2)
def azimuth(head: Head) -> np.ndarray:
    """Azimuth of each skin vertex around the skull's axis, in degrees from straight ahead, 0 … 180."""
    return np.degrees(np.arctan2(np.abs(head.smooth[:, 0]), head.smooth[:, 2] - 0.5))


@lru_cache(maxsize=2)
def above_hairline(head: Head) -> np.ndarray:
    """Signed height (dm) of each skin vertex above the average hairline; −1 on and near the ears."""
    p = head.smooth
    height = p[:, 1] - np.interp(azimuth(head), *_HAIRLINE)
    height[head.vertex_masks["ears"] > 0.05] = -1
    height[(np.abs(p[:, 0]) > 0.77) & (p[:, 1] < 7.36)] = -1
    return height


def hairline(head: Head, recede: float, shift: float) -> np.ndarray:
    """Signed height (dm) above a person's hairline: ``recede`` clears the temples, ``shift`` lowers the hairline."""
    az = azimuth(head)
    bays = np.exp(-(((az - 36) / 17) ** 2)) * recede * 1.6 + recede * 0.8 * np.exp(-((az / 40) ** 2))
    return above_hairline(head) - bays + shift * (az < 62)


def brow_coordinates(points: np.ndarray, arch: float, lift: float) -> tuple[np.ndarray, np.ndarray]:
    """Position along the brow, 0 (nose) … 1 (temple), and signed height (dm) above its centre line."""
    t = (np.abs(points[..., 0]) - 0.125) / 0.40
    s = np.clip(t, 0, 1)
    rise = 0.045 * np.sin(np.pi * np.minimum(s * 0.78, 1)) * (1 + 0.55 * arch) - 0.04 * s**3 * (1 + arch)
    return t, points[..., 1] - (7.415 + lift + rise)


def brow_weight(points: np.ndarray, thickness: float, arch: float, lift: float) -> np.ndarray:
    """Density of brow hair, 0 … 1: full near the nose, tapering towards the temple."""
    t, over = brow_coordinates(points, arch, lift)
    s = np.clip(t, 0, 1)
    half = 0.036 * thickness * (1.08 - 0.82 * s**1.7) * (0.75 + 0.25 * smoothstep(0, 0.25, t))
    across = smoothstep(1.3, 0.35, np.abs(over) / half)
    return across * smoothstep(-0.07, 0.13, t) * smoothstep(1.04, 0.86, t) * (points[..., 2] > 0.8)


@lru_cache(maxsize=2)
def beard_zones(head: Head) -> dict[str, np.ndarray]:
    """Regions of beard growth, name → (V,) in [0, 1]: jaw, moustache, chin, and the bridge between the last two."""
    x, y, z = np.abs(head.smooth[:, 0]), head.smooth[:, 1], head.smooth[:, 2]
    off_lips = 1 - smoothstep(0.02, 0.25, head.vertex_masks["lips"])
    top = np.interp(x, [0, 0.25, 0.36, 0.5, 0.62, 0.72], [6.50, 6.52, 6.62, 6.72, 6.95, 7.2])
    jaw = smoothstep(0.07, -0.07, y - top) * smoothstep(6.0, 6.18, y - 0.12 * (z < 0.9)) * smoothstep(0.3, 0.45, z)
    jaw = jaw * off_lips * (head.vertex_masks["ears"] < 0.05)
    lip = smoothstep(0.37, 0.26, x) * smoothstep(6.595, 6.65, y) * (z > 1.1) * off_lips
    lip = lip * smoothstep(6.84, 6.76, y + 0.25 * np.maximum(x - 0.1, 0))
    chin = smoothstep(0.27, 0.18, x) * smoothstep(6.51, 6.44, y) * smoothstep(6.12, 6.2, y) * (z > 1.0) * off_lips
    bridge = smoothstep(0.13, 0.05, np.abs(x - 0.29)) * smoothstep(6.82, 6.7, y) * smoothstep(6.2, 6.4, y)
    return {"jaw": jaw, "moustache": lip, "chin": chin, "bridge": bridge * (z > 1.0) * off_lips}


def blob(points: np.ndarray, x: float, y: float, sx: float, sy: float) -> np.ndarray:
    """A Gaussian spot on the front of the face, mirrored left and right."""
    dx, dy = (np.abs(points[:, 0]) - x) / sx, (points[:, 1] - y) / sy
    return np.exp(-dx * dx - dy * dy) * smoothstep(0.4, 0.7, points[:, 2])


@lru_cache(maxsize=2)
def is_neck(head: Head) -> np.ndarray:
    """A ramp per skin vertex, > 0.5 below the jaw (interpolate before thresholding, for a straight edge)."""
    x, y, z = np.abs(head.smooth[:, 0]), head.smooth[:, 1], head.smooth[:, 2]
    jaw = np.interp(x, [0, 0.3, 0.5, 0.62, 0.75], [6.2, 6.26, 6.42, 6.6, 6.75])
    under = np.maximum(jaw - y, np.minimum(6.35 - y, 0.95 - z))
    return np.clip(under / 0.2 + 0.5, 0, 1).astype(np.float32)


@lru_cache(maxsize=2)
def is_nose(head: Head) -> np.ndarray:
    """A ramp per skin vertex, > 0.5 on the nose: bridge, sides, wings, base."""
    x, y, z = np.abs(head.smooth[:, 0]), head.smooth[:, 1], head.smooth[:, 2]
    half = np.interp(y, [6.80, 6.84, 6.95, 7.05, 7.22, 7.30], [0.09, 0.19, 0.215, 0.16, 0.09, 0.075])
    inside = np.minimum(np.minimum(half - x, y - 6.80), np.minimum(7.28 - y, z - 1.30))
    return np.clip(inside / 0.1 + 0.5, 0, 1).astype(np.float32)


def above_collar(points: np.ndarray, height: float, depth: float, width: float) -> np.ndarray:
    """Signed distance (dm, up is negative) from the edge of the garment: > 0 is cloth.

    The edge is at ``height``, dips by ``depth`` over ``width`` at the front, and rises slightly at the nape and, unless
    the neckline is deep, towards the shoulders.
    """
    x, y, z = np.abs(points[..., 0]), points[..., 1], points[..., 2]
    front = height - depth * np.exp(-((x / width) ** 2))
    edge = np.where(z > 0, front, height + 0.12) + 0.24 * smoothstep(0.3, 0.75, x) * (depth < 0.25)
    return edge - y
