"""Candidate sets: this drawing narrows the gallery to N people, and the right one is among them 95 times in 100.

The variants of a drawing are a distribution over faces. Each variant spreads one vote over the gallery by the softmax
of slope · cosine, with the slope of the greatest likelihood on other people (:func:`fit_slope`); a person's votes are
the mean over the variants. Split conformal prediction (Vovk, Gammerman & Shafer 2005; the score of Sadinle, Lei &
Wasserman 2019, arXiv:1609.00451) then keeps everybody with at least τ votes: with n calibration drawings, τ is the
⌊0.05 (n + 1)⌋-th smallest vote that a right person got. If test and calibration drawings are exchangeable, the set
contains the right person with a probability of at least 95 %, however bad the scores are. If they are not (a witness
who remembers worse than those of the calibration), nothing is guaranteed.

A set of everybody is a valid answer: it says that the drawing narrows nothing down. With n < 19 it is the only one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from s2flib.errors import DataError
from s2flib.evaluation.cmc import all_ranks, checked, cosines, mean_interval
from s2flib.evaluation.intervals import LEVEL, TAIL, Interval

COVERAGE = 0.95


def votes(variants: np.ndarray, gallery: np.ndarray, slope: float) -> np.ndarray:
    """Each person's share of the variants' votes: variants (n, K, d), gallery (G, d) → (n, G), whose rows sum to 1."""
    if variants.ndim != 3 or 0 in variants.shape:
        raise DataError(f"variants are (drawings, variants, d), not {variants.shape}: embed at least one of each.")
    if not np.isfinite(slope) or slope <= 0:
        raise DataError(f"the slope must be a number above 0, not {slope}: the scores do not tell people apart.")
    logits = slope * cosines(variants, gallery)  # (n, K, G)
    odds = np.exp(logits - logits.max(axis=2, keepdims=True))
    return (odds / odds.sum(axis=2, keepdims=True)).mean(axis=1)


def fit_slope(scores: np.ndarray, truth: np.ndarray) -> float:
    """The slope under which softmax(slope · scores) gives the right people the greatest likelihood.

    scores (n, R, G): cosines of R drawings of n people; truth (n,): their columns. From 0.1 to 300.
    """
    scores = checked(scores)
    own = np.take_along_axis(scores, np.asarray(truth)[:, None, None], axis=2)
    ahead = scores - own  # (n, R, G), 0 for the right person

    def loss(log_slope: float) -> float:
        return float(np.mean(logsumexp(np.exp(log_slope) * ahead, axis=2)))  # minus the mean log share

    best: Any = minimize_scalar(loss, bounds=(np.log(0.1), np.log(300)), method="bounded")
    return float(np.exp(best.x))


def conformal_threshold(own: np.ndarray, coverage: float = COVERAGE) -> float:
    """τ for the votes (n,) that the right people of the calibration drawings got; 0, which keeps everybody, if n is too
    small for a lower bound of this coverage."""
    own = np.asarray(own, np.float64)
    if own.ndim != 1 or len(own) == 0 or not np.isfinite(own).all():
        raise DataError("calibration needs the right person's finite score for each drawing: check the network.")
    if not 0 < coverage < 1:
        raise DataError(f"the coverage must be between 0 and 1, not {coverage}.")
    k = _rank_of_threshold(len(own), coverage)
    return 0.0 if k == 0 else float(np.sort(own)[k - 1])


def candidate_sets(shares: np.ndarray, threshold: float) -> np.ndarray:
    """Votes (n, G) → who is in each drawing's set, (n, G) bool."""
    return np.asarray(shares) >= threshold


def _rank_of_threshold(n: int, coverage: float) -> int:
    """k of the k-th smallest of n calibration scores; 0: n is too small."""
    return int(np.floor((1 - coverage) * (n + 1) + 1e-9))


