"""Open-set identification: the person may not be in the gallery, and the answer may be "unknown".

The terms of ISO/IEC 19795-1 and of NIST's face recognition tests (FRTE 1:N, NIST IR 8271):

* mated search: the person is enrolled, the gallery contains another photo of them (their mate);
* non-mated search: they are not. Here: the same drawing, with the person's own photo removed from the gallery;
* a search returns the most similar people whose score is at least the threshold T, at most R of them;
* FPIR(N, T), false positive identification rate: the share of non-mated searches that return anybody;
* FNIR(N, R, T), false negative identification rate: the share of mated searches that do not return the mate;
* DET curve: FNIR over FPIR for all T. N is the number of people enrolled.

A rate of n searches cannot be told below about 3 / n (the "rule of 3" of ISO/IEC 19795-1): with 300, FPIR = 1 %.

Scores are calibrated to log-likelihood ratios (LLR, natural logarithm), fitted on other people, by logistic regression
or the pool-adjacent-violators algorithm (PAV), and judged by Cllr in bits (Brümmer & du Preez, "Application-independent
evaluation of speaker detection", Computer Speech & Language 20, 2006): 0 is perfect, 1 is a score without information.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression, minimize

from s2flib.errors import DataError
from s2flib.evaluation.cmc import checked, mean_interval, ranks
from s2flib.evaluation.intervals import TAIL, Interval

FPIRS = (0.01, 0.03, 0.1, 0.3)  # the fixed FPIRs that are reported
UNKNOWN = -1


@dataclass(frozen=True)
class Searches:
    """Each drawing's mated and non-mated search, (N, R): ``mate``, the mate's score; ``rank``, the mate's rank;
    ``top``, the highest score without the mate in the gallery of ``gallery`` people (non-mated: one fewer)."""

    mate: np.ndarray
    rank: np.ndarray
    top: np.ndarray
    gallery: int

    @property
    def people(self) -> np.ndarray:
        """(N · R,) the number of the person of each search."""
        return np.repeat(np.arange(len(self.mate)), self.mate.shape[1])

    def found(self, rank: int = 1) -> np.ndarray:
        """The mate's score where the mate is among the first ``rank``, else −∞: (N, R)."""
        return np.where(self.rank <= rank, self.mate, -np.inf)

    def fpir(self, threshold: float) -> Interval:
        """FPIR at this threshold, with its interval over people."""
        return mean_interval(self.top >= threshold)

    def fnir(self, threshold: float, rank: int = 1) -> Interval:
        """FNIR at this threshold among the first ``rank``, with its interval over people."""
        return mean_interval(self.found(rank) < threshold)

    def threshold(self, fpir: float) -> float:
        """The lowest threshold whose FPIR on these searches is at most ``fpir``."""
        if not 0 <= fpir < 1:
            raise DataError(f"the FPIR must be from 0 up to but not including 1, not {fpir}.")
        tops = np.sort(self.top.ravel())[::-1]
        return float(np.nextafter(tops[int(np.floor(fpir * len(tops) + 1e-9))], np.inf))

    def outcomes(self, threshold: float) -> dict[str, Interval]:
        """What an investigator gets, each as a share of its searches: the mate, somebody else, or "unknown" of mated
        searches; "unknown" or somebody of non-mated ones."""
        best = np.maximum(self.mate, self.top)
        mate = self.found() >= threshold
        unknown = best < threshold
        shares = {
            "mated: right": mate,
            "mated: wrong": ~mate & ~unknown,
            "mated: unknown": unknown,
            "non-mated: wrong": self.top >= threshold,
            "non-mated: unknown": self.top < threshold,
        }
        return {name: mean_interval(x) for name, x in shares.items()}


def searches(scores: np.ndarray) -> Searches:
    """Both searches of every drawing: scores (N, R, G), person i's mate in column i."""
    scores = checked(scores)
    if scores.shape[2] < 2:
        raise DataError("a non-mated search needs somebody else in the gallery: add at least one person.")
    n = np.arange(len(scores))
    mate = scores[n, :, n]  # (N, R)
    others = scores.copy()
    others[n, :, n] = -np.inf
    return Searches(mate, ranks(scores), others.max(axis=2), scores.shape[2])


