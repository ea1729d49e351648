"""Reading and writing images: user input becomes (H, W, 3) uint8 RGB; files are written atomically."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import cv2
import numpy as np
import torch
from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin, UnidentifiedImageError

from s2flib.errors import ImageError, printable
from s2flib.files import atomic_path

MIN_SIDE, MAX_SIDE = 16, 12_000  # pixels
Picture = str | os.PathLike | BinaryIO | bytes | Image.Image | torch.Tensor | np.ndarray  # see as_array

# An explicit list, because Pillow would pass PostScript to an external interpreter.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2")
WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}  # suffix → format


def load_image(path: str | os.PathLike | BinaryIO, min_side: int = MIN_SIDE) -> np.ndarray:
    """Any image file as (H, W, 3) uint8 RGB, upright.

    EXIF rotation is applied, deeper grey is scaled to 8 bits, CMYK is converted, transparency is composited on white
    (light ink on black), and of an animation the first frame is used. path may be an open binary file. Raises
    ImageError for a file that is missing, empty, truncated, not an image, or has a side outside min_side … 12,000 px.
    """
    with _opened(path, min_side) as (image, name):
        return _rgb(image, name)


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    """Any Pillow image as (H, W, 3) uint8; handles bit depth, transparency and colour modes."""
    with contextlib.suppress(Exception):  # the image is usable even if its EXIF block is damaged
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_eight_bits(np.asarray(image, np.float64), name)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _backdrop(image)), image)
    return np.array(image.convert("RGB"))


def _eight_bits(grey: np.ndarray, name: str) -> np.ndarray:
    """Deep grey values → uint8, scaled by the depth that they use.

    The depth of the file is not enough: scanners store 12 bits in 16, and other programs 8 bits in 32.
    """
    low, high = float(grey.min()), float(grey.max())
    if not (math.isfinite(low) and math.isfinite(high)) or low < 0:
        raise ImageError(f"{name} contains values below 0, or none at all: save it as an 8- or 16-bit PNG first.")
    white = next((limit for limit in (1, 255, 4095, 65535) if high <= limit), high)
    return np.rint(grey * (255 / white)).astype(np.uint8)


def _backdrop(image: Image.Image) -> str:
    """The colour behind a transparent image: white, or black if all that is visible is too light to show on white."""
    alpha, light = np.asarray(image.getchannel("A")), np.asarray(image.convert("L"))
    visible = light[alpha > 127]
    lost = visible.size > 0 and np.mean(alpha < 128) > 0.05 and np.percentile(visible, 5) > 190
    return "black" if lost else "white"


def load_mask(path: str | os.PathLike | BinaryIO) -> np.ndarray:
    """A mask as (H, W) uint8: the label ids of a palette or grey image, 255 where a colour image is not black.

    Raises ImageError like load_image.
    """
    with _opened(path) as (image, _):
        mask = np.array(image if image.mode in ("L", "P", "1") else image.convert("RGB"))
    if mask.dtype == bool:
        return mask.astype(np.uint8)
    if mask.ndim == 3:
        same = (mask == mask[..., :1]).all()  # grey stored as RGB: keep the ids
        return mask[..., 0].copy() if same else np.where(mask.any(axis=2), 255, 0).astype(np.uint8)
    return mask


@contextlib.contextmanager
def _opened(path: str | os.PathLike | BinaryIO, min_side: int = MIN_SIDE) -> Iterator[tuple[Image.Image, str]]:
    """The decoded Pillow image and its name for messages; every read error becomes an ImageError."""
    if not isinstance(path, (str, os.PathLike)):
        name = str(getattr(path, "name", "the image"))
    else:
        name = str(path)
        try:
            found = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise ImageError(f"{name} does not exist: check the path.") from None
        except (OSError, ValueError) as e:  # a name that is too long, a folder that may not be entered
            raise ImageError(f"{name} cannot be opened ({printable(e)}): check the path.") from None
        if stat.S_ISDIR(found.st_mode):
            raise ImageError(f"{name} is a folder: choose an image file.")
        if found.st_size == 0:
            raise ImageError(f"{name} is empty (0 bytes): copy or download it again.")
    Image.init()
    formats = [f for f in FORMATS if f in Image.OPEN]  # some builds of Pillow lack AVIF
    with _decoding(name), contextlib.ExitStack() as stack:
        # Given a path, Pillow maps uncompressed TIFFs into memory and then scrambles those with an orientation.
        file = stack.enter_context(open(path, "rb")) if isinstance(path, (str, os.PathLike)) else path
        image = stack.enter_context(Image.open(file, formats=formats))
        w, h = image.size
        if max(w, h) > MAX_SIDE:
            raise ImageError(_too_large(name))
        if min(w, h) < min_side:
            raise ImageError(f"{name} is {w}×{h} px: use an image with sides of at least {min_side} px.")
        image.load()
        yield image, name


@contextlib.contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises on a file that it cannot open or decode into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(_too_large(name)) from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{name} is not an image that s2flib can read, or its header is damaged: save it as PNG or JPEG."
        ) from None
    except PermissionError:
        raise ImageError(f"{name} cannot be read: change its permissions.") from None
    except MemoryError:
        raise ImageError(f"{name} does not fit into memory: scale it down first.") from None
    except Exception as e:  # decoders raise anything on damaged data
        raise ImageError(f"{name} is damaged or truncated ({printable(e)}): copy or download it again.") from None


def _too_large(name: str) -> str:
    return f"{name} has a side of more than {MAX_SIDE:,} px: scale it down first."


def as_array(image: Picture) -> np.ndarray:
    """Any kind of image → (H, W, 3) uint8 RGB; the CLI, the library and the widgets all use this function.

    Accepts files (paths, open binary files, their bytes) and Pillow images, converted as in :func:`load_image`; photo
    tensors (3, H, W) in [−1, 1] and sketch tensors (1, H, W) in [0, 1], also as a batch of one; uint8 arrays (H, W),
    (H, W, 3) or (H, W, 4). Anything else raises ImageError.
    """
    if isinstance(image, bytes):
        image = io.BytesIO(image)
    if isinstance(image, Image.Image):
        with _decoding("the image"):  # an opened file is decoded only now
            return _rgb(image, "the image")
    if isinstance(image, (str, os.PathLike)) or hasattr(image, "read"):
        return load_image(cast(BinaryIO, image))
    if isinstance(image, torch.Tensor):
        x = image[0] if image.ndim == 4 and len(image) == 1 else image
        if x.ndim != 3 or x.shape[0] not in (1, 3):
            raise ImageError(f"an image tensor is (3, H, W) or (1, H, W), not {tuple(image.shape)}: pass one image.")
        if x.numel() == 0 or not torch.isfinite(x).all():
            raise ImageError("the image is empty or contains NaN or infinite values: check the step that produced it.")
        return to_array(x if x.shape[0] == 3 else x.expand(3, -1, -1) * 2 - 1)
    try:
        array: np.ndarray = np.asarray(image)
    except ValueError:  # rows of different lengths
        array = np.empty(0)
    if array.dtype == np.uint8 and array.size and (array.ndim == 2 or array.ndim == 3 and array.shape[2] in (3, 4)):
        return array if array.shape[2:] == (3,) else _rgb(Image.fromarray(array), "the image")
    raise ImageError(
        f"an image array is uint8 (H, W, 3), not {array.dtype} {array.shape}: read files with "
        "s2flib.images.load_image, convert tensors with s2flib.images.to_array."
    )


def resize(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) or (H, W, C) resized to ``size`` (height, width): area averaging to shrink, cubic to enlarge."""
    height, width = size
    way = cv2.INTER_AREA if array.shape[0] > height else cv2.INTER_CUBIC
    return cv2.resize(array, (width, height), interpolation=way)


