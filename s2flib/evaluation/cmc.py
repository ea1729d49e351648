"""Closed-set identification: CMC curves with bands, several drawings of one person fused, and paired differences.

The cumulative match characteristic is rank-k for every k: the share of probes whose person is among the k most similar
of the gallery (ISO/IEC 19795-1: the person is known to be enrolled). Ties count against the probe, as in lineup.py.
Intervals are over people: each person's drawings stay together.

Scores are arrays (N, R, G): R drawings of each of N people against G gallery photos; person i of the probes is column i
of the gallery.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from s2flib.errors import DataError
from s2flib.evaluation.intervals import TAIL, Interval

SHUFFLES = 100  # random people that the control gives to each drawing


def cosines(probe: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Embeddings (…, d) and (G, d) → cosines (…, G). DataError unless all are finite."""
    probe, gallery = np.asarray(probe, np.float64), np.asarray(gallery, np.float64)
    if gallery.ndim != 2 or probe.shape[-1] != gallery.shape[-1]:
        raise DataError(f"embeddings {probe.shape} cannot be compared with {gallery.shape}: use one network for both.")
    if not (np.isfinite(probe).all() and np.isfinite(gallery).all()):
        raise DataError("embeddings must be finite numbers: check whether the network diverged.")
    return unit(probe) @ unit(gallery).T


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors along the last axis, scaled to length 1."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def checked(scores: np.ndarray) -> np.ndarray:
    """Scores (N, R, G) with N ≤ G as float64; DataError for another shape or numbers that are not finite."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 3 or 0 in scores.shape or scores.shape[0] > scores.shape[2]:
        raise DataError(
            f"scores are (people, drawings, gallery) with every person in the gallery, not {scores.shape}: "
            "add a photo of each person, or a middle axis for one drawing each."
        )
    if not np.isfinite(scores).all():
        raise DataError("scores must be finite numbers: check whether the network diverged.")
    return scores


def ranks(scores: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
    """Scores (N, R, G) → the 1-based rank (N, R) of the right person. truth (N,): their columns; None: person i is
    column i."""
    scores = checked(scores)
    truth = np.arange(len(scores)) if truth is None else np.asarray(truth)
    own = np.take_along_axis(scores, truth[:, None, None], axis=2)
    return (scores >= own).sum(axis=2)  # itself included: the best is rank 1


def all_ranks(scores: np.ndarray) -> np.ndarray:
    """Scores (N, R, G) → the rank of every gallery person for every drawing, (N, R, G); ties share the worst rank."""
    scores = checked(scores)
    ordered, out = np.sort(scores, axis=2), np.empty(scores.shape, np.int64)
    for i in range(scores.shape[0]):
        for r in range(scores.shape[1]):  # how many of the gallery have this score or a higher one
            out[i, r] = scores.shape[2] - np.searchsorted(ordered[i, r], scores[i, r], side="left")
    return out


def shuffled_ranks(scores: np.ndarray, seed: int = 0, shuffles: int = SHUFFLES) -> np.ndarray:
    """The control: ranks (N, R · shuffles) of random people of the gallery in place of the right one.

    The right one is among those to choose from, so rank-k is k / G on average: with wrong people only it would be below
    chance, since the right one occupies one of the first ranks.
    """
    ranked = all_ranks(scores)
    n, _, gallery = ranked.shape
    rng = np.random.default_rng([seed, 21])
    people = np.argsort(rng.random((n, gallery)), axis=1)[:, :shuffles]  # different ones for each person
    return np.take_along_axis(ranked, people[:, None, :], axis=2).reshape(n, -1)


@functools.lru_cache(maxsize=128)
def _samples(n: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of n people is in each bootstrap sample: (resamples, n), whole numbers."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)


def over_people(values: np.ndarray, resamples: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of values (N, F) over N people, and their 95 % percentile intervals: value, low, high (F,).

    The same as :func:`intervals.bootstrap_mean` for people with equally many drawings, for many figures at once. One
    person has no interval (NaN).
    """
    values = np.asarray(values, np.float64)
    n = len(values)
    if n == 1:
        return values[0], np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    means = _samples(n, resamples, seed) @ values / n
    low, high = np.percentile(means, [TAIL, 100 - TAIL], axis=0)
    return values.mean(axis=0), low, high


def mean_interval(values: np.ndarray) -> Interval:
    """The mean of values (N,) or (N, R), R drawings of each of N people, with its 95 % interval over people."""
    values = np.asarray(values, np.float64)
    if values.size == 0:
        raise DataError("there is nobody to average over: use more people.")
    own = values.reshape(len(values), -1).mean(axis=1, keepdims=True)
    value, low, high = (float(x[0]) for x in over_people(own))
    return Interval(value, low, high, values.size, len(values))


