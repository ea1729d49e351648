"""Means with honest intervals: the cluster bootstrap over people, Student's t over seeds.

Photos of one person resemble each other, so the bootstrap draws identities, each with all its images
(cluster bootstrap; Davison & Hinkley, Bootstrap Methods and their Application, 1997, Sec. 3.8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from s2flib.errors import DataError


class Interval(NamedTuple):
    """A mean with its 95 % interval, over n images of n_identities people."""

    value: float
    low: float
    high: float
    n: int
    n_identities: int


class Runtime(NamedTuple):
    """Seconds per image: the median, and half the interquartile range (the paper's ±)."""

    median: float
    spread: float


def runtime(seconds: np.ndarray) -> Runtime:
    """Median and half the interquartile range: one slow first call cannot blow them up, as it does a ±σ."""
    low, middle, high = np.percentile(np.asarray(seconds, float), [25, 50, 75])
    return Runtime(float(middle), float(high - low) / 2)


def bootstrap_mean(values: np.ndarray, clusters: np.ndarray, resamples: int = 2000, seed: int = 0,
                   level: float = 0.95) -> Interval:
    """Mean of values (N,) with its percentile interval over clusters (N,): identities are drawn with
    replacement, each with all its images. One identity alone has no interval (NaN)."""
    values = np.asarray(values, np.float64)
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    if len(values) == 0 or len(values) != len(member):
        raise DataError(f"{len(values)} values for {len(member)} identities: give one identity per value.")
    counts = np.bincount(member).astype(np.float64)                  # (K,) images of each identity
    sums = np.bincount(member, weights=values)                       # (K,)
    k = len(counts)
    if k == 1:
        return Interval(float(values.mean()), math.nan, math.nan, len(values), 1)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start in range(0, resamples, 256):                           # in chunks: 10,000 people fit too
        rows = min(256, resamples - start)
        drawn = rng.multinomial(k, np.full(k, 1 / k), size=rows)     # (rows,K) times each identity is drawn
        means[start:start + rows] = (drawn @ sums) / (drawn @ counts)
    tail = (1 - level) / 2 * 100
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(values.mean()), float(low), float(high), len(values), k)


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of a few numbers; NaN for fewer than two."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return math.nan, math.nan
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)
