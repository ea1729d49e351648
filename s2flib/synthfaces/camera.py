"""Perspective camera at portrait distance, framed like aligned face data sets (FFHQ, CelebA-HQ)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from s2flib.synthfaces.mesh import unit

ZOOM_OUT = 1.07  # slightly wider than FFHQ's crop, to leave room for hair and shoulders


@dataclass(frozen=True)
class Camera:
    """Looks along −z from (0, 0, distance). ``centre``, ``across`` and ``down`` define the square crop in the image
    plane (dm at the origin's depth): a point q maps to (1 + (q − centre)·across/|across|²)/2 of the width."""

    distance: float
    centre: np.ndarray  # (2,)
    across: np.ndarray  # (2,) from the centre to the right edge
    down: np.ndarray  # (2,) from the centre to the lower edge
    width: int  # pixels

    @property
    def pixels_per_dm(self) -> float:
        return self.width / (2 * float(np.hypot(*self.across)))

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) dm → pixel x, pixel y, depth (−z, smaller is nearer), float32."""
        scale = self.distance / (self.distance - points[..., 2])
        x, y = points[..., 0] * scale - self.centre[0], -points[..., 1] * scale - self.centre[1]
        s = self.width / 2 / float(self.across @ self.across)
        out = np.empty(points.shape, np.float32)
        out[..., 0] = (x * self.across[0] + y * self.across[1]) * s + self.width / 2
        out[..., 1] = (x * self.down[0] + y * self.down[1]) * s + self.width / 2
        out[..., 2] = -points[..., 2]
        return out

    def view(self, points: np.ndarray) -> np.ndarray:
        """Unit vectors from points towards the camera."""
        return unit(np.array([0, 0, self.distance], points.dtype) - points)

    def resized(self, width: int) -> Camera:
        return replace(self, width=width)


def aligned_camera(eyes: np.ndarray, mouth: np.ndarray, distance: float, width: int) -> Camera:
    """FFHQ's alignment (Karras et al. 2019): eyes and mouth determine the crop's position, size and roll.

    eyes, mouth (2, 3): the person's right, then left, eye and mouth corner, on a neutral face, so that expressions
    do not move the frame.
    """
    points = np.concatenate([eyes, mouth])
    scale = distance / (distance - points[:, 2:])
    p = points[:, :2] * scale * [1, -1]
    eye_to_eye, eye = p[1] - p[0], (p[0] + p[1]) / 2
    eye_to_mouth = (p[2] + p[3]) / 2 - eye
    across = eye_to_eye - eye_to_mouth[::-1] * [-1, 1]
    across = across / np.hypot(*across)
    across = across * max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8) * ZOOM_OUT
    return Camera(distance, eye + eye_to_mouth * (0.1 + (ZOOM_OUT - 1)), across, across[::-1] * [-1, 1], width)
