"""Out-of-focus backgrounds (walls, rooms, streets, parks, studio paper), drawn at low resolution and blurred.

A scene depends only on its seed, not on the image size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

from s2flib.synthfaces.colours import to_linear
from s2flib.synthfaces.shot import Light
from s2flib.synthfaces.streams import choose, stream

KINDS = {"studio": 0.24, "wall": 0.18, "room": 0.22, "park": 0.2, "street": 0.16}
_SIZE = 96
_Y, _X = (np.mgrid[0:_SIZE, 0:_SIZE] + 0.5) / _SIZE  # pixel centres in [0, 1]


def background(seed: int, light: Light, size: int) -> np.ndarray:
    """(size, size, 3) linear RGB, lit like the person in front of it."""
    rng = stream(seed, "background")
    kind = choose(rng, KINDS)
    small, blur = _SCENES[kind](rng)
    small = np.stack([gaussian_filter(small[..., c], blur, mode="nearest") for c in range(3)], -1)
    level = np.array(light.sky_rgb) * 0.9 + 0.35 * np.array(light.key_rgb)
    small = np.clip(small, 0.004, None) * (0.35 + 0.65 * level)
    stretch = _stretch(size)  # (size, _SIZE)
    rows = stretch @ small.astype(np.float32).reshape(_SIZE, _SIZE * 3)
    rows = rows.reshape(size, _SIZE, 3).transpose(0, 2, 1).reshape(size * 3, _SIZE)
    return np.ascontiguousarray((rows @ stretch.T).reshape(size, 3, size).transpose(0, 2, 1))


@lru_cache(maxsize=4)
def _stretch(size: int) -> np.ndarray:
    """Matrix (size, _SIZE) of linear interpolation from _SIZE to ``size`` pixels."""
    at = np.clip((np.arange(size) + 0.5) * _SIZE / size - 0.5, 0, _SIZE - 1)
    low = np.minimum(at.astype(int), _SIZE - 2)
    out = np.zeros((size, _SIZE), np.float32)
    out[np.arange(size), low] = 1 - (at - low)
    out[np.arange(size), low + 1] = at - low
    return out


def _studio(rng):
    """Paper with a pool of light behind the head."""
    grey = to_linear(np.clip(rng.choice([0.25, 0.42, 0.58, 0.72, 0.86]) + rng.normal(0, 0.04), 0.1, 0.95))
    tint = np.exp(rng.normal(0, 0.09, 3) * [1, 0.5, 1])
    cx, cy, width = rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.6), rng.uniform(0.45, 0.9)
    pool = np.exp(-((_X - cx) ** 2 + (_Y - cy) ** 2) / width**2)
    return (grey * (0.55 + 0.75 * pool))[..., None] * tint, 2


def _wall(rng):
    """A painted wall with a light gradient, sometimes with an edge or a picture frame."""
    colour = _colour(rng, [0.66, 0.62, 0.58], 0.12, 0.05, 0.1, 0.92)
    angle = rng.uniform(0, 6.28)
    fall = 1 + 0.5 * ((_X - 0.5) * np.cos(angle) + (_Y - 0.5) * np.sin(angle))
    out = colour * fall[..., None]
    out = out * np.exp(0.05 * gaussian_filter(rng.standard_normal((_SIZE, _SIZE)), 5) * 8)[..., None]
    if rng.random() < 0.5:
        edge = _X > rng.uniform(0.05, 0.95)
        out = np.where(edge[..., None], out * rng.uniform(0.5, 0.85), out)
    if rng.random() < 0.4:
        _box(out, rng, to_linear(rng.uniform(0.1, 0.7, 3)), width=(0.15, 0.4), height=(0.2, 0.5))
    return out, rng.uniform(1.5, 3.5)


def _room(rng):
    """Shelves, doors, lamps and a window."""
    wall = _colour(rng, [0.55, 0.5, 0.45], 0.13, 0.04, 0.08, 0.9)
    out = np.ones((_SIZE, _SIZE, 1)) * wall * (1.1 - 0.4 * _Y[..., None])
    for _ in range(rng.integers(5, 11)):
        warm = _colour(rng, [0.45, 0.36, 0.28], 0.2, 0.06, 0.04, 0.9)
        _box(out, rng, warm, width=(0.04, 0.4), height=(0.08, 0.6))
    if rng.random() < 0.55:
        _box(out, rng, np.array([1.5, 1.55, 1.6]) * rng.uniform(0.6, 1), width=(0.15, 0.35), height=(0.35, 0.8))
    _lights(out, rng, rng.integers(0, 5), np.array([1.0, 0.75, 0.45]) * 2.2)
    return out, rng.uniform(2.2, 4.5)


def _park(rng):
    """Foliage with sky shining through."""
    leaves = np.sum([gaussian_filter(rng.standard_normal((_SIZE, _SIZE)), s) * s for s in (2, 4, 9)], axis=0)
    leaves = leaves / leaves.std()
    hue = to_linear(np.clip(np.array([0.34, 0.42, 0.22]) + rng.normal(0, 0.05, 3) + rng.normal(0, 0.05), 0.06, 0.8))
    out = hue * np.exp(0.55 * leaves)[..., None]
    sky = to_linear(np.array([0.80, 0.86, 0.93])) * rng.uniform(0.7, 1.3)
    horizon = rng.uniform(-0.3, 0.45)
    through = 1 / (1 + np.exp(-((horizon - _Y) * 9 + 1.4 * leaves - 1)))
    out = out * (1 - through[..., None]) + sky * through[..., None]
    ground = to_linear(np.clip(hue**0.45 + rng.normal(0.06, 0.05), 0, 1))
    low = 1 / (1 + np.exp(-(_Y - rng.uniform(0.75, 1.2)) * 25))
    return out * (1 - low[..., None]) + ground * low[..., None], rng.uniform(2.0, 4.0)


def _street(rng):
    """Facades with windows, sky between them, street lights."""
    sky = to_linear(np.clip(np.array([0.72, 0.77, 0.84]) + rng.normal(0, 0.08), 0.2, 1))
    out = np.ones((_SIZE, _SIZE, 1)) * sky * (1.1 - 0.3 * _Y[..., None])
    for _ in range(rng.integers(3, 6)):
        stone = _colour(rng, [0.5, 0.46, 0.42], 0.14, 0.05, 0.08, 0.85)
        left, top = rng.uniform(-0.2, 0.9), rng.uniform(-0.1, 0.5)
        part = (_X > left) & (_X < left + rng.uniform(0.2, 0.5)) & (_Y > top)
        out[part] = stone
        dark = part & ((_X * rng.uniform(8, 14) % 1) < 0.5) & ((_Y * rng.uniform(6, 10) % 1) < 0.55)
        out[dark] *= 0.5
    road = _Y > rng.uniform(0.8, 1.1)
    out[road] = to_linear(np.full(3, 0.36))
    _lights(out, rng, rng.integers(0, 7), np.array([1.2, 0.95, 0.6]) * 2)
    return out, rng.uniform(2.2, 4.2)


def _colour(rng, mean: list[float], brightness: float, tint: float, low: float, high: float) -> np.ndarray:
    """Linear RGB (3,) around the sRGB colour ``mean``; brightness, tint: standard deviations."""
    return to_linear(np.clip(np.array(mean) + rng.normal(0, brightness) + rng.normal(0, tint, 3), low, high))


def _box(out, rng, colour, width, height) -> None:
    w, h = rng.uniform(*width), rng.uniform(*height)
    left, top = rng.uniform(-0.1, 1.0), rng.uniform(-0.1, 1.0 - h * 0.5)
    out[(_X > left) & (_X < left + w) & (_Y > top) & (_Y < top + h)] = colour


def _lights(out, rng, n: int, colour) -> None:
    """Out-of-focus lights (circles of confusion)."""
    for _ in range(n):
        cx, cy, r = rng.uniform(0, 1), rng.uniform(0, 0.7), rng.uniform(0.015, 0.04)
        out[(_X - cx) ** 2 + (_Y - cy) ** 2 < r * r] += colour * rng.uniform(0.4, 1.2)


_SCENES = {"studio": _studio, "wall": _wall, "room": _room, "park": _park, "street": _street}
