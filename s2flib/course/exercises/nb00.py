"""Checks for the exercises of notebook 00_quickstart."""

from __future__ import annotations

import torch

from s2flib.course.exercises import exercise, expect, expect_answer, expect_close


@exercise("00.n_styles")
def n_styles(student) -> str:
    """Learner's function: size (int, a power of two) → rows of a W+ code."""
    for size, truth in ((128, 12), (256, 14), (1024, 18), (4, 2)):
        got = student(size)
        expect_answer(got)
        expect(
            got == truth,
            f"for {size} px it gives {got}, but StyleGAN2 has {truth}: the first resolution is 4 px, and there are "
            "two styles per resolution, including the first.",
        )
        expect(isinstance(got, int), f"{got!r} is right, but return a whole number (int): it will be used as a shape.")
    return "two styles per resolution, from 4 px up. At the paper's 1024 px a face is 18 × 512 numbers."


@exercise("00.mix")
def mix(student) -> str:
    """Learner's function: (w_a (n,D), w_b (n,D), start) → rows below start from a, the others from b."""
    a, b = torch.arange(12.0).reshape(4, 3), -torch.arange(12.0).reshape(4, 3) - 1
    keep_a, keep_b = a.clone(), b.clone()
    for start in (0, 1, 3, 4):
        truth = torch.cat([keep_a[:start], keep_b[start:]])
        got = student(a, b, start)
        unchanged = torch.equal(a, keep_a) and torch.equal(b, keep_b)
        expect(unchanged, "the inputs have changed: work on a copy (.clone()).")
        expect_close(got, truth, f"with start={start}, rows 0 to {start - 1} come from w_a, all others from w_b.")
    return "this is style mixing in one line. Coarse rows control pose and shape, fine rows control colours."
