"""Images in and out: whatever a user brings becomes (H, W, 3) uint8 RGB; what is written is whole."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import torch
from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin, UnidentifiedImageError

from s2flib.errors import ImageError, S2FError

MIN_SIDE, MAX_SIDE = 16, 12_000   # pixels

# A closed list: Pillow would hand PostScript to an external interpreter.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif",
            ".jp2")


def available_cpus() -> int:
    """Cores this process may use (its affinity where the system has one)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- reading ----------------------------------------------------------------------------------------------

def load_image(path: str | os.PathLike | BinaryIO) -> np.ndarray:
    """Any picture file as (H, W, 3) uint8 RGB, upright.

    EXIF rotation is applied, 16-bit grey is scaled down, CMYK converted, transparency laid on white, and of
    an animation the first frame taken. path may be an open binary file. Raises ImageError, one sentence, for
    a file that is missing, empty, truncated, not an image, or with a side outside 16 … 12,000 px.
    """
    with _opened(path) as (image, name):
        with contextlib.suppress(Exception):      # a damaged EXIF block does not spoil the picture
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):            # 16 bits a pixel (Pillow's "I;16*", and "I" from PGM)
            grey = np.clip(np.asarray(image, np.float64) / 257, 0, 255)
            return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)
        if image.mode == "F":
            raise ImageError(f"{name} holds floating-point pixels: save it as an 8- or 16-bit PNG first.")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.array(image.convert("RGB"))


def load_mask(path: str | os.PathLike | BinaryIO) -> np.ndarray:
    """A mask as (H, W) uint8: label ids of a palette or grey image, 255 where a colour one is not black.

    Raises ImageError as load_image does.
    """
    with _opened(path) as (image, _):
        mask = np.array(image if image.mode in ("L", "P", "1") else image.convert("RGB"))
    if mask.dtype == bool:
        return mask.astype(np.uint8)
    if mask.ndim == 3:
        same = (mask == mask[..., :1]).all()      # grey stored as RGB keeps its ids
        return mask[..., 0].copy() if same else np.where(mask.any(axis=2), 255, 0).astype(np.uint8)
    return mask


@contextlib.contextmanager
def _opened(path: str | os.PathLike | BinaryIO) -> Iterator[tuple[Image.Image, str]]:
    """The decoded Pillow image and its name for messages; every failure of reading becomes an ImageError."""
    is_file = hasattr(path, "read")
    name = str(getattr(path, "name", "the picture") if is_file else Path(path))
    if not is_file:
        if not Path(path).exists():
            raise ImageError(f"{name} does not exist: check the path.")
        if Path(path).is_dir():
            raise ImageError(f"{name} is a folder: give one picture file.")
        if Path(path).stat().st_size == 0:
            raise ImageError(f"{name} is empty (0 bytes): copy or download it again.")
    Image.init()
    formats = [f for f in FORMATS if f in Image.OPEN]   # some builds of Pillow come without AVIF
    try:
        with Image.open(path, formats=formats) as image:
            w, h = image.size
            if max(w, h) > MAX_SIDE:
                raise ImageError(_too_large(name))
            if min(w, h) < MIN_SIDE:
                raise ImageError(f"{name} is {w}×{h} px: give a picture of at least {MIN_SIDE} px a side.")
            image.load()
            yield image, name
    except Image.DecompressionBombError:
        raise ImageError(_too_large(name)) from None
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not a picture s2flib can read (or its first bytes are damaged): "
                         "save it as PNG or JPEG.") from None
    except PermissionError:
        raise ImageError(f"{name} may not be read: change its permissions.") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as e:   # Pillow's decoders
        raise ImageError(f"{name} is damaged or cut short ({e}): copy or download it again.") from None


def _too_large(name: str) -> str:
    return f"{name} is larger than {MAX_SIDE:,} px a side: scale it down first."


# --- arrays ↔ tensors -------------------------------------------------------------------------------------

def centre_square(array: np.ndarray, size: int) -> np.ndarray:
    """The largest centred square of (H, W) or (H, W, 3) uint8, resized; area averaging down, cubic up."""
    h, w = array.shape[:2]
    n = min(h, w)
    top, left = (h - n) // 2, (w - n) // 2
    square = array[top:top + n, left:left + n]
    if n == size:
        return square.copy()
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if n > size else cv2.INTER_CUBIC)


def to_photo(array: np.ndarray, size: int) -> torch.Tensor:
    """(H, W, 3) uint8 RGB → (3, size, size) float in [−1, 1]: centre square, then resized."""
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ImageError(f"a photo array is uint8 (H, W, 3), not {array.dtype} {array.shape}: "
                         "read files with s2flib.images.load_image.")
    return torch.from_numpy(centre_square(array, size)).permute(2, 0, 1).float() / 127.5 - 1


