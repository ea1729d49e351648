"""Checks for the exercises of notebook 08_instructpix2pix."""

from __future__ import annotations

import math

import torch

from s2flib.course.exercises import exercise, expect, expect_close, seeded


@exercise("08.noise")
def noise(student) -> str:
    """Learner's function: (z0 (B, C, h, w), ε, ᾱ (B,)) → z_t."""
    z0, eps = torch.randn(3, 4, 5, 5, generator=seeded(80)), torch.randn(3, 4, 5, 5, generator=seeded(81))
    bar = torch.tensor([0.99, 0.36, 0.0])
    got = student(z0.clone(), eps.clone(), bar.clone())
    a = bar.view(3, 1, 1, 1)
    if isinstance(got, torch.Tensor) and got.shape == z0.shape:
        hint = "the square roots are missing: with them the variance stays 1 at every time."
        expect(not torch.allclose(got, a * z0 + (1 - a) * eps, atol=1e-4), hint)
        hint = "signal and noise have changed places: ᾱ = 1 is the clean image."
        expect(not torch.allclose(got, (1 - a).sqrt() * z0 + a.sqrt() * eps, atol=1e-4), hint)
    truth = torch.stack(
        [math.sqrt(b) * z + math.sqrt(1 - b) * e for b, z, e in zip(bar.tolist(), z0, eps, strict=True)]
    )
    expect_close(got, truth, "z_t = √ᾱ z₀ + √(1 − ᾱ) ε, with ᾱ (B,) reshaped to (B, 1, 1, 1) first.")
    return "any time in one step: training never has to simulate the earlier times."


@exercise("08.guidance")
def guidance(student) -> str:
    """Learner's function: (neither, picture, both, s_i, s_t) → the guided prediction (Eq. 3)."""
    neither, picture, both = (torch.randn(2, 4, 3, 3, generator=seeded(82 + k)) for k in range(3))
    for s_i, s_t in ((1.5, 7.5), (1.0, 3.0), (1.0, 1.0)):
        got = student(neither.clone(), picture.clone(), both.clone(), s_i, s_t)
        truth = (1 - s_i) * neither + (s_i - s_t) * picture + s_t * both
        if isinstance(got, torch.Tensor) and got.shape == truth.shape:
            swapped = neither + s_t * (picture - neither) + s_i * (both - picture)
            hint = "the scales have changed places: s_I weights what the image adds, s_T what the text adds to it."
            expect(s_i == s_t or not torch.allclose(got, swapped, atol=1e-4), hint)
            two = neither + s_i * (picture - neither) + s_t * (both - neither)
            hint = "the text direction starts from the prediction with the image, not from the one with neither."
            expect(not torch.allclose(got, two, atol=1e-4), hint)
        formula = "neither + s_I (picture − neither) + s_T (both − picture)"
        expect_close(got, truth, f"at s_I = {s_i}, s_T = {s_t}: {formula}.")
    return "at s_I = s_T = 1 the two null predictions cancel and plain conditional sampling is left."


@exercise("08.dropout")
def dropout(student) -> str:
    """Learner's function: (u (B,) uniform, share) → (no_text (B,) bool, no_picture (B,) bool)."""
    u = torch.rand(60_000, generator=seeded(85))
    got = student(u, 0.05)
    expect(isinstance(got, tuple) and len(got) == 2, "return a pair: (no_text, no_picture).")
    text, picture = (torch.as_tensor(g) for g in got)
    matches = text.shape == picture.shape == u.shape and text.dtype == picture.dtype == torch.bool
    expect(matches, "both answers are bool tensors with one entry per example.")
    shares = {"only the text": text & ~picture, "only the picture": picture & ~text, "both": text & picture}
    for name, gone in shares.items():
        found = float(gone.float().mean())
        hint = f"{name} should be dropped in 5 % of the examples, but is dropped in {100 * found:.1f} %."
        expect(abs(found - 0.05) < 0.006, hint)
    none = student(u, 0.0)
    expect(not bool(none[0].any() or none[1].any()), "with share 0 nothing is dropped: check < against ≤.")
    return "one network learns four distributions, and Eq. 3 can combine them at run time."
