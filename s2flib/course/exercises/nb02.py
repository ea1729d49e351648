"""Checks for the exercises of notebook 02_synthetic_people."""

from __future__ import annotations

import numpy as np

from s2flib.course.exercises import exercise, expect, expect_close
from s2flib.synthfaces.labels import LABEL


@exercise("02.morph")
def morph(student) -> str:
    """Learner's function: (vertices (V, 3), {name: (index (n,), offset (n, 3))}, {name: weight}) → vertices."""
    rng = np.random.default_rng(1)
    vertices = rng.normal(size=(9, 3))
    targets = {"a": (np.array([0, 4]), rng.normal(size=(2, 3))), "b": (np.array([4, 8, 2]), rng.normal(size=(3, 3)))}
    before = vertices.copy()
    out = student(vertices, targets, {"a": 0.5, "b": -1.0})
    expect(out is not None, "Return the new vertices.")
    truth = vertices.copy()
    for name, weight in (("a", 0.5), ("b", -1.0)):
        for i, offset in zip(*targets[name], strict=True):
            truth[i] += weight * offset
    expect(np.array_equal(vertices, before), "Your function modified its input vertices: work on a copy.")
    expect(np.shape(out) == (9, 3), "The result has the vertices' shape, (V, 3).")
    expect(not np.allclose(out, before), "Nothing moved: add weight * offset to the vertices that each target names.")
    hint = "Vertex 4 belongs to both targets: each adds weight * offset to the current position."
    expect_close(out, truth, hint, tolerance=1e-9)
    return "A face is a point in slider space, and morphing is linear: half the slider moves half the way."


@exercise("02.remember")
def remember(student) -> str:
    """Learner's function: (truth, mean, sigma, error, noise), arrays (N,) and error in [0, 1] → memory (N,)."""
    rng = np.random.default_rng(2)
    truth, mean, sigma, noise = rng.normal(size=(4, 50))
    sigma = np.abs(sigma)
    for error, want, hint in (
        (0.0, truth, "With error 0 the memory is perfect: x' = x."),
        (1.0, mean + sigma * noise, "With error 1 nothing of the truth is left: x' = μ + σ·n."),
        (
            0.6,
            mean + 0.8 * (truth - mean) + 0.6 * sigma * noise,
            "In between, weight the truth by √(1 − e²), not with 1 − e: this preserves the variance.",
        ),
    ):
        expect_close(student(truth, mean, sigma, error, noise), want, hint, tolerance=1e-9)
    return "The squared weights sum to one, so remembered faces vary as much as real ones."


@exercise("02.mirror")
def mirror(student) -> str:
    """Learner's function: label mask (H, W) → the mask of the mirrored face."""
    labels = np.zeros((4, 6), np.uint8)
    labels[1, 1], labels[1, 4], labels[3, 2:4] = LABEL["r_eye"], LABEL["l_eye"], LABEL["mouth"]
    labels[0, 0], labels[2, 5] = LABEL["r_brow"], LABEL["l_ear"]
    before = labels.copy()
    out = student(labels)
    expect(np.shape(out) == labels.shape, "The mirrored mask has the mask's shape.")
    expect(np.array_equal(labels, before), "Your function modified its input mask: work on a copy.")
    flipped = labels[:, ::-1]
    hint = "Flipped, but a left eye in a mirror is a right eye: swap the left and right labels too."
    expect(not np.array_equal(out, flipped), hint)
    truth = flipped.copy()
    for part in ("eye", "brow", "ear"):
        left, right = flipped == LABEL[f"l_{part}"], flipped == LABEL[f"r_{part}"]
        truth[left], truth[right] = LABEL[f"r_{part}"], LABEL[f"l_{part}"]
    hint = "Eyes, brows and ears have sides: swap l_ and r_ for all three, and flip along x."
    expect(np.array_equal(out, truth), hint)
    return "Without the swap, training with mirrored faces teaches a network that left is right."
