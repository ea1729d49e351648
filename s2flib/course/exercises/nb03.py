"""Checks for the exercises of notebook 03_stylegan2."""

from __future__ import annotations

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
