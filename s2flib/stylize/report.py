"""Reports on an editor: the table per kind, the grid over both guidances with the choice of defaults, sketch → face →
edit (the paper's Fig. 4), and figures of all three."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from s2flib.errors import DataError
from s2flib.evaluation import Judges, progress_bar
from s2flib.images import to_array
from s2flib.plotting import CourseFigure, chart, grid, table_figure
from s2flib.presets import get_preset
from s2flib.statistics import Interval, bootstrap_mean
from s2flib.stylize import edit_batch, keep_detail
from s2flib.stylize.judge import EditJudge, wanted
from s2flib.stylize.networks import Suited
from s2flib.stylize.pairs import EditPairs, Request
from s2flib.stylize.scores import Editor, EditScores, measure, to_batch

TEXT_SCALES = (1.0, 1.5, 2.0, 3.0, 4.5, 7.0)
IMAGE_SCALES = (1.0, 1.3)


def pipeline_editor(pipe, preset="tiny", seed: int = 0, **options) -> Editor:
    """A pipeline as an :data:`Editor`; options: edit()'s (steps, guidance, image_guidance, interval, keep)."""
    def run(pictures: Sequence[np.ndarray], instructions: Sequence[str]) -> list[np.ndarray]:
        return [e.image for e in edit_batch(pictures, instructions, preset, seeds=seed, pipe=pipe, **options)]

    return run


def do_nothing(pictures: Sequence[np.ndarray], instructions: Sequence[str]) -> list[np.ndarray]:
    """The control: every picture as it was."""
    return [p.copy() for p in pictures]


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
        x = to_batch(pictures).to(pipe.device, pipe.vae.dtype)
        return pipe.vae.decode(pipe.vae.encode(x).latent_dist.mode()).sample.float().cpu()

    def run(pictures: Sequence[np.ndarray], instructions: Sequence[str]) -> list[np.ndarray]:
        keys = [(p.tobytes(), text) for p, text in zip(pictures, instructions, strict=True)]
        if not after.keys() >= set(keys):
            raise DataError("the true edit of this picture is not known: it is none of the pairs.")
        made = keep_detail(to_batch(pictures), rebuilt(pictures), rebuilt([after[key] for key in keys]))
        return [to_array(picture) for picture in made]

    return run


# --- the table --------------------------------------------------------------------------------------------------


def records(scores: EditScores) -> list[dict]:
    """Rows of the table: every kind, then "overall"; each with value, low, high and n."""
    out = []
    for kind in [*scores.kinds(), "overall"]:
        row: dict = {"kind": kind}
        for column in ("success", "strict", "ceiling", "floor"):
            value = scores.overall(column) if kind == "overall" else scores.of_kind(kind, column)
            row |= _bounds(column, value) if column in ("success", "strict") else {column: value.value}
        row["n"] = value.n
        keep = np.ones(len(scores.pairs["kind"]), bool) if kind == "overall" else scores.pairs["kind"] == kind
        for column in ("lpips", "lpips_nothing", "outside", "similarity"):
            row[column] = float(scores.pairs[column][keep].mean()) if keep.any() else ""
        out.append(row)
    return out


def table_csv(scores: EditScores) -> str:
    rows, out = records(scores), io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def table(scores: EditScores, label: str, caption: str | None = None) -> CourseFigure:
    """The records as a figure; ``label`` is the preset's, which stands beside every result."""
    heads = ["Edit", "Success ↑", "Strict ↑", "Judge's\nceiling", f"{scores.labels['perceptual']}\nto truth ↓",
             "doing\nnothing", "Outside\nmask ↓", "Similarity\n↑", "n"]
    cells = []
    for r in records(scores):
        def number(key: str, digits: int, row: dict = r) -> str:
            return "" if row[key] == "" else f"{row[key]:.{digits}f}"

        cells.append([r["kind"], _percent(r, "success"), _percent(r, "strict"), f"{100 * r['ceiling']:.0f} %",
                      number("lpips", 3), number("lpips_nothing", 3), number("outside", 1), number("similarity", 2),
                      str(r["n"])])
    seconds = np.median(scores.pairs["seconds"])
    footer = (f"{label}. Held-out people and phrasings; [95 % bootstrap interval over people]. Distance to the true "
              f"edit {gain_in_words(scores.lpips_gain())}. "
              f"Similarity by {scores.labels['identity']}; outside the mask in grey levels; {seconds:.2f} s an edit; "
              f"{scores.skipped} pairs whose true edit cannot be seen are left out.")
    return table_figure(heads, cells, "\n".join(filter(None, (caption, footer))), rules_after=[len(cells) - 2])


def gain_in_words(gain: Interval) -> str:
    """EditScores.lpips_gain as "30 % [25, 35] below doing nothing", or above it."""
    sign, side = (1, "below") if gain.value >= 0 else (-1, "above")
    low, high = sorted((100 * sign * gain.low, 100 * sign * gain.high))
    return f"{100 * abs(gain.value):.0f} % [{low:.0f}, {high:.0f}] {side} doing nothing"


