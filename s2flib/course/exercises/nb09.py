"""Checks for the exercises of notebook 09_real_sketches."""

from __future__ import annotations

import numpy as np

from s2flib.course.exercises import exercise, expect, expect_answer, expect_close, seeded


@exercise("09.prediction")
def prediction(student, measured) -> str:
    """Learner's function: () → the region that varies most; measured: {region: variation}."""
    got = student()
    expect_answer(got)
    expect(got in measured, f"{got!r} is no region: choose one of {', '.join(measured)}.")
    order = sorted(measured, key=lambda region: -measured[region])
    place = order.index(got) + 1
    said = "you were right" if place == 1 else f"it is {order[0]}; yours comes {place} of {len(order)}"
    return f"{said}. A prediction that turned out wrong has told you more than a figure that you only looked at."


@exercise("09.alike")
def alike(student) -> str:
    """Learner's function: embeddings (K, d) of length 1 → mean cosine of two different ones."""
    import torch

    e = torch.nn.functional.normalize(torch.randn(6, 8, generator=seeded(3), dtype=torch.float64), dim=1)
    pairs = [float(e[i] @ e[j]) for i in range(6) for j in range(6) if i != j]
    got = student(e)
    hint = "each face is also compared with itself (similarity 1): leave the diagonal out."
    expect_answer(got)
    expect(abs(float(got) - float((e @ e.T).mean())) > 1e-9, hint)
    expect_close(got, np.mean(pairs), "it is the mean of e[i] · e[j] over all i ≠ j.", 1e-9)
    return "1 would mean one and the same person in every variant; two strangers have about 0."


@exercise("09.obeys")
def obeys(student) -> str:
    """Learner's function: (a (H, W), b (H, W), inside (H, W) bool) → correlation of a and b inside."""
    rng = np.random.default_rng(5)
    a, noise = rng.normal(size=(2, 20, 20))
    inside = rng.random((20, 20)) < 0.4
    b = np.where(inside, 0.8 * a + 0.3 * noise, 5.0)
    expected = np.corrcoef(a[inside], b[inside])[0, 1]
    got = student(a, b, inside)
    expect_answer(got)
    hint = "the pixels outside the person count, too: use a[inside] and b[inside] only."
    expect(abs(float(got) - np.corrcoef(a.ravel(), b.ravel())[0, 1]) > 1e-9, hint)
    expect_close(got, expected, "subtract both means, then divide Σab by √(Σa² Σb²).", 1e-9)
    expect_close(student(3 * a + 7, b, inside), expected, "contrast and brightness must not matter.", 1e-9)
    return "a darker pencil changes nothing, another line does."
