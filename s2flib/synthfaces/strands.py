"""Renders strands of hair and beard with soft, antialiased coverage.

Strands are splatted as samples about one pixel apart. The samples of a pixel are blended independently of order,
with a higher weight for nearer ones (weighted blended transparency, McGuire and Bavoil 2013), so that edges are soft
and single strands do not flicker.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from s2flib.synthfaces import mesh
from s2flib.synthfaces.camera import Camera
from s2flib.synthfaces.hair import Strands
from s2flib.synthfaces.lighting import Shadows, rim_direction, sky_irradiance
from s2flib.synthfaces.mesh import smoothstep, unit
from s2flib.synthfaces.shot import Light

_STEP = 1.15  # pixels between samples
_SOFT = 0.75  # pixels, sigma of the final blur
_BLEND_DEPTH = 0.07  # dm; depth difference over which front samples hide those behind


class Layer(NamedTuple):
    """Colour (P, 3), not premultiplied; coverage (P,) in [0, 1]; depth (P,) of the nearest sample. P = H·W."""

    rgb: np.ndarray
    alpha: np.ndarray
    depth: np.ndarray


def shade(strands: Strands, points, rgb, light: Light, camera: Camera, shadows: Shadows, centre, gloss: float):
    """Radiance (S, K, 3) at the posed points (S, K, 3) of strands of colour rgb (3,) around the axis below centre (3,).

    Diffuse reflection of Kajiya and Kay (1989), two highlights shifted along the strand as in Marschner et al.
    (2003), shadows, and darker roots and inner layers.
    """
    s, k = points.shape[:2]
    ends = np.concatenate([points[:, :1], points, points[:, -1:]], 1)
    along = unit((ends[:, 2:] - ends[:, :-2]).reshape(-1, 3))
    flat = points.reshape(-1, 3)
    view = camera.view(flat)
    towards = np.array(light.key_direction, np.float32)
    tl, tv = along @ towards, mesh.dot(along, view)
    sl, sv = np.sqrt(np.clip(1 - tl * tl, 0, 1)), np.sqrt(np.clip(1 - tv * tv, 0, 1))
    # outwards from the axis of the skull and neck
    axis = np.tile(centre.astype(np.float32), (len(flat), 1))
    axis[:, 1] = np.minimum(flat[:, 1], centre[1])
    outward = unit(flat - axis)
    facing = np.clip(outward @ towards * 0.6 + 0.4, 0, 1)
    lit = shadows.lit(flat, bias=0.06, in_hair=True) * facing
    t = np.tile(np.linspace(0, 1, k, dtype=np.float32), s)
    shiny = np.repeat(strands.tint**3, k)  # highlights vary from lock to lock
    inner = np.repeat(strands.inner, k)
    sky_open = (0.30 + 0.70 * smoothstep(0, 0.45, t)) * (1 - 0.55 * inner)
    primary = np.clip(sl * sv - (tl + 0.07) * tv, 0, 1) ** 40 * (0.032 * gloss)
    secondary = np.clip(sl * sv - (tl - 0.13) * tv, 0, 1) ** 12 * (0.6 * gloss)
    colour = rgb.astype(np.float32) * (np.repeat(strands.tint, k) * (0.78 + 0.4 * t))[:, None]
    rim = np.clip(outward @ rim_direction(light), 0, 1)[:, None] * np.array(light.rim_rgb, np.float32)
    key = np.array(light.key_rgb, np.float32)
    sky = sky_irradiance(light, outward) * sky_open[:, None]
    diffuse = key * (sl * lit * 0.9)[:, None] + sky + rim
    sheen = sky * ((sv**10) * np.float32(0.007 * gloss))[:, None]
    glint = primary[:, None] + secondary[:, None] * colour * 1.4
    out = colour * diffuse + key * (lit * shiny)[:, None] * glint + sheen
    out += rim * (0.015 * gloss)
    return out.reshape(s, k, 3)


def splat(points, radiance, width, weight, camera: Camera, mesh_depth, rng, opacity: float = 1.0) -> Layer:
    """Blends strands into a Layer.

    points (S, K, 3) in camera space, radiance (S, K, 3), width (S,) dm, weight (S, K) factor on the coverage;
    mesh_depth (P,): strands behind it are hidden.
    """
    size, n_pixels = camera.width, len(mesh_depth)
    screen = camera.project(points)
    x, y, z = screen[..., 0], screen[..., 1], screen[..., 2]
    inside = (x > -4) & (x < size + 4) & (y > -4) & (y < size + 4)
    pixel = np.clip(y, 0, size - 1).astype(np.int32) * size + np.clip(x, 0, size - 1).astype(np.int32)
    seen = inside & (z < mesh_depth[pixel] + 0.03) & (weight > 0.01)
    strand, k = np.nonzero(seen[:, :-1] | seen[:, 1:])
    if not len(strand):
        empty = np.zeros((n_pixels, 4), np.float32)
        return Layer(empty[:, :3], empty[:, 3], np.full(n_pixels, np.inf, np.float32))
    # endpoints of each segment: screen x, y, depth, r, g, b, coverage; m samples are interpolated between them
    ends = np.concatenate([screen, radiance, weight[..., None]], -1).astype(np.float32)
    a, b = ends[strand, k], ends[strand, k + 1]
    length = np.hypot(b[:, 0] - a[:, 0], b[:, 1] - a[:, 1])
    m = int(np.clip(np.ceil(np.percentile(length, 70) / _STEP), 1, 40))
    t = (np.arange(m, dtype=np.float32) + 0.5) / m
    pixel_width = (width * np.float32(camera.pixels_per_dm))[strand]
    cover = np.maximum(length, 0.3) / m * pixel_width * opacity
    jitter = rng.random((len(strand), m), np.float32) - 0.5
    spread = np.maximum(pixel_width, 1.0)[:, None]
    d = b - a
    normal = d[:, :2] / np.maximum(length, 1e-3)[:, None]

    def along(column: int) -> np.ndarray:
        return a[:, column, None] + d[:, column, None] * t

    sx = along(0) + -normal[:, 1:] * jitter * spread
    sy = along(1) + normal[:, :1] * jitter * spread
    sz = along(2).ravel()
    ix, iy = np.floor(sx).astype(np.int32).ravel(), np.floor(sy).astype(np.int32).ravel()
    flat = iy * size + ix
    ok = np.nonzero((ix >= 0) & (ix < size) & (iy >= 0) & (iy < size))[0]
    ok = ok[sz[ok] < mesh_depth[flat[ok]] + 0.004]
    flat, sz = flat[ok], sz[ok]
    amount = (along(6) * cover[:, None]).ravel()[ok]
    front = np.full(n_pixels, np.inf, np.float32)
    np.minimum.at(front, flat, sz)
    blend = amount * np.exp((front[flat] - sz) * np.float32(1 / _BLEND_DEPTH))

    def blurred(values: np.ndarray) -> np.ndarray:
        """Sum of ``values`` per pixel; the blur joins the samples of a strand."""
        sums = np.bincount(flat, values, n_pixels).astype(np.float32).reshape(size, size)
        return gaussian_filter(sums, _SOFT, truncate=2).ravel()

    amount, total = blurred(amount), blurred(blend)
    rgb = [blurred(blend * along(c).ravel()[ok]) for c in (3, 4, 5)]
    rgb = np.stack(rgb, 1) / np.maximum(total, 1e-9)[:, None]
    return Layer(rgb, 1 - np.exp(-1.3 * amount), front)
