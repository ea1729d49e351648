"""Photo → pencil sketch (seed paper, Sec. 3.2, Fig. 1 a–f).

    foreground → grey g → invert 255 − g → Gaussian blur → colour dodge → normalise to [0, 255]

with the dodge g · 256 / (255 − blur(255 − g)), which is 256 · g / blur(g): each pixel is divided by the mean of its
surroundings, so lines remain and gradual changes of light disappear. A large σ keeps shading, a small one only lines.

The default σ is that of the paper's published code. The paper's text says "a quarter of the image size, which is 255",
but the code passes 255 to OpenCV as the kernel's *size* with σ = 0, for which OpenCV takes
σ = 0.3·((255 − 1)/2 − 1) + 0.8 = 38.6 pixels at 1024: the shorter side / 26.5. The text's wider blur keeps the tones of
skin, hair and clothes; the code's leaves lines and the shading near them. Notebook 01 shows both.

The background is painted white *before* the blur (the head is surrounded by white paper in Fig. 1), so near the
silhouette the blur averages skin with white: the outline becomes slightly darker and the background itself is exactly
white. Beyond the border the blur mirrors the image (OpenCV's BORDER_REFLECT_101).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, overload

import cv2
import numpy as np
import torch

from s2flib.errors import ImageError, S2FError

LUMA = (0.299, 0.587, 0.114)  # Rec. 601, as in OpenCV's RGB → grey
SIGMA = 1 / 26.5  # default σ as a share of the shorter side: the paper's published code
TEXT_SIGMA = 1 / 4  # … and the paper's text
# The background's grey level before the blur. "black" is what the paper's published code does: near the silhouette the
# blur then averages skin with black, so the outline fades into the paper instead of being drawn.
BACKGROUNDS = {"white": 255, "black": 0}


class SketchStages(NamedTuple):
    """The photo and the six images of the paper's Fig. 1; uint8 arrays, first (H,W,3), then (H,W)."""

    photo: np.ndarray
    foreground: np.ndarray
    grey: np.ndarray
    inverted: np.ndarray
    blurred: np.ndarray
    dodged: np.ndarray
    sketch: np.ndarray


@overload
def sketch(photo: np.ndarray, mask=None, sigma: float | None = None, background: str = "white") -> np.ndarray: ...
@overload
def sketch(photo: torch.Tensor, mask=None, sigma: float | None = None, background: str = "white") -> torch.Tensor: ...
def sketch(photo, mask=None, sigma: float | None = None, background: str = "white"):
    """The paper's pencil sketch of a photo, lines dark on white.

    photo: uint8 array (H, W, 3) or (H, W) → uint8 array (H, W); or float tensor (3, H, W) or (B, 3, H, W) in
    [−1, 1] → tensor (1, H, W) or (B, 1, H, W) in [0, 1] (differentiable, same device and dtype).
    mask: (H, W) (or (B, H, W) for a batch), foreground where it is not 0: bool, 0/255 or label ids; None: everything
    is foreground. sigma: pixels, by default SIGMA times the shorter side. background: "white" paper, or "black" as in
    the paper's published code (BACKGROUNDS). Each image is normalised separately; an image with a range of less than
    one grey level has no lines and becomes white.
    Raises ImageError for other shapes or dtypes, or a mask of another size.
    """
    if isinstance(photo, torch.Tensor):
        return _sketch_tensor(photo, mask, sigma, _paint(background))
    return _to_uint8(_stages(photo, mask, sigma, background)[-1])


def sketch_stages(
    photo: np.ndarray, mask: np.ndarray | None = None, sigma: float | None = None, background: str = "white"
) -> SketchStages:
    """All images of Fig. 1 for a uint8 array: :func:`sketch` with its intermediate results."""
    return SketchStages(*(_to_uint8(stage) for stage in _stages(photo, mask, sigma, background)))


def _paint(background: str) -> int:
    """The grey level of the background before the blur."""
    if background not in BACKGROUNDS:
        raise S2FError(f"background must be one of {', '.join(BACKGROUNDS)}, not {background!r}.")
    return BACKGROUNDS[background]


def _stages(
    photo: np.ndarray, mask: np.ndarray | None, sigma: float | None, background: str = "white"
) -> tuple[np.ndarray, ...]:
    photo = _check_photo(photo)
    foreground = _painted(photo, mask, _paint(background))
    g = foreground.astype(np.float32) @ np.array(LUMA, np.float32)
    inverted = 255 - g
    blurred = gaussian_blur(inverted, SIGMA * min(g.shape) if sigma is None else sigma)
    dodged = np.clip(g * 256 / np.maximum(255 - blurred, 1), 0, 255)  # max avoids 0/0 in black areas
    if mask is not None:
        dodged = np.where(np.asarray(mask) != 0, dodged, np.float32(255))
    low, high = float(dodged.min()), float(dodged.max())
    lines = np.full_like(dodged, 255) if high - low < 1 else (dodged - low) * (255 / (high - low))
    return photo, foreground, g, inverted, blurred, dodged, lines


