"""Figures of images: grids, rows, overlays, line-ups. Import them from s2flib.plotting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from torch import Tensor

from s2flib.errors import ImageError
from s2flib.plotting.canvas import COLOURS, TITLE_PT, WIDTH, CourseFigure, blank, style, text_width, wrap

# CelebAMask-HQ's 19 labels, 0 background … 18 cloth: skin tones for skin, similar hues for related parts
_MASK_COLOURS = np.array([
    (255, 255, 255), (241, 200, 167), (214, 150, 110), (20, 20, 20), (0, 114, 178), (86, 180, 233),
    (110, 70, 20), (150, 100, 40), (204, 121, 167), (228, 160, 195), (140, 20, 30), (213, 94, 0),
    (235, 130, 50), (70, 60, 60), (120, 60, 140), (240, 228, 66), (230, 159, 0), (225, 180, 145),
    (0, 158, 115)], np.uint8)  # fmt: skip


def to_display(image) -> np.ndarray:
    """Any image listed in :mod:`s2flib.plotting` → (H,W,3) float32 in [0, 1]; raises ImageError for anything else."""
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
        raise ImageError(
            f"cannot draw an image of shape {tuple(np.shape(image))}: give a (3,H,W) or (1,H,W) tensor, "
            "or an (H,W) or (H,W,3) array."
        )
    return np.clip(np.nan_to_num(array), 0, 1).astype(np.float32)


def colour_mask(mask) -> np.ndarray:
    """Label mask (H,W) of 0…18 → (H,W,3) uint8, one colour per CelebAMask-HQ label."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.min() < 0 or mask.max() >= len(_MASK_COLOURS):
        raise ImageError("a label mask is an (H,W) array of integers from 0 to 18.")
    return _MASK_COLOURS[mask.astype(np.int64)]


def overlay(image, heat) -> np.ndarray:
    """An attention map over an image → (H,W,3) float in [0, 1]: grey for low values, yellow for high ones.

    ``heat`` is (h,w) or (1,h,w) of any range and size: it is rescaled to [0, 1] and resized to the image.
    """
    base = to_display(image)
    heat = heat.detach().float().cpu() if hasattr(heat, "detach") else heat
    heat = np.squeeze(np.asarray(heat, np.float32))
    if heat.ndim != 2:
        raise ImageError(f"an attention map is (h,w) or (1,h,w), not {heat.shape}: pick one channel.")
    heat = cv2.resize(heat, base.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    heat = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-12)
    colour = colormaps["cividis"](heat)[..., :3]
    amount = 0.65 * heat[..., None]
    grey = base.mean(axis=2, keepdims=True).repeat(3, axis=2)
    return ((1 - amount) * grey + amount * colour).astype(np.float32)


def false_colours(features: Tensor) -> Tensor:
    """Features (B, C, s, s) → (B, 3, s, s) in [−1, 1]: the three directions in which they vary most, over the batch, as
    red, green and blue (two standard deviations to either side). Constant features are grey."""
    if features.ndim != 4 or features.shape[1] < 3:
        raise ImageError(f"false colours need features (B, C, s, s) of three channels or more: {tuple(features.shape)}")
    flat = features.detach().float().movedim(1, 3).flatten(0, 2)  # (B·s·s, C)
    flat = flat - flat.mean(0)
    main = flat @ torch.linalg.eigh(flat.T @ flat).eigenvectors[:, -3:].flip(1)  # (B·s·s, 3), the strongest is red
    colours = (main / (2 * main.std(0)).clamp(min=1e-12)).clamp(-1, 1)
    return colours.view(len(features), *features.shape[2:], 3).movedim(3, 1)


