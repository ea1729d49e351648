"""Shading of eyeballs, teeth, tongue and lashes."""

from __future__ import annotations

import numpy as np

from s2flib.synthfaces import lighting, mesh, noise
from s2flib.synthfaces.identity import Identity
from s2flib.synthfaces.mesh import smoothstep, unit
from s2flib.synthfaces.shot import Light

IRIS = 0.455  # iris radius / eyeball radius


def eyeball(local, normals, view, lit, light: Light, person: Identity, height: np.ndarray) -> np.ndarray:
    """Radiance (n, 3). local (n, 3): position on the unit eyeball, gaze along +z; normals, view (n, 3) in camera
    space; lit (n,); height (n,): above the eye's centre, in eyeball radii, for the shadow of the upper lid."""
    x, y = local[:, 0], local[:, 1]
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    r = radius / IRIS
    pupil = 0.34 + 0.08 * (person.seed % 7) / 7
    fibres = noise.sample(1.0, angle * 81.5, np.clip(r * 40 + person.seed % 97, 0, 511))
    crypts = noise.sample(0.5, angle * 54, r * 9)
    iris = np.array(person.iris_rgb, np.float32) * np.exp(0.22 * fibres + 0.16 * crypts)[:, None]
    iris = iris * (0.62 + 0.5 * smoothstep(0.9, 0.4, r))[:, None]
    iris = iris * (1 - 0.72 * smoothstep(0.76, 1.0, r))[:, None]
    iris = iris * smoothstep(pupil - 0.05, pupil + 0.06, r)[:, None] + 0.003
    # light enters through the cornea and brightens the opposite side of the iris
    key = np.array(light.key_direction, np.float32)
    caustic = np.clip(-(x * key[0] + y * key[1]) / IRIS, 0, 1) * 0.4
    iris = iris * (1 + caustic)[:, None]
    blood = 0.12 + 0.5 * smoothstep(0.55, 1.0, radius)
    white = np.array([0.50, 0.46, 0.43], np.float32) * np.exp(-blood[:, None] * np.array([0.05, 0.4, 0.4], np.float32))
    outside = smoothstep(0.92, 1.10, r)[:, None]
    albedo = iris * (1 - outside) + white * outside
    # the lids shade the eyeball, most strongly below the upper lid and in the corners
    shade = 0.30 + 0.70 * smoothstep(0.46, 0.02, height)
    shade = shade * (0.8 + 0.2 * smoothstep(-0.45, -0.15, height))
    shade = shade * (0.45 + 0.55 * smoothstep(0.95, 0.5, np.abs(x)))
    e = lighting.irradiance(light, normals, lit * shade, shade, np.array([0.3, 0.2, 0.2], np.float32))
    out = albedo * e
    # wetness: the cornea reflects the key light and a window, the rest faintly reflects the sky
    cornea = unit(normals + 0.12 * np.stack([x, y, np.zeros_like(x)], 1) * (r < 1)[:, None])
    mirrored = 2 * mesh.dot(cornea, view)[:, None] * cornea - view
    glint = smoothstep(0.962, 0.982, mirrored @ unit(key + np.array([0, 0.12, 0.45], np.float32)))
    second = smoothstep(0.965, 0.985, mirrored @ unit(np.array([-key[0], 0.35, 0.9], np.float32))) * 0.10
    sky = smoothstep(0.1, 0.8, mirrored[:, 1]) * 0.035
    wet = (glint * 0.85 + second) * (1 - 0.75 * outside[:, 0]) * smoothstep(0.62, 0.40, height) + sky * shade
    return out + wet[:, None] * np.maximum(np.array(light.key_rgb, np.float32), 0.5)


def teeth(canonical: np.ndarray, normals: np.ndarray, view: np.ndarray, lit: np.ndarray, light: Light) -> np.ndarray:
    """Radiance (n, 3): ivory, darker between the teeth and towards the back of the mouth."""
    gap = np.abs(((np.abs(canonical[:, 0]) / 0.085 + 0.5) % 1) - 0.5)
    albedo = np.array([0.62, 0.57, 0.48], np.float32) * (0.84 + 0.16 * smoothstep(0.0, 0.12, 0.5 - gap))[:, None]
    depth = np.clip((canonical[:, 2] - 1.12) / 0.34, 0.08, 1)
    e = lighting.irradiance(light, normals, lit * 0.75, depth * 0.85, np.array([0.3, 0.25, 0.2], np.float32))
    shine = lighting.specular(light, normals, view, lit, 0.3) * 0.5 * depth
    return albedo * e + shine[:, None] * np.array(light.key_rgb, np.float32)


def tongue(normals: np.ndarray, lit: np.ndarray, light: Light) -> np.ndarray:
    """Radiance (n, 3)."""
    albedo, wrap = np.array([0.30, 0.085, 0.075], np.float32), np.array([0.3, 0.2, 0.2], np.float32)
    return albedo * lighting.irradiance(light, normals, lit * 0.3, np.full(len(normals), 0.3, np.float32), wrap)


def lash_alpha(x: np.ndarray, tip: np.ndarray, upper: bool, male: bool, makeup: float) -> np.ndarray:
    """Coverage (n,) of lashes at |x| (dm) and ``tip`` (0 root … 1 tip): dense at the root, single hairs at the tip."""
    stripes = 0.5 + 0.5 * np.sin(x * 420 + tip * 4)
    alpha = np.clip(1.15 - tip * 1.1, 0, 1) * (0.4 + 0.6 * stripes)
    strength = (0.75 if upper else 0.28) * (0.55 if male else 0.8 + 0.3 * makeup)
    return np.clip(alpha * strength, 0, 1)
