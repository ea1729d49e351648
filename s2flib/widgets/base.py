"""Shared code of the widgets: images as PNG bytes, size limits, static rendering, errors as text."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from s2flib.errors import ImageError, S2FError
from s2flib.images import Picture, as_array, load_image

try:
    import anywidget
except ImportError as error:
    raise S2FError("the widgets need anywidget: pip install 's2flib[course]'.") from error

# The browser sends bytes as memoryviews, which traitlets.Bytes rejects.
BYTES = {"sync": True, "from_json": lambda value, _widget: bytes(value or b"")}
STATIC = Path(__file__).parent / "static"
MAX_PNG = 4 * 2**20  # bytes; limits the size of messages to the browser


def png_bytes(image: Picture, synthetic: bool = False) -> bytes:
    """Encodes an image as PNG; ``synthetic`` adds the metadata that marks generated images."""
    info = PngImagePlugin.PngInfo()
    if synthetic:
        info.add_text("synthetic", "true")
    out = io.BytesIO()
    Image.fromarray(as_array(image)).save(out, "PNG", pnginfo=info)
    data = out.getvalue()
    if len(data) > MAX_PNG:
        raise ImageError(
            f"the image is {len(data) / 2**20:.1f} MB as PNG and the limit is {MAX_PNG // 2**20} MB: make it smaller."
        )
    return data


def from_png(data: bytes) -> np.ndarray:
    """The inverse of :func:`png_bytes`: (H, W, 3) uint8."""
    return load_image(io.BytesIO(data), min_side=1)


class Widget(anywidget.AnyWidget):
    """An anywidget with the shared style sheet, a status line (``message``) and a static rendering."""

    _css = STATIC / "widgets.css"

    def static(self) -> bytes:
        """The widget as PNG bytes."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs):
        """Adds the static PNG to the notebook's stored output, for pages without a front end."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        return {**data, "image/png": self.static()}, metadata

    def attempt(self, work: Callable[[], object], doing: str) -> bool:
        """Calls ``work``; an error becomes one sentence in ``message``. Returns whether it succeeded.

        Widget callbacks run outside any cell, where a traceback would be lost, so this never raises.
        """
        try:
            work()
        except S2FError as error:
            self.message = str(error)
        except Exception as error:  # noqa: BLE001  (a user's callback may raise anything)
            self.message = f"{doing} failed ({type(error).__name__}: {error})."
        else:
            return True
        return False
