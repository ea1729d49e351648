"""Figures of numbers: curves, bars, intervals and printed tables. Import them from s2flib.plotting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from s2flib.errors import S2FError
from s2flib.plotting.canvas import COLOURS, FAINT, INK, WIDTH, CourseFigure, blank, chart, style, text_width


def curves(
    series: Mapping[str, Iterable], xlabel: str, ylabel: str, caption: str | None = None, height: float = 3.2
) -> CourseFigure:
    """Lines over a common axis. series: name → y, or (x, y), or (x, y, low, high) with a band."""
    with chart(caption, height) as (figure, axes):
        for i, (name, data) in enumerate(series.items()):
            data = data if isinstance(data, tuple) else (np.arange(len(np.asarray(data))), data)
            colour, dash = COLOURS[i % len(COLOURS)], ("-", "--", ":", "-.")[i // len(COLOURS) % 4]
            axes.plot(data[0], data[1], color=colour, linestyle=dash, label=name)
            if len(data) == 4:
                axes.fill_between(data[0], data[2], data[3], color=colour, alpha=0.18, linewidth=0)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if len(series) > 1:
            axes.legend()
    return figure


def bars(
    values: Mapping[str, float], xlabel: str, caption: str | None = None, digits: int = 3, highlight: str | None = None
) -> CourseFigure:
    """Horizontal bars with their values at the ends, first entry on top."""
    names, numbers = list(values), np.array(list(values.values()), float)
    with chart(caption, 0.5 + 0.32 * len(names)) as (figure, axes):
        axes.barh(names, numbers, color=[COLOURS[1] if n == highlight else COLOURS[0] for n in names], height=0.62)
        for i, number in enumerate(numbers):
            end = (max(number, 0), i)
            axes.annotate(f"{number:.{digits}f}", end, (4, 0), textcoords="offset points", va="center")
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=xlabel)
    return figure


def intervals(
    rows: Mapping[str, tuple[float, float, float]], xlabel: str, caption: str | None = None, zero: float = 0.0
) -> CourseFigure:
    """A dot and its interval per row (value, low, high); the dot is filled if the interval excludes ``zero``."""
    with chart(caption, 0.6 + 0.34 * len(rows)) as (figure, axes):
        draw_intervals(axes, rows, xlabel, zero=zero)
    return figure


def draw_intervals(
    axes: Axes, rows: Mapping[str, tuple[float, float, float]], xlabel: str, title: str = "", zero: float = 0.0
) -> None:
    """:func:`intervals` on given axes, e.g. for several columns side by side."""
    axes.axvline(zero, color=FAINT, linewidth=1, zorder=1)
    for i, (value, low, high) in enumerate(rows.values()):
        fill = COLOURS[0] if low > zero or high < zero else "white"
        axes.plot([low, high], [i, i], color=COLOURS[0], linewidth=2.2, solid_capstyle="butt", zorder=2)
        dot = {"markersize": 7, "markeredgewidth": 1.6, "markeredgecolor": COLOURS[0], "markerfacecolor": fill}
        axes.plot([value], [i], "o", **dot, zorder=3)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.06)
    axes.locator_params(axis="x", nbins=5)
    axes.set(xlabel=xlabel, title=title)


def table_figure(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str | None = None,
    bold: Iterable[tuple[int, int]] = (),
    rules_after: Iterable[int] = (),
    width: float = WIDTH,
) -> CourseFigure:
    """A printed table with rules above, below and under the header; first column left-aligned, the others right.

    Cells may have two lines ("0.078\\n[0.071, 0.085]"): the second is small and grey.
    bold: (row, column) cells; rules_after: rows followed by a thin rule (to separate groups).
    """
    bold, rules_after = set(bold), set(rules_after)
    cells = [[str(c).split("\n") for c in row] for row in rows]
    if any(len(row) != len(columns) for row in cells):
        raise S2FError(f"every row of the table needs {len(columns)} cells, one per column.")

    def needed(c: int) -> float:
        large = [*columns[c].split("\n"), *(row[c][0] for row in cells)]
        small = [part for row in cells for part in row[c][1:]]
        return max([text_width(part, 9.5) * 1.08 for part in large] + [text_width(part, 7.5) for part in small])

    widths = [needed(c) + 0.24 for c in range(len(columns))]
    width = max(width, sum(widths) + 0.2)
    spare = (width - 0.2 - sum(widths)) / len(widths)
    edges = np.cumsum([0.1, *(w + spare for w in widths)])  # column borders, inches
    head_h = 0.14 + 0.19 * max(c.count("\n") + 1 for c in columns)
    row_h = [0.26 + 0.14 * (max(map(len, row)) - 1) for row in cells]
    with style():
        figure, _ = blank(width, 0.12 + head_h + sum(row_h) + 0.06, caption)
        total = figure.get_figheight()

        def write(c: int, y: float, text: str, **kw) -> None:
            x, align = (edges[c] + 0.04, "left") if c == 0 else (edges[c + 1] - 0.06, "right")
            figure.text(x / width, y / total, text, ha=align, va="center", **kw)

        def rule(y: float, weight: float, colour: str = INK) -> None:
            across = [0.1 / width, 1 - 0.1 / width]
            figure.add_artist(Line2D(across, [y / total] * 2, color=colour, linewidth=weight))

        y = total - 0.08
        rule(y, 1.2)
        for c, name in enumerate(columns):
            write(c, y - head_h / 2, name, weight="bold", fontsize=9.5, linespacing=1.15)
        y -= head_h
        rule(y, 0.7)
        for r, row in enumerate(cells):
            for c, (first, *rest) in enumerate(row):
                weight = "bold" if (r, c) in bold else "normal"
                write(c, y - row_h[r] / 2 + 0.075 * len(rest), first, fontsize=9.5, weight=weight)
                if rest:
                    write(c, y - row_h[r] / 2 - 0.085, rest[0], fontsize=7.5, color="#666666")
            y -= row_h[r]
            if r in rules_after and r + 1 < len(cells):
                rule(y, 0.5, FAINT)
        rule(y - 0.01, 1.2)
    return figure
