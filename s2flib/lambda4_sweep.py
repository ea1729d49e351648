"""Does the attention loss help? The λ4 sweep trains every (λ4, seed) and evaluates all on the same test images.

The paper's Table 1 is one run per λ4 ∈ {0, 1, 1e3, 1e6, 1e9}. Here every λ4 is trained with the same seeds (same
initial weights and image order; only λ4 differs) and is compared pairwise with λ4 = 0, with intervals over people and
over seeds (:func:`scores.compare_paired`).

``out`` contains one folder per cell with its checkpoint, scores.npz and cell.json, then table1.{csv,txt,png},
differences.{csv,txt,png} and run.json. When the same command is run again, finished cells are read, unfinished ones
continue from their checkpoint, and damaged result files are created again.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from s2flib.datasets.faces import open_dataset
from s2flib.errors import DataError, S2FError
from s2flib.evaluation import evaluate, table1
from s2flib.evaluation.baselines import baseline_scores
from s2flib.evaluation.evaluate import Judges, Predictor, embed_photos, psp_predictor
from s2flib.evaluation.lineup import Chance, Ranks, lineup
from s2flib.evaluation.scores import TABLE1, Comparison, Scores, compare_paired, heading
from s2flib.evaluation.table1 import Table
from s2flib.files import claimed, sha256_of, write_text
from s2flib.presets import Preset, get_preset
from s2flib.runs import finish, plain, run_record, write_json
from s2flib.training.encoder import EncoderConfig, train_encoder
from s2flib.weights.load import load_psp

LAMBDAS = (0.0, 1.0, 1e3, 1e6, 1e9)  # the paper's Table 1
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Sweep:
    """The result of :func:`sweep`: the table, the comparisons with λ4 = 0, the scores of every cell."""

    out: Path
    table: Table
    comparisons: tuple[Comparison, ...]
    scores: dict[float, list[Scores]]  # λ4 → one per seed
    summary: str  # the table and the verdicts, to print


def sweep(
    preset: str | Preset,
    lambdas: Sequence[float] = LAMBDAS,
    seeds: Sequence[int] = SEEDS,
    steps: int | None = None,  # of each training; None: the preset's
    out: str | Path = "runs/sweep",
    resume: bool = True,  # False: a folder that contains a sweep is an error
    limit: int | None = None,  # use only this many test images
    training: dict | None = None,  # other fields of EncoderConfig (batch, lr, …)
    baselines: bool = True,  # add mean face, nearest sketch and W+ ceiling
    ceiling_images: int = 16,  # test images of the W+ ceiling (slow); 0: none
    progress: bool = True,
    device: str | None = None,  # of the evaluation; None: a GPU if there is one
    judges: Judges | None = None,
    train: Callable[[float, int, Path], Path] | None = None,  # (λ4, seed, folder) → weights
    load: Callable[[Path], Predictor] | None = None,  # weights → Predictor
    datasets: tuple | None = None,  # (train split, test split)
) -> Sweep:
    """Train and evaluate every cell; returns the tables and writes them to ``out``.

    A folder that contains a sweep with other settings raises S2FError and is not changed. ``judges``, ``train``,
    ``load`` and ``datasets`` default to the preset's own; pass others to sweep something else.
    """
    preset = get_preset(preset)
    lambdas, seeds = _checked(lambdas, seeds)
    steps = preset.steps if steps is None else steps
    out = Path(out)
    config = {"lambdas": lambdas, "seeds": seeds, "steps": steps, "limit": limit, "training": training or {}}
    train = train or _trainer(preset, steps, training or {})
    with claimed(out):
        record = _claim(out, preset, config, resume)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        load = load or _loader(preset, training or {}, device)
        train_set, test_set = datasets or (open_dataset(preset, "train"), open_dataset(preset, "test", limit=limit))
        judges = judges or Judges.of(preset, device)
        photos = embed_photos(test_set, judges.identity, preset, device=device, progress=progress)
        scores: dict[float, list[Scores]] = {}
        for value in lambdas:
            for seed in seeds:
                folder = out / "cells" / f"lambda4_{value:g}" / f"seed_{seed}"
                cell = {
                    "lambda4": value,
                    "seed": seed,
                    "steps": steps,
                    "preset": preset.name,
                    "training": plain(training or {}),
                }
                done = _finished(folder, cell, test_set)
                if done is None:
                    if progress:
                        print(f"λ4 = {value:g}, seed {seed}: {steps} steps in {folder}", flush=True)
                    weights = train(value, seed, folder)
                    predict = load(weights)
                    done = evaluate(
                        predict, test_set, preset, judges, device=device, progress=progress, photo_embeddings=photos
                    )
                    done.save(folder / "scores.npz", overwrite=True)
                    write_json(
                        folder / "cell.json",
                        {
                            **cell,
                            "weights": os.path.relpath(weights, folder),
                            "scores_sha256": sha256_of(folder / "scores.npz"),
                        },
                        overwrite=True,
                    )
                scores.setdefault(value, []).append(done)
        rows: dict[str, Scores | list[Scores]] = {row_name(value): s for value, s in scores.items()}
        if baselines:
            psp = _any_psp(out, load) if ceiling_images else None
            rows |= baseline_scores(
                preset,
                train_set,
                test_set,
                judges,
                psp,
                ceiling_images,
                photo_embeddings=photos,
                device=device,
                progress=progress,
            )
        ranks = _ranks(rows, test_set, preset, photos)
        table = table1(rows, ranks, seeds, rules_after=[row_name(lambdas[-1])])
        comparisons = {
            value: [compare_paired(scores[0.0], scores[value], column, f"λ4 = {value:g}") for column in TABLE1]
            for value in lambdas
            if value != 0
        }
        summary = _write(out, table, comparisons, scores[lambdas[0]][0], len(seeds))
        write_json(out / "run.json", finish(record, finished_cells=len(lambdas) * len(seeds)), overwrite=True)
        return Sweep(out, table, tuple(c for several in comparisons.values() for c in several), scores, summary)


def row_name(value: float) -> str:
    """The row of a λ4 in Table 1: plain pSp at 0."""
    return "pSp (λ4 = 0)" if value == 0 else f"+ attention, λ4 = {value:g}"


def _checked(lambdas: Sequence[float], seeds: Sequence[int]) -> tuple[list[float], list[int]]:
    lambdas, seeds = sorted({float(v) for v in lambdas}), sorted({int(s) for s in seeds})
    if not seeds or not lambdas or lambdas[0] != 0:
        raise S2FError("a sweep compares with λ4 = 0: use lambdas of 0 and above, including 0, and at least one seed.")
    if not np.isfinite(lambdas).all():
        raise S2FError("every λ4 must be a finite number: remove inf and NaN from the lambdas.")
    return lambdas, seeds


def _claim(out: Path, preset: Preset, config: dict, resume: bool) -> dict:
    """The run.json of a new or a resumed sweep; S2FError when ``out`` contains something else."""
    path = out / "run.json"
    fresh = run_record(preset, config, config["seeds"])
    if path.exists():
        try:
            old = json.loads(path.read_text(encoding="utf-8"))
            same = old["preset"] == preset.name and old["config"] == fresh["config"]
        except (ValueError, KeyError, TypeError, OSError):
            old, same = {"started": "unknown: its run.json was damaged"}, True  # each cell has its own record
        if not same:
            raise S2FError(f"{out} contains a sweep with other settings, see its run.json: choose another folder.")
        if not resume:
            raise S2FError(f"{out} already contains this sweep: resume it or choose another folder.")
        fresh["resumed_from"] = [
            *old.get("resumed_from", []),
            {k: old.get(k) for k in ("started", "finished", "wall_time_s", "git")},
        ]
    elif out.exists() and (
        not out.is_dir() or any(p.name != "cells" and not p.name.startswith(".") for p in out.iterdir())
    ):
        raise S2FError(f"{out} contains other files: choose an empty or new folder for the sweep.")
    write_json(path, fresh, overwrite=True)
    return fresh


def _finished(folder: Path, cell: dict, test_set) -> Scores | None:
    """A cell's scores if it is finished, intact and of these test images, else None. S2FError: other settings."""
    try:
        found = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
        whole = found["scores_sha256"] == sha256_of(folder / "scores.npz")
        settings = {k: found[k] for k in cell}
        scores = Scores.load(folder / "scores.npz") if whole else None
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return None
    if settings != cell:
        raise S2FError(f"{folder} contains a cell with other settings, see its cell.json: choose another folder.")
    return scores if scores and list(scores.name) == [str(n) for n in test_set.names] else None