def by_phrasing(scores: EditScores) -> list[dict]:
    """Success per held-out phrasing, worst first: which sentences are not understood."""
    keys = sorted(set(zip(scores.changes["kind"], scores.changes["template"], strict=True)))
    rows = []
    for kind, template in keys:
        keep = (scores.changes["kind"] == kind) & (scores.changes["template"] == template)
        rows.append({"kind": kind, "phrasing": template, "success": float(scores.changes["success"][keep].mean()),
                     "n": int(keep.sum())})
    return sorted(rows, key=lambda r: r["success"])


# --- the grid ---------------------------------------------------------------------------------------------------


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


# --- sketch → face → edit ---------------------------------------------------------------------------------------

WITNESS = (
    ("the witness says the eyes are blue", Request("eye_color", "blue")),
    ("imagine a blond-haired version of this person", Request("hair_color", "blond")),
    ("repaint the hairdo in black", Request("hair_color", "black")),
    ("he or she was wearing specs", Request("glasses", "clear")),
    ("they had shades on", Request("sunglasses", "sun")),
    ("it was cold, so there was a beanie", Request("hat", "beanie")),
    ("I saw a baseball cap on the head", Request("hat", "cap")),
    ("picture him wearing a full beard", Request("beard", "full")),
)
"""Held-out phrasings; what is asked for is read from the edited face by the judge."""


@dataclass(frozen=True)
class FaceEdits:
    """Edits of generated faces. success (N, K) 0/1 (NaN where the face already was so); pictures for the figure."""

    instructions: tuple[str, ...]
    success: np.ndarray
    similarity: np.ndarray
    people: np.ndarray
    sketches: list
    faces: list
    edited: list[list[np.ndarray]]

    def rate(self, k: int | None = None) -> Interval:
        hits = self.success if k is None else self.success[:, [k]]
        who = np.repeat(self.people[:, None], hits.shape[1], 1)
        keep = ~np.isnan(hits)
        if not keep.any():
            raise DataError("every face already was what was asked for: take more faces.")
        return bootstrap_mean(hits[keep], who[keep])

    def figure(self, n: int = 4, caption: str | None = None) -> CourseFigure:
        n = min(n, len(self.faces))
        rows = [x for i in range(n) for x in (self.sketches[i], self.faces[i], *self.edited[i])]
        return grid(rows, caption=caption, columns=2 + len(self.instructions),
                    column_titles=["sketch", "face", *self.instructions])


@torch.no_grad()
def edit_generated(psp, dataset, editor: Editor, judge: EditJudge, identity, n: int = 24, device: str = "cpu",
                   wishes: Sequence[tuple[str, Request]] = WITNESS, progress: bool = False) -> FaceEdits:
    """Sketch → face → edit: draw faces from n held-out sketches, edit each by every wish, and read the result."""
    places = np.linspace(0, len(dataset) - 1, min(n, len(dataset))).round().astype(int)
    items = [dataset[int(i)] for i in places]
    psp = psp.to(device).eval()
    faces = [to_array(psp(item["sketch"][None].to(device))[0][0]) for item in items]
    success, similar, edited = np.full((len(faces), len(wishes)), np.nan), np.zeros((len(faces), len(wishes))), []

    def read(pictures: Sequence[np.ndarray]) -> tuple[dict, torch.Tensor]:
        x = to_batch(pictures).to(device)
        return judge.heads(x), x

    for r, face in enumerate(progress_bar(faces, progress, "faces")):
        made = list(editor([face] * len(wishes), [text for text, _ in wishes]))
        (was, x), (now, y) = read([face]), read(made)
        similar[r] = identity.similarity(x.expand(len(made), -1, -1, -1), y).cpu().numpy()
        for k, (_, request) in enumerate(wishes):
            head, value = wanted(request)
            if was[head][0].argmax() != value:
                success[r, k] = float(now[head][k].argmax() == value)
        edited.append(made)
    return FaceEdits(tuple(text for text, _ in wishes), success, similar, np.array([i["identity"] for i in items]),
                     [i["sketch"] for i in items], faces, edited)


def save_report(folder: str | Path, scores: EditScores, preset="tiny", overwrite: bool = False) -> list[Path]:
    """edits.csv, edits.png and phrasings.csv in ``folder``."""
    from s2flib.plotting import save_figure
    from s2flib.runs import write_text

    folder = Path(folder)
    lines = ["kind,phrasing,success,n"] + [f"{r['kind']},\"{r['phrasing']}\",{r['success']:.3f},{r['n']}"
                                           for r in by_phrasing(scores)]
    return [write_text(folder / "edits.csv", table_csv(scores), overwrite),
            write_text(folder / "phrasings.csv", "\n".join(lines) + "\n", overwrite),
            save_figure(table(scores, get_preset(preset).label), folder / "edits.png", overwrite)]


def _bounds(column: str, value: Interval) -> dict:
    return {column: value.value, f"{column}_low": value.low, f"{column}_high": value.high}


def _percent(row: dict, column: str) -> str:
    value, low, high = (100 * row[k] for k in (column, f"{column}_low", f"{column}_high"))
    return f"{value:.0f} %" + ("" if np.isnan(low) else f"\n[{low:.0f}, {high:.0f}]")
