"""Checks for the exercises of notebook 03_stylegan2."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from s2flib.course.exercises import exercise, expect, expect_answer, expect_close, seeded


@exercise("03.demodulate")
def demodulate(student) -> str:
    """Learner's function: (weight (out, in, k, k), s (in,)) → Eq. 3's weight, the same shape."""
    weight, s = torch.randn(5, 4, 3, 3, generator=seeded(30)), torch.rand(4, generator=seeded(31)) * 3 + 0.2
    styled = [w * s[:, None, None] for w in weight]
    truth = torch.stack([w / (w.pow(2).sum() + 1e-8).sqrt() for w in styled])
    got = student(weight.clone(), s.clone())
    if isinstance(got, torch.Tensor) and got.shape == truth.shape:
        modulated = weight * s[None, :, None, None]
        expect(not torch.allclose(got, modulated), "that is Eq. 1; now divide by the norm of Eq. 3.")
        per_pair = "the sum of Eq. 3 runs over i as well: one norm per output channel, not one per channel pair."
        for wrong, hint in (
            (modulated / modulated.square().sum((1, 2, 3), keepdim=True), "the square root is missing."),
            (F.normalize(modulated.flatten(2), dim=2).view_as(weight), per_pair),
            (F.normalize(weight.flatten(1), dim=1).view_as(weight), "the style has no effect yet: apply Eq. 1 first."),
        ):
            expect(not torch.allclose(got, wrong, atol=1e-4), hint)
    expect_close(got, truth, "s scales the input channels (axis 1); the norm is taken over axes 1, 2 and 3.")
    tiny = student(weight * 1e-6, s)
    small = isinstance(tiny, torch.Tensor) and float(tiny.abs().max()) < 0.1
    expect(small, "for a very small weight, ε = 1e-8 should keep the result small: add it inside the square root.")
    return "each output channel has unit norm, whatever the style, so no layer can make the next one explode."


@exercise("03.rows")
def rows_of(student) -> str:
    """Learner's function: size (4, 8, 16, …) → rows of w+ that its convolutions read."""
    for size, truth in {4: [0], 8: [1, 2], 16: [3, 4], 32: [5, 6], 128: [9, 10], 1024: [15, 16]}.items():
        got = student(size)
        expect_answer(got)
        expect(isinstance(got, list | tuple | range), f"return a list of row numbers; for {size} px it gave {got!r}.")
        got = [int(v) for v in got]
        rule = "4 px has one convolution, every later size has two, and each reads the next row."
        expect(got == truth, f"for {size} px it gives {got}, but should give {truth}: {rule}")
    return "at 1024 px, rows 0 to 6 are all used below 64 px: shape first, then colour."


@exercise("03.blend")
def blend(student) -> str:
    """Learner's function: (a (n, D), b (n, D), first, last, amount) → rows [first, last) moved towards b."""
    a, b = torch.randn(6, 3, generator=seeded(32)), torch.randn(6, 3, generator=seeded(33))
    for first, last, amount in ((2, 4, 1.0), (0, 6, 0.5), (3, 6, 0.25), (4, 4, 1.0)):
        keep_a, keep_b = a.clone(), b.clone()
        got = student(a, b, first, last, amount)
        unchanged = torch.equal(a, keep_a) and torch.equal(b, keep_b)
        expect(unchanged, "the inputs have changed: work on a copy (.clone()).")
        truth = torch.stack([a[r] * (1 - amount) + b[r] * amount if first <= r < last else a[r] for r in range(6)])
        rule = f"rows {first} to {last - 1} move, all others stay a's."
        expect_close(got, truth, f"with first={first}, last={last}, amount={amount}: {rule}")
    return "if b is a random person, this is pSp's multi-modal output."


@exercise("03.slope")
def best_slope(student) -> str:
    """Learner's function: (distance d, γ) → the s that minimises 2 softplus(−s d/2) + γ s²/2."""

    def truth(distance, gamma, terms=2.0, reach=0.5):
        """The zero of γ s − terms · reach · d · σ(−reach · s · d)."""
        low, high = 0.0, terms * reach * distance / gamma
        for _ in range(80):
            s = (low + high) / 2
            rises = gamma * s > terms * reach * distance / (1 + math.exp(min(700.0, reach * s * distance)))
            low, high = (low, s) if rises else (s, high)
        return s

    for case in ((1.0, 1.0), (4.0, 0.5), (0.25, 0.1), (2.0, 0.01)):
        got = student(*case)
        expect_answer(got)
        got, right, where = float(got), truth(*case), f"for d={case[0]:g}, γ={case[1]:g}"
        for wrong, hint in (
            (truth(*case, terms=1.0), "the loss has two softplus terms, and R1 a factor of one half: γ/2 · s²."),
            (truth(*case, reach=1.0), "the critic's answers are ± s·d/2, not ± s·d."),
            (case[0] / case[1], "d/γ is only an upper bound; the best slope lies below it."),
            (
                2 * math.log1p(math.exp(-right * case[0] / 2)) + case[1] / 2 * right**2,
                "return the slope, not the loss.",
            ),
        ):
            expect(abs(got - wrong) > 0.011 or abs(wrong - right) < 0.03, f"{where}: {hint}")
        expect(abs(got - right) <= 0.011, f"{where} it gives {got:.3f}, but {right:.3f} has the smallest loss.")
    return "R1 keeps the slope finite, and lets it go to 0 as pictures and photos meet."
