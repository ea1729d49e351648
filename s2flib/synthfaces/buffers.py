"""What line drawing needs to know of a picture: its geometry, before any light fell on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s2flib.synthfaces import eyes
from s2flib.synthfaces.camera import Camera
from s2flib.synthfaces.labels import LABEL
from s2flib.synthfaces.mesh import cross, dot, unit


@dataclass(frozen=True)
class Buffers:
    """The picture's geometry at ``camera.width`` pixels, before any light fell on it."""

    camera: Camera
    depth: np.ndarray        # (H, W) float32 dm, +inf on the background; smaller is nearer
    facing: np.ndarray       # (H, W) float32, normal · view, 0 at silhouettes
    labels: np.ndarray       # (H, W) uint8, as if lenses were not there
    glasses: np.ndarray      # (H, W) bool, frames and lenses
    brow: np.ndarray         # (H, W) float32 density of brow hair
    beard: np.ndarray        # (H, W) bool
    landmarks: np.ndarray    # (68, 2) pixels of the drawing
    hair: np.ndarray | None  # (S, K, 3) pixel x, y, depth of the strands
    hair_depth: np.ndarray   # (H, W) float32, front of the hair, +inf elsewhere
    open_eye: np.ndarray     # (H, W) bool, eyeball in view (also behind clear lenses)
    irises: np.ndarray       # (2, 48, 2) pixels, outlines of the person's right and left iris


def collect(canvas, points: np.ndarray, bare: np.ndarray) -> Buffers:
    """Buffers of a finished portrait._Canvas; points: landmarks (68, 2); bare: labels before lenses, flat."""
    size = canvas.camera.width
    facing, brow = np.ones(size * size, np.float32), np.zeros(size * size, np.float32)
    facing[canvas.hits.pixel] = dot(canvas.normals, canvas.view)
    brow[canvas.hits.pixel[canvas.skin_hits]] = canvas.surface.brow
    hair = canvas.camera.project(canvas.extras["hair"]) if "hair" in canvas.extras else None
    if hair is not None and "hair_hidden" in canvas.extras:
        hair[canvas.extras["hair_hidden"] > 0.5] = np.nan
    names = [p.name for p in canvas.parts]
    open_eye = np.zeros(size * size, bool)
    open_eye[canvas.hits.pixel[np.isin(canvas.part, [names.index("r_eye"), names.index("l_eye")])]] = True
    open_eye &= canvas.hair_alpha < 0.5
    return Buffers(canvas.camera, canvas.depth.reshape(size, size), facing.reshape(size, size),
                   bare.reshape(size, size), (canvas.labels == LABEL["eye_g"]).reshape(size, size),
                   brow.reshape(size, size),
                   (canvas.beard_alpha > 0.4).reshape(size, size), points, hair,
                   canvas.hair_depth.reshape(size, size), open_eye.reshape(size, size), _irises(canvas))


def _irises(canvas) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 48)
    out = []
    for name, (_, radius) in zip(("r_eye", "l_eye"), canvas.person.eyes, strict=True):
        part = next(p for p in canvas.parts if p.name == name)
        centre = canvas.extras["eyes"][0 if name == "r_eye" else 1]
        gaze = part.normals[0]                        # the ball's pole looks along the gaze
        a = unit(cross(gaze, np.array([0, 1, 0.01])))
        b = cross(gaze, a)
        r = eyes.IRIS
        ring = np.cos(angle)[:, None] * a * r + np.sin(angle)[:, None] * b * r + gaze * np.sqrt(1 - r * r)
        out.append(canvas.camera.project((centre + ring * radius * 0.985).astype(np.float32))[:, :2])
    return np.stack(out).astype(float)
