"""Editors to evaluate, and the choice of guidance on validation pairs by a grid over both scales."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from s2flib.datasets.edit_pairs import EditPairs
from s2flib.errors import DataError
from s2flib.evaluation.edit_scores import Editor, EditScores, measure
from s2flib.evaluation.evaluate import Judges, progress_bar
from s2flib.images import as_float, to_array
from s2flib.instruct_pix2pix.editing import edit_batch, keep_detail
from s2flib.judges.edit_judge import EditJudge
from s2flib.plotting.canvas import CourseFigure, chart
from s2flib.presets import Preset, Suited

TEXT_SCALES = (1.0, 1.5, 2.0, 3.0, 4.5, 7.0)
IMAGE_SCALES = (1.0, 1.3)


def pipeline_editor(pipe, preset: str | Preset = "tiny", seed: int = 0, **options) -> Editor:
    """A pipeline as an :data:`Editor`; options: edit()'s (steps, guidance, image_guidance, interval, keep)."""

    def run(pictures: Sequence[np.ndarray], instructions: Sequence[str]) -> list[np.ndarray]:
        return [e.image for e in edit_batch(pictures, instructions, preset, seeds=seed, pipe=pipe, **options)]

    return run


def true_latents(pipe, pairs: EditPairs) -> Editor:
    """An editor that predicts the true edit's latents exactly: D(E(after)), with detail kept as in ``edit``.

    An editor in these latents can have a higher success rate only by exaggerating. DataError for an image that is not
    in ``pairs``.
    """
    after = {}
    for i in range(len(pairs)):
        item = pairs[i]
        after[item["before"].tobytes(), item["instruction"]] = np.where(
            item["mask"][..., None], item["after"], item["before"]
        )

    @torch.no_grad()
    def rebuilt(pictures: Sequence[np.ndarray]) -> torch.Tensor:
        x = as_float(np.stack(pictures)).to(pipe.device, pipe.vae.dtype)
        return pipe.vae.decode(pipe.vae.encode(x).latent_dist.mode()).sample.float().cpu()

    def run(pictures: Sequence[np.ndarray], instructions: Sequence[str]) -> list[np.ndarray]:
        keys = [(p.tobytes(), text) for p, text in zip(pictures, instructions, strict=True)]
        if not after.keys() >= set(keys):
            raise DataError("the true edit of this image is not known: it is none of the pairs. Use their images.")
        made = keep_detail(as_float(np.stack(pictures)), rebuilt(pictures), rebuilt([after[key] for key in keys]))
        return [to_array(picture) for picture in made]

    return run


@dataclass(frozen=True)
class GridPoint:
    """The results of one pair of guidance scales on the validation split, and the scores they are computed from."""

    guidance: float
    image_guidance: float
    success: float
    lpips_gain: float
    similarity: float
    outside: float
    scores: EditScores | None = field(default=None, repr=False, compare=False)


def guidance_grid(
    pipe,
    pairs: EditPairs,
    judge: EditJudge,
    judges: Judges,
    texts: Sequence[float] = TEXT_SCALES,
    pictures: Sequence[float] = IMAGE_SCALES,
    steps: int | None = None,
    interval: tuple[float, float] | None = None,
    progress: bool = False,
) -> list[GridPoint]:
    """Evaluate every combination, but only one without text guidance (scale 1).

    Defaults are chosen from the grid, so it takes validation pairs; test pairs raise DataError.
    """
    if pairs.split == "test":
        raise DataError("guidance is chosen on the validation split: use the test split only for the final numbers.")
    points = []
    every = [(s, i) for i in pictures for s in texts if s > 1 or i == 1]
    for s, i in progress_bar(every, progress, "grid"):
        editor = pipeline_editor(pipe, steps=steps, guidance=s, image_guidance=i, interval=interval)
        found = measure(editor, pairs, judge, judges)
        points.append(
            GridPoint(
                s,
                i,
                found.overall().value,
                found.lpips_gain().value,
                found.similarity_kept().value,
                float(found.pairs["outside"].mean()),
                found,
            )
        )
    return points


def plain(point: GridPoint) -> dict:
    """A point's numbers, for JSON."""
    return {name: float(value) for name, value in vars(point).items() if name != "scores"}


