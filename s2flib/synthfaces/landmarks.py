"""68 landmarks in the iBUG order, attached to the mesh and projected, not detected.

0–16 jaw from the person's right ear, 17–26 brows, 27–35 nose, 36–47 eyes, 48–67 lips. The person's right side
(left in the picture) comes first, as in the published scheme.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from s2flib.synthfaces.assets import Head
from s2flib.synthfaces.camera import Camera
from s2flib.synthfaces.person import Person, Pose
from s2flib.synthfaces.shot import Shot

# canonical positions (dm) on the person's left half; the right half mirrors them
_JAW = [(0.74, 7.15, 0.62), (0.71, 6.97, 0.62), (0.67, 6.78, 0.66), (0.61, 6.60, 0.74), (0.53, 6.44, 0.88),
        (0.42, 6.31, 1.06), (0.30, 6.23, 1.24), (0.15, 6.18, 1.37), (0.0, 6.17, 1.41)]  # fmt: skip
_BROW = [(0.145, 7.40, 1.5), (0.22, 7.445, 1.5), (0.32, 7.465, 1.45), (0.42, 7.45, 1.4), (0.51, 7.405, 1.3)]
_NOSE = [(0, 7.26, 1.52), (0, 7.15, 1.57), (0, 7.04, 1.63), (0, 6.925, 1.68)]
_NOSTRILS = [(0.0, 6.825, 1.60), (0.075, 6.835, 1.56), (0.15, 6.85, 1.50)]
_LIPS_OUTER = [(0.252, 6.607, 1.40), (0.15, 6.68, 1.51), (0.055, 6.718, 1.575), (0.0, 6.70, 1.585),
               (0.0, 6.494, 1.54), (0.075, 6.503, 1.53), (0.165, 6.545, 1.49)]  # fmt: skip
_LIPS_INNER = [(0.215, 6.607, 1.42), (0.08, 6.62, 1.545), (0.0, 6.62, 1.56), (0.0, 6.598, 1.555), (0.08, 6.597, 1.54)]


@lru_cache(maxsize=2)
def vertices(head: Head) -> np.ndarray:
    """Skin vertex of each landmark, (68,) int."""

    def right(points: list) -> list:
        return [(-x, y, z) for x, y, z in points]

    jaw = right(_JAW) + _JAW[-2::-1]
    brows = right(_BROW[::-1]) + _BROW
    nose = _NOSE + right(_NOSTRILS[:0:-1]) + _NOSTRILS
    outer = right(_LIPS_OUTER[:4]) + _LIPS_OUTER[2::-1] + _LIPS_OUTER[:3:-1] + right(_LIPS_OUTER[5:])
    inner = right(_LIPS_INNER[:3]) + _LIPS_INNER[1::-1] + [_LIPS_INNER[4], _LIPS_INNER[3]] + right(_LIPS_INNER[4:])
    before, after = (head.nearest(np.array(points, float)) for points in (jaw + brows + nose, outer + inner))
    return np.concatenate([before, _eye(head, -1), _eye(head, 1), after])


def project(person: Person, shot: Shot, camera: Camera) -> np.ndarray:
    """(68, 2) pixels x, y of the posed face with its expression in ``camera``."""
    head = person.head
    which = vertices(head)
    points = head.subdivide[which] @ person.expressive(shot)
    return camera.project(Pose(person, shot)(points, head.smooth[which, 1]))[:, :2].astype(np.float64)


def _eye(head: Head, sign: int) -> np.ndarray:
    """Six vertices on the lid margins at the lash roots: corners and two on each lid, in iBUG order."""
    upper, lower = (_roots(head, name, sign) for name in ("lash_upper", "lash_lower"))

    def at(margin: np.ndarray, x: float) -> np.ndarray:
        return margin[np.abs(margin[:, 0] - x).argmin()]

    xs = sorted(x * sign for x in (0.178, 0.27, 0.37, 0.462))  # from the person's right to the left
    return head.nearest(np.stack([at(upper, x) for x in xs] + [at(lower, xs[2]), at(lower, xs[1])]))


def _roots(head: Head, name: str, sign: int) -> np.ndarray:
    used = np.unique(head.parts[name])
    root = used[head.lash_tip[name][used] < 0.08]
    points = head.vertices[root]
    return points[points[:, 0] * sign > 0]
