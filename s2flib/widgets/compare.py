"""Before/after: one picture wiped over another, for eyes that want to compare."""

from __future__ import annotations

import numpy as np
import torch
import traitlets
from PIL import Image

from s2flib.errors import ImageError
from s2flib.widgets.base import BYTES, STATIC, Widget, as_uint8, from_png, png_bytes, sheet

Picture = np.ndarray | torch.Tensor | Image.Image


class Compare(Widget):
    """``Compare(before, after)``: a line to drag between two pictures of the same shape of frame.

    before, after:               photo (3,H,W) in [−1,1], sketch (1,H,W) in [0,1], uint8 array or PIL image;
                                 the smaller one is scaled up to the larger
    before_label, after_label:   the words on the pictures
    position:                    0 (all after) to 1 (all before)
    """

    _esm = STATIC / "compare.js"
    before = traitlets.Bytes(b"").tag(**BYTES)
    after = traitlets.Bytes(b"").tag(**BYTES)
    before_label = traitlets.Unicode("before").tag(sync=True)
    after_label = traitlets.Unicode("after").tag(sync=True)
    position = traitlets.Float(0.5).tag(sync=True)
    width_px = traitlets.Int(320).tag(sync=True)

    def __init__(self, before: Picture, after: Picture, before_label: str = "before",
                 after_label: str = "after", **traits):
        super().__init__(before_label=before_label, after_label=after_label, **traits)
        self.show(before, after)

    def show(self, before: Picture, after: Picture) -> None:
        """Put two other pictures in the same widget."""
        one, two = as_uint8(before), as_uint8(after)
        if abs(one.shape[1] * two.shape[0] - two.shape[1] * one.shape[0]) > max(one.shape + two.shape):
            sizes = " and ".join(f"{a.shape[1]}×{a.shape[0]}" for a in (one, two))
            raise ImageError(f"pictures of {sizes} px cannot be laid over each other: crop them to the same "
                             "proportions.")
        height, width = max(one.shape[:2], two.shape[:2])
        one, two = (a if a.shape[:2] == (height, width) else
                    np.asarray(Image.fromarray(a).resize((width, height), Image.Resampling.BICUBIC))
                    for a in (one, two))
        with self.hold_sync():
            self.before, self.after = png_bytes(one), png_bytes(two)

    @traitlets.validate("position")
    def _valid_position(self, proposal) -> float:
        x = float(proposal["value"])
        return min(max(x, 0.0), 1.0) if x == x else 0.5

    def static(self) -> bytes:
        """The two pictures side by side, labelled, as PNG bytes."""
        return png_bytes(sheet([[from_png(self.before), from_png(self.after)]],
                               [[self.before_label, self.after_label]], cell=240))
