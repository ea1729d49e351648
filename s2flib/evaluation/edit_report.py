"""The complete evaluation of one editor, in a folder: the table per kind, sketch → face → edit (the paper's Fig. 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from s2flib.datasets.edit_pairs import EditPairs
from s2flib.datasets.faces import open_dataset
from s2flib.errors import DataError, S2FError
from s2flib.evaluation.edit_guidance import (
    choose_suited,
    grid_figure,
    guidance_grid,
    pipeline_editor,
    plain,
    true_latents,
)
from s2flib.evaluation.edit_scores import Editor, EditScores, measure, same_person_level
from s2flib.evaluation.evaluate import Judges, progress_bar
from s2flib.evaluation.intervals import Interval, bootstrap_mean
from s2flib.files import csv_text, write_text
from s2flib.generate import how_made
from s2flib.images import as_float, to_array
from s2flib.instruct_pix2pix.editing import identity_of
from s2flib.instruct_pix2pix.pipeline import load_pipeline
from s2flib.judges.edit_judge import EditJudge, expected_reading, load_edit_judge
from s2flib.plotting.canvas import CourseFigure, save_figure
from s2flib.plotting.charts import table_figure
from s2flib.plotting.pictures import grid
from s2flib.presets import Preset, get_preset
from s2flib.runs import finish, result_folder, run_record, write_json
from s2flib.synthfaces.edits import Edit
from s2flib.weights.load import load_psp


def records(scores: EditScores) -> list[dict]:
    """Rows of the table: every kind, then "overall"; each has value, low, high and n."""
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


def table(scores: EditScores, label: str) -> CourseFigure:
    """The records as a figure; ``label`` is the preset's, which is printed with every result."""
    heads = [
        "Edit",
        "Success ↑",
        "Strict ↑",
        "Judge's\nceiling",
        f"{scores.labels['perceptual']}\nto truth ↓",
        "doing\nnothing",
        "Outside\nmask ↓",
        "Similarity\n↑",
        "n",
    ]
    cells = []
    for r in records(scores):

        def number(key: str, digits: int, row: dict = r) -> str:
            return "" if row[key] == "" else f"{row[key]:.{digits}f}"

        cells.append(
            [
                r["kind"],
                _percent(r, "success"),
                _percent(r, "strict"),
                f"{100 * r['ceiling']:.0f} %",
                number("lpips", 3),
                number("lpips_nothing", 3),
                number("outside", 1),
                number("similarity", 2),
                str(r["n"]),
            ]
        )
    seconds = np.median(scores.pairs["seconds"])
    footer = (
        f"{label}. Held-out people and phrasings; [95 % bootstrap interval over people]. Distance to the true "
        f"edit {gain_in_words(scores.lpips_gain())}. "
        f"Similarity by {scores.labels['identity']}; outside the mask in grey levels; {seconds:.2f} s an edit; "
        f"{scores.skipped} pairs whose true edit cannot be seen are left out."
    )
    return table_figure(heads, cells, footer, rules_after=[len(cells) - 2])


def gain_in_words(gain: Interval) -> str:
    """EditScores.lpips_gain as "30 % [25, 35] below doing nothing", or above it."""
    sign, side = (1, "below") if gain.value >= 0 else (-1, "above")
    low, high = sorted((100 * sign * gain.low, 100 * sign * gain.high))
    return f"{100 * abs(gain.value):.0f} % [{low:.0f}, {high:.0f}] {side} doing nothing"


def by_phrasing(scores: EditScores) -> list[dict]:
    """Success rate per held-out phrasing, in increasing order: shows which sentences are not understood."""
    keys = sorted(set(zip(scores.changes["kind"], scores.changes["template"], strict=True)))
    rows = []
    for kind, template in keys:
        keep = (scores.changes["kind"] == kind) & (scores.changes["template"] == template)
        rows.append(
            {
                "kind": kind,
                "phrasing": template,
                "success": float(scores.changes["success"][keep].mean()),
                "n": int(keep.sum()),
            }
        )
    return sorted(rows, key=lambda r: r["success"])


WITNESS = (
    ("the witness says the eyes are blue", Edit("eye_color", "blue")),
    ("imagine a blond-haired version of this person", Edit("hair_color", "blond")),
    ("repaint the hairdo in black", Edit("hair_color", "black")),
    ("he or she was wearing specs", Edit("glasses", "clear")),
    ("they had shades on", Edit("sunglasses", "sun")),
    ("it was cold, so there was a beanie", Edit("hat", "beanie")),
    ("I saw a baseball cap on the head", Edit("hat", "cap")),
    ("picture him wearing a full beard", Edit("beard", "full")),
)
"""Held-out phrasings; the judge reads from the edited face whether each was followed."""


