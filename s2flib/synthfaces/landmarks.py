"""68 landmarks in the usual (iBUG) order, fixed to the mesh: they are projected, not detected.

0–16 jaw from the person's right ear, 17–26 brows, 27–35 nose, 36–47 eyes, 48–67 lips. The person's right comes
first (the picture's left), as in the published scheme.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from s2flib.synthfaces.assets import Head
from s2flib.synthfaces.camera import Camera
from s2flib.synthfaces.person import Person, Pose
from s2flib.synthfaces.shot import Shot

# canonical places (dm) on the person's left half; the right half mirrors them
_JAW = [(0.74, 7.15, 0.62), (0.71, 6.97, 0.62), (0.67, 6.78, 0.66), (0.61, 6.60, 0.74), (0.53, 6.44, 0.88),
        (0.42, 6.31, 1.06), (0.30, 6.23, 1.24), (0.15, 6.18, 1.37), (0.0, 6.17, 1.41)]
_BROW = [(0.145, 7.40, 1.5), (0.22, 7.445, 1.5), (0.32, 7.465, 1.45), (0.42, 7.45, 1.4), (0.51, 7.405, 1.3)]
_NOSE = [(0, 7.26, 1.52), (0, 7.15, 1.57), (0, 7.04, 1.63), (0, 6.925, 1.68)]
_NOSTRILS = [(0.0, 6.825, 1.60), (0.075, 6.835, 1.56), (0.15, 6.85, 1.50)]
_LIPS_OUTER = [(0.252, 6.607, 1.40), (0.15, 6.68, 1.51), (0.055, 6.718, 1.575), (0.0, 6.70, 1.585),
               (0.0, 6.494, 1.54), (0.075, 6.503, 1.53), (0.165, 6.545, 1.49)]
_LIPS_INNER = [(0.215, 6.607, 1.42), (0.08, 6.620, 1.545), (0.0, 6.620, 1.56), (0.0, 6.598, 1.555), (0.08, 6.597, 1.54)]


@lru_cache(maxsize=2)
def vertices(head: Head) -> np.ndarray:
    """Skin vertex of each landmark, (68,) int."""
    left = np.array([1, 1, 1])
    right = np.array([-1, 1, 1])

    def of(points, side) -> np.ndarray:
        return np.array(points, float) * side

    jaw = np.concatenate([of(_JAW, right), of(_JAW[-2::-1], left)])
    brows = np.concatenate([of(_BROW[::-1], right), of(_BROW, left)])
    nose = np.concatenate([of(_NOSE, left), of(_NOSTRILS[:0:-1], right), of(_NOSTRILS, left)])
    outer = np.concatenate([of(_LIPS_OUTER[:4], right), of(_LIPS_OUTER[2::-1], left), of(_LIPS_OUTER[:3:-1], left),
                            of(_LIPS_OUTER[5:], right)])
    inner = np.concatenate([of(_LIPS_INNER[:3], right), of(_LIPS_INNER[1::-1], left), of(_LIPS_INNER[:2:-1], left)[:1],
                            of(_LIPS_INNER[3:4], left), of(_LIPS_INNER[4:], right)])
    found = np.concatenate([head.nearest(a) for a in (jaw, brows, nose)])
    eyes = np.concatenate([_eye(head, -1), _eye(head, 1)])
    lips = head.nearest(np.concatenate([outer, inner]))
    return np.concatenate([found, eyes, lips])


def project(person: Person, shot: Shot, camera: Camera) -> np.ndarray:
    """(68, 2) pixels x, y of the expressive, posed face in ``camera``."""
    head = person.head
    base = person.base.copy()
    for unit, strength in shot.action.items():
        index, offset = head.target(f"expr/{unit}")
        base[index] += strength * offset
    which = vertices(head)
    points = head.subdivide[which] @ base
    return camera.project(Pose(person, shot)(points, head.smooth[which, 1]))[:, :2].astype(np.float64)


def _eye(head: Head, sign: int) -> np.ndarray:
    """Six vertices on the lid margins where the lashes root: corners and two on each lid, iBUG order."""
    upper, lower = (_roots(head, name, sign) for name in ("lash_upper", "lash_lower"))

    def at(margin: np.ndarray, x: float) -> np.ndarray:
        return margin[np.abs(margin[:, 0] - x).argmin()]

    inner, outer = 0.178 * sign, 0.462 * sign
    xs = [outer, 0.37 * sign, 0.27 * sign, inner] if sign < 0 else [inner, 0.27 * sign, 0.37 * sign, outer]
    first, u1, u2, last = (at(upper, x) for x in xs)
    return head.nearest(np.stack([first, u1, u2, last, at(lower, xs[2]), at(lower, xs[1])]))


def _roots(head: Head, name: str, sign: int) -> np.ndarray:
    used = np.unique(head.parts[name])
    root = used[head.lash_tip[name][used] < 0.08]
    points = head.vertices[root]
    return points[points[:, 0] * sign > 0]
