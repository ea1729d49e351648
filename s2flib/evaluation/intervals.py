"""Confidence intervals of means: the cluster bootstrap over people, Student's t over seeds.

Photos of one person are similar, so the bootstrap samples identities, each with all its images (cluster bootstrap;
Davison & Hinkley, Bootstrap Methods and their Application, 1997, Sec. 3.8; scipy.stats.bootstrap has no clusters).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from s2flib.errors import DataError

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2 * 100  # percent


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
    """Median and half the interquartile range; unlike ±σ, they are robust against a single slow call."""
    low, middle, high = np.percentile(np.asarray(seconds, float), [25, 50, 75])
    return Runtime(float(middle), float(high - low) / 2)


def bootstrap_mean(values: np.ndarray, clusters: np.ndarray, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean of values (N,) with its 95 % percentile interval over clusters (N,).

    Identities are sampled with replacement, each with all its images. A single identity has no interval (NaN).
    """
    values = np.asarray(values, np.float64)
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    if len(values) == 0 or len(values) != len(member):
        raise DataError(f"{len(values)} values for {len(member)} identities: pass one identity per value.")
    counts = np.bincount(member).astype(np.float64)  # (K,) images of each identity
    sums = np.bincount(member, weights=values)  # (K,)
    k = len(counts)
    if k == 1:
        return Interval(float(values.mean()), math.nan, math.nan, len(values), 1)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start in range(0, resamples, 256):  # in chunks, to limit memory
        rows = min(256, resamples - start)
        drawn = rng.multinomial(k, np.full(k, 1 / k), size=rows)  # (rows,K) how often each identity is sampled
        means[start : start + rows] = (drawn @ sums) / (drawn @ counts)
    low, high = np.percentile(means, [TAIL, 100 - TAIL])
    return Interval(float(values.mean()), float(low), float(high), len(values), k)


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % t interval of the mean of a few numbers; NaN for fewer than two."""
    x = np.asarray(values, float)
    if len(x) < 2:
        return math.nan, math.nan
    half = stats.t.ppf((1 + LEVEL) / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    return float(x.mean() - half), float(x.mean() + half)