def _any_psp(out: Path, load: Callable[[Path], Predictor]):
    """The PSP of any finished cell (they share the generator), or None when there is no PSP."""
    for path in sorted(out.glob("cells/*/*/cell.json")):
        weights = path.parent / json.loads(path.read_text(encoding="utf-8"))["weights"]
        if weights.exists():
            return getattr(load(weights), "psp", None)
    return None


def _trainer(preset: Preset, steps: int, training: dict) -> Callable[[float, int, Path], Path]:
    own = {"preset", "out", "steps", "lambda4", "seed", "resume", "max_time"} & set(training)
    if own:
        raise S2FError(f"the sweep itself sets {', '.join(sorted(own))} for every cell: remove it from the fields.")

    def train(value: float, seed: int, folder: Path) -> Path:
        return train_encoder(
            EncoderConfig(
                preset=preset.name, out=str(folder), steps=steps, lambda4=value, seed=seed, resume=True, **training
            )
        )

    return train


def _loader(preset: Preset, training: dict, device: str) -> Callable[[Path], Predictor]:
    def load(path: Path) -> Predictor:
        return psp_predictor(load_psp(preset, path, training.get("generator")), preset, device)

    return load


def _ranks(rows: dict[str, Scores | list[Scores]], test_set, preset: Preset, photos: np.ndarray) -> dict | None:
    """Line-up ranks of every row with all test images, with ceiling, control and chance; None if not possible."""
    ranks: dict[str, Ranks | Chance | list[Ranks]] = {}
    beside: dict[str, Ranks | Chance] = {}
    for name, several in rows.items():
        several = several if isinstance(several, list) else [several]
        if len(several[0]) < len(test_set):
            continue
        try:
            found = [lineup(s, test_set, preset, photo_embeddings=photos) for s in several]
        except DataError:  # one photo per person, or a small limit
            return None
        ranks[name] = [f.output for f in found]
        beside = beside or {k: v for k, v in found[0].rows("output").items() if k != "output"}
    return ranks | beside


