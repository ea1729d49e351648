"""Shared basics of the course's figures: style, size, captions, saving. Import them from s2flib.plotting."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from s2flib.errors import S2FError
from s2flib.files import atomic_path
from s2flib.images import text_entries

WIDTH = 8.6  # inches; at DPI this is 1032 px, the width of a notebook cell
DPI = 120
# Okabe & Ito's colour-blind safe palette (jfly.uni-koeln.de/color)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, FAINT = "#222222", "#8A8A8A"
CAPTION_PT, TITLE_PT = 9.5, 9.0

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9.5, "text.color": INK,
    "axes.labelcolor": INK, "axes.edgecolor": FAINT, "axes.linewidth": 0.8, "axes.titlesize": 10,
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#E4E4E4", "grid.linewidth": 0.7,
    "xtick.color": INK, "ytick.color": INK, "xtick.labelsize": 9, "ytick.labelsize": 9,
    "legend.frameon": False, "legend.fontsize": 9, "lines.linewidth": 1.8, "figure.facecolor": "white",
    "savefig.facecolor": "white", "image.cmap": "gray",
}  # fmt: skip


class CourseFigure(Figure):
    """A matplotlib Figure that notebooks display exactly once, because it is not registered with pyplot.

    ``about`` is written beside the pixels of every PNG, PDF or SVG made of it. A figure that shows pictures, not only
    charts, is marked as synthetic: the faces in it are.
    """

    about: Mapping = {}

    def savefig(self, fname, *, metadata: Mapping | None = None, **options) -> None:
        kind = options.get("format") or (Path(fname).suffix[1:] if isinstance(fname, (str, Path)) else "") or "png"
        pictures = any(axes.images for axes in self.axes)
        text = text_entries({**self.about, **(metadata or {})}, synthetic=pictures)
        field = {"pdf": "Subject", "svg": "Description"}.get(kind.lower())  # both have a fixed set of entries
        if field and text:
            text = {field: json.dumps(text)}
        super().savefig(fname, metadata=text, **options)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()


def style():
    """Context manager that applies the course's style to your own matplotlib code inside the ``with`` block."""
    return rc_context(STYLE)


def text_width(text: str, points: float) -> float:
    """Width of a line of text in inches, from the font's metrics."""
    if not text.strip():
        return 0.0
    font = FontProperties(family=STYLE["font.sans-serif"], size=points)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def wrap(text: str, width_in: float, points: float) -> list[str]:
    """Breaks text into lines no wider than width_in inches."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and text_width(longer, points) > width_in:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return lines


def blank(width: float, height: float, caption: str | None) -> tuple[CourseFigure, float]:
    """An empty figure with its caption, ``height`` inches plus the caption's height; and the caption's share of it."""
    lines = wrap(caption, width - 0.2, CAPTION_PT) if caption else []
    extra = len(lines) * CAPTION_PT * 1.4 / 72 + 0.22 if lines else 0.06
    total = height + extra
    figure = CourseFigure(figsize=(width, total), dpi=DPI)
    FigureCanvasAgg(figure)
    if lines:
        look = {"va": "top", "fontsize": CAPTION_PT, "color": INK, "linespacing": 1.35}
        figure.text(0.1 / width, (extra - 0.12) / total, "\n".join(lines), **look)
    return figure, extra / total


@contextmanager
def chart(
    caption: str | None = None, height: float = 3.2, columns: int = 1, rows: int = 1, **kwargs
) -> Iterator[tuple[CourseFigure, Any]]:
    """``with chart("what to see", columns=2) as (figure, axes): …`` sets up a figure with style, axes and caption.

    ``axes`` is one Axes, or a list of ``rows`` × ``columns`` Axes, row by row. ``kwargs`` are passed to
    ``Figure.subplots``.
    """
    with style():
        figure, share = blank(WIDTH, height, caption)
        figure.set_layout_engine("constrained", rect=(0.005, share, 0.99, 1 - share - 0.01))
        axes = list(figure.subplots(rows, columns, squeeze=False, **kwargs).flat)
        yield figure, axes[0] if len(axes) == 1 else axes
        figure.draw_without_rendering()  # run the layout while the style is active


def save_figure(figure: Figure, path: str | Path, overwrite: bool = False, metadata: Mapping | None = None) -> Path:
    """Writes a figure atomically as PNG, PDF or SVG (by suffix), creating parent folders. Returns the path.

    metadata: how its pictures were made, for example the preset, the seed and the weights; see CourseFigure.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise S2FError(f"{path.name}: figures are written as .png, .pdf or .svg.")
    if path.exists() and not overwrite:
        raise S2FError(f"{path} already exists: choose another name or allow overwriting.")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower()[1:], dpi=200, metadata=metadata)
    return path
