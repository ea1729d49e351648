"""Diagrams of boxes, pictures and arrows, and the paper's two: the system and the training. From s2flib.plotting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from s2flib.errors import S2FError
from s2flib.plotting.canvas import COLOURS, FAINT, INK, TITLE_PT, CourseFigure, blank, style, wrap
from s2flib.plotting.pictures import to_display

BLUE, ORANGE, GREEN = COLOURS[0], COLOURS[1], COLOURS[2]  # trained, a loss, frozen


class Node(NamedTuple):
    """A box or a picture of a diagram. x, y: its centre in inches, y downwards."""

    x: float
    y: float
    text: str
    colour: str = FAINT  # of the frame: BLUE trained, GREEN frozen, ORANGE a loss, FAINT data
    picture: Any = None  # anything that to_display accepts; the text is then written below it
    width: float = 1.25  # inches


class Arrow(NamedTuple):
    start: str
    end: str
    text: str = ""
    colour: str = INK
    bend: float = 0.0  # curvature; 0 is straight


def diagram(
    nodes: Mapping[str, Node],
    arrows: Sequence[Arrow],
    size: tuple[float, float],  # width and height, inches
    caption: str | None = None,
) -> CourseFigure:
    """Boxes and pictures joined by arrows. S2FError for an arrow from or to a node that is not there."""
    width, height = size
    for arrow in arrows:
        for name in (arrow.start, arrow.end):
            if name not in nodes:
                raise S2FError(f"an arrow names {name!r}, which is no node of the diagram.")
    with style():
        figure, share = blank(width, height, caption)
        total = figure.get_figheight()
        axes = figure.add_axes((0, share, 1, height / total))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        frames = {name: _draw(figure, axes, node, width, height, share) for name, node in nodes.items()}
        for arrow in arrows:
            bend = f"arc3,rad={arrow.bend}"
            patch = FancyArrowPatch(
                (nodes[arrow.start].x, nodes[arrow.start].y), (nodes[arrow.end].x, nodes[arrow.end].y),
                patchA=frames[arrow.start], patchB=frames[arrow.end], shrinkA=3, shrinkB=3, arrowstyle="-|>",
                mutation_scale=11, linewidth=1.3, color=arrow.colour, connectionstyle=bend, zorder=1,
            )  # fmt: skip
            axes.add_patch(patch)
            if arrow.text:
                a, b = nodes[arrow.start], nodes[arrow.end]
                upright = abs(a.x - b.x) < abs(a.y - b.y)
                place: dict[str, Any] = dict(ha="left", va="center") if upright else dict(ha="center", va="bottom")
                x, y = (a.x + b.x) / 2 + 0.08 * upright, (a.y + b.y) / 2 - 0.06 * (not upright) + 0.1 * upright
                axes.text(x, y, arrow.text, fontsize=TITLE_PT - 1, color=arrow.colour, **place)
    return figure


def _draw(figure, axes, node: Node, width: float, height: float, share: float) -> FancyBboxPatch:
    """Draws a node; returns its frame, at which arrows end."""
    lines = [part for text in node.text.split("\n") for part in wrap(text, node.width - 0.1, TITLE_PT)]
    line = TITLE_PT * 1.3 / 72
    tall = node.width if node.picture is not None else line * len(lines) + 0.2
    left, top = node.x - node.width / 2, node.y - tall / 2
    fill = "white" if node.colour == FAINT else node.colour + "18"
    look: dict[str, Any] = dict(
        boxstyle="round,pad=0,rounding_size=0.06", linewidth=1.4, edgecolor=node.colour, facecolor=fill
    )
    frame = FancyBboxPatch((left, top), node.width, tall, **look, zorder=2)
    axes.add_patch(frame)
    if node.picture is None:
        axes.text(node.x, node.y, "\n".join(lines), ha="center", va="center", fontsize=TITLE_PT, zorder=3)
        return frame
    inner = figure.add_axes(
        (
            left / width,
            share + (1 - (top + tall) / height) * (1 - share),
            node.width / width,
            tall / height * (1 - share),
        )
    )
    inner.imshow(to_display(node.picture), aspect="equal")
    inner.axis("off")
    paper: dict[str, Any] = dict(facecolor="white", edgecolor="none", pad=1)  # an arrow may pass below the text
    axes.text(node.x, top + tall + 0.05, "\n".join(lines), ha="center", va="top", fontsize=TITLE_PT, bbox=paper)
    return frame


def system_diagram(sketch, face, edited=None, wish: str = "blue eyes and brown hair", caption: str | None = None):
    """The paper's Fig. 2, redrawn: the sketch of a witness becomes a draft face, and words correct it.

    sketch, face, edited: pictures, anything that ``to_display`` accepts; without ``edited``, a box stands in its place.
    """
    nodes = {
        "sketch": Node(0.75, 0.85, "sketch", picture=sketch, width=1.2),
        "encoder": Node(2.4, 0.85, "pSp encoder E", BLUE, width=1.15),
        "code": Node(3.75, 0.85, "code w+", width=0.8),
        "generator": Node(5.05, 0.85, "StyleGAN2\ngenerator G, frozen", GREEN, width=1.2),
        "face": Node(6.6, 0.85, "draft face", picture=face, width=1.2),
        "words": Node(2.4, 2.65, f"the witness: “{wish}”", width=1.5),
        "editor": Node(4.4, 2.65, "InstructPix2Pix", BLUE, width=1.3),
        "edited": Node(6.6, 2.65, "edited face", picture=edited, width=1.2),
    }
    arrows = [
        Arrow("sketch", "encoder"), Arrow("encoder", "code"), Arrow("code", "generator"), Arrow("generator", "face"),
        Arrow("face", "editor"), Arrow("words", "editor"), Arrow("editor", "edited"),
    ]  # fmt: skip
    return diagram(nodes, arrows, (7.4, 3.6), caption)


def training_diagram(photo, sketch, output, caption: str | None = None):
    """The paper's Fig. 3, redrawn: which loss of the encoder's training compares what with what."""
    nodes = {
        "photo": Node(0.75, 0.85, "photo x", picture=photo, width=1.1),
        "sketch": Node(0.75, 2.75, "sketch", picture=sketch, width=1.1),
        "encoder": Node(2.25, 2.75, "encoder E, trained", BLUE, width=1.0),
        "code": Node(3.45, 2.75, "w+", width=0.6),
        "generator": Node(4.6, 2.75, "generator G, frozen", GREEN, width=1.05),
        "output": Node(6.15, 2.75, "output y", picture=output, width=1.1),
        "reg": Node(3.45, 3.75, "reg: near w̄", ORANGE, width=1.05),
        "pixels": Node(3.3, 0.45, "L2, LPIPS, ID", ORANGE, width=1.3),
        "cbam": Node(3.3, 1.2, "attention: CBAM's F'' of both, frozen", ORANGE, width=1.75),
    }
    arrows = [
        Arrow("photo", "sketch", "draw"), Arrow("sketch", "encoder"), Arrow("encoder", "code"),
        Arrow("code", "generator"), Arrow("generator", "output"), Arrow("code", "reg", colour=ORANGE),
        Arrow("photo", "pixels", colour=ORANGE), Arrow("photo", "cbam", colour=ORANGE),
        Arrow("output", "pixels", colour=ORANGE, bend=0.2), Arrow("output", "cbam", colour=ORANGE, bend=0.15),
    ]  # fmt: skip
    return diagram(nodes, arrows, (6.9, 4.1), caption)
