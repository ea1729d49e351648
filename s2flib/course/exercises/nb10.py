"""Checks for the exercises of notebook 10_lineup."""

from __future__ import annotations

import numpy as np

from s2flib.course.exercises import exercise, expect, expect_answer, expect_close, predicted


@exercise("10.prediction")
def prediction(student, measured) -> str:
    """Learner's function: () → "face" or "matcher"; measured: {"face": rank-1, "matcher": rank-1} of line drawings."""
    why = "A prediction written down first shows whether the result should surprise you."
    return f"{predicted(student, measured, digits=1)} {why}"


@exercise("10.rates")
def rates(student) -> str:
    """Learner's function: (mate (n,), rank (n,), top (n,), threshold) → (FPIR, FNIR)."""
    mate, rank = np.array([0.9, 0.8, 0.4, 0.7, 0.5]), np.array([1, 3, 1, 1, 1])
    top = np.array([0.3, 0.85, 0.6, 0.5, 0.2])
    for threshold, fpir, fnir in ((0.5, 0.6, 0.4), (0.75, 0.2, 0.8), (0.1, 1.0, 0.2)):
        got = student(mate, rank, top, threshold)
        expect(isinstance(got, tuple | list) and len(got) == 2, "return two numbers: FPIR, then FNIR.")
        expect(
            abs(float(got[0]) - (top > threshold).mean()) > 1e-9 or (top == threshold).sum() == 0,
            "a score that equals the threshold counts as reaching it: use >=.",
        )
        expect_close(
            got[0], fpir, "FPIR: the share of non-mated searches whose highest score, top, is ≥ threshold.", 1e-9
        )
        missed = (mate < threshold).mean()
        ranked = (rank > 1).mean() > 0 and abs(missed - fnir) > 1e-9
        hint = "a mate with a high score is still missed if somebody else ranks first: FNIR needs rank == 1 as well."
        expect(not (ranked and abs(float(got[1]) - missed) < 1e-9), hint)
        expect_close(
            got[1], fnir, "FNIR: the share of mated searches that do NOT (rank first and reach the threshold).", 1e-9
        )
    return "one threshold, two kinds of harm: an innocent person named (FPIR), the right one missed (FNIR)."


@exercise("10.tau")
def tau(student) -> str:
    """Learner's function: (own (n,) votes of the right people, coverage) → the conformal threshold τ."""
    own = np.random.default_rng(10).permutation(np.arange(1, 80) / 100)  # 79 votes, 0.01 … 0.79
    got = student(own, 0.95)
    expect_answer(got)
    expect(abs(float(got) - np.quantile(own, 0.05)) > 1e-9, "np.quantile interpolates: take an order statistic.")
    expect(
        abs(float(got) - 0.05) > 1e-9, "that is one too far: sorted(own)[0] is the first smallest, not sorted(own)[1]."
    )
    expect_close(got, 0.04, "sort own and take the floor((1 − coverage) · (n + 1))-th smallest; here the 4th.", 1e-9)
    expect_close(
        student(own, 0.5), 0.4, "with another coverage, another order statistic: here the 40th smallest.", 1e-9
    )
    hint = "with ten drawings no vote is low enough: the 0-th smallest does not exist, and τ = 0 keeps everybody."
    expect_close(student(own[:10], 0.95), 0.0, hint, 1e-9)
    return "nothing about the network entered the proof: a bad one gets large sets, never a false promise."


@exercise("10.fuse")
def fuse(student) -> str:
    """Learner's function: embeddings (R, d) of one person's drawings → their fused embedding (d,) of length 1."""
    e = np.array([[3.0, 0, 0], [0, 0.5, 0], [0, 0, -1.0], [0.2, 0.2, 0]])
    unit = e / np.linalg.norm(e, axis=1, keepdims=True)
    truth = unit.mean(axis=0) / np.linalg.norm(unit.mean(axis=0))
    got = student(e.copy())
    expect_answer(got)
    raw = e.mean(axis=0) / np.linalg.norm(e.mean(axis=0))
    expect(np.shape(got) == (3,), f"the shape is {np.shape(got)}, it should be (d,) = (3,): average over the drawings.")
    expect(not np.allclose(got, raw), "long embeddings dominate: give each drawing length 1 before averaging.")
    expect(abs(np.linalg.norm(got) - 1) < 1e-6, "the mean is shorter than 1: divide it by its length.")
    expect_close(got, truth, "scale each row to length 1, average the rows, scale the mean to length 1.", 1e-6)
    return "errors of different artists or witnesses partly cancel; what they share, right or wrong, stays."