def _write(out: Path, table: Table, comparisons: dict[float, list[Comparison]], like: Scores, n_seeds: int) -> str:
    """Write table1.* and differences.*; returns the text of both."""
    from s2flib.plotting.canvas import save_figure

    table.save(out, overwrite=True)
    verdicts = [c.verdict for several in comparisons.values() for c in several]
    n = len(verdicts)
    note = (
        f"{n} comparisons: about {n * 0.05:.1f} of these intervals exclude zero by chance alone."
        if n
        else "Nothing to compare: λ4 = 0 alone was run."
    )
    text = "\n".join(["Paired with λ4 = 0, same test images, same seeds:", *verdicts, note]) + "\n"
    write_text(out / "differences.txt", text, overwrite=True)
    runs = [f"run_{i}" for i in range(n_seeds)]
    rows: list[list[str | float]] = [
        ["lambda4", "column", "difference", "low", "high", "seed_low", "seed_high", *runs, "verdict"]
    ]
    for value, several in comparisons.items():
        for c in several:
            numbers = ["" if np.isnan(x) else x for x in (*c.difference[:3], *c.seed_interval, *c.per_seed)]
            rows.append([f"{value:g}", c.column, *numbers, c.verdict])
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    write_text(out / "differences.csv", buffer.getvalue(), overwrite=True)
    if comparisons:
        save_figure(differences_figure(comparisons, like), out / "differences.png", overwrite=True)
    return table.text + os.linesep + text


def differences_figure(comparisons: dict[float, list[Comparison]], like: Scores):
    """λ4 → its Comparisons as dots with intervals over people, a panel per column; small dots are seeds."""
    from s2flib.plotting.canvas import COLOURS, chart
    from s2flib.plotting.charts import draw_intervals

    any_row = next(iter(comparisons.values()))
    first = any_row[0]
    caption = (
        f"Difference to λ4 = 0 on the same {first.difference.n} test images of "
        f"{first.difference.n_identities} people, averaged over {len(first.per_seed)} seeds. Bars: 95 "
        "% interval over people; a filled dot leaves zero out. Orange dots: single seeds. When they "
        "scatter across zero, training luck alone explains the difference."
    )
    with chart(caption, 0.9 + 0.4 * len(comparisons), columns=len(any_row), sharey=True) as (figure, axes):
        for panel, axis in enumerate(axes if len(any_row) > 1 else [axes]):
            rows = {f"λ4 = {value:g}": several[panel].difference[:3] for value, several in comparisons.items()}
            column = any_row[panel].column
            arrow = "higher is better" if column == "similarity" else "lower is better"
            draw_intervals(axis, rows, f"difference ({arrow})", heading(column, like))
            axis.locator_params(axis="x", nbins=4)
            for i, several in enumerate(comparisons.values()):
                each = several[panel].per_seed
                axis.plot(each, [i + 0.22] * len(each), "o", color=COLOURS[1], markersize=3.5)
    return figure