def _sketch_tensor(photo: torch.Tensor, mask, sigma: float | None, paint: int) -> torch.Tensor:
    if photo.ndim not in (3, 4) or photo.shape[-3] != 3 or not photo.is_floating_point():
        raise ImageError(
            f"a photo tensor is float (3, H, W) or (B, 3, H, W) in [-1, 1], not {photo.dtype} "
            f"{tuple(photo.shape)}: convert it with s2flib.images.to_photo."
        )
    x = (photo.float() + 1) * 127.5  # (..., 3, H, W) in [0, 255]
    if mask is not None:
        mask = torch.as_tensor(mask, device=photo.device)
        if mask.shape[-2:] != x.shape[-2:] or mask.ndim not in (2, x.ndim - 1):
            raise ImageError(
                f"the mask is {tuple(mask.shape)} but the photo {tuple(photo.shape)}: "
                "pass (H, W) or, for a batch, (B, H, W)."
            )
        x = torch.where((mask != 0).unsqueeze(-3), x, x.new_tensor(float(paint)))
    g = torch.einsum("...chw,c->...hw", x, x.new_tensor(LUMA)).unsqueeze(-3)  # (..., 1, H, W)
    blurred = gaussian_blur(255 - g, SIGMA * min(g.shape[-2:]) if sigma is None else sigma)
    dodged = (g * 256 / (255 - blurred).clamp(min=1)).clamp(0, 255)
    if mask is not None:
        dodged = torch.where((mask != 0).unsqueeze(-3), dodged, dodged.new_tensor(255.0))
    low, high = dodged.amin((-3, -2, -1), keepdim=True), dodged.amax((-3, -2, -1), keepdim=True)
    flat = high - low < 1
    lines = torch.where(flat, torch.ones_like(dodged), (dodged - low) / torch.where(flat, 1.0, high - low))
    return lines.to(photo.dtype)


def _check_photo(photo) -> np.ndarray:
    photo = np.asarray(photo)
    if photo.dtype != np.uint8 or photo.ndim not in (2, 3) or (photo.ndim == 3 and photo.shape[2] != 3):
        raise ImageError(
            f"a photo array is uint8 (H, W, 3) or (H, W), not {photo.dtype} {photo.shape}: "
            "read files with s2flib.images.load_image."
        )
    if 0 in photo.shape:
        raise ImageError(f"the photo is empty, with shape {photo.shape}: read it from its file again.")
    return np.repeat(photo[..., None], 3, axis=2) if photo.ndim == 2 else photo


def _painted(photo: np.ndarray, mask: np.ndarray | None, paint: int = 255) -> np.ndarray:
    """The photo (H, W, 3), of the grey level ``paint`` (white) where the mask (H, W) is 0."""
    if mask is None:
        return photo
    mask = np.asarray(mask)
    if mask.shape != photo.shape[:2]:
        raise ImageError(
            f"the mask is {_size(mask.shape)} but the photo {_size(photo.shape)}: "
            "resize the mask (nearest neighbour) to the photo."
        )
    return np.where((mask != 0)[..., None], photo, np.uint8(paint))


def _to_uint8(x: np.ndarray) -> np.ndarray:
    return x if x.dtype == np.uint8 else np.clip(np.rint(x), 0, 255).astype(np.uint8)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}×{shape[0]} px" if len(shape) >= 2 else f"of shape {shape}"


# --- the comparison with Canny ----------------------------------------------------------------------------


def canny(photo: np.ndarray, mask: np.ndarray | None = None, low: float = 50, high: float = 100) -> np.ndarray:
    """Canny edges of the foreground, in the format of a sketch: 0 on an edge, 255 elsewhere, (H, W) uint8.

    low, high: hysteresis thresholds on the gradient of the 8-bit grey image (Canny 1986; OpenCV's 3×3 Sobel).
    """
    foreground = _painted(_check_photo(photo), mask)
    return 255 - cv2.Canny(_to_uint8(foreground.astype(np.float32) @ np.array(LUMA, np.float32)), low, high)


