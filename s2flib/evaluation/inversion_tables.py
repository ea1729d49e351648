"""What is edited in the inversion study, its figures with intervals, the literature's claims, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from s2flib.evaluation.evaluate import Judges
from s2flib.evaluation.intervals import bootstrap_mean, runtime
from s2flib.inversion.methods import TITLES
from s2flib.presets import Preset


class Attribute(NamedTuple):
    """What a direction changes, and how the edit judge reads it."""

    name: str  # of datasets.attributes
    head: str  # of the edit judge
    values: tuple[str, ...]  # of a head with values, those that mean "yes"
    rises: bool = True  # of a head that is a number: whether "yes" means a larger one


EDITED = (
    Attribute("black_hair", "hair_color", ("black",)),
    Attribute("long_hair", "hair_style", ("long", "longwavy", "bangs_long")),
    Attribute("beard", "beard", ("short", "goatee", "full")),
    Attribute("dark_skin", "skin_tone", ()),
    Attribute("young", "age", (), rises=False),
)


class TextEdit(NamedTuple):
    """An instruction, and the reading that it asks for; photos that show it already are skipped."""

    words: str
    attribute: str  # of datasets.attributes
    head: str
    values: tuple[str, ...]


TEXT_EDITS = (
    TextEdit("add glasses", "glasses", "glasses", ("clear", "sun")),
    TextEdit("make the hair blond", "blond_hair", "hair_color", ("blond",)),
)


def means(columns: dict[str, np.ndarray], prefix: str, names: Sequence[str]) -> np.ndarray:
    """(N,) each photo's mean over the columns ``prefix``_``name``, without NaN; NaN if it has none."""
    values = np.stack([columns[f"{prefix}_{name}"] for name in names])
    count = np.isfinite(values).sum(0)
    return np.where(count > 0, np.nansum(values, 0) / np.maximum(count, 1), np.nan)


def per_photo(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The figures of the table but the seconds, for each photo."""
    directions, texts = [a.name for a in EDITED], [t.words for t in TEXT_EDITS]
    return {
        **{k: columns[k] for k in ("mse", "lpips", "similarity")},
        "direction_success": means(columns, "success", directions),
        "direction_kept": means(columns, "kept", directions),
        "text_success": means(columns, "success", texts),
        "text_kept": means(columns, "kept", texts),
    }


class Claim(NamedTuple):
    """What the literature says: ``a`` has a smaller (or larger) figure than ``b``."""

    text: str
    figure: str
    a: str
    b: str
    smaller: bool = True


CLAIMS = (
    Claim("optimisation reconstructs better than an encoder", "mse", "w-plus", "psp"),
    Claim("W+ reconstructs better than W", "mse", "w-plus", "projector"),
    Claim("tuning the generator reconstructs better than its pivot", "mse", "pti", "projector"),
    Claim("PTI reconstructs better than optimisation", "mse", "pti", "w-plus"),
    Claim("an encoder is faster than optimisation", "seconds", "psp", "w-plus"),
    Claim("a hypernetwork is faster than tuning", "seconds", "hyperstyle", "pti"),
    Claim("pSp reconstructs better than e4e", "mse", "psp", "e4e"),
    Claim("e4e is edited more often with success than pSp", "direction_success", "e4e", "psp", smaller=False),
    Claim("e4e is edited more often with success than W+ optimisation", "direction_success", "e4e", "w-plus", False),
    Claim("ReStyle reconstructs better than pSp", "mse", "restyle-psp", "psp"),
    Claim("ReStyle reconstructs better than e4e", "mse", "restyle-e4e", "e4e"),
    Claim("HyperStyle reconstructs better than its encoder", "mse", "hyperstyle", "e4e"),
    Claim("PTI reconstructs better than HyperStyle", "mse", "pti", "hyperstyle"),
    Claim("HyperInverter reconstructs better than e4e", "mse", "hyperinverter", "e4e"),
    Claim("HyperStyle keeps the person better than its encoder", "similarity", "hyperstyle", "e4e", smaller=False),
    Claim("PTI keeps the person in edits better than e4e", "direction_kept", "pti", "e4e", smaller=False),
)


def check_claims(figures: dict[str, dict[str, np.ndarray]], person: np.ndarray) -> list[dict[str, Any]]:
    """Every claim about measured methods: the mean paired difference a − b with its interval, and the verdict.

    A figure that was measured on fewer photos belongs to the first of ``person``.
    """
    rows = []
    for claim in CLAIMS:
        if claim.a not in figures or claim.b not in figures:
            continue
        pairs = figures[claim.a][claim.figure] - figures[claim.b][claim.figure]
        difference = bootstrap_mean(pairs, person[: len(pairs)])
        sign = -1 if claim.smaller else 1
        if min(sign * difference.low, sign * difference.high) > 0:
            verdict = "holds"
        elif max(sign * difference.low, sign * difference.high) < 0:
            verdict = "the contrary"
        else:
            verdict = "not shown"
        rows.append(
            claim._asdict() | dict(difference=difference.value, low=difference.low, high=difference.high)
            | {"verdict": verdict}
        )  # fmt: skip
    return rows


def summary(figures: dict[str, dict[str, np.ndarray]], person: np.ndarray) -> list[dict[str, Any]]:
    """One row for each method: seconds (median and half the interquartile range), all other figures as mean, low, high
    of the 95 % bootstrap interval over people."""
    rows = []
    for name, columns in figures.items():
        time = runtime(columns["seconds"])
        row: dict[str, Any] = {"method": name, "title": TITLES.get(name, name), "n": len(person)}
        row |= {"seconds": time.median, "seconds_spread": time.spread, "timed": len(columns["seconds"])}
        for figure, values in columns.items():
            if figure == "seconds":
                continue
            there = np.isfinite(values)
            found = bootstrap_mean(values[there], person[there])
            row |= {figure: found.value, f"{figure}_low": found.low, f"{figure}_high": found.high}
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]], claims: Sequence[dict[str, Any]], preset: Preset, judges: Judges) -> str:
    """Both tables as text, with what their columns mean."""
    head = f"{'':34s}{'seconds':>16s}{'MSE ↓':>22s}{'perceptual ↓':>22s}{'similarity ↑':>24s}"
    lines = [head + f"{'directions: success, kept':>28s}{'text: success, kept':>22s}"]

    def interval(row: dict[str, Any], k: str) -> str:
        return f"{row[k]:.3f} [{row[f'{k}_low']:.3f}, {row[f'{k}_high']:.3f}]"

    for r in rows:
        lines.append(
            f"{r['title']:34s}{r['seconds']:9.2f} ± {r['seconds_spread']:4.2f}{interval(r, 'mse'):>22s}"
            f"{interval(r, 'lpips'):>22s}{interval(r, 'similarity'):>24s}"
            f"{100 * r['direction_success']:17.0f} %, {r['direction_kept']:.2f}"
            f"{100 * r['text_success']:14.0f} %, {r['text_kept']:.2f}"
        )
    n, timed = rows[0]["n"], rows[0]["timed"]
    lines += ["", f"n = {n} photos, one of each person; 95 % intervals over people. Seconds: of {timed} photos, one at "
              "a time, median and half the interquartile range."]  # fmt: skip
    lines += [
        f"perceptual: {judges.perceptual.label}; similarity and kept: {judges.identity.label}. {preset.label}",
        "",
    ]
    for c in claims:
        lines.append(f"{c['verdict']:>14s}  {c['text']} ({c['figure']} {c['difference']:+.3f} "
                     f"[{c['low']:+.3f}, {c['high']:+.3f}])")  # fmt: skip
    return "\n".join(lines)
