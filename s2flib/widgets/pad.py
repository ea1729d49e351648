"""A drawing pad: takes mouse, touch, pen (with pressure) or keyboard input and returns a sketch array."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import traitlets

from s2flib.datasets.user_drawing import prepare_drawing
from s2flib.errors import ImageError, S2FError
from s2flib.images import Picture, as_array, centre_square
from s2flib.widgets.base import (
    BYTES,
    STATIC,
    Refused,
    RefusedImage,
    Widget,
    check_pixels,
    from_png,
    from_the_browser,
    next_serial,
    png_bytes,
)

MAX_STROKES = 5_000
MAX_POINTS = 60_000  # in all strokes together: a message of about 0.5 MB
MAX_UPLOAD = 20 * 2**20  # bytes
MIN_SIZE, MAX_SIZE = 64, 1024  # px, side of the canvas
SUPERSAMPLE = 4


def check_strokes(strokes: object, size: int) -> list[dict]:
    """Validates strokes, a list of dicts {w, ink, erase, p}; raises Refused, an S2FError, if they are invalid.

    w: width in pixels at full pressure (0.5–200) · ink: darkness (0–1] · erase: bool ·
    p: flat list x, y, pressure, … with 0 ≤ x, y ≤ size and pressure in [0, 1].
    """
    if not isinstance(strokes, (list, tuple)):
        raise _bad("strokes must be a list")
    if len(strokes) > MAX_STROKES:
        raise _bad(f"{len(strokes)} strokes, more than the limit of {MAX_STROKES}")
    points = 0  # counted first: before anything is copied
    for i, stroke in enumerate(strokes):
        flat = stroke.get("p") if isinstance(stroke, dict) else None
        if not isinstance(flat, (list, tuple)) or not {"w", "ink", "erase"} <= set(stroke):
            raise _bad(f"stroke {i} is not {{w, ink, erase, p}}")
        if not flat or len(flat) % 3:
            raise _bad(f"stroke {i} needs x, y, pressure for every point")
        points += len(flat) // 3
    if points > MAX_POINTS:
        raise _bad(f"more than {MAX_POINTS} points")
    return [_checked(stroke, i, size) for i, stroke in enumerate(strokes)]


def _checked(stroke: dict, i: int, size: int) -> dict:
    """A copy of one stroke with nothing but its four entries, all numbers finite floats in range."""
    if not isinstance(stroke["erase"], (bool, np.bool_)):
        raise _bad(f"stroke {i} has an erase that is neither true nor false")
    try:
        w, ink, *p = (_number(v) for v in (stroke["w"], stroke["ink"], *stroke["p"]))
    except (TypeError, OverflowError) as error:
        raise _bad(f"stroke {i} is not {{w, ink, erase, p}} with numbers") from error
    if not (0.5 <= w <= 200 and 0 < ink <= 1):
        raise _bad(f"stroke {i} has width {w:g} or darkness {ink:g} out of range")
    xy, pressure = p[0::3] + p[1::3], p[2::3]
    if not (all(0 <= v <= size for v in xy) and all(0 <= v <= 1 for v in pressure)):  # NaN fails as well
        raise _bad(f"stroke {i} has points outside the canvas (0–{size}) or a pressure outside 0–1")
    return {"w": w, "ink": ink, "erase": bool(stroke["erase"]), "p": p}


def _number(value: object) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{type(value).__name__} is no number")
    return float(value)


def _bad(why: str) -> Refused:
    return Refused(f"invalid drawing: {why}; use SketchPad.add_stroke or clear the pad.")


def draw_strokes(strokes: list[dict], size: int, background: np.ndarray | None = None) -> np.ndarray:
    """Renders strokes to (size, size) uint8, white 255, by the same rule as the browser, at 4× supersampling.

    Each stroke is drawn once with its darkness, so it does not get darker where it crosses itself.
    """
    page = np.full((size, size), 255.0, np.float32)
    if background is not None:
        page = cv2.resize(background, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    for stroke in strokes:
        p = np.asarray(stroke["p"], np.float64).reshape(-1, 3)
        radii = np.maximum(0.5, stroke["w"] * (0.35 + 0.65 * p[:, 2]) / 2)
        # only the stroke's bounding box is supersampled, which keeps hundreds of strokes fast
        margin = math.ceil(radii.max()) + 2
        x0, y0 = np.maximum(np.floor(p[:, :2].min(0)) - margin, 0).astype(int)
        x1, y1 = np.minimum(np.ceil(p[:, :2].max(0)) + margin, size).astype(int)
        big = np.zeros(((y1 - y0) * SUPERSAMPLE, (x1 - x0) * SUPERSAMPLE), np.uint8)
        # OpenCV's coordinates refer to pixel centres, the canvas's to pixel corners: hence the half pixel
        at = np.rint(((p[:, :2] - (x0, y0)) * SUPERSAMPLE - 0.5) * 16).astype(int).tolist()
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
    """A drawing canvas of ``size`` × ``size`` pixels in a notebook.

    size:        side of the canvas in pixels (64–1024), fixed; the drawing can be read at any size
    width_px:    displayed width in CSS pixels
    pen_width:   initial width of the pen in canvas pixels
    pen_ink:     initial darkness of the pen, 0.1–1

    ``to_array()`` returns (H, W) uint8, ``to_sketch(size)`` the encoder's input, (1, size, size) in [0, 1].
    ``on_draw(callback)`` calls ``callback(pad)`` after each change. Errors appear in ``message``.
    """

    _esm = STATIC / "pad.js"
    FROM_BROWSER = frozenset({"strokes", "background"})
    size = traitlets.Int(512).tag(sync=True)
    width_px = traitlets.Int(420).tag(sync=True)
    pen_width = traitlets.Float(4).tag(sync=True)
    pen_ink = traitlets.Float(0.8).tag(sync=True)
    strokes = traitlets.List().tag(sync=True)
    background = traitlets.Bytes(b"").tag(**BYTES)  # PNG, or empty for white
    answered = traitlets.Int(0).tag(sync=True)  # serial of the last processed upload
    max_points = traitlets.Int(MAX_POINTS, read_only=True).tag(sync=True)
    max_upload = traitlets.Int(MAX_UPLOAD, read_only=True).tag(sync=True)

    def __init__(self, size: int = 512, **traits):
        super().__init__(size=size, **traits)
        self._callbacks: list[Callable[[SketchPad], None]] = []
        self._made = True
        self.on_msg(self._on_message)
        self.observe(self._changed, ["strokes", "background"])

    @traitlets.validate("size")
    def _valid_size(self, proposal) -> int:
        size = proposal["value"]
        if not MIN_SIZE <= size <= MAX_SIZE:
            raise Refused(f"a pad must have {MIN_SIZE} to {MAX_SIZE} px, not {size}.")
        if getattr(self, "_made", False) and size != self.size:
            raise Refused("a pad keeps its size, because its strokes are in its pixels: make a new pad.")
        return size

    @traitlets.validate("strokes")
    def _valid_strokes(self, proposal) -> list[dict]:
        return check_strokes(proposal["value"], self.size)

    @traitlets.validate("background")
    def _valid_background(self, proposal) -> bytes:
        data = bytes(proposal["value"])
        if not data:
            return data
        try:
            check_pixels(data, 4 * MAX_SIZE**2, "the pad's background")
            # never store the front end's data as it is, only a validated, square, grey copy
            return png_bytes(self._square(from_png(data)))
        except ImageError as error:
            raise RefusedImage(str(error)) from error

    def to_array(self, size: int | None = None) -> np.ndarray:
        """The drawing as (size, size) uint8, 0 black to 255 white; ``size`` defaults to the pad's."""
        background = self._square(from_png(self.background)) if self.background else None
        return centre_square(draw_strokes(self.strokes, self.size, background), size or self.size)

    def to_sketch(self, size: int | None = None) -> torch.Tensor:
        """The drawing as the encoder's input: (1, size, size) float in [0, 1], white paper 1."""
        return torch.from_numpy(self.to_array(size)).float()[None] / 255

    @property
    def empty(self) -> bool:
        """True if nothing has been drawn or loaded."""
        return not self.strokes and not self.background

    def static(self) -> bytes:
        """The drawing as PNG bytes."""
        return png_bytes(self.to_array())

    def add_stroke(self, points, width: float = 4, ink: float = 0.8, erase: bool = False) -> None:
        """Draws a stroke from code: points (N, 2) or (N, 3: x, y, pressure) in canvas pixels."""
        try:
            p = np.asarray(points, float)
        except (TypeError, ValueError) as error:
            raise S2FError("points must be numbers, (N, 2) or (N, 3).") from error
        if p.ndim != 2 or p.shape[1] not in (2, 3) or not len(p):
            raise S2FError(f"points must be (N, 2) or (N, 3), not {p.shape}.")
        if p.shape[1] == 2:
            p = np.column_stack([p, np.ones(len(p))])
        stroke = {"w": width, "ink": ink, "erase": erase, "p": p.round(3).ravel().tolist()}
        self.strokes = [*self.strokes, stroke]

    def clear(self) -> None:
        """Removes the drawing."""
        with self.hold_trait_notifications():
            self.strokes, self.background = [], b""

    def load(self, source: Picture) -> list[str]:
        """Replaces the drawing with a picture of a sketch, e.g. a file or a uint8 array (Undo restores it).

        :func:`s2flib.datasets.user_drawing.prepare_drawing` cleans and crops scans and photos of paper; returns
        its notes on what it did. Raises ImageError for anything that is not a picture of a drawing.
        """
        drawing = prepare_drawing(as_array(source), self.size)
        if self.is_newest():  # a file that took long to read does not replace one that was opened after it
            with self.hold_trait_notifications():
                self.strokes, self.background = [], png_bytes(drawing.sketch)
        return drawing.notes

    def receive_upload(self, name: str, data: bytes | memoryview) -> bool:
        """Called by the Open button with the bytes of the chosen file. Returns whether it became the drawing.

        For a bad file, ``message`` says why and the drawing stays as it is.
        """
        name = Path(name).name[:80] if isinstance(name, str) else ""
        name = name or "the file"

        def work() -> str:
            if memoryview(data).nbytes > MAX_UPLOAD:
                raise ImageError(f"{name} is larger than {MAX_UPLOAD // 2**20} MB: make it smaller first.")
            if not len(data):
                raise ImageError(f"{name} is empty: choose another file.")
            encoded = bytes(data)
            check_pixels(encoded, name=name)
            file = io.BytesIO(encoded)
            file.name = name  # for error messages
            return " · ".join([f"{name} loaded", *self.load(file)])

        return self.attempt(work, f"reading {name}")

    def on_draw(self, callback: Callable[[SketchPad], None]) -> None:
        """Calls ``callback(pad)`` after each change; its errors are shown in ``message``."""
        self._callbacks.append(callback)

    def _square(self, array: np.ndarray) -> np.ndarray:
        return centre_square(cv2.cvtColor(array, cv2.COLOR_RGB2GRAY), self.size)

    def _on_message(self, _widget, content, buffers) -> None:
        if not isinstance(content, dict) or content.get("kind") != "upload":
            return
        serial = content.get("serial")
        try:
            with from_the_browser():
                self.receive_upload(content.get("name", ""), buffers[0] if buffers else b"")
        finally:  # the front end waits for this, with its tools disabled
            self.answered = next_serial(serial, self.answered)

    def _changed(self, _change) -> None:
        def work() -> None:
            for callback in self._callbacks:
                self.attempt(lambda callback=callback: callback(self), "the drawing's callback")

        self.attempt(work, "the drawing's callback")
