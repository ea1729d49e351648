"""Tileable noise textures, computed once per process, and fast sampling from them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

SIZE = 512


@lru_cache(maxsize=8)
def texture(beta: float) -> np.ndarray:
    """(512, 512) float32 tileable noise with a 1/f^beta amplitude spectrum, mean 0 and standard deviation 1."""
    f = np.fft.fftfreq(SIZE)
    radius = np.hypot(f[:, None], f[None])
    radius[0, 0] = 1
    rng = np.random.default_rng([7, int(beta * 1000)])
    out = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIZE, SIZE))) / radius**beta).real
    out -= out.mean()
    return (out / out.std()).astype(np.float32)


def sample(beta: float, x: np.ndarray, y: np.ndarray, smooth: bool = False) -> np.ndarray:
    """Noise at texel coordinates x, y (any range, wraps around); ``smooth``: bilinear instead of nearest."""
    t = texture(beta).ravel()
    if not smooth:
        return t[(y.astype(np.int32) & (SIZE - 1)) * SIZE + (x.astype(np.int32) & (SIZE - 1))]
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    xi, yi = x0.astype(np.int32) & (SIZE - 1), y0.astype(np.int32) & (SIZE - 1)
    xj, yj = (xi + 1) & (SIZE - 1), ((yi + 1) & (SIZE - 1)) * SIZE
    yi = yi * SIZE
    return (t[yi + xi] * (1 - fx) + t[yi + xj] * fx) * (1 - fy) + (t[yj + xi] * (1 - fx) + t[yj + xj] * fx) * fy
