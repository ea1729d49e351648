"""What the widgets share: pictures as PNG bytes, a size limit, a static rendering, errors as text."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from s2flib.errors import ImageError, S2FError

try:
    import anywidget
except ImportError as error:
    raise S2FError("the widgets need anywidget: pip install 's2flib[course]'.") from error

# Bytes traits arrive from the browser as memoryviews, which traitlets' Bytes refuses.
BYTES = {"sync": True, "from_json": lambda value, _widget: bytes(value or b"")}
STATIC = Path(__file__).parent / "static"
MAX_PNG = 4 * 2**20         # bytes of any picture held in a trait: keeps messages to the browser small


def as_uint8(image: np.ndarray | torch.Tensor | Image.Image) -> np.ndarray:
    """Any picture of s2flib as (H, W) or (H, W, 3) uint8.

    Tensors: photo (3,H,W) in [−1,1] or sketch (1,H,W) in [0,1], a batch of one allowed. Arrays: uint8 as they
    are. Anything else raises ImageError.
    """
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB"))
    if isinstance(image, torch.Tensor):
        x = image.detach().float().cpu()
        if x.ndim == 4 and x.shape[0] == 1:
            x = x[0]
        if x.ndim == 3 and x.shape[0] == 3:
            x = (x + 1) / 2
        elif not (x.ndim == 3 and x.shape[0] == 1):
            raise ImageError(f"a tensor picture is (3,H,W) or (1,H,W), not {tuple(image.shape)}: "
                             "pass one image.")
        if not torch.isfinite(x).all():
            raise ImageError("the picture holds NaN or infinite values: look at the step that made it.")
        array = (x.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        return array[..., 0] if array.shape[2] == 1 else array
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ImageError(
            f"an array picture is uint8 (H,W) or (H,W,3), not {array.dtype} {array.shape}: convert it first.")
    return array


def png_bytes(image: np.ndarray | torch.Tensor | Image.Image, synthetic: bool = False) -> bytes:
    """PNG file content of a picture; ``synthetic`` writes the mark every generated image carries."""
    info = PngImagePlugin.PngInfo()
    if synthetic:
        info.add_text("synthetic", "true")
    out = io.BytesIO()
    Image.fromarray(as_uint8(image)).save(out, "PNG", pnginfo=info)
    data = out.getvalue()
    if len(data) > MAX_PNG:
        raise ImageError(f"the picture is {len(data) / 2**20:.1f} MB as PNG and a widget holds "
                         f"{MAX_PNG // 2**20} MB: make it smaller first.")
    return data


def from_png(data: bytes) -> np.ndarray:
    """The inverse of :func:`png_bytes`: (H, W) or (H, W, 3) uint8."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return as_uint8(image)
    except ImageError:
        raise
    except Exception as error:                      # Pillow raises many kinds for damaged files
        raise ImageError("these bytes are not a PNG picture: pass the content of a PNG file.") from error


def sheet(rows: list[list[np.ndarray]], titles: list[list[str]], cell: int = 160) -> np.ndarray:
    """A contact sheet: rows of pictures, each with a line of text above; (H, W, 3) uint8 on white."""
    # matplotlib's own DejaVu Sans, wherever that is installed: Pillow's built-in font has no ψ and no σ
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 12)
    text, gap = 20, 8
    width = gap + max(len(row) for row in rows) * (cell + gap)
    page = Image.new("RGB", (width, gap + len(rows) * (cell + text + gap)), "white")
    draw = ImageDraw.Draw(page)
    for r, (row, names) in enumerate(zip(rows, titles, strict=True)):
        for c, (array, name) in enumerate(zip(row, names, strict=True)):
            x, y = gap + c * (cell + gap), gap + r * (cell + text + gap)
            draw.text((x, y), name, fill=(40, 40, 40), font=font)
            picture = Image.fromarray(array).convert("RGB")
            scale = cell / max(picture.size)
            size = [max(1, round(side * scale)) for side in picture.size]
            picture = picture.resize(size, Image.Resampling.BICUBIC)
            page.paste(picture, (x, y + text))
            corner = (x + picture.width - 1, y + text + picture.height - 1)
            draw.rectangle((x, y + text, *corner), outline="#bbbbbb")
    return np.asarray(page)


class StaticMixin:
    """Adds the static PNG to what a notebook stores, so a page without a front end shows the picture."""

    def static(self) -> bytes:
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        return {**data, "image/png": self.static()}, metadata


class Widget(StaticMixin, anywidget.AnyWidget):
    """An anywidget with the shared style sheet and a status line (``message``)."""

    _css = STATIC / "widgets.css"

    def attempt(self, work: Callable[[], None], doing: str) -> bool:
        """Run a callback's work; an error becomes one sentence in ``message``. True if it went well.

        A widget's callback runs outside any cell, where a traceback would be lost: so it never raises.
        """
        try:
            work()
        except S2FError as error:
            self.message = str(error)
        except Exception as error:  # noqa: BLE001  (anything a user's callback may raise)
            self.message = f"{doing} failed ({type(error).__name__}: {error})."
        else:
            return True
        return False
