"""A Gaussian blur whose cost does not grow with σ (the sketch needs σ = 255 px).

OpenCV convolves with a kernel of 8σ + 1 taps; here the same kernel acts on the few cosines it lets through.
"""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
import torch

from s2flib.errors import S2FError


@functools.lru_cache(maxsize=64)
def _blur_factors(n: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """(m, n) analysis and (n, m) synthesis matrices whose product is the blur of n pixels along one axis.

    Mirroring without repeating the edge makes the signal even with period 2(n − 1). On such signals a
    symmetric convolution is diagonal in the cosines cos(πkj/(n − 1)) (the DCT-I): component k is multiplied
    by the kernel's transform λ_k ≈ exp(−(πkσ/(n − 1))²/2). All but the first m ≈ 1.4 n/σ of them vanish below
    5e-5, so a *wide* blur is a cheap low-rank product: 7 cosines at σ = 255, n = 1024.
    """
    if n == 1:
        return np.ones((1, 1), np.float32), np.ones((1, 1), np.float32)
    m = min(n, 1 + math.ceil(4.5 * (n - 1) / (math.pi * sigma)))
    radius = (round(8 * sigma + 1) | 1) // 2                       # OpenCV's kernel for float images: ±4σ
    j = np.arange(1, radius + 1)
    kernel = np.exp(-0.5 * (j / sigma) ** 2)
    kernel /= 1 + 2 * kernel.sum()                                 # centre weight is 1 before normalisation
    k = np.arange(m)
    gain = 1 - 2 * kernel.sum() + 2 * np.cos(math.pi / (n - 1) * np.outer(k, j)) @ kernel
    cosines = np.cos(math.pi / (n - 1) * np.outer(k, np.arange(n)))          # (m, n)
    ends = np.ones(n)
    ends[[0, -1]] = 0.5
    weight = 2 / (n - 1) * gain
    weight[0] /= 2
    if m == n:
        weight[-1] /= 2
    return (cosines * ends).astype(np.float32), (cosines.T * weight).astype(np.float32)


def gaussian_blur(x, sigma: float):
    """Gaussian blur with mirrored borders, as cv2.GaussianBlur(x, (0, 0), sigma) computes it on float32.

    x: array (H, W) or (H, W, C), any real dtype → float32 array; or float tensor (..., H, W) → tensor of its
    dtype, differentiable. sigma: pixels, > 0. Within 0.01 grey levels of OpenCV's float result, without its
    cost at large σ: benchmarks/bench_sketch.py prints both.
    """
    sigma = _check_sigma(sigma)
    if isinstance(x, torch.Tensor):
        h, w = x.shape[-2:]
        (dh, uh), (dw, uw) = ([torch.from_numpy(f).to(x.device) for f in _blur_factors(n, sigma)]
                              for n in (h, w))
        # right to left: (h,m)(m,h) x (w,m)(m,w); the middle (m,m) is tiny at large σ
        return (uh @ (dh @ (x.float() @ dw.T)) @ uw.T).to(x.dtype)
    x = np.asarray(x, np.float32)
    h, w = x.shape[:2]
    if sigma < math.sqrt(max(h, w)) / 4:   # few taps, many cosines: OpenCV is faster
        return cv2.GaussianBlur(x, (0, 0), sigma)
    if x.ndim == 3:
        return np.stack([gaussian_blur(x[..., c], sigma) for c in range(x.shape[2])], axis=-1)
    (dh, uh), (dw, uw) = _blur_factors(h, sigma), _blur_factors(w, sigma)
    return uh @ (dh @ (x @ dw.T)) @ uw.T


def _check_sigma(sigma: float) -> float:
    if not (isinstance(sigma, (int, float, np.number)) and math.isfinite(sigma) and sigma > 0):
        raise S2FError(f"sigma must be a positive number of pixels, not {sigma!r}.")
    return float(sigma)
