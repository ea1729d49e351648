"""Figures of the identification report: CMC and DET curves, candidate sets, groups of people.

A colour means one kind of drawing in every figure (:func:`colour_of`), a dash one method: solid for a generated face,
dashed for the direct matcher, dotted for references. Import them from s2flib.plotting.identification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from s2flib.errors import S2FError
from s2flib.plotting.canvas import COLOURS, FAINT, INK, CourseFigure, chart

REFERENCE = {"photo": "#000000", "shuffled": FAINT, "chance": FAINT}
# pencil blue, line drawings in warm colours, a witness's memory from dark green to pale
_KINDS = {
    "pencil": COLOURS[0],
    "line, clean": COLOURS[1],
    "line, sketchy": COLOURS[4],
    "line, composite": COLOURS[3],
    "recall 0": COLOURS[0],
    "recall 0.25": "#00523C",
    "recall 0.5": "#00876A",
    "recall 0.75": "#3DBB96",
    "recall 1": "#9ADCC5",
}
DASHES: dict[str, Any] = {
    "face": "-",
    "matcher": "--",
    "both": "-.",
    "photo": ":",
    "shuffled": (0, (1, 4)),
    "chance": ":",
}
Band = tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]]  # x, y, low, high


def colour_of(kind: str) -> str:
    """The colour of a kind of drawing, or of a reference (photo, shuffled, chance)."""
    found = _KINDS.get(kind) or REFERENCE.get(kind)
    if found is None:
        raise S2FError(f"there is no colour for {kind!r}: choose one of {', '.join((*_KINDS, *REFERENCE))}.")
    return found


def _draw(axes: Axes, curves: Mapping[tuple[str, str], Band], banded: bool) -> None:
    for (kind, method), (x, y, low, high) in curves.items():
        several = len({m for _, m in curves if m not in REFERENCE}) > 1
        label = f"{kind}, {method}" if several and method not in REFERENCE else kind
        axes.plot(x, y, color=colour_of(kind), linestyle=DASHES[method], label=label)
        if banded and np.isfinite(low).all():
            axes.fill_between(x, low, high, color=colour_of(kind), alpha=0.15 if len(curves) < 6 else 0.08, linewidth=0)


def cmc_figure(
    panels: Mapping[str, Mapping[tuple[str, str], Band]], caption: str | None = None, height: float = 3.6
) -> CourseFigure:
    """CMC curves in panels side by side: title → {(kind, method): (k, rank-k, low, high)}, shares from 0 to 1."""
    with chart(caption, height, columns=len(panels), sharey=True) as (figure, axes):
        for ax, (title, curves) in zip(_several(axes), panels.items(), strict=True):
            _draw(ax, curves, banded=True)
            ax.set(xlabel="k", title=title, xscale="log", ylim=(0, 1.02))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            ax.legend(fontsize=8, loc="lower right", frameon=True, framealpha=1, edgecolor="white")
        _several(axes)[0].set_ylabel("rank-k: share found among the k first")
    return figure


def det_figure(
    panels: Mapping[str, Mapping[tuple[str, str], Band]], caption: str | None = None, height: float = 3.6
) -> CourseFigure:
    """DET curves in panels: title → {(kind, method): (FPIR, FNIR, low, high)}; both axes logarithmic, as NIST plots."""
    values = np.concatenate([np.asarray(y, float) for curves in panels.values() for _, y, _, _ in curves.values()])
    floor = max(0.01, 0.8 * min(values[values > 0], default=0.1))
    ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if t >= floor]
    with chart(caption, height, columns=len(panels), sharey=True) as (figure, axes):
        for ax, (title, curves) in zip(_several(axes), panels.items(), strict=True):
            _draw(ax, curves, banded=True)
            ax.set(title=title, xlabel="FPIR: somebody is named, though nobody is there")
            ax.set(xscale="log", yscale="log", ylim=(floor, 1.1))
            ax.set_yticks(ticks, [f"{100 * t:g} %" for t in ticks])
            ax.yaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.legend(fontsize=8, loc="lower left", frameon=True, framealpha=1, edgecolor="white")
        _several(axes)[0].set_ylabel("FNIR: the person is missed")
    return figure


def sizes_figure(
    rows: Mapping[str, tuple[Sequence[int], Sequence[bool], str]],
    gallery: int,
    caption: str | None = None,
    target: float | None = None,
) -> CourseFigure:
    """Sizes of candidate sets, a row for each kind: {kind: (sizes (n,), right one inside (n,), what to print)}.

    Filled dots hold the right person, open ones do not; the bar is the mean. The dots are spread vertically. target:
    a size to mark, for example of a list of fixed length.
    """
    with chart(caption, 0.7 + 0.42 * len(rows)) as (figure, axes):
        for i, (kind, (sizes, inside, note)) in enumerate(rows.items()):
            sizes, inside, colour = np.asarray(sizes, float), np.asarray(inside, bool), colour_of(kind)
            y = i + 0.5 * ((np.arange(len(sizes)) * 0.618) % 1 - 0.5)
            axes.scatter(sizes[inside], y[inside], 9, color=colour, linewidths=0, alpha=0.6)
            axes.scatter(
                sizes[~inside], y[~inside], 16, facecolors="white", edgecolors=colour, linewidths=1.2, zorder=3
            )
            axes.plot([sizes.mean()] * 2, [i - 0.36, i + 0.36], color=INK, linewidth=2.4, zorder=4)
            axes.annotate(note, (1.01, i), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)
        if target is not None:
            axes.axvline(target, color=FAINT, linewidth=1, zorder=1)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set(xscale="log", xlabel=f"people in the set, of {gallery}", xlim=(0.85, gallery * 1.15))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.grid(axis="y", visible=False)
    return figure


def groups_figure(
    panels: Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float]]]],
    xlabel: str,
    caption: str | None = None,
    overall: Mapping[str, float] | None = None,
) -> CourseFigure:
    """A forest plot: {panel: {attribute: {group: (value, low, high)}}}; overall: {panel: the value of everybody}.

    The rows of all panels are the same groups. A dot is filled if its interval excludes everybody's value.
    """
    first = next(iter(panels.values()))
    names = [(attribute, group) for attribute, rows in first.items() for group in rows]
    with chart(caption, 0.7 + 0.27 * (len(names) + len(first)), columns=len(panels), sharey=True) as (figure, axes):
        for ax, (title, attributes) in zip(_several(axes), panels.items(), strict=True):
            middle = None if overall is None else overall[title]
            if middle is not None:
                ax.axvline(middle, color=FAINT, linewidth=1, zorder=1)
            y, ticks, labels = 0.0, [], []
            for attribute, rows in attributes.items():
                ticks.append(y)
                labels.append(attribute.upper())
                for group, (value, low, high) in rows.items():
                    y += 1
                    apart = middle is not None and not low <= middle <= high
                    ax.plot([low, high], [y, y], color=INK, linewidth=2.2, solid_capstyle="butt")
                    ax.plot([value], [y], "o", markersize=6, markeredgecolor=INK, markeredgewidth=1.5,
                            markerfacecolor=INK if apart else "white")  # fmt: skip
                    ticks.append(y)
                    labels.append(group)
                y += 1
            ax.set_yticks(ticks, labels)
            ax.set_ylim(y - 0.4, -0.6)
            ax.tick_params(axis="y", length=0)
            ax.grid(axis="y", visible=False)
            ax.set(title=title, xlabel=xlabel)
            ax.locator_params(axis="x", nbins=5)
    return figure


def _several(axes) -> list[Axes]:
    return axes if isinstance(axes, list) else [axes]
