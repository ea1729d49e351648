"""Does identification work equally well for everybody? Every figure by gender, age, ancestry and skin tone.

A figure is one number for each person (for example the share of their drawings with rank 1), so a group's figure is a
mean over its people, with a bootstrap interval. For each figure and attribute, the widest gap between two groups is
reported with the p value of a permutation test: how often a gap as wide arises when the groups are assigned at random.
Many such gaps are looked at, and one in twenty has p < 0.05 by chance, so p is also corrected for all of them (Holm
1979). A gap that survives is a difference between groups *of these synthetic people*, whose attributes are correlated
by the renderer's priors; no gap is no proof of equality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from s2flib.errors import DataError
from s2flib.evaluation.cmc import mean_interval
from s2flib.evaluation.intervals import TAIL, Interval

AGES = ((30, "18 to 29"), (45, "30 to 44"), (60, "45 to 59"), (np.inf, "60 to 80"))  # years, upper ends
TONES = ((2.0, "lighter (0 to 2)"), (4.0, "medium (2 to 4)"), (np.inf, "darker (4 to 7)"))  # the renderer's scale
MAJORITY = 0.5  # share of an ancestry that makes it the group; else "mixed"
SMALL = 20  # people; a group below is shown, but not compared


def groups(attributes: Sequence[Mapping]) -> dict[str, np.ndarray]:
    """{attribute: (P,) the group's name of each person} of rows of SynthFaces' manifest (years, tone 0–7, shares)."""

    def band(value: float, bands: Sequence[tuple[float, str]]) -> str:
        return next(name for limit, name in bands if value < limit)

    def ancestry(row: Mapping) -> str:
        shares = {k.split("_")[1]: float(v) for k, v in row.items() if k.startswith("ethnicity_")}
        largest = max(shares, key=lambda k: shares[k])
        return largest if shares[largest] >= MAJORITY else "mixed"

    try:
        columns = {
            "gender": [str(row["gender"]) for row in attributes],
            "age": [band(float(row["age"]), AGES) for row in attributes],
            "ancestry": [ancestry(row) for row in attributes],
            "skin tone": [band(float(row["skin_tone"]), TONES) for row in attributes],
        }
    except (KeyError, ValueError) as e:
        raise DataError(f"the manifest has no usable column for groups of people ({e}): render the data set.") from None
    return {k: np.array(v) for k, v in columns.items()}


@dataclass(frozen=True)
class Figure:
    """One figure of every person: values (n,), NaN where it does not exist. higher: whether more is better. unit: what
    a value of 1 is printed as: 100 for percent."""

    name: str
    values: np.ndarray
    higher: bool = True
    percent: bool = True


@dataclass(frozen=True)
class Gap:
    """The widest gap of one figure between two groups of an attribute. difference: best minus worst, ≥ 0, with its 95 %
    interval over people; p: of the permutation test; corrected: after Holm, over all gaps of the report."""

    figure: Figure
    attribute: str
    rates: dict[str, Interval]  # of every group
    small: tuple[str, ...]  # groups too small to compare
    best: str
    worst: str
    difference: Interval
    p: float
    corrected: float

    @property
    def sentence(self) -> str:
        scale, mark, unit = (100, " %", "points") if self.figure.percent else (1, "", "")
        digits = 1 if self.figure.percent or abs(self.rates[self.best].value) > 2 else 3

        def rate(name: str) -> str:
            r = self.rates[name]
            return f"{scale * r.value:.{digits}f}{mark} [{scale * r.low:.{digits}f}, {scale * r.high:.{digits}f}]"

        d = self.difference
        text = (
            f"{self.figure.name} by {self.attribute}: best for {self.best}, {rate(self.best)}, worst for {self.worst}, "
            f"{rate(self.worst)}; the gap is {scale * d.value:.{digits}f} {unit}".rstrip()
            + f" [{scale * d.low:.{digits}f}, {scale * d.high:.{digits}f}], p = {self.p:.3f}"
        )
        if self.corrected < 0.05:
            text += f", {self.corrected:.3f} corrected: beyond chance."
        else:
            said = "within what chance gives to random groups" if self.p >= 0.05 else "not beyond chance once corrected"
            text += f", {self.corrected:.2f} corrected: {said}."
        return text + (f" Too small to compare: {', '.join(self.small)}." if self.small else "")


def by_group(figure: Figure, labels: np.ndarray) -> dict[str, Interval]:
    """The mean of a figure in every group, with its interval over people; groups without a value are left out."""
    there = np.isfinite(figure.values)
    if len(labels) != len(figure.values):
        raise DataError(f"{len(labels)} people have a group, but {len(figure.values)} a figure: use the same people.")
    return {str(g): mean_interval(figure.values[there & (labels == g)]) for g in np.unique(labels[there])}


def widest_gap(
    figure: Figure, attribute: str, labels: np.ndarray, permutations: int = 2000, seed: int = 0, small: int = SMALL
) -> Gap | None:
    """The gap between the best and the worst group, each of at least ``small`` people; None with fewer than two."""
    rates = by_group(figure, labels)
    large = [g for g, r in rates.items() if r.n >= small]
    if len(large) < 2:
        return None
    keep = np.isfinite(figure.values) & np.isin(labels, large)
    x, member = figure.values[keep], np.searchsorted(large, labels[keep])  # large is sorted, as np.unique returns it
    onehot = np.eye(len(large))[member]  # (n, groups)
    counts = onehot.sum(axis=0)
    means = x @ onehot / counts
    order = np.argsort(means if figure.higher else -means, kind="stable")
    worst, best = int(order[0]), int(order[-1])
    rng = np.random.default_rng([seed, 5])
    shuffled = np.stack([rng.permutation(x) for _ in range(permutations)]) @ onehot / counts
    at_least = (np.ptp(shuffled, axis=1) >= np.ptp(means) - 1e-12).sum()
    two = [x[member == g] for g in (best, worst)]
    sampled = [v[rng.integers(len(v), size=(permutations, len(v)))].mean(axis=1) for v in two]
    sign = 1 if figure.higher else -1
    low, high = np.percentile(sign * (sampled[0] - sampled[1]), [TAIL, 100 - TAIL])
    gap = Interval(float(np.ptp(means)), float(low), float(high), len(x), len(x))
    p = float((at_least + 1) / (permutations + 1))
    others = tuple(g for g in rates if g not in large)
    return Gap(figure, attribute, rates, others, large[best], large[worst], gap, p, p)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p values that hold for all of them together."""
    order = np.argsort(p, kind="stable")
    corrected, least = np.empty(len(p)), 0.0
    for place, i in enumerate(order):
        least = max(least, min(1.0, (len(p) - place) * p[i]))
        corrected[i] = least
    return corrected.tolist()


def widest_gaps(
    figures: Sequence[Figure], labels: Mapping[str, np.ndarray], permutations: int = 2000, seed: int = 0
) -> list[Gap]:
    """The widest gap of every figure by every attribute, with p values corrected over all of them.

    Labels are of all people (P,); a figure of fewer people is of the first ones.
    """
    found = [
        widest_gap(figure, attribute, names[: len(figure.values)], permutations, seed)
        for figure in figures
        for attribute, names in labels.items()
    ]
    gaps = [gap for gap in found if gap is not None]
    corrected = holm([gap.p for gap in gaps])
    return [replace(gap, corrected=c) for gap, c in zip(gaps, corrected, strict=True)]
