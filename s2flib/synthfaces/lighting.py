"""Lighting: a soft key light with shadows, light from the sky and the ground, and a rim light from behind.

Irradiance is relative to a correctly exposed white: radiance = albedo · irradiance, 1 = paper white.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from s2flib.synthfaces import mesh
from s2flib.synthfaces.mesh import smoothstep, unit
from s2flib.synthfaces.raster import rasterise
from s2flib.synthfaces.shot import Light

_RES, _SPAN = 200, 3.4  # shadow map: texels, dm
_HARDNESS = 42.0  # k of the exponential shadow map, 1/dm
_FAR = 3.0


class Shadows:
    """Soft shadows of the key light: an exponential shadow map (Annen et al. 2008) for meshes, blurred according to
    the light's size, and a density map for hair."""

    def __init__(self, light: Light, vertices: np.ndarray, tris: np.ndarray, hair=None, hair_weight=None):
        """vertices (V, 3), tris: shadow casters; hair (n, 3): points along strands, and their weights (n,) or None.
        All in camera space."""
        self.towards = np.array(light.key_direction, np.float32)
        self.right = unit(mesh.cross(self.towards, np.array([0, 1, 0.01]))).astype(np.float32)
        self.up = mesh.cross(self.right, self.towards)
        texels = _RES / _SPAN
        depth = np.minimum(rasterise(self._screen(vertices), tris, _RES, _RES).depth, _FAR).reshape(_RES, _RES)
        blur = max(0.7, light.key_size * 0.32 * texels)
        self.mesh_map = gaussian_filter(np.exp(_HARDNESS * (depth.astype(np.float64) - _FAR)), blur, mode="nearest")
        self.hair_depth = None
        if hair is not None:
            s = self._screen(hair)
            ix, iy = s[:, 0].astype(np.int32), s[:, 1].astype(np.int32)
            ok = (ix >= 0) & (ix < _RES) & (iy >= 0) & (iy < _RES)
            flat, z = (iy * _RES + ix)[ok], s[ok, 2]
            count = np.bincount(flat, None if hair_weight is None else hair_weight[ok], _RES * _RES)
            self.hair_density = gaussian_filter(count.reshape(_RES, _RES), max(1.2, blur * 0.8)).astype(np.float32)
            front = np.full(_RES * _RES, _FAR, np.float32)
            np.minimum.at(front, flat, z)
            front = front.reshape(_RES, _RES)
            there = gaussian_filter((front < _FAR).astype(np.float32), 1.5)
            blurred = gaussian_filter(np.where(front < _FAR, front, 0), 1.5)
            self.hair_depth = np.where(there > 0.02, blurred / np.maximum(there, 0.02), _FAR).astype(np.float32)

    def _screen(self, points: np.ndarray) -> np.ndarray:
        t = np.float32(_RES / _SPAN)
        points = points.astype(np.float32, copy=False)
        axes = np.stack([self.right * t, -self.up * t, -self.towards], 1).astype(np.float32)
        return points @ axes + np.array([_RES / 2, _RES / 2, 0], np.float32)

    def lit(self, points: np.ndarray, bias: float = 0.03, in_hair: bool = False) -> np.ndarray:
        """Fraction of the key light that reaches points (n, 3). ``in_hair``: the points are hair themselves."""
        s = self._screen(points)
        x, y = np.clip(s[:, 0] - 0.5, 0, _RES - 1.001), np.clip(s[:, 1] - 0.5, 0, _RES - 1.001)
        ix, iy = x.astype(np.int32), y.astype(np.int32)
        fx, fy = x - ix, y - iy
        flat = iy * _RES + ix
        m = self.mesh_map.ravel()
        near, far = (m[f] * (1 - fx) + m[f + 1] * fx for f in (flat, flat + _RES))
        reach = np.exp(_HARDNESS * (_FAR + bias - s[:, 2].astype(np.float64)))
        lit = np.minimum(1, (near * (1 - fy) + far * fy) * reach).astype(np.float32)
        # stretch the contrast: the blurred map leaks some light next to close occluders
        lit = smoothstep(0.06, 0.94, lit)
        if self.hair_depth is not None:
            behind = s[:, 2] - self.hair_depth.ravel()[flat]
            density = self.hair_density.ravel()[flat]
            if in_hair:
                lit = lit * np.exp(-5.0 * np.clip(behind - 0.02, 0, 0.5) * np.minimum(1, density))
            else:
                lit = lit * np.exp(-0.9 * density * smoothstep(0.0, 0.08, behind))
        return lit.astype(np.float32)


def sky_irradiance(light: Light, normals: np.ndarray) -> np.ndarray:
    """Unshadowed ambient light for normals (n, 3) → (n, 3): sky above, ground below, fill light from the side."""
    away = np.float32(-np.sign(light.key_direction[0]))
    aside = np.clip(normals @ np.array([0.48 * away, 0, 0.15], np.float32), 0, 0.6)
    up = (normals[:, 1] * np.float32(0.5) + np.float32(0.5)) * (1 - aside)
    shares = np.stack([up, 1 - aside - up, aside], 1)
    return shares @ np.array([light.sky_rgb, light.ground_rgb, light.side_rgb], np.float32)


def rim_direction(light: Light) -> np.ndarray:
    return unit(np.array([light.rim_side * 0.9, 0.35, -0.42])).astype(np.float32)


def irradiance(
    light: Light, normals: np.ndarray, lit: np.ndarray, open_sky: np.ndarray, wrap: np.ndarray
) -> np.ndarray:
    """Diffuse irradiance (n, 3). lit, open_sky (n,): visible fractions of the key light and the sky.

    ``wrap`` (3,): how far light wraps around the terminator per colour, a cheap approximation of translucency.
    Occlusion is coloured: occluded skin receives reddish light from nearby skin.
    """
    cosine = mesh.dot(normals, np.array(light.key_direction, np.float32))[:, None]
    key = np.clip((cosine + wrap) / (1 + wrap), 0, 1) ** 1.15 * lit[:, None] ** np.array([0.8, 1.0, 1.05], np.float32)
    rim = np.clip(mesh.dot(normals, rim_direction(light)), 0, 1)[:, None]
    around = sky_irradiance(light, normals) * open_sky[:, None] ** np.array([0.75, 1.0, 1.1], np.float32)
    rim = np.array(light.rim_rgb, np.float32) * rim * open_sky[:, None]
    return np.array(light.key_rgb, np.float32) * key + around + rim


def specular(light: Light, normals: np.ndarray, view: np.ndarray, lit: np.ndarray, roughness: float) -> np.ndarray:
    """Blinn-Phong highlight of the key light with Schlick's Fresnel term for F0 = 0.04, (n,).

    Multiply it by the gloss and the colour of the key light.
    """
    towards = np.array(light.key_direction, np.float32)
    half = unit(view + towards)
    power = 2 / roughness**4 - 2
    shine = np.clip(mesh.dot(normals, half), 0, 1) ** power * (power + 2) / 8
    fresnel = 0.04 + (1 - 0.04) * (1 - np.clip(mesh.dot(view, half), 0, 1)) ** 5
    return shine * fresnel * np.clip(mesh.dot(normals, towards), 0, 1) * lit
