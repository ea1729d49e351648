"""Glasses, hats and earrings: meshes fitted to a person's neutral head."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from s2flib.synthfaces import mesh
from s2flib.synthfaces.assets import Head
from s2flib.synthfaces.look import Glasses, Hat
from s2flib.synthfaces.mesh import smoothstep

Mesh = tuple[np.ndarray, np.ndarray]  # vertices (V, 3), triangles (T, 3)


class HatFit(NamedTuple):
    """Position of a hat: centre, tilt and the skull's half axes at the rim of the hat."""

    centre: np.ndarray
    tilt: np.ndarray  # (3, 3)
    side: float
    front: float
    back: float
    top: float

    def height(self, points: np.ndarray) -> np.ndarray:
        """Height (dm) above the rim of the hat."""
        return ((points - self.centre) @ self.tilt)[..., 1]


def glasses_meshes(glasses: Glasses, skin: np.ndarray, head: Head, eyes: list) -> tuple[Mesh, Mesh]:
    """Frame and lenses. skin (V, 3); eyes: [(centre, radius)], right and left."""
    near_eyes = (np.abs(head.smooth[:, 0]) < 0.6) & (np.abs(head.smooth[:, 1] - 7.28) < 0.2)
    front = max(skin[near_eyes, 2].max() - 0.02, eyes[0][0][2] + eyes[0][1] + 0.13)
    power = {"round": 2.0, "oval": 2.5, "rect": 4.5}[glasses.kind]
    width = glasses.width
    height = width * 0.92 if glasses.kind == "round" else glasses.height
    angle = np.linspace(0, 2 * np.pi, 44, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    shape_x = np.sign(c) * np.abs(c) ** (2 / power) * width
    shape_y = np.sign(s) * np.abs(s) ** (2 / power) * height
    apart = max(0.0, width + 0.05 - (eyes[1][0][0] - eyes[0][0][0]) / 2)
    parts, rims, lenses = [], [], []
    for (centre, _), sign in zip(eyes, (-1, 1), strict=True):
        x = centre[0] + sign * apart + shape_x
        rim = np.stack([x, centre[1] - 0.035 + shape_y, front - 0.12 * np.maximum(0, x * sign - 0.3)], 1)
        parts.append(mesh.tube(rim, glasses.thickness / 2 + 0.004, closed=True))
        rims.append(rim)
        fan = np.arange(len(rim)) + 1
        lenses.append((np.vstack([rim.mean(0), rim]), np.stack([np.zeros_like(fan), fan, np.roll(fan, -1)], 1)))
    t = np.linspace(0, 1, 8)[:, None]
    inner = [rims[0][rims[0][:, 0].argmax()], rims[1][rims[1][:, 0].argmin()]]
    bridge = inner[0] * (1 - t) + inner[1] * t + np.array([0, 0.05, 0.02]) * (4 * t * (1 - t))
    parts.append(mesh.tube(bridge, glasses.thickness / 2 + 0.003, closed=False, up=(0.01, 1, 0.02)))
    for rim, sign in zip(rims, (-1, 1), strict=True):
        hinge = rim[(rim[:, 0] * sign).argmax()] + [0, 0.03, 0]
        ear = skin[head.nearest(np.array([sign * 0.78, 7.30, 0.52]))] + [0, 0.02, 0]
        temple = hinge * (1 - t) + ear * t
        parts.append(mesh.tube(temple, glasses.thickness / 2 + 0.002, closed=False, up=(0.01, 1, 0.02)))
    return mesh.join(parts), mesh.join(lenses)


def fit_hat(hat: Hat, skin: np.ndarray, head: Head) -> HatFit:
    """Measures the skull at the rim of the hat: above the brows, low at the nape."""
    brow = head.nearest(np.array([0, 7.70 if hat.kind != "beanie" else 7.74, 1.5]))
    tilt = mesh.rotation(0, -(hat.tilt + 0.16), 0)
    centre = np.array([0.0, skin[brow, 1], 0.42])
    local = (skin - centre) @ tilt
    centre = centre + tilt @ np.array([0, local[brow, 1], 0])
    local = (skin - centre) @ tilt
    masks = head.vertex_masks
    on_skull = (head.smooth[:, 1] > 7.1) & (masks["ears"] < 0.05) & (masks["inside_mouth"] < 0.05)
    band = on_skull & (local[:, 1] > -0.06) & (local[:, 1] < 0.45)
    side, front, back = np.abs(local[band, 0]).max(), local[band, 2].max(), -local[band, 2].min()
    return HatFit(centre, tilt, *(float(v) for v in (side, front, back, local[on_skull, 1].max())))


def hat_meshes(hat: Hat, fit: HatFit) -> dict[str, Mesh]:
    """The crown ("hat"), with a rolled edge or a brim depending on the kind, and the "visor" of a cap."""
    columns = 56
    angle = np.linspace(0, 2 * np.pi, columns, endpoint=False)  # 0 is the person's left, π/2 the front
    sin, cos = np.sin(angle), np.cos(angle)
    half_z = np.where(sin > 0, fit.front, fit.back)
    room = {"beanie": 0.075, "cap": 0.06, "brim": 0.07}[hat.kind]
    top = fit.top + {"beanie": 0.13, "cap": 0.07, "brim": 0.10}[hat.kind]

    def ring(radius: float, height: float | np.ndarray) -> np.ndarray:
        return np.stack([cos * (fit.side + radius), np.zeros(columns) + height, sin * (half_z + radius)], 1)

    def dome(start: float, power: float) -> list[np.ndarray]:
        rows = []
        for t in np.linspace(0.05, 1, 12):
            scale = max((1 - t**power) ** (1 / power), 0.02)
            rows.append(ring(room, start + (top - start) * t) * [scale, 1, scale])
        return rows

    if hat.kind == "beanie":
        edge = ((0.02, -0.10), (room + 0.03, -0.10), (room + 0.055, 0.0), (room + 0.045, 0.12), (room, 0.16))
        rows = [ring(r, h) for r, h in edge] + dome(0.18, 2.3)
    elif hat.kind == "cap":
        rows = [ring(0.01, -0.04), ring(room, -0.04), ring(room, 0.08)] + dome(0.1, 2.4)
    else:
        wide = 0.50
        rows = []
        for k in range(7):
            t = k / 6
            rows.append(ring(room + wide * (1 - t), 0.02 + 0.10 * (1 - t) ** 2 * (1 - 1.4 * np.abs(sin))))
        rows += [ring(room, 0.03 + top * t) for t in (0.1, 0.3, 0.5, 0.7)]
        rows += [ring(room - 0.03, top * 0.92), ring(room - 0.12, top * 1.0), ring(room - 0.28, top * 0.98)]
        rows.append(ring(-min(fit.side, fit.front) * 0.98, top * 0.93))
    parts = {"hat": (np.concatenate(rows), mesh.lattice(len(rows), columns)[:, ::-1])}
    if hat.kind == "cap":
        parts["visor"] = _visor(fit, room)
    return {name: (vertices @ fit.tilt.T + fit.centre, tris) for name, (vertices, tris) in parts.items()}


def _visor(fit: HatFit, room: float) -> Mesh:
    angle = np.linspace(np.radians(28), np.radians(152), 24)
    rows = []
    for t in np.linspace(0, 1, 7):
        reach = 0.68 * t * np.sin((angle - angle[0]) / (angle[-1] - angle[0]) * np.pi) ** 0.6
        x, z = np.cos(angle) * (fit.side + room + 0.02), np.sin(angle) * (fit.front + room + 0.01) + reach
        # points down to compensate for the tilt of the hat
        rows.append(np.stack([x, -0.03 - 0.68 * reach - 0.06 * (x / fit.side) ** 2 * t, z], 1))
    return np.concatenate(rows), mesh.lattice(7, 24, wrap_columns=False)[:, ::-1]


def earring_meshes(radius: float, skin: np.ndarray, head: Head) -> list[Mesh]:
    """A sphere at each earlobe."""
    vertices, tris = sphere()
    out = []
    for sign in (-1, 1):
        lobe = skin[head.nearest(np.array([sign * 0.76, 6.855, 0.55]))] + [sign * 0.03, -0.02, 0.02]
        out.append((vertices * radius + lobe, tris))
    return out


@lru_cache(maxsize=4)
def sphere(columns: int = 32, rows: int = 20, cap: float = 1.0) -> Mesh:
    """Unit sphere around the z axis; with ``cap`` < 1 the far end is open."""
    polar = np.linspace(0, np.pi * cap, rows)
    around = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    x = np.outer(np.sin(polar), np.cos(around))
    y = np.outer(np.sin(polar), np.sin(around))
    z = np.outer(np.cos(polar), np.ones(columns))
    return np.stack([x, y, z], -1).reshape(-1, 3), mesh.lattice(rows, columns)[:, ::-1]


def sits_under(fit: HatFit, points: np.ndarray) -> np.ndarray:
    """0 … 1: how much of the hair at these points is hidden by the hat."""
    return smoothstep(-0.05, 0.03, fit.height(points))
