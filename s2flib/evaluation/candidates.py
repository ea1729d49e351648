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
from s2flib.evaluation.cmc import checked, cosines, mean_interval
from s2flib.evaluation.intervals import LEVEL, Interval

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
    k = int(np.floor((1 - coverage) * (len(own) + 1) + 1e-9))
    return 0.0 if k == 0 else float(np.sort(own)[k - 1])


def candidate_sets(shares: np.ndarray, threshold: float) -> np.ndarray:
    """Votes (n, G) → who is in each drawing's set, (n, G) bool."""
    return np.asarray(shares) >= threshold


def exact_interval(hits: int, n: int) -> Interval:
    """A share of n independent drawings with its exact 95 % interval (Clopper & Pearson 1934)."""
    found = stats.binomtest(hits, n).proportion_ci(LEVEL, method="exact")
    return Interval(hits / n, float(found.low), float(found.high), n, n)


def coverage_range(calibration: int, test: int, coverage: float = COVERAGE) -> tuple[float, float]:
    """Between which shares the coverage of ``test`` drawings lies in 95 of 100 repetitions, if they are exchangeable.

    Given the calibration drawings, the coverage is Beta(n + 1 − k, k); the count on test is then beta-binomial.
    """
    k = int(np.floor((1 - coverage) * (calibration + 1) + 1e-9))
    if k == 0:
        return 1.0, 1.0
    law = stats.betabinom(test, calibration + 1 - k, k)
    tail = (1 - LEVEL) / 2
    return float(law.ppf(tail)) / test, float(law.ppf(1 - tail)) / test


@dataclass(frozen=True)
class CandidateSets:
    """The sets of n test drawings, one of each person: covered (n,) bool, size (n,) people, and their origin."""

    covered: np.ndarray
    size: np.ndarray
    gallery: int
    threshold: float
    calibration: int  # drawings

    @property
    def coverage(self) -> Interval:
        return exact_interval(int(self.covered.sum()), len(self.covered))

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
        return coverage_range(self.calibration, len(self.covered))

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
    own = calibration[np.arange(len(calibration)), np.arange(len(calibration))]
    threshold = conformal_threshold(own, coverage)
    inside = candidate_sets(test, threshold)
    rows = np.arange(len(test))
    return CandidateSets(inside[rows, rows], inside.sum(axis=1), test.shape[1], threshold, len(own))


def fixed_lists(calibration: np.ndarray, test: np.ndarray, coverage: float = COVERAGE) -> CandidateSets:
    """For comparison: the same number of people for every drawing, calibrated in the same way on ranks."""

    def place(shares: np.ndarray) -> np.ndarray:  # minus each person's rank, ties sharing the worst
        return -(shares[:, None, :] >= shares[:, :, None]).sum(axis=2)

    own = np.diagonal(place(calibration)).astype(float)
    k = int(np.floor((1 - coverage) * (len(own) + 1) + 1e-9))
    threshold = -float(test.shape[1]) if k == 0 else conformal_threshold(own, coverage)
    inside = place(test) >= threshold
    rows = np.arange(len(test))
    return CandidateSets(inside[rows, rows], inside.sum(axis=1), test.shape[1], threshold, len(own))
