"""Figures with one look: image grids, curves, intervals and tables for every notebook and report.

Every helper returns a :class:`CourseFigure`, which a notebook draws when it is the last line of a cell;
:func:`show` draws it anywhere else. No helper touches pyplot or the global rcParams: the look is set by
:func:`style`, a context. A ``caption`` below each figure says what to see in it.

What counts as an image (:func:`to_display`): (3,H,W) tensors in [−1, 1] (photos), (1,H,W) tensors in [0, 1]
(sketches, attention maps), uint8 arrays (H,W) or (H,W,3), float arrays of these shapes in [0, 1], PIL images.
Label masks are uint8 too: colour them first with :func:`colour_mask`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from s2flib.canvas import (
    COLOURS,
    DPI,
    FAINT,
    INK,
    STYLE,
    TITLE_PT,
    WIDTH,
    CourseFigure,
    blank,
    chart,
    save_figure,
    show,
    style,
    text_width,
    wrap,
)
from s2flib.charts import bars, curves, draw_intervals, intervals, table_figure
from s2flib.errors import ImageError

__all__ = [
    "COLOURS", "DPI", "FAINT", "INK", "STYLE", "WIDTH", "CourseFigure", "bars", "chart", "colour_mask",
    "curves", "draw_intervals", "grid", "image_row", "intervals", "lineup_figure", "overlay", "save_figure",
    "show", "sketch_output_photo_grid", "style", "table_figure", "to_display",
]

# CelebAMask-HQ's 19 labels, 0 background … 18 cloth: skin tones for skin, one hue a family
_MASK_COLOURS = np.array([
    (255, 255, 255), (241, 200, 167), (214, 150, 110), (20, 20, 20), (0, 114, 178), (86, 180, 233),
    (110, 70, 20), (150, 100, 40), (204, 121, 167), (228, 160, 195), (140, 20, 30), (213, 94, 0),
    (235, 130, 50), (70, 60, 60), (120, 60, 140), (240, 228, 66), (230, 159, 0), (225, 180, 145),
    (0, 158, 115)], np.uint8)


def to_display(image) -> np.ndarray:
    """Anything listed at the top of this module → (H,W,3) float32 in [0, 1]; ImageError otherwise."""
    tensor = hasattr(image, "detach")
    array = image.detach().float().cpu().numpy() if tensor else np.asarray(image)
    if tensor and array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if tensor and array.ndim == 3 and array.shape[0] in (1, 3):
        array = (array.transpose(1, 2, 0) + 1) / 2 if array.shape[0] == 3 else array[0]
    elif array.dtype == np.uint8:
        array = array / 255
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or not np.issubdtype(array.dtype, np.floating):
        raise ImageError(f"cannot draw an image of shape {tuple(np.shape(image))}: give a (3,H,W) or (1,H,W) "
                         "tensor, or an (H,W) or (H,W,3) array.")
    return np.clip(np.nan_to_num(array), 0, 1).astype(np.float32)


def colour_mask(mask) -> np.ndarray:
    """Label mask (H,W) of 0…18 → (H,W,3) uint8, one colour for each of CelebAMask-HQ's labels."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.min() < 0 or mask.max() >= len(_MASK_COLOURS):
        raise ImageError("a label mask is an (H,W) array of whole numbers from 0 to 18.")
    return _MASK_COLOURS[mask.astype(np.int64)]


def overlay(image, heat, strength: float = 0.65) -> np.ndarray:
    """An attention map over an image → (H,W,3) float in [0, 1]: grey where cold, yellow where hot.

    ``heat`` is (h,w) or (1,h,w), any range and size: it is stretched to [0, 1] and to the image's size.
    """
    import cv2
    from matplotlib import colormaps
    base = to_display(image)
    heat = heat.detach().float().cpu() if hasattr(heat, "detach") else heat
    heat = np.squeeze(np.asarray(heat, np.float32))
    if heat.ndim != 2:
        raise ImageError(f"an attention map is (h,w) or (1,h,w), not {heat.shape}: pick one channel.")
    heat = cv2.resize(heat, base.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    heat = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-12)
    colour = colormaps["cividis"](heat)[..., :3]
    amount = strength * heat[..., None]
    grey = base.mean(axis=2, keepdims=True).repeat(3, axis=2)
    return ((1 - amount) * grey + amount * colour).astype(np.float32)


