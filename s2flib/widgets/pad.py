"""A drawing pad: mouse, finger, pen (with pressure) or keyboard in, a sketch array out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import traitlets

from s2flib.drawing import prepare_drawing
from s2flib.errors import ImageError, S2FError
from s2flib.images import load_image
from s2flib.widgets.base import BYTES, STATIC, Widget, from_png, png_bytes

MAX_STROKES = 5_000
MAX_POINTS = 60_000          # of all strokes together: about 0.5 MB of message
MAX_UPLOAD = 20 * 2**20      # bytes
SUPERSAMPLE = 4


def check_strokes(strokes: list, size: int) -> list[dict]:
    """Strokes in order, or S2FError: a list of dicts {w, ink, erase, p}.

    w: width in pixels at full pressure (0.5–200) · ink: darkness (0–1] · erase: bool ·
    p: flat list x, y, pressure, … with 0 ≤ x, y ≤ size and pressure in [0, 1].
    """
    def bad(why: str) -> S2FError:
        return S2FError(f"not a drawing: {why}; use SketchPad.add_stroke or clear the pad.")

    if not isinstance(strokes, (list, tuple)):
        raise bad("strokes must be a list")
    if len(strokes) > MAX_STROKES:
        raise bad(f"{len(strokes)} strokes are more than {MAX_STROKES}")
    out, points = [], 0
    for i, stroke in enumerate(strokes):
        try:
            w, ink, erase = float(stroke["w"]), float(stroke["ink"]), bool(stroke["erase"])
            p = [float(v) for v in stroke["p"]]
        except (TypeError, KeyError, ValueError) as error:
            raise bad(f"stroke {i} is not {{w, ink, erase, p}}") from error
        points += len(p) // 3
        if not p or len(p) % 3:
            raise bad(f"stroke {i} needs x, y, pressure for every point")
        if points > MAX_POINTS:
            raise bad(f"more than {MAX_POINTS} points")
        if not (0.5 <= w <= 200 and 0 < ink <= 1):
            raise bad(f"stroke {i} has width {w} or darkness {ink} out of range")
        xy, pressure = p[0::3] + p[1::3], p[2::3]
        if not (all(0 <= v <= size for v in xy) and all(0 <= v <= 1 for v in pressure)):
            raise bad(f"stroke {i} leaves the paper (0–{size}) or has a pressure outside 0–1")
        out.append({"w": w, "ink": ink, "erase": erase, "p": p})
    return out


def draw_strokes(strokes: list[dict], size: int, background: np.ndarray | None = None) -> np.ndarray:
    """The drawing as (size, size) uint8, white 255: the rule the browser draws by, four times oversampled.

    Every stroke is laid down once with its darkness, so lines that cross themselves do not get darker.
    """
    page = np.full((size, size), 255.0, np.float32)
    if background is not None:
        page = cv2.resize(background, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    for stroke in strokes:
        p = np.asarray(stroke["p"], np.float64).reshape(-1, 3)
        radii = np.maximum(0.5, stroke["w"] * (0.35 + 0.65 * p[:, 2]) / 2)
        # Only the stroke's own box is oversampled: drawing stays fast with hundreds of strokes.
        margin = math.ceil(radii.max()) + 2
        x0, y0 = np.maximum(np.floor(p[:, :2].min(0)) - margin, 0).astype(int)
        x1, y1 = np.minimum(np.ceil(p[:, :2].max(0)) + margin, size).astype(int)
        big = np.zeros(((y1 - y0) * SUPERSAMPLE, (x1 - x0) * SUPERSAMPLE), np.uint8)
        # OpenCV counts pixel centres, the canvas counts pixel corners: hence the half pixel.
        at = ((p[:, :2] - (x0, y0)) * SUPERSAMPLE - 0.5) * 16
        at = np.rint(at).astype(int).tolist()
        cv2.circle(big, at[0], round(radii[0] * SUPERSAMPLE * 16), 255, -1, cv2.LINE_8, 4)
        for i in range(1, len(p)):
            thickness = max(1, round((radii[i - 1] + radii[i]) * SUPERSAMPLE))
            cv2.line(big, at[i - 1], at[i], 255, thickness, cv2.LINE_8, 4)
        cover = cv2.resize(big, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        box = page[y0:y1, x0:x1]
        if stroke["erase"]:
            box += cover * (255 - box)
        else:
            box *= 1 - cover * stroke["ink"]
    return np.rint(page).clip(0, 255).astype(np.uint8)


class SketchPad(Widget):
    """A sheet of paper of ``size`` × ``size`` pixels in a notebook.

    size:        pixels of the paper's side (64–1024); the drawing is read back at any size
    width_px:    how wide it is shown, CSS pixels
    pen_width:   first width of the pen, in paper pixels
    pen_ink:     first darkness of the pen, 0.1–1

    ``to_array()`` gives (H, W) uint8, ``to_sketch(size)`` the encoder's input, (1, size, size) in [0, 1].
    ``on_draw(callback)`` calls ``callback(pad)`` after each change. Errors appear in ``message``.
    """

    _esm = STATIC / "pad.js"
    size = traitlets.Int(512).tag(sync=True)
    width_px = traitlets.Int(420).tag(sync=True)
    pen_width = traitlets.Float(4).tag(sync=True)
    pen_ink = traitlets.Float(0.8).tag(sync=True)
    strokes = traitlets.List().tag(sync=True)
    background = traitlets.Bytes(b"").tag(**BYTES)                # PNG, or empty for white
    message = traitlets.Unicode("").tag(sync=True)
    message_ok = traitlets.Bool(True).tag(sync=True)
    max_points = traitlets.Int(MAX_POINTS, read_only=True).tag(sync=True)
    max_upload = traitlets.Int(MAX_UPLOAD, read_only=True).tag(sync=True)

    def __init__(self, size: int = 512, **traits):
        if not 64 <= size <= 1024:
            raise S2FError(f"a pad of {size} px cannot be made: choose 64 to 1024.")
        super().__init__(size=size, **traits)
        self._callbacks: list[Callable[[SketchPad], None]] = []
        self.on_msg(self._on_message)
        self.observe(self._changed, ["strokes", "background"])

    @traitlets.validate("strokes")
    def _valid_strokes(self, proposal) -> list[dict]:
        return check_strokes(proposal["value"], self.size)

    @traitlets.validate("background")
    def _valid_background(self, proposal) -> bytes:
        data = bytes(proposal["value"])
        if data:
            # A checked, square, grey copy: what the front end sends is never stored as it came.
            data = png_bytes(self._square(from_png(data)))
        return data

    def to_array(self, size: int | None = None) -> np.ndarray:
        """The drawing as (size, size) uint8, 0 black to 255 white; ``size`` defaults to the pad's."""
        background = from_png(self.background) if self.background else None
        picture = draw_strokes(self.strokes, self.size, background)
        if size and size != self.size:
            how = cv2.INTER_AREA if size < self.size else cv2.INTER_CUBIC
            picture = cv2.resize(picture, (size, size), interpolation=how)
        return picture

    def to_sketch(self, size: int | None = None) -> torch.Tensor:
        """The drawing as the encoder's input: (1, size, size) float in [0, 1], white paper 1."""
        return torch.from_numpy(self.to_array(size)).float()[None] / 255

    @property
    def empty(self) -> bool:
        """True while nothing has been drawn or loaded."""
        return not self.strokes and not self.background

    def static(self) -> bytes:
        """The drawing as PNG bytes."""
        return png_bytes(self.to_array())

    def add_stroke(self, points, width: float = 4, ink: float = 0.8, erase: bool = False) -> None:
        """Draw by code: points (N, 2) or (N, 3: x, y, pressure) in paper pixels."""
        p = np.asarray(points, float)
        if p.ndim != 2 or p.shape[1] not in (2, 3) or not len(p):
            raise S2FError(f"points must be (N, 2) or (N, 3), not {p.shape}.")
        if p.shape[1] == 2:
            p = np.column_stack([p, np.ones(len(p))])
        stroke = {"w": width, "ink": ink, "erase": erase, "p": p.round(3).ravel().tolist()}
        self.strokes = [*self.strokes, stroke]

    def clear(self) -> None:
        """White paper."""
        with self.hold_trait_notifications():
            self.strokes, self.background = [], b""

    def load(self, source: str | Path | np.ndarray) -> list[str]:
        """Start from a picture of a sketch, a file or a uint8 array, in place of the drawing (Undo goes back).

        Scans and photographed paper are cleaned and framed by :func:`s2flib.drawing.prepare_drawing`; what it
        did is returned, in words. Raises ImageError for anything that is not a picture with a drawing in it.
        """
        array = source if isinstance(source, np.ndarray) else load_image(source)
        drawing = prepare_drawing(array, self.size)
        with self.hold_trait_notifications():
            self.strokes, self.background = [], png_bytes(drawing.sketch)
        return drawing.notes

    def receive_upload(self, name: str, data: bytes) -> bool:
        """What the Open button calls: the bytes of a file a person picked. True if it became the drawing.

        Never raises: a bad file leaves the drawing as it is and says why in ``message``.
        """
        name = Path(str(name)).name[:80] or "the file"
        notes: list[str] = []

        def work() -> None:
            if len(data) > MAX_UPLOAD:
                raise ImageError(f"{name} is larger than {MAX_UPLOAD // 2**20} MB: make it smaller first.")
            if not data:
                raise ImageError(f"{name} is empty: choose another file.")
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / ("upload" + Path(name).suffix[:8])
                path.write_bytes(data)
                try:
                    array = load_image(path)
                except ImageError as error:
                    raise ImageError(str(error).replace(str(path), name)) from error
            notes.extend(self.load(array))

        ok = self.attempt(work, f"reading {name}")
        if ok:
            self.message = " · ".join([f"{name} is on the paper", *notes])
        self.message_ok = ok
        return ok

    def on_draw(self, callback: Callable[[SketchPad], None]) -> None:
        """Call ``callback(pad)`` after every change; what it raises is shown in ``message``."""
        self._callbacks.append(callback)

    def _square(self, array: np.ndarray) -> np.ndarray:
        if array.ndim == 3:
            array = cv2.cvtColor(array, cv2.COLOR_RGB2GRAY)
        h, w = array.shape
        side = min(h, w)
        array = array[(h - side) // 2:(h + side) // 2, (w - side) // 2:(w + side) // 2]
        how = cv2.INTER_AREA if side > self.size else cv2.INTER_CUBIC
        return cv2.resize(array, (self.size, self.size), interpolation=how)

    def _on_message(self, _widget, content, buffers) -> None:
        if isinstance(content, dict) and content.get("kind") == "upload" and buffers:
            self.receive_upload(content.get("name", ""), bytes(buffers[0]))

    def _changed(self, _change) -> None:
        for callback in self._callbacks:
            self.message_ok = self.attempt(lambda callback=callback: callback(self), "the drawing's callback")