def choose(points: Sequence[GridPoint], slack: float = 0.02) -> GridPoint:
    """Of the points within ``slack`` of the best success rate, the one closest to the true edits."""
    best = max(p.success for p in points)
    return max((p for p in points if p.success >= best - slack), key=lambda p: p.lpips_gain)


def choose_suited(points: Sequence[GridPoint], gain: float = 0.3) -> tuple[Suited, GridPoint]:
    """The guidance that suits the size of the change, and its results on the grid's pairs.

    Of all settings whose results are ``gain`` closer to the true edits than no edit is, it is the one with the highest
    success rate, averaged over kinds (ties: the closest); if there is none, the closest setting.

    Nothing is evaluated again, because every pair was edited at every scale. Scales: up to three of the grid's at image
    guidance 1, decreasing as changes grow; limits: the deciles of the unguided edit's change.
    """
    flat = {p.guidance: p.scores for p in points if p.image_guidance == 1 and p.scores is not None}
    if 1 not in flat:
        raise DataError("text guidance 1 is not in the grid: add it, because it measures the change without guidance.")
    moved = flat[1].pairs["moved"]
    deciles = sorted({round(float(np.quantile(moved, share)), 2) for share in np.arange(1, 10) / 10})
    place = {name: k for k, name in enumerate(flat[1].pairs["identity"])}
    of_pair = np.array([place[name] for name in flat[1].changes["identity"]])
    kind = flat[1].changes["kind"]
    every = sorted(flat, reverse=True)
    table = {
        column: np.stack([getattr(flat[s], part)[column] for s in every])
        for part, column in (("changes", "success"), ("pairs", "lpips"), ("pairs", "similarity"), ("pairs", "outside"))
    }
    found = []
    for n in range(1, 4):
        for scales, limits in itertools.product(
            itertools.combinations(every, n), itertools.combinations(deciles, n - 1)
        ):
            suited = Suited(scales, limits)
            taken = np.array([every.index(suited.of(m)) for m in moved])
            mixed = {
                column: values[taken[of_pair] if column == "success" else taken, np.arange(values.shape[1])]
                for column, values in table.items()
            }
            nearer = float(1 - mixed["lpips"].mean() / flat[1].pairs["lpips_nothing"].mean())
            point = GridPoint(
                scales[-1],
                1.0,
                mixed["success"].mean(),
                nearer,
                mixed["similarity"][flat[1].keeps_person()].mean(),
                mixed["outside"].mean(),
            )
            by_kind = np.mean([mixed["success"][kind == k].mean() for k in sorted(set(kind))])
            found.append(((round(float(by_kind), 9) if nearer >= gain else -1.0, nearer), suited, point))
    return max(found, key=lambda each: each[0])[1:]


def grid_figure(points: Sequence[GridPoint], suited: tuple[Suited, GridPoint] | None = None) -> CourseFigure:
    """The trade-off between success and similarity, one line per image guidance, with text guidance increasing along
    it.

    suited: the result of :func:`choose_suited`, shown as another point; without it, the best fixed scale is marked.
    """
    with chart(None, 3.8) as (figure, axes):
        for i in sorted({p.image_guidance for p in points}):
            line = sorted((p for p in points if p.image_guidance == i), key=lambda p: p.guidance)
            axes.plot(
                [p.similarity for p in line], [100 * p.success for p in line], "o-", label=f"image guidance {i:g}"
            )
            for p in line:
                axes.annotate(
                    f"{p.guidance:g}", (p.similarity, 100 * p.success), (4, 4), textcoords="offset points", fontsize=8
                )
        if suited:
            scale, point = suited
            axes.plot(
                [point.similarity],
                [100 * point.success],
                "*",
                markersize=13,
                color="black",
                label="suited to the change: " + ", ".join(f"{s:g}" for s in scale.scales),
            )
        else:
            chosen = choose(points)
            axes.plot(
                [chosen.similarity],
                [100 * chosen.success],
                "s",
                markersize=13,
                markerfacecolor="none",
                markeredgecolor="black",
                label="chosen",
            )
        axes.set(xlabel="similarity to the input (identity network)", ylabel="success in percent")
        axes.legend()
    return figure