def grid(images: Sequence, titles: Sequence[str] | None = None, caption: str | None = None, columns: int = 8,
         row_labels: Sequence[str] | None = None, column_titles: Sequence[str] | None = None,
         frames: Mapping[int, str] | None = None, width: float = WIDTH,
         tile: float | None = None) -> CourseFigure:
    """Images row by row, without axes, each with a small title above it.

    images: anything :func:`to_display` takes, or None for an empty place.
    titles: one per image (or None); column_titles: one per column, above the first row only.
    row_labels: one per row, at the left. frames: image index → colour of a frame around it.
    tile: side of a tile in inches; by default the columns fill ``width``, but no tile is wider than 2.2 in.
    """
    images = list(images)
    if not images:
        raise ImageError("there are no images to draw: give at least one.")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    for what, given, wanted in (("titles", titles, len(images)), ("row_labels", row_labels, rows),
                                ("column_titles", column_titles, columns)):
        if given is not None and len(given) != wanted:
            raise ImageError(f"{len(given)} {what} do not fit {wanted} places: give one for each.")
    drawn = [None if im is None else to_display(im) for im in images]
    ratio = max((d.shape[0] / d.shape[1] for d in drawn if d is not None), default=1.0)
    gap, line = 0.05, TITLE_PT * 1.3 / 72
    left = 0.1
    if row_labels:
        wrapped = [wrap(label, 1.15, TITLE_PT) for label in row_labels]
        left = max(text_width(part, TITLE_PT) for label in wrapped for part in label) + 0.25
    side = tile or min((width - left - 0.1 - gap * (columns - 1)) / columns, 2.2)
    width = max(left + 0.1 + columns * side + gap * (columns - 1), 4.0)
    heads = [wrap(t, side, TITLE_PT) if t else [] for t in (titles or [None] * len(images))]
    if column_titles:
        for c, title in enumerate(column_titles):
            heads[c] = wrap(title, side, TITLE_PT) + heads[c]
    row_head = [max((len(h) for h in heads[r * columns:(r + 1) * columns]), default=0) for r in range(rows)]
    heads_in = [h * line + (0.05 if h else 0) for h in row_head]
    height = 0.08 + sum(heads_in) + rows * side * ratio + gap * (rows - 1)
    with style():
        figure, share = blank(width, height, caption)
        total = figure.get_figheight()
        top = total - 0.06
        for r in range(rows):
            top -= heads_in[r]
            for c in range(columns):
                i = r * columns + c
                if i >= len(images) or drawn[i] is None:
                    continue
                x = left + c * (side + gap)
                axes = figure.add_axes((x / width, (top - side * ratio) / total,
                                        side / width, side * ratio / total))
                axes.imshow(drawn[i], aspect="equal")
                _bare(axes, (frames or {}).get(i))
                if heads[i]:
                    figure.text((x + side / 2) / width, (top + 0.07) / total, "\n".join(heads[i]),
                                ha="center", va="baseline", fontsize=TITLE_PT, linespacing=1.15)
            if row_labels:
                figure.text((left - 0.1) / width, (top - side * ratio / 2) / total, "\n".join(wrapped[r]),
                            ha="right", va="center", fontsize=TITLE_PT, linespacing=1.2)
            top -= side * ratio + gap
    return figure


def _bare(axes: Axes, frame: str | None = None) -> None:
    """No ticks, no axes; a hairline so that white sketches have an edge, or a thick coloured frame."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=frame or "#D0D0D0", linewidth=3.0 if frame else 0.6)


def image_row(images: Sequence, titles: Sequence[str] | None = None, caption: str | None = None,
              **kwargs) -> CourseFigure:
    """Images side by side in one row; see :func:`grid`."""
    images = list(images)
    return grid(images, titles, caption, columns=max(len(images), 1), **kwargs)


def sketch_output_photo_grid(sketches, outputs, photos=None, caption: str | None = None,
                             titles: Sequence[str] | None = None) -> CourseFigure:
    """One column per person; rows: sketch, output (or one row per entry of a dict of outputs), photo.

    sketches (N,1,H,W) in [0, 1]; outputs (N,3,H,W) in [−1, 1] or {"pSp": …, "λ4 = 1": …}; photos likewise.
    """
    rows = {"sketch": sketches}
    rows.update(outputs if isinstance(outputs, Mapping) else {"output": outputs})
    if photos is not None:
        rows["photo"] = photos
    n = len(sketches)
    for name, images in rows.items():
        if len(images) != n:
            raise ImageError(f"{len(images)} images in row {name!r} for {n} sketches: give one for each.")
    return grid([image for images in rows.values() for image in images], caption=caption, columns=n,
                row_labels=list(rows), column_titles=titles)


def lineup_figure(probes: Sequence[dict], caption: str | None = None, k: int = 5) -> CourseFigure:
    """One row per probe: sketch, output, the k most similar gallery photos; the right one framed green.

    probes: dicts with ``sketch``, ``output``, ``gallery`` (list of ≥ k photos, best first) and ``correct``
    (index in ``gallery``, or None when the right person is not among them).
    """
    images, frames = [], {}
    for probe in probes:
        base = len(images)
        images += [probe["sketch"], probe["output"], *list(probe["gallery"])[:k]]
        if probe["correct"] is not None and probe["correct"] < k:
            frames[base + 2 + probe["correct"]] = COLOURS[2]
    heads = ["sketch", "output", *(f"rank {i + 1}" for i in range(k))]
    return grid(images, caption=caption, columns=k + 2, column_titles=heads, frames=frames)