def to_array(photo: torch.Tensor) -> np.ndarray:
    """(3, H, W) float in [−1, 1] → (H, W, 3) uint8; values outside are clipped."""
    if photo.ndim != 3 or photo.shape[0] != 3:
        raise ImageError(f"a photo tensor is (3, H, W), not {tuple(photo.shape)}: give one image.")
    pixels = (photo.detach().float().cpu() + 1) * 127.5
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


# --- writing ----------------------------------------------------------------------------------------------

def save_image(
    path: str | os.PathLike,             # .png, .jpg, .jpeg or .webp
    image: np.ndarray | Image.Image,     # uint8 (H, W, 3) or (H, W)
    metadata: Mapping | None = None,     # PNG: a text entry per (Latin-1) key; JPEG, WebP: JSON in EXIF
    overwrite: bool = False,             # False: an existing file is an error, nothing is lost
    mark: bool = False,                  # draw a small visible strip SYNTHETIC along the bottom
    synthetic: bool = True,              # False only for what was not generated, a sketch of a photo say
) -> Path:
    """Write a picture whole or not at all; a generated one says "synthetic": "true" in its metadata."""
    path = Path(path)
    kind = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(path.suffix.lower())
    if kind is None:
        raise ImageError(f"{path} cannot be written: end its name in .png, .jpg or .webp.")
    if path.exists() and not overwrite:
        raise ImageError(f"{path} exists already: choose another name, or allow overwriting.")
    if not isinstance(image, Image.Image):
        image = np.asarray(image)
        if image.dtype != np.uint8 or not (image.ndim == 2 or image.ndim == 3 and image.shape[2] == 3):
            raise ImageError(f"only uint8 arrays (H, W, 3) or (H, W) can be saved, not {image.dtype} "
                             f"{image.shape}: convert with s2flib.images.to_array.")
        image = Image.fromarray(image)
    if mark:
        image = mark_synthetic(image)
    text = {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in (metadata or {}).items()}
    if synthetic:
        text["synthetic"] = "true"
    options: dict = {}
    if kind == "PNG":
        options["pnginfo"] = info = PngImagePlugin.PngInfo()
        for key, value in text.items():
            info.add_itxt(key, value)
    else:
        image = image.convert("RGB")
        exif = Image.Exif()
        exif[ExifTags.Base.ImageDescription] = json.dumps(text)
        options |= {"exif": exif, "quality": 95}
    with atomic_path(path) as part:
        image.save(part, kind, **options)
    return path


def mark_synthetic(image: Image.Image) -> Image.Image:
    """A copy with a strip SYNTHETIC along the bottom, a sixteenth of the height (at least 10 px)."""
    image = image.convert("RGB").copy()
    w, h = image.size
    strip = max(10, h // 16)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, h - strip, w, h), fill="black")
    draw.text((w / 2, h - strip / 2), "SYNTHETIC", fill="white", anchor="mm",
              font=ImageFont.load_default(strip * 0.8))
    return image


_REASONS = {
    errno.ENOSPC: "the disk is full: free some space or choose another folder",
    errno.EDQUOT: "your quota is used up: free some space or choose another folder",
    errno.EFBIG: "the file grows larger than the system allows: choose another folder",
    errno.EROFS: "the disk is read-only: choose another folder",
    errno.EACCES: "permission is denied: choose another folder",
    errno.EPERM: "permission is denied: choose another folder",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
    errno.EEXIST: "a file stands where the folder should be: choose another folder",
    errno.EISDIR: "a folder of that name stands there: choose another name",
}


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """``with atomic_path(p) as part:`` write to part; p then appears whole, or stays as it was.

    part lies beside p (same suffix, hidden name), is flushed to disk and moved over p. Any exception removes
    it; a full disk and its like become S2FError. Missing folders are made.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem[:64]}.{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with open(part, "r+b") as f:
            os.fsync(f.fileno())
        os.replace(part, path)
    except BaseException as e:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        reason = _REASONS.get(getattr(e, "errno", None)) if isinstance(e, OSError) else None
        if reason is None and isinstance(e, Exception) and _is_disk_full(e, path.parent):
            reason = _REASONS[errno.ENOSPC]
        if reason is not None:
            raise S2FError(f"{path} cannot be written, {reason}.") from e
        raise


def _is_disk_full(error: Exception, folder: Path) -> bool:
    # torch.save and safetensors wrap a full disk in errors of their own, without errno.
    if "No space left" in str(error):
        return True
    try:
        return isinstance(error, RuntimeError) and shutil.disk_usage(folder).free < 1 << 20
    except OSError:
        return False
