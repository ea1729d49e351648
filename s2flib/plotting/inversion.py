"""Figures of the inversion study. Import them from s2flib.plotting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import FuncFormatter

from s2flib.plotting.canvas import COLOURS, INK, CourseFigure, chart

# the families of methods, and the colour each has in every figure
FAMILIES = {
    "optimisation": ("w-plus", "projector", "pti"),
    "encoder": ("psp", "e4e", "restyle-psp", "restyle-e4e"),
    "hypernetwork": ("hyperstyle", "hyperinverter"),
}

ABOVE = (5, 4)  # points from a point to its name


def tradeoff_figure(rows: Sequence[Mapping[str, Any]], caption: str | None = None, height: float = 3.9) -> CourseFigure:
    """Distortion against time (logarithmic), and editability against distortion; a point for each method.

    rows: of inversions.csv: method, seconds, and mse, direction_success with their …_low and …_high
    """
    with chart(caption, height, columns=2) as (figure, (left, right)):
        for colour, (family, methods) in zip(COLOURS, FAMILIES.items(), strict=False):
            label: str | None = family
            for row in (r for r in rows if r["method"] in methods):
                mse = (row["mse"], row["mse_low"], row["mse_high"])
                success = tuple(100 * row[f"direction_success{end}"] for end in ("", "_low", "_high"))
                below = (5, -9) if _covered(row, rows, "seconds", "mse") else ABOVE
                _cross(left, (row["seconds"],) * 3, mse, colour, row["method"], label, below)
                over = _covered(row, rows, "mse", "direction_success")
                beside = (-5, -9 if over > 1 else 4) if over else ABOVE
                _cross(right, mse, success, colour, row["method"], None, beside)
                label = None
        left.set(xscale="log", xlabel="seconds a photo", ylabel="MSE to the photo")
        left.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        left.margins(0.16)
        left.legend(loc="best", fontsize=8)
        right.set(xlabel="MSE to the photo", ylabel="edits that succeed, %")
        right.margins(0.16)
    return figure


def _cross(
    axes, x: Sequence[float], y: Sequence[float], colour: str, name: str, label: str | None, place: tuple[int, int]
) -> None:
    """A point with its intervals, x and y as (value, low, high), and its name at an offset of ``place`` points."""
    axes.plot([x[1], x[2]], [y[0], y[0]], color=colour, linewidth=1.2, alpha=0.6)
    axes.plot([x[0], x[0]], [y[1], y[2]], color=colour, linewidth=1.2, alpha=0.6)
    axes.plot([x[0]], [y[0]], "o", color=colour, markersize=6, label=label)
    side = "left" if place[0] > 0 else "right"
    axes.annotate(name, (x[0], y[0]), place, textcoords="offset points", ha=side, fontsize=8, color=INK)


def _covered(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], x: str, y: str) -> int:
    """How many points at nearly the same x are above this one, where its name would be."""
    return sum(other is not row and 0.7 < other[x] / row[x] < 1.43 and other[y] >= row[y] for other in rows)