def coverage_interval(calibration: np.ndarray, test: np.ndarray, coverage: float = COVERAGE, seed: int = 0) -> Interval:
    """The share of the right people's test scores (n,) that reach the threshold of calibration scores (m,).

    Its 95 % bootstrap interval resamples the people of both: with few of either, a set's coverage is uncertain.
    """
    calibration, test = np.asarray(calibration, float), np.asarray(test, float)
    k, m, n = _rank_of_threshold(len(calibration), coverage), len(calibration), len(test)
    if k == 0:
        return Interval(1.0, 1.0, 1.0, n, n)
    rng = np.random.default_rng(seed)
    thresholds = np.sort(rng.choice(calibration, (2000, m)), axis=1)[:, k - 1]  # (2000,)
    shares = (rng.choice(test, (2000, n)) >= thresholds[:, None]).mean(axis=1)
    low, high = np.percentile(shares, [TAIL, 100 - TAIL])
    return Interval(float((test >= np.sort(calibration)[k - 1]).mean()), float(low), float(high), n, n)


def coverage_range(calibration: int, test: int, coverage: float = COVERAGE) -> tuple[float, float]:
    """Between which shares the coverage of ``test`` drawings lies in 95 of 100 repetitions, if they are exchangeable.

    Given the calibration drawings, the coverage is Beta(n + 1 − k, k); the count on test is then beta-binomial.
    """
    k = _rank_of_threshold(calibration, coverage)
    if k == 0:
        return 1.0, 1.0
    law = stats.betabinom(test, calibration + 1 - k, k)
    tail = (1 - LEVEL) / 2
    return float(law.ppf(tail)) / test, float(law.ppf(1 - tail)) / test


@dataclass(frozen=True)
class CandidateSets:
    """The sets of n test drawings, one of each person: covered (n,) bool, size (n,) people, and their origin.

    own: the right people's scores, (m,) of the calibration drawings and (n,) of the test drawings.
    """

    covered: np.ndarray
    size: np.ndarray
    gallery: int
    threshold: float
    own: tuple[np.ndarray, np.ndarray]

    @property
    def coverage(self) -> Interval:
        """See :func:`coverage_interval`."""
        return coverage_interval(*self.own)

    @property
    def mean_size(self) -> Interval:
        return mean_interval(self.size)

    @property
    def shuffled(self) -> Interval:
        """The control: how often a random person of the gallery is in the set; the mean size as a share."""
        return mean_interval(self.size / self.gallery)

    @property
    def expected(self) -> tuple[float, float]:
        """:func:`coverage_range` for these numbers of drawings."""
        return coverage_range(len(self.own[0]), len(self.own[1]))

    def sentence(self, kind: str) -> str:
        c, s = self.coverage, self.mean_size
        return (
            f"{kind}: narrows {self.gallery} people to {s.value:.0f} [{s.low:.0f}, {s.high:.0f}] on average (median "
            f"{np.median(self.size):.0f}, all {self.gallery} for {100 * (self.size == self.gallery).mean():.0f} %), "
            f"and holds the right one in {100 * c.value:.0f} % [{100 * c.low:.0f}, {100 * c.high:.0f}]"
        )


def calibrated_sets(calibration: np.ndarray, test: np.ndarray, coverage: float = COVERAGE) -> CandidateSets:
    """Sets of the test drawings' votes (n, G), with τ from the calibration drawings' votes (m, G′); in both, row i is a
    drawing of the gallery's person i."""
    own = np.diagonal(calibration).copy(), np.diagonal(test).copy()
    threshold = conformal_threshold(own[0], coverage)
    inside = candidate_sets(test, threshold)
    return CandidateSets(np.diagonal(inside), inside.sum(axis=1), test.shape[1], threshold, own)


def fixed_lists(calibration: np.ndarray, test: np.ndarray, coverage: float = COVERAGE) -> CandidateSets:
    """For comparison: the same number of people for every drawing, calibrated in the same way on ranks."""
    places = [-all_ranks(shares[:, None])[:, 0].astype(float) for shares in (calibration, test)]
    own = np.diagonal(places[0]).copy(), np.diagonal(places[1]).copy()
    everybody = _rank_of_threshold(len(own[0]), coverage) == 0
    threshold = -float(test.shape[1]) if everybody else conformal_threshold(own[0], coverage)
    inside = places[1] >= threshold
    return CandidateSets(np.diagonal(inside), inside.sum(axis=1), test.shape[1], threshold, own)