@dataclass(frozen=True)
class FaceEdits:
    """Edits of generated faces. success (N, K) 0/1 (NaN where the face already had the attribute); figure images."""

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
            raise DataError("every face already had the requested attributes: use more faces.")
        return bootstrap_mean(hits[keep], who[keep])

    def figure(self, n: int = 4) -> CourseFigure:
        n = min(n, len(self.faces))
        rows = [x for i in range(n) for x in (self.sketches[i], self.faces[i], *self.edited[i])]
        return grid(rows, columns=2 + len(self.instructions), column_titles=["sketch", "face", *self.instructions])


@torch.no_grad()
def edit_generated(
    psp,
    dataset,
    editor: Editor,
    judge: EditJudge,
    identity,
    n: int = 24,
    wishes: Sequence[tuple[str, Edit]] = WITNESS,
    progress: bool = False,
) -> FaceEdits:
    """Sketch → face → edit: generate faces from n held-out sketches, edit each by every wish, and read the result."""
    places = np.linspace(0, len(dataset) - 1, min(n, len(dataset))).round().astype(int)
    items = [dataset[int(i)] for i in places]
    psp = psp.cpu().eval()
    faces = [to_array(psp(item["sketch"][None])[0][0]) for item in items]
    success, similar, edited = np.full((len(faces), len(wishes)), np.nan), np.zeros((len(faces), len(wishes))), []

    def read(pictures: Sequence[np.ndarray]) -> tuple[dict, torch.Tensor]:
        x = as_float(np.stack(pictures))
        return judge.heads(x), x

    for r, face in enumerate(progress_bar(faces, progress, "faces")):
        made = list(editor([face] * len(wishes), [text for text, _ in wishes]))
        (was, x), (now, y) = read([face]), read(made)
        similar[r] = identity.similarity(x.expand(len(made), -1, -1, -1), y).numpy()
        for k, (_, edit) in enumerate(wishes):
            reading = expected_reading(edit)
            if reading is None or reading[1] is None:
                raise S2FError(f"{edit.kind} has no value that the judge reads: choose another wish.")
            head, value = reading
            if was[head][0].argmax() != value:
                success[r, k] = float(now[head][k].argmax() == value)
        edited.append(made)
    return FaceEdits(
        tuple(text for text, _ in wishes),
        success,
        similar,
        np.array([i["identity"] for i in items]),
        [i["sketch"] for i in items],
        faces,
        edited,
    )


def save_report(
    folder: str | Path, scores: EditScores, preset: str | Preset = "tiny", overwrite: bool = False
) -> list[Path]:
    """edits.csv, edits.png and phrasings.csv in ``folder``."""
    folder = Path(folder)
    lines = [
        "kind,phrasing,success,n",
        *(f'{r["kind"]},"{r["phrasing"]}",{r["success"]:.3f},{r["n"]}' for r in by_phrasing(scores)),
    ]
    return [
        write_text(folder / "edits.csv", csv_text(records(scores)), overwrite),
        write_text(folder / "phrasings.csv", "\n".join(lines) + "\n", overwrite),
        save_figure(table(scores, get_preset(preset).label), folder / "edits.png", overwrite),
    ]


@dataclass(frozen=True)
class EditorTest:
    """One editor and the pairs it is evaluated on. None: the preset's default."""

    pairs: str  # folder of edit pairs
    preset: str = "tiny"
    pipeline: Path | None = None  # a pipeline in diffusers' layout
    judge: Path | None = None  # the edit judge's file
    split: str = "test"
    limit: int | None = None  # use only the first pairs
    seed: int = 0  # of the noise
    steps: int | None = None
    guidance: float | None = None
    image_guidance: float | None = None
    interval: tuple[float, float] | None = None
    keep: bool = True  # preserve the input's detail where nothing changes


@dataclass(frozen=True)
class EditorReport:
    """scores: of the editor; ceiling: of the true edits' latents; text: a summary."""

    scores: EditScores
    ceiling: EditScores
    text: str


