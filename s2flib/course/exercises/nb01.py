"""Checks for the exercises of notebook 01_sketches."""

from __future__ import annotations

import numpy as np

from s2flib.course.exercises import exercise, expect, expect_close


def _rng() -> np.random.Generator:
    return np.random.default_rng(20)


@exercise("01.direct")
def direct(student) -> str:
    """Learner's function: (g, blur_of_g) float arrays in [0,255] → dodged, without inverting anything."""
    g = _rng().uniform(0, 255, (9, 7))
    blur = np.full_like(g, 120.0) + _rng().uniform(-20, 20, g.shape)
    truth = np.minimum(256 * g / blur, 255)
    got = student(g.copy(), blur.copy())
    expect_close(got, truth, "divide 256·g by the blurred g, pixel by pixel, then clip to [0, 255].", 1e-6)
    black = student(np.zeros((2, 2)), np.zeros((2, 2)))
    expect(np.isfinite(black).all(), "a black image gives 0/0: clamp the divisor to at least 1, as in the lesson.")
    return "inverting twice cancels out: dodging divides each pixel by the mean of its neighbourhood."


@exercise("01.keep_only")
def keep_only(student) -> str:
    """Learner's function: (photo (H,W,3) uint8, mask (H,W), labels) → photo, white outside these labels."""
    photo = _rng().integers(0, 200, (6, 5, 3), dtype=np.uint8)
    mask = _rng().integers(0, 19, (6, 5), dtype=np.uint8)
    mask[0, :3] = (13, 1, 0)
    before = photo.copy()
    for labels in ((13,), (1, 2, 10), tuple(range(1, 19))):
        truth = before.copy()
        for y in range(6):
            for x in range(5):
                if int(mask[y, x]) not in labels:
                    truth[y, x] = 255
        got = student(photo, mask, labels)
        expect(np.array_equal(photo, before), "the photo itself was modified: work on a copy.")
        expect_close(got, truth, f"for labels {labels} every other pixel is white (255, 255, 255).", 0)
    return "a mask selects what is drawn; everything else is white paper."


@exercise("01.r2")
def r2(student) -> str:
    """Learner's function: (truth (N,K), guess (N,K)) → explained share of variance, one number."""
    truth = _rng().normal(3, 2, (50, 4))
    noisy = truth + _rng().normal(0, 0.7, truth.shape)
    mean = truth.mean(0)
    expect_close(student(truth, truth), 1.0, "a perfect guess explains everything: 1.", 1e-9)
    guess = np.broadcast_to(mean, truth.shape)
    expect_close(student(truth, guess), 0.0, "guessing each column's mean explains nothing: 0.", 1e-9)
    want = 1 - ((truth - noisy) ** 2).sum() / ((truth - mean) ** 2).sum()
    hint = "it is 1 − (sum of squared errors) / (sum of squares about the mean)."
    expect_close(student(truth, noisy), want, hint, 1e-9)
    return "0 means the sketch reveals nothing, 1 means it reveals everything. Now you can measure a leak."
