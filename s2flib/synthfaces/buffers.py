"""Geometry buffers for line drawing: what is seen in a picture, independent of light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s2flib.synthfaces import eyes
from s2flib.synthfaces.camera import Camera
from s2flib.synthfaces.labels import LABEL
from s2flib.synthfaces.mesh import cross, dot, unit


@dataclass(frozen=True)
class Buffers:
    """Geometry of a picture at ``camera.width`` pixels, H = W = camera.width."""

    camera: Camera
    depth: np.ndarray  # (H, W) float32 dm, +inf on the background; smaller is nearer
    facing: np.ndarray  # (H, W) float32, normal · view, 0 at silhouettes
    labels: np.ndarray  # (H, W) uint8, as if there were no lenses
    glasses: np.ndarray  # (H, W) bool, frames and lenses
    brow: np.ndarray  # (H, W) float32, density of eyebrow hair
    beard: np.ndarray  # (H, W) bool
    landmarks: np.ndarray  # (68, 2) pixels
    hair: np.ndarray | None  # (S, K, 3) pixel x, y, depth of the strands
    hair_depth: np.ndarray  # (H, W) float32, depth of the nearest hair, +inf elsewhere
    open_eye: np.ndarray  # (H, W) bool, visible eyeball (also behind clear lenses)
    irises: np.ndarray  # (2, 48, 2) pixels, outlines of the right and left iris


def collect(canvas, points: np.ndarray, bare: np.ndarray) -> Buffers:
    """Buffers of a finished portrait._Canvas; points: landmarks (68, 2); bare: flat labels before lenses."""
    size = canvas.camera.width
    facing, brow, open_eye = np.ones(size**2, np.float32), np.zeros(size**2, np.float32), np.zeros(size**2, bool)
    facing[canvas.hits.pixel] = dot(canvas.normals, canvas.view)
    brow[canvas.hits.pixel[canvas.skin_hits]] = canvas.surface.brow
    names = [p.name for p in canvas.parts]
    open_eye[canvas.hits.pixel[np.isin(canvas.part, [names.index("r_eye"), names.index("l_eye")])]] = True
    hair = canvas.camera.project(canvas.extras["hair"]) if "hair" in canvas.extras else None
    if hair is not None and "hair_hidden" in canvas.extras:
        hair[canvas.extras["hair_hidden"] > 0.5] = np.nan
    flat = {
        "depth": canvas.depth,
        "facing": facing,
        "labels": bare,
        "glasses": canvas.labels == LABEL["eye_g"],
        "brow": brow,
        "beard": canvas.beard_alpha > 0.4,
        "hair_depth": canvas.hair_depth,
        "open_eye": open_eye & (canvas.hair_alpha < 0.5),
    }
    maps = {name: values.reshape(size, size) for name, values in flat.items()}
    return Buffers(canvas.camera, landmarks=points, hair=hair, irises=_irises(canvas), **maps)


def _irises(canvas) -> np.ndarray:
    angle, r = np.linspace(0, 2 * np.pi, 48)[:, None], eyes.IRIS
    out = []
    for name, (_, radius), centre in zip(("r_eye", "l_eye"), canvas.person.eyes, canvas.extras["eyes"], strict=True):
        gaze = next(p for p in canvas.parts if p.name == name).normals[0]  # the eyeball's pole points along the gaze
        a = unit(cross(gaze, np.array([0, 1, 0.01])))
        b = cross(gaze, a)
        ring = np.cos(angle) * a * r + np.sin(angle) * b * r + gaze * np.sqrt(1 - r * r)
        out.append(canvas.camera.project((centre + ring * radius * 0.985).astype(np.float32))[:, :2])
    return np.stack(out).astype(float)
