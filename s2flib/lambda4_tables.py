"""The λ4 sweep's results: its files, read and written, and its figures.

Beside Table 1 there are, as CSV with a header:

    differences   a row per condition and column: b − a against plain pSp, both intervals, each seed, the verdict
    images        a row per test image: every condition's scores, averaged over the seeds
    shares        every loss's share of the gradient, and λ4, over the trainings
    runtime       a row per timed image: seconds of every condition, measured in turn
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s2flib.evaluation.intervals import Interval
from s2flib.evaluation.scores import BETTER, COLUMNS, Comparison, Scores, average
from s2flib.files import csv_text, read_csv, write_text
from s2flib.lambda4_conditions import Condition
from s2flib.plotting.canvas import COLOURS, chart
from s2flib.plotting.charts import draw_intervals

LOSSES = {"l2": "L2", "lpips": "LPIPS", "id": "ID", "attention": "attention"}  # those of the output, as in figures


def write_comparisons(out: Path, comparisons: Mapping[str, Sequence[Comparison]]) -> str:
    """Write differences.csv and differences.txt; returns the text.

    comparisons: a condition's label → one per column.
    """
    every = [c for several in comparisons.values() for c in several]
    note = (
        f"{len(every)} comparisons: about {len(every) * 0.05:.1f} of these intervals exclude zero by chance alone."
        if every
        else "Nothing to compare: λ4 = 0 alone was run."
    )
    head = "Paired with λ4 = 0, same test images, same seeds:"
    text = "\n".join([head, *(c.verdict for c in every), note, verdict(comparisons)]).rstrip() + "\n"
    write_text(out / "differences.txt", text, overwrite=True)
    rows = [
        {"condition": label, "column": c.column, "heading": c.heading}
        | dict(zip(("difference", "low", "high", "n", "people"), _blank(c.difference), strict=True))
        | dict(zip(("seed_low", "seed_high"), _blank(c.seed_interval), strict=True))
        | {f"run_{i}": x for i, x in enumerate(c.per_seed)}
        | {"outcome": c.outcome, "verdict": c.verdict}
        for label, several in comparisons.items()
        for c in several
    ]
    if rows:
        write_text(out / "differences.csv", csv_text(rows), overwrite=True)
    return text


def _blank(values: Sequence[float]) -> list[float | str]:
    return ["" if np.isnan(x) else x for x in values]


def read_comparisons(path: Path) -> dict[str, list[Comparison]]:
    """The comparisons of a differences.csv, by condition."""
    found: dict[str, list[Comparison]] = {}
    for row in read_csv(path):
        d = Interval(row["difference"], row["low"], row["high"], int(row["n"]), int(row["people"]))
        runs = tuple(v for k, v in row.items() if k.startswith("run_"))
        seeds = (row["seed_low"], row["seed_high"])
        comparison = Comparison(row["column"], row["heading"], d, runs, seeds, row["verdict"])
        found.setdefault(row["condition"], []).append(comparison)
    return found


def verdict(comparisons: Mapping[str, Sequence[Comparison]]) -> str:
    """One sentence: what was shown of each condition, beyond noise of people and of training."""
    if not comparisons:
        return ""
    parts, nothing = [], []
    for label, several in comparisons.items():
        words = [
            f"{kind} {', '.join(c.heading for c in several if c.outcome == kind)}"
            for kind in ("better", "worse")
            if any(c.outcome == kind for c in several)
        ]
        if words:
            parts.append(f"{label}: {' and '.join(words)}")
        else:
            nothing.append(label)
    if nothing:
        parts.append(f"no difference shown for {'; '.join(nothing)}")
    first = next(iter(comparisons.values()))[0]
    seeds = len(first.per_seed)
    return (
        f"Against plain pSp, {first.difference.n} images of {first.difference.n_identities} people, {seeds} "
        f"seed{'s' * (seeds > 1)}: {'; '.join(parts)}."
    )


def write_images(out: Path, scores: Mapping[Condition, Sequence[Scores]]) -> None:
    """Write images.csv; ``read_csv`` reads it. A score's column is named "MSE"'s key and the condition's: "mse 10%"."""
    averages = {c.key: average(several) for c, several in scores.items()}
    any_one = next(iter(averages.values()))
    rows = [
        {"name": name, "identity": int(any_one.identity[i])}
        | {f"{column} {key}": f"{getattr(s, column)[i]:.5g}" for key, s in averages.items() for column in COLUMNS}
        for i, name in enumerate(any_one.name)
    ]
    write_text(out / "images.csv", csv_text(rows), overwrite=True)