def noise_figure(
    method: Callable[..., np.ndarray],  # (photo, mask) → (H, W) map: sketch, canny, or a lambda around them
    photo: np.ndarray,  # uint8 (H, W, 3)
    mask: np.ndarray | None = None,
    noise: float = 5.0,  # standard deviation of the added noise, grey levels
    draws: int = 8,
    seed: int = 0,
) -> float:
    """The noise-to-signal ratio of a drawing under sensor noise. 0: no noise; 1: as much noise as signal.

    White Gaussian noise is added to the photo `draws` times and each copy is drawn. Over the foreground's pixels p

        noise   N = mean_p Var_draws[map]             (the part that changes between draws)
        signal  S = Var_p[mean_draws map] − N/draws   (the constant part, less the noise remaining in the mean)

    and the result is sqrt(N / S). It is invariant to scaling, inverting and shifting the map's grey levels, so binary
    and grey maps, faint and dark ones can be compared. inf when there is no signal.
    """
    photo = _check_photo(photo)
    inside = np.ones(photo.shape[:2], bool) if mask is None else np.asarray(mask) != 0
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(draws):
        noisy = photo + rng.normal(0, noise, photo.shape)
        maps.append(np.asarray(method(_to_uint8(noisy), mask), np.float64)[inside])
    variance = np.var(maps, axis=0, ddof=1).mean()
    signal = np.mean(maps, axis=0).var() - variance / draws
    return float(np.sqrt(variance / signal)) if signal > 0 else float("inf")


# --- the blur: its cost does not grow with σ -----------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _blur_factors(n: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """(m, n) analysis and (n, m) synthesis matrices whose product blurs n pixels along one axis.

    Mirroring without repeating the edge makes the signal even with period 2(n − 1). On such signals a symmetric
    convolution is diagonal in the cosines cos(πkj/(n − 1)) (the DCT-I): component k is multiplied by the kernel's
    transform λ_k ≈ exp(−(πkσ/(n − 1))²/2). All but the first m ≈ 1.4 n/σ factors are below 5e-5, so a *wide* blur is a
    cheap low-rank product: 7 cosines at σ = 255, n = 1024.
    """
    if n == 1:
        return np.ones((1, 1), np.float32), np.ones((1, 1), np.float32)
    m = min(n, 1 + math.ceil(4.5 * (n - 1) / (math.pi * sigma)))
    radius = (round(8 * sigma + 1) | 1) // 2  # OpenCV's kernel for float images: ±4σ
    j = np.arange(1, radius + 1)
    kernel = np.exp(-0.5 * (j / sigma) ** 2)
    kernel /= 1 + 2 * kernel.sum()  # centre weight is 1 before normalisation
    k = np.arange(m)
    gain = 1 - 2 * kernel.sum() + 2 * np.cos(math.pi / (n - 1) * np.outer(k, j)) @ kernel
    cosines = np.cos(math.pi / (n - 1) * np.outer(k, np.arange(n)))  # (m, n)
    ends = np.ones(n)
    ends[[0, -1]] = 0.5
    weight = 2 / (n - 1) * gain
    weight[0] /= 2
    if m == n:
        weight[-1] /= 2
    return (cosines * ends).astype(np.float32), (cosines.T * weight).astype(np.float32)


@functools.lru_cache(maxsize=64)
def _blur_factors_on(device: torch.device, n: int, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`_blur_factors` as tensors, copied to the device once."""
    with torch.inference_mode(False):  # tensors made in inference mode could not be used in training later
        analysis, synthesis = (torch.from_numpy(f).to(device) for f in _blur_factors(n, sigma))
    return analysis, synthesis


@overload
def gaussian_blur(x: np.ndarray, sigma: float) -> np.ndarray: ...
@overload
def gaussian_blur(x: torch.Tensor, sigma: float) -> torch.Tensor: ...
def gaussian_blur(x, sigma: float):
    """Gaussian blur with mirrored borders, as cv2.GaussianBlur(x, (0, 0), sigma) computes it on float32.

    x: array (H, W) or (H, W, C), any real dtype → float32 array; or float tensor (..., H, W) → tensor of its
    dtype, differentiable. sigma: pixels, > 0. Within 0.01 grey levels of OpenCV's float result, but its cost does not
    grow with σ (hence no library call): benchmarks/bench_sketch.py prints both.
    """
    sigma = _check_sigma(sigma)
    if isinstance(x, torch.Tensor):
        h, w = x.shape[-2:]
        (dh, uh), (dw, uw) = (_blur_factors_on(x.device, n, sigma) for n in (h, w))
        # (h,m)(m,h) x (w,m)(m,w), multiplied so that the intermediate (m,m) is small at large σ
        return (uh @ (dh @ (x.float() @ dw.T)) @ uw.T).to(x.dtype)
    x = np.asarray(x, np.float32)
    h, w = x.shape[:2]
    if sigma < math.sqrt(max(h, w)) / 4:  # OpenCV is faster when the kernel is short
        return cv2.GaussianBlur(x, (0, 0), sigma)
    if x.ndim == 3:
        return np.stack([gaussian_blur(x[..., c], sigma) for c in range(x.shape[2])], axis=-1)
    (dh, uh), (dw, uw) = _blur_factors(h, sigma), _blur_factors(w, sigma)
    return uh @ (dh @ (x @ dw.T)) @ uw.T


def _check_sigma(sigma: float) -> float:
    if not (isinstance(sigma, (int, float, np.number)) and math.isfinite(sigma) and sigma > 0):
        raise S2FError(f"sigma must be a positive number of pixels, not {sigma!r}.")
    return float(sigma)
