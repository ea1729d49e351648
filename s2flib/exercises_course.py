"""Checkers of the exercises in notebooks 00, 01, 06, 07. Truths are computed here, not taken from s2flib."""

from __future__ import annotations

import numpy as np
import torch

from s2flib.exercises import exercise, expect, expect_close


def _rng() -> np.random.Generator:
    return np.random.default_rng(20)


# --- 00_quickstart ------------------------------------------------------------------------------------


@exercise("00.n_styles")
def n_styles(student) -> str:
    """Learner's function: size (int, a power of two) → rows of a W+ code."""
    for size, truth in ((128, 12), (256, 14), (1024, 18), (4, 2)):
        got = student(size)
        expect(got is not None, "the function returned None: did you forget 'return'?")
        expect(
            got == truth,
            f"for {size} px it gives {got}, StyleGAN2 takes {truth}: the first resolution is 4 px, "
            "and every resolution from there on takes two styles.",
        )
        expect(
            isinstance(got, int), f"{got!r} is right, but return a whole number (int): it will be a shape."
        )
    return "two styles per resolution, from 4 px up. At the paper's 1024 px a face is 18 × 512 numbers."


@exercise("00.mix")
def mix(student) -> str:
    """Learner's function: (w_a (n,D), w_b (n,D), start) → rows below start from a, the others from b."""
    a, b = torch.arange(12.0).reshape(4, 3), -torch.arange(12.0).reshape(4, 3) - 1
    keep_a, keep_b = a.clone(), b.clone()
    for start in (0, 1, 3, 4):
        truth = torch.cat([keep_a[:start], keep_b[start:]])
        got = student(a, b, start)
        expect(
            torch.equal(a, keep_a) and torch.equal(b, keep_b),
            "the inputs have changed: work on a copy (.clone()).",
        )
        expect_close(
            got, truth, f"with start={start} rows 0 to {start - 1} come from w_a, all others from w_b."
        )
    return "style mixing in one line. Coarse rows carry pose and shape, fine rows carry colours."


# --- 01_sketches --------------------------------------------------------------------------------------


@exercise("01.direct")
def direct(student) -> str:
    """Learner's function: (g, blur_of_g) float arrays in [0,255] → dodged, without inverting anything."""
    g = _rng().uniform(0, 255, (9, 7))
    blur = np.full_like(g, 120.0) + _rng().uniform(-20, 20, g.shape)
    truth = np.minimum(256 * g / blur, 255)
    got = student(g.copy(), blur.copy())
    expect_close(got, truth, "divide 256·g by the blurred g, pixel by pixel, then clip to [0, 255].", 1e-6)
    black = student(np.zeros((2, 2)), np.zeros((2, 2)))
    expect(
        np.isfinite(black).all(),
        "a black picture gives 0/0: keep the divisor at 1 or more, as the lesson does.",
    )
    return "inverting twice cancels: the dodge is each pixel divided by the mean of its surroundings."


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
        expect(np.array_equal(photo, before), "the photo itself has changed: work on a copy.")
        expect_close(got, truth, f"for labels {labels} every other pixel is white (255, 255, 255).", 0)
    return "a mask chooses what gets drawn, and white paper is everything else."


@exercise("01.r2")
def r2(student) -> str:
    """Learner's function: (truth (N,K), guess (N,K)) → explained share of variance, one number."""
    truth = _rng().normal(3, 2, (50, 4))
    noisy = truth + _rng().normal(0, 0.7, truth.shape)
    mean = truth.mean(0)
    total = ((truth - mean) ** 2).sum()
    expect_close(student(truth, truth), 1.0, "a perfect guess explains everything: 1.", 1e-9)
    expect_close(
        student(truth, np.broadcast_to(mean, truth.shape)),
        0.0,
        "guessing each column's mean explains nothing: 0.",
        1e-9,
    )
    want = 1 - ((truth - noisy) ** 2).sum() / total
    expect_close(
        student(truth, noisy),
        want,
        "it is 1 − (sum of squared errors) / (sum of squares about the mean).",
        1e-9,
    )
    return "0: the sketch tells nothing; 1: it tells all. Now you can measure a leak."


# --- 06_training_psp ----------------------------------------------------------------------------------


@exercise("06.trainable")
def trainable(student) -> str:
    """Learner's function: nn.Module → number of numbers an optimiser may change."""
    net = torch.nn.Sequential(
        torch.nn.Linear(7, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 3, bias=False)
    )
    net[0].requires_grad_(False)
    got = student(net)
    expect(got is not None, "the function returned None: did you forget 'return'?")
    expect(got != 65, "these are all parameters: leave out those with requires_grad False, the frozen ones.")
    expect(got != 25 + 11, "buffers (running means) are not parameters: no optimiser changes them.")
    expect(got == 25, f"it gives {got}; the test net has 25: 5 + 5 (batch norm) + 15 (last layer).")
    return "frozen means requires_grad is False. Gradients still pass through, and the weights stay put."