def collect_shares(folders: Mapping[tuple[str, int], Path]) -> list[dict[str, Any]]:
    """Rows of shares.csv from the trainings' log.csv. folders: (condition's label, seed) → its folder."""
    rows = []
    for (label, seed), folder in folders.items():
        if not (folder / "log.csv").exists():
            continue
        for row in read_csv(folder / "log.csv"):
            name = str(row["name"])
            if name.startswith("share_") or name == "lambda4":
                where = {"condition": label, "seed": seed, "step": int(row["step"])}
                rows.append(where | {"loss": name.removeprefix("share_"), "value": f"{row['value']:.4g}"})
    return rows


def shares_figure(rows: Sequence[Mapping[str, Any]], columns: int = 4, caption: str | None = None):
    """Every condition's shares of the gradient over its training, averaged over the seeds, a panel each.

    rows: of shares.csv. Shares at the output are stacked; the dotted line is the regulariser's at w+.
    """
    labels = list(dict.fromkeys(str(r["condition"]) for r in rows))
    n_rows, columns = -(-len(labels) // columns), min(columns, len(labels))
    with chart(caption, 0.5 + 1.7 * n_rows, columns, n_rows, sharex=True, sharey=True) as (figure, axes):
        panels = axes if isinstance(axes, list) else [axes]
        for panel, label in zip(panels, labels, strict=False):
            mine = [r for r in rows if r["condition"] == label]
            steps = sorted({int(r["step"]) for r in mine})

            def mean(loss: str, mine=mine, steps=steps) -> list[float]:
                of = [r for r in mine if r["loss"] == loss]
                return [float(np.mean([float(r["value"]) for r in of if r["step"] == s] or [0.0])) for s in steps]

            panel.stackplot(steps, [mean(loss) for loss in LOSSES], labels=LOSSES.values(), colors=COLOURS, alpha=0.85)
            panel.plot(steps, mean("reg"), ":", color="black", label="regulariser (at w+)")
            panel.set_title(label, fontsize=8)
            panel.set(ylim=(0, 1), xlim=(0, max(steps)))
        for panel in panels[len(labels) :]:
            panel.set_visible(False)
        for panel in panels[::columns]:
            panel.set_ylabel("share of gradient")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


def differences_figure(
    comparisons: Mapping[str, Sequence[Comparison]], columns: Sequence[str] = ("mse", "lpips", "similarity")
):
    """Differences to plain pSp as dots with intervals over people, a panel per column; small dots are seeds."""
    first = next(iter(comparisons.values()))[0]
    caption = (
        f"Difference to λ4 = 0 on the same {first.difference.n} test images of "
        f"{first.difference.n_identities} people, averaged over {len(first.per_seed)} seeds. Bars: 95 "
        "% interval over people; a filled dot leaves zero out. Orange dots: single seeds. When they "
        "scatter across zero, training luck alone explains the difference."
    )
    with chart(caption, 0.9 + 0.4 * len(comparisons), columns=len(columns), sharey=True) as (figure, axes):
        for axis, column in zip(axes if len(columns) > 1 else [axes], columns, strict=True):
            found = {label: next(c for c in several if c.column == column) for label, several in comparisons.items()}
            rows = {label: c.difference[:3] for label, c in found.items()}
            heading = next(iter(found.values())).heading
            draw_intervals(axis, rows, f"difference ({BETTER[column]} is better)", heading)
            axis.locator_params(axis="x", nbins=4)
            for i, c in enumerate(found.values()):
                axis.plot(c.per_seed, [i + 0.22] * len(c.per_seed), "o", color=COLOURS[1], markersize=3.5)
    return figure