@dataclass(frozen=True)
class Cmc:
    """rank-k for k = 1 … G: value, low, high (G,), with pointwise 95 % bands over people; n drawings of ``people``."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: int
    people: int

    def at(self, k: int) -> Interval:
        value, low, high = (float(x[k - 1]) for x in (self.value, self.low, self.high))
        return Interval(value, low, high, self.n, self.people)


def cmc(rank: np.ndarray, gallery: int, resamples: int = 2000, seed: int = 0) -> Cmc:
    """The CMC curve of ranks (N, R) among ``gallery`` people."""
    rank = np.asarray(rank)
    if rank.ndim != 2 or rank.size == 0 or rank.min() < 1 or rank.max() > gallery:
        raise DataError(f"ranks are an (N, R) array of numbers from 1 to {gallery}: compute them with cmc.ranks.")
    hits = (rank[..., None] <= np.arange(1, gallery + 1)).mean(axis=1)  # (N, G), each person's share
    value, low, high = over_people(hits, resamples, seed)
    return Cmc(value, low, high, rank.size, len(rank))


def chance(gallery: int) -> np.ndarray:
    """Guessing: rank-k is k / G, (G,)."""
    return np.arange(1, gallery + 1) / gallery


def fuse_embeddings(embedding: np.ndarray) -> np.ndarray:
    """(N, R, d) → (N, 1, d): the mean of a person's unit embeddings, again of unit length.

    With cosines, this orders people exactly as the mean of the drawings' scores does.
    """
    return unit(unit(np.asarray(embedding, np.float64)).mean(axis=1, keepdims=True))


def standardised(scores: np.ndarray) -> np.ndarray:
    """Scores (N, R, G), each drawing's with mean 0 and standard deviation 1 over the gallery.

    The z-norm of Jain, Nandakumar & Ross, "Score normalization in multimodal biometric systems", Pattern Recognition
    38(12), 2005.
    """
    scores = checked(scores)
    spread = np.maximum(scores.std(axis=2, keepdims=True), 1e-12)
    return (scores - scores.mean(axis=2, keepdims=True)) / spread


def fuse_scores(scores: np.ndarray) -> np.ndarray:
    """(N, R, G) → (N, 1, G): the mean over drawings of the :func:`standardised` scores.

    A drawing that resembles everybody counts as much as one that resembles few.
    """
    return standardised(scores).mean(axis=1, keepdims=True)


def fuse_ranks(scores: np.ndarray) -> np.ndarray:
    """(N, R, G) → (N, 1, G): minus the mean of each gallery person's ranks over the drawings (Borda count).

    Ties in a drawing share the worst rank; so do ties of the sum in :func:`ranks`.
    """
    return -all_ranks(scores).mean(axis=1, keepdims=True)


SCORE_FUSIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"scores (z-norm)": fuse_scores, "ranks": fuse_ranks}


def fused(embedding: np.ndarray, gallery: np.ndarray) -> dict[str, np.ndarray]:
    """{fusion: scores (N, 1, G)} of R drawings of each person, (N, R, d), against the gallery (G, d)."""
    scores = cosines(embedding, gallery)
    by_scores = {name: fuse(scores) for name, fuse in SCORE_FUSIONS.items()}
    return {"embeddings (mean)": cosines(fuse_embeddings(embedding), gallery)} | by_scores


def paired(one: np.ndarray, other: np.ndarray, k: int) -> Interval:
    """rank-k of ``other`` minus rank-k of ``one``, ranks (N, R) and (N, R′) of the same people in the same order.

    A method with several drawings counts as the mean over them: one drawing chosen at random.
    """
    one, other = np.asarray(one), np.asarray(other)
    if one.ndim != 2 or other.ndim != 2 or len(one) != len(other):
        raise DataError(f"ranks {one.shape} and {other.shape} are not of the same people: compare them on the same.")
    difference = (other <= k).mean(axis=1) - (one <= k).mean(axis=1)
    return mean_interval(difference)


def verdict(name: str, against: str, k: int, difference: Interval) -> str:
    """The paired difference in words; it is a real one only if the interval excludes zero."""
    d = difference
    people = f"n = {d.n_identities} people"
    if d.value == d.low == d.high == 0:
        return f"{name} leaves rank-{k} exactly as it is against {against}, {people}."
    moved = f"{name} {'lowers' if d.value < 0 else 'raises'} rank-{k} by {100 * abs(d.value):.1f} points "
    moved += f"[{100 * d.low:+.1f}, {100 * d.high:+.1f}] against {against}, {people}"
    if d.low > 0 or d.high < 0:
        return f"{moved}: {'better' if d.value > 0 else 'worse'}, beyond noise of people."
    return f"{moved}: no difference can be told from noise."