@exercise("06.reg")
def reg(student) -> str:
    """Learner's function: (w (B,n,D), w_avg (n,D)) → mean over the batch of ‖w − w̄‖, one number."""
    generator = torch.Generator().manual_seed(3)
    w, average = torch.randn(5, 4, 6, generator=generator), torch.randn(4, 6, generator=generator)
    difference = (w - average).numpy().astype(np.float64)
    norms = np.sqrt((difference**2).sum((1, 2)))
    got = student(w, average)
    if got is not None and np.size(np.asarray(got)) == 1:
        expect(
            abs(float(got) - (norms**2).mean()) > 1e-3, "that is the squared norm: take the root, per face."
        )
        by_style = np.sqrt((difference**2).sum(2)).mean()
        expect(
            abs(float(got) - by_style) > 1e-4, "one norm per face, over all its styles, not one per style."
        )
    expect_close(
        got, norms.mean(), "flatten each face's code, take its length, then the mean over faces.", 1e-4
    )
    return "the regulariser pulls every face towards the average one; λ_reg says how hard."


@exercise("06.split")
def split(student) -> str:
    """Learner's function: identity (int) → "train" | "val" | "test"."""
    for identity in range(200):
        truth = {8: "val", 9: "test"}.get(identity % 10, "train")
        got = student(identity)
        expect(got is not None, "the function returned None: did you forget 'return'?")
        expect(
            got == truth,
            f"identity {identity} should be in {truth!r}, not {got!r}: its last digit decides (8: val, 9: test).",
        )
    return "by person, never by picture: otherwise the test asks for faces that training has seen."


# --- 07_lambda4 ---------------------------------------------------------------------------------------


@exercise("07.paired")
def paired(student) -> str:
    """Learner's function: (a (N,), b (N,)) → (mean difference b − a, standard error of it), paired."""
    a = _rng().normal(0.3, 0.1, 40)
    b = a + np.random.default_rng(4).normal(-0.01, 0.005, 40)
    d = b - a
    got = student(a, b)
    expect(
        isinstance(got, tuple | list) and len(got) == 2,
        "return two numbers: the mean and its standard error.",
    )
    expect_close(got[0], d.mean(), "the first number is the mean of b − a, image by image.", 1e-9)
    unpaired = np.sqrt(a.var(ddof=1) / 40 + b.var(ddof=1) / 40)
    expect(
        abs(float(got[1]) - unpaired) > 1e-6,
        "that is the unpaired error: take the spread of the differences, where hard faces cancel.",
    )
    expect(
        abs(float(got[1]) - d.std(ddof=1)) > 1e-9,
        "that is the spread of single differences: divide by √n for the mean.",
    )
    expect_close(
        got[1],
        d.std(ddof=1) / np.sqrt(40),
        "it is the standard deviation of the differences (ddof=1) over √n.",
        1e-9,
    )
    return (
        "pairing took the faces' own difficulty out, and the error shrank by a factor of about twenty-five."
    )


@exercise("07.rank1")
def rank1(student) -> str:
    """Learner's function: (similarity (P,G), probe ids (P,), gallery ids (G,)) → share of rank-1 hits."""
    similarity = np.array([[0.9, 0.1, 0.2], [0.3, 0.2, 0.8], [0.5, 0.6, 0.1], [0.4, 0.1, 0.3]])
    gallery = np.array([7, 8, 9])
    got = student(similarity, np.array([7, 9, 7, 9]), gallery)
    expect_close(
        got, 0.5, "probe by probe: is the id of the most similar gallery photo the probe's own?", 1e-9
    )
    got = student(-similarity, np.array([8, 8, 9, 8]), gallery)
    expect_close(got, 1.0, "argmax along the gallery (axis 1), then compare ids, then the mean.", 1e-9)
    return "rank-1 is that simple; rank-k asks whether the right person is among the k most similar."


@exercise("07.seeds")
def seeds(student) -> str:
    """Learner's function: (effect, sd_between_seeds) → runs per arm for a 95 % interval of ± effect."""
    for effect, sd in ((0.0005, 0.002), (0.01, 0.002), (0.001, 0.001)):
        truth = max(2, int(np.ceil(2 * (1.96 * sd / effect) ** 2)))
        got = student(effect, sd)
        expect(got is not None, "the function returned None: did you forget 'return'?")
        expect(
            int(got) == truth,
            f"for an effect of {effect} and a spread of {sd} it gives {got}, expected {truth}: solve "
            "1.96·sd·√(2/n) ≤ effect for n, round up, and never below 2.",
        )
    return (
        "an effect of 0.0005 among runs that differ by 0.002 needs 123 runs of each. Table 1 had one."
    )
