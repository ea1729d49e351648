"""Checks for the exercises of notebook 06_training_psp."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from s2flib.course.exercises import exercise, expect, expect_answer, expect_close, seeded


@exercise("06.trainable")
def trainable(student) -> str:
    """Learner's function: nn.Module → number of parameters (scalars) that an optimiser may change."""
    net = nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.Linear(5, 3, bias=False))
    net[0].requires_grad_(False)
    got = student(net)
    expect_answer(got)
    expect(got != 65, "these are all parameters: leave out the frozen ones, with requires_grad False.")
    expect(got != 25 + 11, "buffers (running means) are not parameters: no optimiser changes them.")
    expect(got == 25, f"it gives {got}; the test network has 25: 5 + 5 (batch norm) + 15 (last layer).")
    return "frozen means requires_grad is False. Gradients still flow through, but the weights do not change."


@exercise("06.reg")
def reg(student) -> str:
    """Learner's function: (w (B,n,D), w_avg (n,D)) → mean over the batch of ‖w − w̄‖, one number."""
    generator = seeded(3)
    w, average = torch.randn(5, 4, 6, generator=generator), torch.randn(4, 6, generator=generator)
    difference = (w - average).numpy().astype(np.float64)
    norms = np.sqrt((difference**2).sum((1, 2)))
    got = student(w, average)
    if got is not None and np.size(np.asarray(got)) == 1:
        expect(abs(float(got) - (norms**2).mean()) > 1e-3, "that is the squared norm: take the root for each face.")
        by_style = np.sqrt((difference**2).sum(2)).mean()
        expect(abs(float(got) - by_style) > 1e-4, "one norm per face, over all its styles, not one per style.")
    expect_close(got, norms.mean(), "flatten each face's code, take its norm, then the mean over faces.", 1e-4)
    return "the regulariser pulls each face towards the average face; λ_reg sets how strongly."


@exercise("06.split")
def split(student) -> str:
    """Learner's function: identity (int) → "train" | "val" | "test"."""
    for identity in range(200):
        truth = {8: "val", 9: "test"}.get(identity % 10, "train")
        got = student(identity)
        expect_answer(got)
        rule = "its last digit decides (8: val, 9: test)."
        expect(got == truth, f"identity {identity} should be in {truth!r}, not {got!r}: {rule}")
    return "split by person, never by image: otherwise the test set contains faces seen in training."