def centre_square(array: np.ndarray, size: int) -> np.ndarray:
    """The largest centred square of (H, W) or (H, W, 3) uint8, resized."""
    h, w = array.shape[:2]
    n = min(h, w)
    top, left = (h - n) // 2, (w - n) // 2
    square = array[top : top + n, left : left + n]
    return square.copy() if n == size else resize(square, (size, size))


def to_photo(array: np.ndarray, size: int) -> torch.Tensor:
    """(H, W, 3) uint8 RGB → (3, size, size) float in [−1, 1]: centre square, then resized."""
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ImageError(
            f"a photo array is uint8 (H, W, 3), not {array.dtype} {array.shape}: "
            "read files with s2flib.images.load_image."
        )
    return as_float(centre_square(array, size))


def as_float(x):
    """uint8 → float tensor (…, 3, H, W) in [−1, 1], from a tensor (…, 3, H, W) or an array (…, H, W, 3)."""
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(np.ascontiguousarray(x)).movedim(-1, -3)
    return x.float() / 127.5 - 1


def to_array(photo: torch.Tensor) -> np.ndarray:
    """The inverse of :func:`as_float`: (…, 3, H, W) in [−1, 1] → (…, H, W, 3) uint8; other values are clipped."""
    if photo.ndim < 3 or photo.shape[-3] != 3:
        raise ImageError(f"a photo tensor is (3, H, W) or (N, 3, H, W), not {tuple(photo.shape)}: reshape it first.")
    pixels = (photo.detach().float().cpu() + 1) * 127.5
    return pixels.round().clamp(0, 255).to(torch.uint8).movedim(-3, -1).contiguous().numpy()


