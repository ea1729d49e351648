"""Checks for the exercises of notebook 07_lambda4."""

from __future__ import annotations

import numpy as np

from s2flib.course.exercises import exercise, expect, expect_answer, expect_close


@exercise("07.paired")
def paired(student) -> str:
    """Learner's function: (a (N,), b (N,)) → (mean difference b − a, standard error of it), paired."""
    a = np.random.default_rng(20).normal(0.3, 0.1, 40)
    b = a + np.random.default_rng(4).normal(-0.01, 0.005, 40)
    d = b - a
    got = student(a, b)
    is_pair = isinstance(got, tuple | list) and len(got) == 2
    expect(is_pair, "return two numbers: the mean and its standard error.")
    expect_close(got[0], d.mean(), "the first number is the mean of b − a, image by image.", 1e-9)
    unpaired = np.sqrt(a.var(ddof=1) / 40 + b.var(ddof=1) / 40)
    hint = "that is the unpaired error: use the spread of the differences, in which hard faces cancel out."
    expect(abs(float(got[1]) - unpaired) > 1e-6, hint)
    hint = "that is the spread of single differences: divide by √n for the mean."
    expect(abs(float(got[1]) - d.std(ddof=1)) > 1e-9, hint)
    hint = "it is the standard deviation of the differences (ddof=1) over √n."
    expect_close(got[1], d.std(ddof=1) / np.sqrt(40), hint, 1e-9)
    return "pairing removes how hard each face is, and the error shrinks by a factor of about twenty-five."


@exercise("07.rank1")
def rank1(student) -> str:
    """Learner's function: (similarity (P,G), probe ids (P,), gallery ids (G,)) → share of rank-1 hits."""
    similarity = np.array([[0.9, 0.1, 0.2], [0.3, 0.2, 0.8], [0.5, 0.6, 0.1], [0.4, 0.1, 0.3]])
    gallery = np.array([7, 8, 9])
    got = student(similarity, np.array([7, 9, 7, 9]), gallery)
    expect_close(got, 0.5, "for each probe: is the id of the most similar gallery photo the probe's own?", 1e-9)
    got = student(-similarity, np.array([8, 8, 9, 8]), gallery)
    expect_close(got, 1.0, "argmax along the gallery (axis 1), then compare ids, then the mean.", 1e-9)
    return "rank-1 is that simple; rank-k asks whether the right person is among the k most similar."


@exercise("07.seeds")
def seeds(student) -> str:
    """Learner's function: (effect, sd_between_seeds) → runs per arm for a 95 % interval of ± effect."""
    for effect, sd in ((0.0005, 0.002), (0.01, 0.002), (0.001, 0.001)):
        truth = max(2, int(np.ceil(2 * (1.96 * sd / effect) ** 2)))
        got = student(effect, sd)
        expect_answer(got)
        expect(
            int(got) == truth,
            f"for an effect of {effect} and a spread of {sd} it gives {got}, expected {truth}: solve "
            "1.96·sd·√(2/n) ≤ effect for n, round up, and use at least 2.",
        )
    return "an effect of 0.0005 among runs that differ by 0.002 needs 123 runs of each. Table 1 had one."