def answers(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Scores (…, G) → the most similar person's column (…,), or UNKNOWN (−1) if no score reaches the threshold."""
    scores = np.asarray(scores)
    return np.where(scores.max(axis=-1) >= threshold, scores.argmax(axis=-1), UNKNOWN)


@dataclass(frozen=True)
class Det:
    """A DET curve: fnir, low, high (F,) at the FPIRs ``fpir`` (F,), with 95 % intervals over people."""

    fpir: np.ndarray
    fnir: np.ndarray
    low: np.ndarray
    high: np.ndarray


def det(found: Searches, fpir: np.ndarray | tuple = FPIRS, rank: int = 1, resamples: int = 1000, seed: int = 0) -> Det:
    """FNIR at fixed FPIRs, the threshold chosen on these same searches, as DET curves show it.

    In each bootstrap sample of people, the threshold is chosen again.
    """
    fpir = np.asarray(fpir, float)
    top, hit, people = found.top.ravel(), found.found(rank).ravel(), found.people
    by_top, by_hit = np.argsort(-top, kind="stable"), np.argsort(-hit, kind="stable")
    n = len(found.mate)

    def rates(weight: np.ndarray) -> np.ndarray:  # (N,) how often each person is in the sample
        above = np.cumsum(weight[people[by_top]])  # searches with this score or a higher one
        total = above[-1]
        # the first score at which the FPIR would be exceeded: the threshold is just above it
        first = np.searchsorted(above, fpir * total + 1e-9, side="right")
        limit = top[by_top][np.minimum(first, len(top) - 1)]
        passed = np.searchsorted(-hit[by_hit], -limit, side="left")  # found mates with a score above the limit
        return 1 - np.concatenate([[0], np.cumsum(weight[people[by_hit]])])[passed] / total

    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    low, high = np.percentile([rates(w) for w in drawn], [TAIL, 100 - TAIL], axis=0)
    return Det(fpir, rates(np.ones(n, int)), low, high)


@dataclass(frozen=True)
class Calibration:
    """Scores → log-likelihood ratios. Logistic: slope · score + offset; PAV: a rising step function (x, y)."""

    slope: float
    offset: float
    x: np.ndarray
    y: np.ndarray

    def __call__(self, score: np.ndarray) -> np.ndarray:
        score = np.asarray(score, np.float64)
        if len(self.x):
            return self.y[np.clip(np.searchsorted(self.x, score, side="right") - 1, 0, len(self.x) - 1)]
        return self.slope * score + self.offset


def pair_scores(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, R, G) → those of mated pairs (N · R,) and of all non-mated pairs."""
    scores = checked(scores)
    mated = np.zeros(scores.shape, bool)
    mated[np.arange(len(scores)), :, np.arange(len(scores))] = True
    return scores[mated], scores[~mated]


def fit_logistic(mated: np.ndarray, non_mated: np.ndarray) -> Calibration:
    """LLR = slope · score + offset by logistic regression in which both classes have the same weight.

    A ridge of 10⁻⁶ on the slope keeps it finite where the classes do not overlap.
    """
    score = np.concatenate([mated, non_mated]).astype(np.float64)
    if len(mated) == 0 or len(non_mated) == 0 or not np.isfinite(score).all():
        raise DataError("calibration needs finite scores of mated and of non-mated pairs: check the gallery.")
    centre, spread = score.mean(), max(float(score.std()), 1e-12)
    x = (score - centre) / spread
    sign = np.concatenate([np.ones(len(mated)), -np.ones(len(non_mated))])
    weight = np.concatenate([np.full(len(mated), 0.5 / len(mated)), np.full(len(non_mated), 0.5 / len(non_mated))])

    def loss(p: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (p[0] * x + p[1])
        slack = -weight * sign / (1 + np.exp(np.clip(margin, -50, 50)))
        value = float((weight * np.logaddexp(0, -margin)).sum() + 1e-6 * p[0] ** 2)
        return value, np.array([(slack * x).sum() + 2e-6 * p[0], slack.sum()])

    slope, offset = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    return Calibration(float(slope / spread), float(offset - slope * centre / spread), np.empty(0), np.empty(0))


def fit_pav(mated: np.ndarray, non_mated: np.ndarray) -> Calibration:
    """The rising step function of the score that fits best, by PAV; both classes have the same weight.

    One mated and one non-mated pair are added at each end, so that no LLR is infinite.
    """
    if len(mated) == 0 or len(non_mated) == 0:
        raise DataError("calibration needs scores of mated and of non-mated pairs: check the gallery.")
    score = np.concatenate([mated, non_mated]).astype(np.float64)
    label = np.concatenate([np.ones(len(mated)), np.zeros(len(non_mated))])
    order = np.lexsort((-label, score))  # at ties the mated come first and are pooled with the others
    low, high = score.min(), score.max()
    x = np.concatenate([[low, low], score[order], [high, high]])
    y = np.concatenate([[1, 0], label[order], [1, 0]])
    weight = np.where(y == 1, 0.5 / (len(mated) + 2), 0.5 / (len(non_mated) + 2))
    p = np.asarray(isotonic_regression(y, weights=weight).x)
    start = np.flatnonzero(np.diff(p, prepend=-1) > 0)  # one entry for each step
    steps = np.clip(p[start], 1e-12, 1 - 1e-12)
    return Calibration(np.nan, np.nan, x[start], np.log(steps / (1 - steps)))


def cllr(mated: np.ndarray, non_mated: np.ndarray) -> float:
    """Cllr in bits of the LLRs of mated and of non-mated pairs."""
    return float((np.logaddexp(0, -mated).mean() + np.logaddexp(0, non_mated).mean()) / 2 / np.log(2))