def contact_sheet(
    images: Sequence[np.ndarray] | np.ndarray,  # uint8 (H, W, 3) or (H, W), row by row
    columns: int,
    titles: Sequence[str] | None = None,  # a line of text above each image
    cell: int | None = None,  # side of a cell in pixels; None: the largest image's
    gap: int = 0,  # pixels of white around each cell
) -> np.ndarray:
    """Arrange images in rows on white, each scaled to its cell: (H, W, 3) uint8."""
    cell = int(cell or max(max(image.shape[:2]) for image in images))
    text = 20 if titles else 0
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (gap + columns * (cell + gap), gap + rows * (cell + text + gap)), "white")
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        x, y = gap + column * (cell + gap), gap + row * (cell + text + gap)
        picture = Image.fromarray(image).convert("RGB")
        scale = cell / max(picture.size)
        if scale != 1:
            size = [max(1, round(side * scale)) for side in picture.size]
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        page.paste(picture, (x, y + text))
        if titles:
            ImageDraw.Draw(page).text((x, y), titles[i], fill=(40, 40, 40), font=_font(12))
    return np.asarray(page)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from matplotlib, which is always installed: Pillow's built-in font lacks ψ and σ."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def save_image(
    path: str | os.PathLike,  # .png, .jpg, .jpeg or .webp
    image: np.ndarray | Image.Image,  # uint8 (H, W, 3) or (H, W)
    metadata: Mapping | None = None,  # PNG: a text entry per (Latin-1) key; JPEG, WebP: JSON in EXIF
    overwrite: bool = False,  # False: an existing file is an error
    mark: bool = False,  # add a small visible SYNTHETIC strip at the bottom
    synthetic: bool = True,  # False only for images that were not generated, such as a sketch of a photo
) -> Path:
    """Write an image atomically; the metadata of a generated image contains "synthetic": "true"."""
    path = Path(path)
    kind = WRITABLE.get(path.suffix.lower())
    if kind is None:
        raise ImageError(f"{path} cannot be written: use a name that ends in .png, .jpg or .webp.")
    if path.exists() and not overwrite:
        raise ImageError(f"{path} exists already: choose another name, or allow overwriting.")
    if not isinstance(image, Image.Image):
        image = np.asarray(image)
        if image.dtype != np.uint8 or not (image.ndim == 2 or image.ndim == 3 and image.shape[2] == 3):
            raise ImageError(
                f"only uint8 arrays (H, W, 3) or (H, W) can be saved, not {image.dtype} "
                f"{image.shape}: convert with s2flib.images.to_array."
            )
        image = Image.fromarray(image)
    if mark:
        image = mark_synthetic(image)
    options: dict = {}
    if kind == "PNG":
        options["pnginfo"] = png_info(metadata, synthetic)
    else:
        image = image.convert("RGB")
        exif = Image.Exif()
        exif[ExifTags.Base.ImageDescription] = json.dumps(text_entries(metadata, synthetic))
        options |= {"exif": exif, "quality": 95}
    with atomic_path(path) as part:
        image.save(part, kind, **options)
    return path


def text_entries(metadata: Mapping | None = None, synthetic: bool = True) -> dict[str, str]:
    """What a picture says beside its pixels; a generated face says that it is one."""
    text = {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in (metadata or {}).items()}
    return text | {"synthetic": "true"} if synthetic else text


def png_info(metadata: Mapping | None = None, synthetic: bool = True) -> PngImagePlugin.PngInfo:
    """:func:`text_entries` for Pillow's ``save(…, pnginfo=…)``."""
    info = PngImagePlugin.PngInfo()
    for key, value in text_entries(metadata, synthetic).items():
        info.add_itxt(key, value)
    return info


def read_metadata(path: str | os.PathLike | BinaryIO) -> dict[str, str]:
    """What :func:`save_image` wrote beside the pixels: {} for a picture of another origin or without any."""
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            if image.format == "PNG":
                text = {k: str(v) for k, v in getattr(image, "text", {}).items()}
            else:
                text = json.loads(image.getexif().get(ExifTags.Base.ImageDescription, "{}"))
            return {str(k): str(v) for k, v in text.items()} if isinstance(text, dict) else {}
    except Exception:  # damaged metadata is no metadata; the pixels are read by load_image
        return {}


def inherited(source: str | os.PathLike | BinaryIO) -> tuple[dict[str, str], bool]:
    """What a picture made from ``source`` says about it: its metadata as "source_metadata", and whether it is
    synthetic: whatever was made from a generated face is one too."""
    found = read_metadata(source)
    about = {k: v for k, v in found.items() if k != "synthetic"}
    return ({"source_metadata": json.dumps(about)} if about else {}), found.get("synthetic") == "true"


def mark_synthetic(image: Image.Image) -> Image.Image:
    """A copy with a SYNTHETIC strip at the bottom, a sixteenth of the height (at least 10 px)."""
    image = image.convert("RGB").copy()
    w, h = image.size
    strip = max(10, h // 16)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, h - strip, w, h), fill="black")
    draw.text((w / 2, h - strip / 2), "SYNTHETIC", fill="white", anchor="mm", font=ImageFont.load_default(strip * 0.8))
    return image
