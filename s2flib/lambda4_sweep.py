"""Does the attention loss help? The λ4 sweep trains every (condition, seed) and evaluates all on the same test images.

The paper's Table 1 is one run per λ4 ∈ {0, 1, 1e3, 1e6, 1e9}. Here every condition (lambda4_conditions.py: a λ4, a
share of the gradient, the published code's form) is trained with the same seeds (same initial weights and image order;
only the attention loss differs) and is compared pairwise with λ4 = 0, with intervals over people and over seeds
(:func:`scores.compare_paired`).

``out`` contains one folder per cell with its checkpoint, scores.npz and cell.json, then run.json and the files of
lambda4_tables.py. When the same command is run again, finished cells are read, unfinished ones continue from their
checkpoint, and damaged result files are created again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from s2flib import lambda4_tables
from s2flib.datasets.faces import open_dataset
from s2flib.errors import DataError, S2FError
from s2flib.evaluation import evaluate, table1
from s2flib.evaluation.baselines import baseline_scores
from s2flib.evaluation.evaluate import Judges, Predictor, embed_photos, psp_predictor, runtimes_in_turn
from s2flib.evaluation.lineup import Chance, Ranks, compare_ranks, lineup
from s2flib.evaluation.scores import TABLE1, Comparison, Scores, compare_paired
from s2flib.evaluation.table1 import Table
from s2flib.files import claimed, csv_text, read_csv, sha256_of, write_text
from s2flib.lambda4_conditions import Condition, conditions
from s2flib.presets import Preset, get_preset
from s2flib.runs import finish, plain, run_record, write_json
from s2flib.training.encoder import EncoderConfig, train_encoder
from s2flib.weights.load import load_psp

LAMBDAS = (0.0, 1.0, 1e3, 1e6, 1e9)  # the paper's Table 1
SEEDS = (0, 1, 2)
TIMED = 100  # test images whose runtime is measured
RANK_KS = (1, 10)  # of the line-up, compared with plain pSp's


@dataclass(frozen=True)
class Sweep:
    """The result of :func:`sweep`: the table, the comparisons with λ4 = 0, the scores of every cell."""

    out: Path
    table: Table
    comparisons: dict[str, list[Comparison]]  # a condition's label → one per column
    scores: dict[str, list[Scores]]  # a condition's key → one per seed
    summary: str  # the table and the verdicts, to print


def sweep(
    preset: str | Preset,
    lambdas: Sequence[float | str | Condition] = LAMBDAS,
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
    train: Callable[[Condition, int, Path], Path] | None = None,  # (condition, seed, folder) → weights
    load: Callable[[Path], Predictor] | None = None,  # weights → Predictor
    datasets: tuple | None = None,  # (train split, test split)
) -> Sweep:
    """Train and evaluate every cell; returns the tables and writes them to ``out``.

    lambdas: the conditions, as in lambda4_conditions.py: 0, 1e3, "10%", "50%@0", "published:1e9". A folder that
    contains a sweep with other settings raises S2FError and is not changed. ``judges``, ``train``, ``load`` and
    ``datasets`` default to the preset's own; pass others to sweep something else.
    """
    preset = get_preset(preset)
    every, seeds = conditions(lambdas), sorted({int(s) for s in seeds})
    if not seeds:
        raise S2FError("a sweep needs at least one seed.")
    steps = preset.steps if steps is None else steps
    out = Path(out)
    settings = {"seeds": seeds, "steps": steps, "limit": limit, "training": training or {}}
    config = {"lambdas": [c.key for c in every]} | settings
    train = train or _trainer(preset, steps, training or {})
    with claimed(out):
        record = _claim(out, preset, config, resume)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        load = load or _loader(preset, training or {}, device)
        test_set = datasets[1] if datasets else open_dataset(preset, "test", limit=limit)
        judges = judges or Judges.of(preset, device)
        photos = embed_photos(test_set, judges.identity, preset, device=device, progress=progress)
        folders = {(c, seed): out / "cells" / c.folder / f"seed_{seed}" for seed in seeds for c in every}
        found: dict[tuple[Condition, int], Scores] = {}
        for (c, seed), folder in folders.items():  # seed by seed: a sweep that is stopped has compared something
            cell = {
                "condition": c.key,
                "seed": seed,
                "steps": steps,
                "preset": preset.name,
                "training": plain(training or {}),
            }
            done = _finished(folder, cell, test_set)
            if done is None:
                if progress:
                    print(f"{c.label}, seed {seed}: {steps} steps in {folder}", flush=True)
                weights = train(c, seed, folder)
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
            found[c, seed] = done
        scores = {c: [found[c, seed] for seed in seeds] for c in every}
        rows: dict[str, Scores | list[Scores]] = {c.row: s for c, s in scores.items()}
        if baselines:
            train_set = datasets[0] if datasets else open_dataset(preset, "train")
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
        runtimes = _runtimes(out, {c.row: folders[c, seeds[0]] for c in every}, load, test_set, device)
        table = table1(rows, ranks, seeds, rules_after=[every[-1].row], runtimes=runtimes)
        comparisons = {c.label: _compare(c, scores, ranks) for c in every if not c.plain}
        shares = lambda4_tables.collect_shares({(c.label, seed): folder for (c, seed), folder in folders.items()})
        summary = _write(out, table, comparisons, scores, shares)
        write_json(out / "run.json", finish(record, finished_cells=len(found)), overwrite=True)
        return Sweep(out, table, comparisons, {c.key: s for c, s in scores.items()}, summary)


def _compare(c: Condition, scores: Mapping[Condition, list[Scores]], ranks: dict | None) -> list[Comparison]:
    """The condition against plain pSp: every column of Table 1, and the ranks if there are any."""
    base = next(other for other in scores if other.plain)
    found = [compare_paired(scores[base], scores[c], column, c.label) for column in TABLE1]
    return found + [compare_ranks(ranks[base.row], ranks[c.row], k, c.label) for k in RANK_KS if ranks]


def _runtimes(
    out: Path, cells: Mapping[str, Path], load: Callable[[Path], Predictor], test_set, device: str
) -> dict[str, np.ndarray] | None:
    """Seconds of one training of every row, measured in turn; read from runtime.csv where their weights are gone."""
    path = out / "runtime.csv"
    weights = {row: _weights(folder) for row, folder in cells.items()}
    if all(w.exists() for w in weights.values()):
        sketches = torch.stack([test_set[i]["sketch"] for i in range(min(TIMED, len(test_set)))])
        seconds = runtimes_in_turn({row: load(w) for row, w in weights.items()}, sketches, device=device)
        rows = [{row: f"{s[i]:.6f}" for row, s in seconds.items()} for i in range(len(sketches))]
        write_text(path, csv_text(rows), overwrite=True)
    table = read_csv(path) if path.exists() else []
    if not table or not set(cells) <= set(table[0]):
        return None
    return {row: np.array([float(r[row]) for r in table]) for row in cells}


def _weights(folder: Path) -> Path:
    """Of a finished cell."""
    return folder / json.loads((folder / "cell.json").read_text(encoding="utf-8"))["weights"]


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
        weights = _weights(path.parent)
        if weights.exists():
            return getattr(load(weights), "psp", None)
    return None


def _trainer(preset: Preset, steps: int, training: dict) -> Callable[[Condition, int, Path], Path]:
    ours = {"preset", "out", "steps", "seed", "resume", "max_time"}
    ours |= {"lambda4", "attention", "attention_maps", "attention_share"}
    if own := ours & set(training):
        raise S2FError(f"the sweep itself sets {', '.join(sorted(own))} for every cell: remove it from the fields.")

    def train(c: Condition, seed: int, folder: Path) -> Path:
        fields = {**training, **c.training}
        return train_encoder(
            EncoderConfig(preset=preset.name, out=str(folder), steps=steps, seed=seed, resume=True, **fields)
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


def _write(
    out: Path,
    table: Table,
    comparisons: Mapping[str, list[Comparison]],
    scores: Mapping[Condition, list[Scores]],
    shares: list[dict],
) -> str:
    """Write the tables and figures; returns the text of Table 1 and of the comparisons."""
    from s2flib.plotting.canvas import save_figure

    table.save(out, overwrite=True)
    text = lambda4_tables.write_comparisons(out, comparisons)
    lambda4_tables.write_images(out, scores)
    if shares:
        write_text(out / "shares.csv", csv_text(shares), overwrite=True)
        save_figure(lambda4_tables.shares_figure(shares), out / "shares.png", overwrite=True)
    if comparisons:
        figure = lambda4_tables.differences_figure(comparisons)
        save_figure(figure, out / "differences.png", overwrite=True)
        if any(c.column == "rank1" for c in next(iter(comparisons.values()))):
            figure = lambda4_tables.differences_figure(comparisons, [f"rank{k}" for k in RANK_KS])
            save_figure(figure, out / "ranks.png", overwrite=True)
    return table.text + os.linesep + text
