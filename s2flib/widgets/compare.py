"""Before/after comparison: a draggable divider between two images."""

from __future__ import annotations

import math
from collections.abc import Mapping

import traitlets
from PIL import Image

from s2flib.errors import ImageError
from s2flib.images import Picture, as_array, contact_sheet
from s2flib.widgets.base import BYTES, STATIC, Widget, from_png, png_bytes


class Compare(Widget):
    """``Compare(before, after)``: two images of the same proportions with a draggable divider between them.

    before, after:               photo (3,H,W) in [−1,1], sketch (1,H,W) in [0,1], uint8 array or PIL image;
                                 the smaller one is scaled up to the larger one's size
    before_label, after_label:   labels on the images
    position:                    position of the divider, 0 (only after) to 1 (only before)
    synthetic:                   mark both images as synthetic in their PNG metadata; False only where neither shows a
                                 generated face, such as a photo and its sketch
    about:                       how the image ``after`` was made, for its metadata
    """

    _esm = STATIC / "compare.js"
    FROM_BROWSER = frozenset({"position"})
    before = traitlets.Bytes(b"").tag(**BYTES)
    after = traitlets.Bytes(b"").tag(**BYTES)
    before_label = traitlets.Unicode("before").tag(sync=True)
    after_label = traitlets.Unicode("after").tag(sync=True)
    position = traitlets.Float(0.5).tag(sync=True)
    width_px = traitlets.Int(320).tag(sync=True)

    def __init__(
        self,
        before: Picture,
        after: Picture,
        before_label: str = "before",
        after_label: str = "after",
        synthetic: bool = True,
        about: Mapping | None = None,
        **traits,
    ):
        self._synthetic, self._about = synthetic, {}
        super().__init__(before_label=before_label, after_label=after_label, **traits)
        self.show(before, after, about)

    def show(self, before: Picture, after: Picture, about: Mapping | None = None) -> None:
        """Replaces the two images."""
        one, two = as_array(before), as_array(after)
        if abs(one.shape[1] * two.shape[0] - two.shape[1] * one.shape[0]) > max(one.shape + two.shape):
            sizes = " and ".join(f"{a.shape[1]}×{a.shape[0]}" for a in (one, two))
            raise ImageError(f"images of {sizes} px cannot be compared: crop them to the same proportions.")
        height, width = max(one.shape[:2], two.shape[:2])
        # Pillow's resize copies an image that has the size already
        one, two = (Image.fromarray(a).resize((width, height), Image.Resampling.BICUBIC) for a in (one, two))
        pictures = png_bytes(one, self._synthetic), png_bytes(two, self._synthetic, about)
        with self.hold_sync():
            self._about = dict(about or {})
            self.before, self.after = pictures

    @traitlets.validate("position")
    def _valid_position(self, proposal) -> float:
        x = proposal["value"]
        return 0.5 if math.isnan(x) else min(max(x, 0.0), 1.0)

    def static(self) -> bytes:
        """The two images side by side, with labels, as PNG bytes."""
        pictures, titles = [from_png(self.before), from_png(self.after)], [self.before_label, self.after_label]
        return png_bytes(contact_sheet(pictures, 2, titles, cell=240, gap=8), self._synthetic, self._about)
