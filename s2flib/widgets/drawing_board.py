"""The pad beside the face that it makes, and beside what the drawing leaves open."""

from __future__ import annotations

import ipywidgets
import torch

from s2flib.errors import S2FError
from s2flib.evaluation.drawings import variation
from s2flib.images import contact_sheet, to_array
from s2flib.plotting import overlay
from s2flib.psp import PSP
from s2flib.widgets.base import Panel, from_png, png_bytes
from s2flib.widgets.pad import SketchPad


class DrawingBoard(Panel):
    """``DrawingBoard(psp)``: every stroke on ``pad`` makes ``n`` faces again.

    Beside the pad: one face, and the variation over all of them (yellow: where they differ most). seed: of the
    variants, the same for every drawing, so that what changes was drawn. An empty pad shows no face.
    """

    def __init__(self, psp: PSP, n: int = 8, seed: int = 0, width_px: int = 300):
        if n < 2:
            raise S2FError(f"a drawing board needs at least two faces to compare, not {n}.")
        self.psp, self.n, self.seed = psp, n, seed
        self.pad = SketchPad(width_px=width_px)
        side = ipywidgets.Layout(width=f"{width_px}px", height=f"{width_px}px")
        self.face, self.leaves_open = ipywidgets.Image(layout=side), ipywidgets.Image(layout=side)
        row = ipywidgets.Layout(flex_flow="row wrap")  # below each other where the page is narrow
        super().__init__([ipywidgets.HBox([self.pad, self.face, self.leaves_open], layout=row)])
        self.pad.on_draw(lambda _: self.redraw())

    def redraw(self) -> None:
        """Called after each stroke: makes the faces of the drawing."""
        self.attempt(self._redraw, "making the face")

    def _redraw(self) -> str:
        if self.pad.empty:
            self.publish(lambda: self._show(b"", b""))
            return ""
        drawing = self.pad.to_sketch(self.psp.encoder.size).to(self.psp.latent_avg.device)
        with torch.inference_mode():
            faces = self.psp.multimodal(drawing, self.n, self.seed).cpu()
        spread = variation(faces)
        shown = (255 * overlay(faces.mean(0), spread)).round().astype("uint8")
        self.publish(lambda: self._show(png_bytes(to_array(faces[0]), True), png_bytes(shown, True)))
        return f"{self.n} faces fit; their pixels differ by {float(spread.mean()):.0f} of 255 grey levels on average"

    def _show(self, face: bytes, leaves_open: bytes) -> None:
        self.face.value, self.leaves_open.value = face, leaves_open

    def static(self) -> bytes:
        """The drawing, and, if there is one, its face and what it leaves open, as PNG bytes."""
        pictures = [self.pad.to_array(256)]
        pictures += [from_png(image.value) for image in (self.face, self.leaves_open) if image.value]
        titles = ["drawing", "face", "left open"][: len(pictures)]
        return png_bytes(contact_sheet(pictures, 3, titles, cell=240, gap=8), synthetic=len(pictures) > 1)
