"""Turns linear light into a photo: white balance, lens blur, tone curve, grain."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from s2flib.synthfaces.colours import to_srgb
from s2flib.synthfaces.shot import Shot


def develop(light: np.ndarray, shot: Shot) -> np.ndarray:
    """(H, W, 3) linear light at final size → (H, W, 3) uint8 sRGB."""
    size = light.shape[0]
    balance = np.exp(shot.warmth * np.array([1.0, 0.0, -1.0], np.float32))
    x = light * (shot.exposure * balance)
    # slight lens blur, and bloom around bright parts
    sharp = gaussian_filter(x, (size / 400, size / 400, 0))
    bloom = gaussian_filter(np.clip(x - 0.8, 0, 2), (size / 40, size / 40, 0))
    x = sharp + 0.08 * bloom
    yy, xx = (np.mgrid[0:size, 0:size].astype(np.float32) + 0.5) / size - 0.5
    x = x * (1 - 0.22 * (xx * xx + yy * yy))[..., None]
    x = tone_curve(x)
    grain = np.random.default_rng([shot.grain, size]).standard_normal((size, size, 4)).astype(np.float32)
    amount = 0.0065 * (1.1 - 0.6 * x.mean(-1, keepdims=True))
    x = x + amount * (grain[..., :1] + 0.35 * grain[..., 1:])
    return (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)


def tone_curve(light: np.ndarray) -> np.ndarray:
    """Linear light → display values in [0, 1], with soft shoulder, toe and slightly desaturated highlights."""
    x = 1 - np.exp(-1.3 * np.maximum(light, 0))
    grey = x.mean(-1, keepdims=True)
    x = grey + (x - grey) * (1.0 - 0.25 * grey)
    x = to_srgb(x)
    s = x * x * (3 - 2 * x)
    return (x * 0.62 + s * 0.38).astype(np.float32)
