"""Checkers of notebook 02's exercises; importing this module registers them."""

from __future__ import annotations

import numpy as np

from s2flib.exercises import exercise, expect, expect_close
from s2flib.synthfaces.labels import LABEL


@exercise("02.morph")
def morph(student) -> str:
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
    expect(np.array_equal(vertices, before), "Your function changed the vertices it was given: work on a copy.")
    expect(np.shape(out) == (9, 3), "The result has the vertices' shape, (V, 3).")
    expect(not np.allclose(out, before), "Nothing moved: add weight * offset to the vertices that each target names.")
    expect_close(out, truth, "Vertex 4 belongs to both targets: each adds weight * offset to what is there already.",
                 tolerance=1e-9)
    return "Right. A face is a point in slider space, and morphing is linear: half the slider is half the way."


@exercise("02.remember")
def remember(student) -> str:
    rng = np.random.default_rng(2)
    truth, mean, sigma, noise = rng.normal(size=(4, 50))
    sigma = np.abs(sigma)
    expect_close(student(truth, mean, sigma, 0.0, noise), truth, "With error 0 the memory is perfect: x' = x.",
                 tolerance=1e-9)
    expect_close(student(truth, mean, sigma, 1.0, noise), mean + sigma * noise,
                 "With error 1 nothing of the truth is left: x' = μ + σ·n.", tolerance=1e-9)
    expect_close(student(truth, mean, sigma, 0.6, noise), mean + 0.8 * (truth - mean) + 0.6 * sigma * noise,
                 "Between, the truth is weighted with √(1 − e²), not with 1 − e: only so does the variance stay.",
                 tolerance=1e-9)
    return "Right. Squared weights sum to one, so remembered faces vary as much as true ones."


@exercise("02.mirror")
def mirror(student) -> str:
    labels = np.zeros((4, 6), np.uint8)
    labels[1, 1], labels[1, 4], labels[3, 2:4] = LABEL["r_eye"], LABEL["l_eye"], LABEL["mouth"]
    labels[0, 0], labels[2, 5] = LABEL["r_brow"], LABEL["l_ear"]
    before = labels.copy()
    out = student(labels)
    expect(np.shape(out) == labels.shape, "The mirrored mask has the mask's shape.")
    expect(np.array_equal(labels, before), "Your function changed the mask it was given: work on a copy.")
    expect(not np.array_equal(out, labels[:, ::-1]),
           "Flipped, but a left eye in a mirror is a right eye: swap the labels of left and right too.")
    truth = labels[:, ::-1].copy()
    for part in ("eye", "brow", "ear"):
        left, right = truth == LABEL[f"l_{part}"], truth == LABEL[f"r_{part}"]
        truth[left], truth[right] = LABEL[f"r_{part}"], LABEL[f"l_{part}"]
    expect(np.array_equal(out, truth),
           "Eyes, brows and ears have sides: swap l_ and r_ of all three, and flip along x.")
    return "Right. Forget the swap, and training with mirrored faces teaches a network that left is right."
