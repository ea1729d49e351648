"""The paper's Table 1 as text, CSV and figure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s2flib.errors import DataError
from s2flib.evaluation.intervals import Interval, bootstrap_mean, runtime
from s2flib.evaluation.lineup import KS
from s2flib.evaluation.scores import BETTER, TABLE1, Scores, average, same_images
from s2flib.files import csv_text, write_text
from s2flib.presets import get_preset


@dataclass(frozen=True)
class Table:
    """Table 1 as ``text`` to print, ``csv`` with a column for every bound, and ``figure()``."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # printed cells; the interval is on a second line
    records: tuple[dict, ...]  # the underlying numbers
    footer: str
    rules_after: tuple[int, ...] = ()
    bold: tuple[tuple[int, int], ...] = ()

    @property
    def text(self) -> str:
        heads = [c.replace("\n", " ") for c in self.columns]
        cells = [[c.replace("\n", " ") for c in row] for row in self.rows]
        widths = [max(len(h), *(len(r[i]) for r in cells)) for i, h in enumerate(heads)]

        def line(row):
            return "  ".join(
                c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()

        rule = "-" * (sum(widths) + 2 * len(widths) - 2)
        body = []
        for i, row in enumerate(cells):
            body += [line(row)] + ([rule] if i in self.rules_after and i + 1 < len(cells) else [])
        return "\n".join([line(heads), rule, *body, rule, *textwrap.wrap(self.footer, max(len(rule), 60))]) + "\n"

    @property
    def csv(self) -> str:
        return csv_text(self.records)

    def figure(self):
        """A plotting.CourseFigure of the table with its footer."""
        from s2flib.plotting.charts import table_figure

        return table_figure(self.columns, self.rows, self.footer, self.bold, self.rules_after)

    def save(self, folder: str | Path, name: str = "table1", overwrite: bool = False) -> list[Path]:
        """Write name.txt, name.csv and name.png into folder, each atomically."""
        from s2flib.plotting.canvas import save_figure

        folder = Path(folder)
        return [
            write_text(folder / f"{name}.txt", self.text, overwrite),
            write_text(folder / f"{name}.csv", self.csv, overwrite),
            save_figure(self.figure(), folder / f"{name}.png", overwrite),
        ]


def table1(
    rows: Mapping[str, Scores | Sequence[Scores]],
    ranks: dict | None = None,
    seeds: Sequence[int] = (0,),
    rules_after: Sequence[str] = (),
    runtimes: Mapping[str, np.ndarray] | None = None,
) -> Table:
    """The paper's Table 1 with rank-1/5/10, n, seeds and 95 % intervals.

    rows: method → its Scores, or one per seed (averaged per image). ranks: method → lineup.Ranks (or one per seed); may
    include further rows with ranks only (photo against photo, shuffled, chance). A row measured on a subset of the
    images (a slow ceiling) shows their number next to its name. rules_after: methods followed by a rule. The best cell
    of each column is bold, except in rows whose name contains "ceiling", "control" or "chance". runtimes: method →
    seconds per image, where they were measured better than during the evaluation (:func:`runtimes_in_turn`); all other
    rows then have none.
    """
    if not rows:
        raise DataError("there are no results for the table: evaluate at least one method.")
    lists = {k: [v] if isinstance(v, Scores) else list(v) for k, v in rows.items()}
    first = max((s for several in lists.values() for s in several), key=len)
    names: dict[str, str] = {}  # method → as printed
    for name, scores in lists.items():
        part = len(scores[0]) < len(first)
        for s in scores:
            same_images(first.subset(s.name) if part else first, s)
        names[name] = f"{name}, n = {len(scores[0])}" if part else name
    ranks = ranks or {}
    columns = (
        "Method",
        "Runtime (s)",
        "MSE ↓",
        f"LPIPS ↓\n{first.perceptual}",
        "Similarity ↑",
        *((f"rank-{k} ↑" for k in KS) if ranks else ()),
    )
    records, cells, in_face = [], [], []
    for name in (*lists, *(k for k in ranks if k not in lists)):
        record: dict = {"method": name}
        row = [names.get(name, name)]
        scores = lists.get(name)
        summary: dict[str, Any] = dict(average(scores).summary()) if scores else {}
        time_ = summary.get("runtime_s")
        if runtimes is not None:
            time_ = runtime(runtimes[name]) if name in runtimes else None
        record |= {"runtime_s": time_.median if time_ else "", "runtime_spread_s": time_.spread if time_ else ""}
        row.append(f"{time_.median:.4f} ± {time_.spread:.4f}" if time_ else "")
        for column, digits in zip(TABLE1, (4, 3, 3), strict=True):
            value = summary.get(column)
            record |= _bounds(column, value)
            row.append(_cell(value, f".{digits}f"))
        record |= _bounds("face_mse", summary.get("face_mse"))
        if scores:  # in the footer: the table is wide enough
            in_face.append(f"{name} {_cell(summary['face_mse'], '.4f')}".replace("\n", " "))
        if ranks:
            for k in KS:
                value = _rank(ranks.get(name), k)
                record |= _bounds(f"rank{k}", value)
                row.append(_cell(value, ".1f", 100, " %"))
        record |= {
            "n": len(scores[0]) if scores else "",
            "identities": len(set(scores[0].identity)) if scores else "",
            "runs": len(scores) if scores else "",
            "preset": first.preset,
            "perceptual_net": first.perceptual,
            "identity_net": first.identifier,
        }
        records.append(record)
        cells.append(tuple(row))
    most = max(len(s) for s in lists.values())
    people = len(set(first.identity))
    footer = (
        f"{get_preset(first.preset).label}. n = {len(first)} images of {people} people; "
        f"seeds {', '.join(map(str, seeds))}{f' ({most} runs averaged per image)' if most > 1 else ''}; "
        "[95 % bootstrap interval over people]; runtime: median ± half the interquartile range. LPIPS "
        f"column: {first.perceptual}; similarity{' and ranks' if ranks else ''}: {first.identifier}. "
        f"MSE inside the face alone: {'; '.join(in_face)}."
    )
    order = [r["method"] for r in records]
    return Table(
        columns,
        tuple(cells),
        tuple(records),
        footer,
        tuple(order.index(m) for m in rules_after if m in order),
        _best(records, bool(ranks)),
    )


def _cell(value: Interval | None, form: str, scale: float = 1, unit: str = "") -> str:
    """value, with its interval, if any, on a second line."""
    if value is None:
        return ""
    bounds = "" if math.isnan(value.low) else f"\n[{scale * value.low:{form}}, {scale * value.high:{form}}]"
    return f"{scale * value.value:{form}}{unit}{bounds}"


def _bounds(column: str, value: Interval | None) -> dict:
    parts = (value.value, value.low, value.high) if value else ("", "", "")
    parts = tuple("" if isinstance(p, float) and math.isnan(p) else p for p in parts)
    return {column: parts[0], f"{column}_low": parts[1], f"{column}_high": parts[2]}


def _rank(ranks, k: int) -> Interval | None:
    """rank-k of one Ranks, or of one per seed, whose hits are averaged per probe first."""
    if ranks is None:
        return None
    several = list(ranks) if isinstance(ranks, (list, tuple)) else [ranks]
    if len(several) == 1:
        return several[0].rate(k)
    hits = np.mean([r.rank <= k for r in several], axis=0)
    return bootstrap_mean(hits, several[0].identity)


def _best(records: list[dict], with_ranks: bool) -> tuple[tuple[int, int], ...]:
    rivals = [i for i, r in enumerate(records) if not any(w in r["method"] for w in ("ceiling", "control", "chance"))]
    keys = [*TABLE1, *((f"rank{k}" for k in KS) if with_ranks else ())]
    found = []
    for c, key in enumerate(keys):
        have = [(records[i][key], i) for i in rivals if records[i][key] != ""]
        if len(have) > 1:
            best = (min if BETTER.get(key) == "lower" else max)(v for v, _ in have)
            found += [(i, c + 2) for v, i in have if v == best]
    return tuple(found)