def report_editor(
    test: EditorTest,
    out: Path,
    grid_pairs: int = 0,  # choose the guidance on this many validation pairs first; 0: skip
    faces: int = 24,  # also generate and edit this many faces from sketches; 0: none
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> EditorReport:
    """Evaluate edits on held-out people and phrasings.

    The true edits' latents are also decoded and evaluated, which is the autoencoder's limit. Writes edits.{csv,png},
    phrasings.csv, grid.png, faces.png and run.json to ``out``.
    """
    preset = get_preset(test.preset)
    if not preset.edit.trained_here:
        raise S2FError(f"edit pairs are measured at 128 px: preset {preset.name} is not supported, use tiny.")
    result_folder(out, overwrite, "run.json")
    record = run_record(preset, asdict(test) | dict(grid=grid_pairs), test.seed)
    pipe, reader, judges = load_pipeline(preset, test.pipeline), load_edit_judge(test.judge), Judges.of(preset)
    held_out = EditPairs(test.pairs, test.split, limit=test.limit)
    found, guidance = {}, test.guidance
    if grid_pairs:
        val = EditPairs(test.pairs, "val", limit=grid_pairs)
        points = guidance_grid(pipe, val, reader, judges, steps=test.steps, interval=test.interval, progress=True)
        suited, expected = choose_suited(points)
        guidance = guidance or suited
        found |= {"grid": [plain(p) for p in points], "chosen": plain(expected) | suited._asdict()}
        save_figure(grid_figure(points, suited=(suited, expected)), out / "grid.png", overwrite)
        progress(
            f"on {grid_pairs} validation pairs: text guidance {suited}, image guidance 1: "
            f"{100 * expected.success:.1f} % succeed, distance {100 * expected.lpips_gain:.1f} % below doing nothing"
        )
    editor = pipeline_editor(pipe, preset, test.seed, steps=test.steps, guidance=guidance,
                             image_guidance=test.image_guidance, interval=test.interval, keep=test.keep)  # fmt: skip
    scores = measure(editor, held_out, reader, judges, progress=True)
    save_report(out, scores, preset, overwrite)
    ceiling = measure(true_latents(pipe, held_out), held_out, reader, judges)
    people = open_dataset(preset, "test")
    level, kept, gain = same_person_level(people, judges.identity), scores.similarity_kept(), scores.lpips_gain()
    found |= {
        "table": records(scores), "phrasings": by_phrasing(scores), "lpips_gain": gain._asdict(),
        "similarity_kept": kept._asdict(), "same_person_level": level._asdict(), "skipped": scores.skipped,
        "true_latents": {"table": records(ceiling), "lpips_gain": ceiling.lpips_gain()._asdict()},
    }  # fmt: skip
    lines = [
        f"{row['kind']:12s} success {100 * row['success']:5.1f} %  strict {100 * row['strict']:5.1f} %  "
        f"ceiling {100 * row['ceiling']:5.1f} %  floor {100 * row['floor']:5.1f} %  n {row['n']}"
        for row in records(scores)
    ]
    lines += [
        f"distance to the true edit: {gain_in_words(gain)}; similarity before/after {kept.value:.3f}, two real renders "
        f"of one person {level.value:.3f} (ratio {kept.value / level.value:.2f})",
        f"with the true edits' latents {100 * ceiling.overall().value:.1f} % would succeed, at a distance of "
        f"{gain_in_words(ceiling.lpips_gain())}: what the autoencoder lets through",
    ]
    if faces:
        psp = load_psp(preset)
        made = edit_generated(psp, people, editor, reader, judges.identity, faces, progress=True)
        about = how_made(psp, preset) | {
            "pipeline": identity_of(pipe), "seed": test.seed, "what": "sketch, face, and the face edited",
            "instructions": list(made.instructions),
        }  # fmt: skip
        save_figure(made.figure(), out / "faces.png", overwrite, about)
        asked = [k for k in range(len(made.instructions)) if not np.isnan(made.success[:, k]).all()]
        found["faces"] = {made.instructions[k]: made.rate(k)._asdict() for k in asked}
        found["faces"]["overall"] = made.rate()._asdict()
        lines.append(f"sketch, face, edit: {100 * made.rate().value:.0f} % of the edits of generated faces succeed")
    write_json(out / "run.json", finish(record, **found), overwrite=overwrite)
    return EditorReport(scores, ceiling, "\n".join(lines))


def _bounds(column: str, value: Interval) -> dict:
    return {column: value.value, f"{column}_low": value.low, f"{column}_high": value.high}


def _percent(row: dict, column: str) -> str:
    value, low, high = (100 * row[k] for k in (column, f"{column}_low", f"{column}_high"))
    return f"{value:.0f} %" + ("" if np.isnan(low) else f"\n[{low:.0f}, {high:.0f}]")
