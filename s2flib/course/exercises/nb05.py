"""Checks for the exercises of notebook 05_losses."""

from __future__ import annotations

import torch

from s2flib.course.exercises import exercise, expect, expect_answer, expect_close, seeded


@exercise("05.reg")
def reg(student) -> str:
    """Learner's function: (w_plus (B, n, D), w_avg (D,)) → scalar, mean over the batch of ‖w+ − w̄‖₂."""
    w_plus, w_avg = torch.randn(4, 5, 6, generator=seeded(50)), torch.randn(6, generator=seeded(51))
    norms = torch.stack([(w - w_avg).pow(2).sum().sqrt() for w in w_plus])
    got = student(w_plus.clone(), w_avg.clone())
    if isinstance(got, torch.Tensor) and got.numel() == 1:
        got = got.reshape(())
        per_row = "one norm per picture over all its rows (the Frobenius norm), not one per row."
        for wrong, hint in (
            (norms.pow(2).mean(), "the root is missing."),
            ((w_plus - w_avg).norm(dim=2).mean(), per_row),
            (norms.sum(), "take the mean over the batch, not the sum."),
        ):
            expect(not torch.isclose(got, wrong, rtol=1e-4), hint)
    expect_close(got, norms.mean(), "subtract w̄ from every row, take one norm per picture, then the mean.")
    return "an encoder that strays from the faces the generator knows is penalised."


@exercise("05.identity")
def identity(student) -> str:
    """Learner's function: (a (B, d), b (B, d)) embeddings of any length → (B,) loss 1 − cos."""
    a, b = torch.randn(5, 7, generator=seeded(52)) * 3, torch.randn(5, 7, generator=seeded(53)) * 0.2
    cosine = torch.stack([(p @ q) / (p.norm() * q.norm()) for p, q in zip(a, b, strict=True)])
    got = student(a.clone(), b.clone())
    if isinstance(got, torch.Tensor) and got.shape == cosine.shape:
        expect(not torch.allclose(got, cosine, atol=1e-5), "that is the similarity; the loss is 1 minus it.")
        unit = "these embeddings do not have length 1: divide by their lengths first."
        expect(not torch.allclose(got, 1 - (a * b).sum(1), atol=1e-4), unit)
    expect_close(got, 1 - cosine, "one number per pair: 1 − ⟨a, b⟩ / (‖a‖ ‖b‖).")
    return "0 for the same direction, about 1 for strangers; lengths do not matter."


@exercise("05.lambda4")
def lambda4(student) -> str:
    """Learner's function: (total_without float, attention float, lambda4 float) → attention's share of the loss."""
    for without, attention, weight in ((0.2, 0.01, 1.0), (0.3, 0.002, 1e6), (0.5, 0.1, 0.0)):
        got = student(without, attention, weight)
        expect_answer(got)
        truth = weight * attention / (without + weight * attention)
        is_ratio = abs(float(got) - truth) > 1e-9 and abs(float(got) - weight * attention / without) < 1e-9
        expect(not is_ratio, "that is the ratio to the other terms; the share is of the *whole* loss.")
        expect_close(float(got), truth, "share = λ4 · attention / (all other terms + λ4 · attention).", 1e-9)
    return "for large λ4 every other term is negligible: the encoder only sees the attention loss."