def grid(
    images: Sequence,
    titles: Sequence[str] | None = None,
    caption: str | None = None,
    columns: int = 8,
    row_labels: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    frames: Mapping[int, str] | None = None,
    width: float = WIDTH,
) -> CourseFigure:
    """Images row by row, without axes, each with a small title above it.

    images: anything :func:`to_display` accepts, or None for an empty cell.
    titles: one per image (or None); column_titles: one per column, above the first row only.
    row_labels: one per row, on the left. frames: image index → colour of a frame around it.
    The columns fill ``width`` (inches), but no image is wider than 2.2 inches.
    """
    images = list(images)
    if not images:
        raise ImageError("there are no images to draw: give at least one.")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    labels = {"titles": titles, "row_labels": row_labels, "column_titles": column_titles}
    for (what, given), wanted in zip(labels.items(), (len(images), rows, columns), strict=True):
        if given is not None and len(given) != wanted:
            raise ImageError(f"got {len(given)} {what} for {wanted} places: give one for each.")
    drawn = [None if im is None else to_display(im) for im in images]
    ratio = max((d.shape[0] / d.shape[1] for d in drawn if d is not None), default=1.0)
    gap, line = 0.05, TITLE_PT * 1.3 / 72
    left = 0.1
    if row_labels:
        wrapped = [wrap(label, 1.15, TITLE_PT) for label in row_labels]
        left = max(text_width(part, TITLE_PT) for label in wrapped for part in label) + 0.25
    side = min((width - left - 0.1 - gap * (columns - 1)) / columns, 2.2)
    width = max(left + 0.1 + columns * side + gap * (columns - 1), 4.0)
    heads = [wrap(t, side, TITLE_PT) if t else [] for t in (titles or [None] * len(images))]
    for c, title in enumerate(column_titles or ()):
        heads[c] = wrap(title, side, TITLE_PT) + heads[c]
    row_lines = [max(len(h) for h in heads[r * columns : (r + 1) * columns]) for r in range(rows)]
    heads_in = [n * line + (0.05 if n else 0) for n in row_lines]
    height = 0.08 + sum(heads_in) + rows * side * ratio + gap * (rows - 1)
    with style():
        figure, share = blank(width, height, caption)
        total = figure.get_figheight()

        def write(x: float, y: float, lines: list[str], **kw) -> None:
            figure.text(x / width, y / total, "\n".join(lines), fontsize=TITLE_PT, **kw)

        top = total - 0.06
        for r in range(rows):
            top -= heads_in[r]
            for c in range(columns):
                i = r * columns + c
                picture = drawn[i] if i < len(images) else None
                if picture is None:
                    continue
                x = left + c * (side + gap)
                axes = figure.add_axes((x / width, (top - side * ratio) / total, side / width, side * ratio / total))
                axes.imshow(picture, aspect="equal")
                _bare(axes, (frames or {}).get(i))
                if heads[i]:
                    write(x + side / 2, top + 0.07, heads[i], ha="center", linespacing=1.15)
            if row_labels:
                write(left - 0.1, top - side * ratio / 2, wrapped[r], ha="right", va="center", linespacing=1.2)
            top -= side * ratio + gap
    return figure


def _bare(axes: Axes, frame: str | None = None) -> None:
    """Hides ticks and axes; draws a hairline, so that white sketches have a visible edge, or a thick coloured frame."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=frame or "#D0D0D0", linewidth=3.0 if frame else 0.6)


def image_row(images: Sequence, titles: Sequence[str] | None = None, caption: str | None = None) -> CourseFigure:
    """Images side by side in one row; see :func:`grid`."""
    images = list(images)
    return grid(images, titles, caption, columns=len(images))


def sketch_output_photo_grid(sketches, outputs, photos=None, caption: str | None = None) -> CourseFigure:
    """One column per person; rows: sketch, output (or one row per entry of a dict of outputs), photo.

    sketches (N,1,H,W) in [0, 1]; outputs (N,3,H,W) in [−1, 1] or {"pSp": …, "λ4 = 1": …}; photos likewise.
    """
    rows = {"sketch": sketches} | (dict(outputs) if isinstance(outputs, Mapping) else {"output": outputs})
    if photos is not None:
        rows["photo"] = photos
    n = len(sketches)
    for name, images in rows.items():
        if len(images) != n:
            raise ImageError(f"{len(images)} images in row {name!r} for {n} sketches: give one for each.")
    return grid([im for images in rows.values() for im in images], caption=caption, columns=n, row_labels=list(rows))


def lineup_figure(probes: Sequence[dict], caption: str | None = None, k: int = 5) -> CourseFigure:
    """One row per probe: sketch, output, and the k most similar gallery photos; the correct one has a green frame.

    probes: dicts with ``sketch``, ``output``, ``gallery`` (list of ≥ k photos, most similar first) and ``correct``
    (index in ``gallery``, or None if the correct person is not in it).
    """
    images, frames = [], {}
    for probe in probes:
        base = len(images)
        images += [probe["sketch"], probe["output"], *list(probe["gallery"])[:k]]
        if probe["correct"] is not None and probe["correct"] < k:
            frames[base + 2 + probe["correct"]] = COLOURS[2]
    heads = ["sketch", "output", *(f"rank {i + 1}" for i in range(k))]
    return grid(images, caption=caption, columns=k + 2, column_titles=heads, frames=frames)
