"""Editors to measure, and the choice of guidance on validation pairs: the grid over both scales."""

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
from s2flib.presets import Suited

TEXT_SCALES = (1.0, 1.5, 2.0, 3.0, 4.5, 7.0)
IMAGE_SCALES = (1.0, 1.3)


def pipeline_editor(pipe, preset="tiny", seed: int = 0, **options) -> Editor:
    """A pipeline as an :data:`Editor`; options: edit()'s (steps, guidance, image_guidance, interval, keep)."""
    def run(pictures: Sequence[np.ndarray], instructions: Sequence[str]) -> list[np.ndarray]:
        return [e.image for e in edit_batch(pictures, instructions, preset, seeds=seed, pipe=pipe, **options)]

    return run


def true_latents(pipe, pairs: EditPairs) -> Editor:
    """What an editor would make that guessed the true edit's latents exactly: D(E(after)), detail kept as ``edit``
    keeps it. Only by exaggerating can an editor in these latents be read as done more often. DataError for a picture
    that is not of ``pairs``.
    """
    after = {}
    for i in range(len(pairs)):
        item = pairs[i]
        after[item["before"].tobytes(), item["instruction"]] = np.where(
            item["mask"][..., None], item["after"], item["before"])

    @torch.no_grad()
    def rebuilt(pictures: Sequence[np.ndarray]) -> torch.Tensor:
        x = as_float(np.stack(pictures)).to(pipe.device, pipe.vae.dtype)
        return pipe.vae.decode(pipe.vae.encode(x).latent_dist.mode()).sample.float().cpu()

    def run(pictures: Sequence[np.ndarray], instructions: Sequence[str]) -> list[np.ndarray]:
        keys = [(p.tobytes(), text) for p, text in zip(pictures, instructions, strict=True)]
        if not after.keys() >= set(keys):
            raise DataError("the true edit of this picture is not known: it is none of the pairs.")
        made = keep_detail(as_float(np.stack(pictures)), rebuilt(pictures), rebuilt([after[key] for key in keys]))
        return [to_array(picture) for picture in made]

    return run


@dataclass(frozen=True)
class GridPoint:
    """One pair of guidances on the validation split; scores: what it was measured from."""

    guidance: float
    image_guidance: float
    success: float
    lpips_gain: float
    similarity: float
    outside: float
    scores: EditScores | None = field(default=None, repr=False, compare=False)


def guidance_grid(pipe, pairs: EditPairs, judge: EditJudge, judges: Judges, texts: Sequence[float] = TEXT_SCALES,
                  pictures: Sequence[float] = IMAGE_SCALES, steps: int | None = None,
                  interval: tuple[float, float] | None = None, preset="tiny",
                  progress: bool = False) -> list[GridPoint]:
    """Measure every combination (of text guidance 1, which is none, only one); on validation pairs, never on test
    pairs, for defaults are chosen from it."""
    if pairs.split == "test":
        raise DataError("guidances are chosen on the validation split: the test split is for the final numbers.")
    points = []
    every = [(s, i) for i in pictures for s in texts if s > 1 or i == 1]
    for s, i in progress_bar(every, progress, "grid"):
        editor = pipeline_editor(pipe, preset, steps=steps, guidance=s, image_guidance=i, interval=interval)
        found = measure(editor, pairs, judge, judges)
        points.append(GridPoint(s, i, found.overall().value, found.lpips_gain().value, found.similarity_kept().value,
                                float(found.pairs["outside"].mean()), found))
    return points


def plain(point: GridPoint) -> dict:
    """A point's numbers, for JSON."""
    return {name: float(value) for name, value in vars(point).items() if name != "scores"}


def choose(points: Sequence[GridPoint], slack: float = 0.02) -> GridPoint:
    """Of the points within ``slack`` of the best success, the one nearest to the true edits."""
    best = max(p.success for p in points)
    return max((p for p in points if p.success >= best - slack), key=lambda p: p.lpips_gain)


def choose_suited(points: Sequence[GridPoint], gain: float = 0.3, tiers: int = 3) -> tuple[Suited, GridPoint]:
    """The guidance that suits the change, and how it does on the grid's pairs: of those whose results lie ``gain``
    nearer to the true edits than doing nothing does, the one that succeeds most often, every kind of edit counting
    alike (of equals, the nearest); if none lies so near, the nearest.

    Nothing is measured anew: every pair has been edited at every scale. Scales: up to ``tiers`` of the grid's at image
    guidance 1, falling as changes grow; limits: the deciles of how much the unguided edit changes.
    """
    flat = {p.guidance: p.scores for p in points if p.image_guidance == 1}
    if 1 not in flat:
        raise DataError("text guidance 1 is not in the grid: what an edit changes unguided is read from it.")
    moved = flat[1].pairs["moved"]
    deciles = sorted({round(float(np.quantile(moved, share)), 2) for share in np.arange(1, 10) / 10})
    place = {name: k for k, name in enumerate(flat[1].pairs["identity"])}
    of_pair = np.array([place[name] for name in flat[1].changes["identity"]])
    kind = flat[1].changes["kind"]
    every = sorted(flat, reverse=True)
    table = {column: np.stack([getattr(flat[s], part)[column] for s in every]) for part, column in (
        ("changes", "success"), ("pairs", "lpips"), ("pairs", "similarity"), ("pairs", "outside"))}
    found = []
    for n in range(1, tiers + 1):
        for scales, limits in itertools.product(itertools.combinations(every, n),
                                                itertools.combinations(deciles, n - 1)):
            suited = Suited(scales, limits)
            taken = np.array([every.index(suited.of(m)) for m in moved])
            mixed = {column: values[taken[of_pair] if column == "success" else taken, np.arange(values.shape[1])]
                     for column, values in table.items()}
            nearer = float(1 - mixed["lpips"].mean() / flat[1].pairs["lpips_nothing"].mean())
            point = GridPoint(scales[-1], 1.0, mixed["success"].mean(), nearer,
                              mixed["similarity"][flat[1].keeps_person()].mean(), mixed["outside"].mean())
            by_kind = np.mean([mixed["success"][kind == k].mean() for k in sorted(set(kind))])
            found.append(((round(float(by_kind), 9) if nearer >= gain else -1.0, nearer), suited, point))
    return max(found, key=lambda each: each[0])[1:]


def grid_figure(points: Sequence[GridPoint], caption: str | None = None,
                suited: tuple[Suited, GridPoint] | None = None) -> CourseFigure:
    """The trade-off: success against similarity, one line per image guidance, text guidance growing along it. suited:
    :func:`choose_suited`'s, as one more point; without it, the choice among the fixed scales is marked."""
    with chart(caption, 3.8) as (figure, axes):
        for i in sorted({p.image_guidance for p in points}):
            line = sorted((p for p in points if p.image_guidance == i), key=lambda p: p.guidance)
            axes.plot([p.similarity for p in line], [100 * p.success for p in line], "o-",
                      label=f"image guidance {i:g}")
            for p in line:
                axes.annotate(f"{p.guidance:g}", (p.similarity, 100 * p.success), (4, 4), textcoords="offset points",
                              fontsize=8)
        if suited:
            scale, point = suited
            axes.plot([point.similarity], [100 * point.success], "*", markersize=13, color="black",
                      label="suited to the change: " + ", ".join(f"{s:g}" for s in scale.scales))
        else:
            chosen = choose(points)
            axes.plot([chosen.similarity], [100 * chosen.success], "s", markersize=13, markerfacecolor="none",
                      markeredgecolor="black", label="chosen")
        axes.set(xlabel="similarity to the picture before (identity net)", ylabel="success in percent")
        axes.legend()
    return figure
