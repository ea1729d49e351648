"""Checks for the exercises of notebook 11_inversion."""

from __future__ import annotations

import torch

from s2flib.course.exercises import exercise, expect, expect_answer, expect_close, predicted


@exercise("11.prediction")
def prediction(student, measured) -> str:
    """Learner's function: () → a method; measured: {method: share of its direction edits that succeed}."""
    return (
        f"{predicted(student, measured)} The method that comes closest to a photo need not be the one to edit it with."
    )


@exercise("11.near")
def near(student) -> str:
    """Learner's function: (w_p, w_z (1, n, D), alpha) → w_r (1, n, D)."""
    rng = torch.Generator().manual_seed(11)
    w_p, w_z = torch.randn(2, 1, 3, 4, generator=rng)
    step = w_z - w_p
    for alpha in (2.0, 30.0):
        got = student(w_p.clone(), w_z.clone(), alpha)
        expect_answer(got)
        expect(tuple(got.shape) == (1, 3, 4), f"the shape is {tuple(got.shape)}, it should be that of w_p, (1, n, D).")
        expect(
            not torch.allclose(got, w_p + alpha * step / step.norm(dim=2, keepdim=True), atol=1e-4),
            "that gives each row the distance α: divide by the length of all rows together.",
        )
        expect(not torch.allclose(got, w_p - alpha * step / step.norm(), atol=1e-4), "that moves away from w_z.")
        expect_close(got, w_p + alpha * step / step.norm(), "w_p + α (w_z − w_p) / ‖w_z − w_p‖.", 1e-4)
    return "only the neighbourhood of the pivot is protected; far away the tuned generator may draw other faces."


@exercise("11.condition")
def condition(student) -> str:
    """Learner's function: (n1, n2 (D,)) → n1 without its part along n2, of length 1."""
    rng = torch.Generator().manual_seed(12)
    n1, n2 = torch.nn.functional.normalize(torch.randn(2, 6, generator=rng), dim=1)
    rest = n1 - (n1 @ n2) * n2
    got = student(n1.clone(), n2.clone())
    expect_answer(got)
    expect(tuple(got.shape) == (6,), f"the shape is {tuple(got.shape)}, it should be (D,) = (6,).")
    expect(not torch.allclose(got, n1 - n2, atol=1e-5), "subtract n1's projection onto n2, (n1·n2) n2, not all of n2.")
    expect(
        not torch.allclose(got, rest, atol=1e-5),
        "the rest is shorter than 1: divide by its length, or α would count differently.",
    )
    expect_close(got, rest / rest.norm(), "n1 − (n1·n2) n2, divided by its length; its product with n2 is 0.", 1e-5)
    return "the plane of the second attribute is no longer crossed; what is left may say less about the first one."


@exercise("11.start")
def start(student, photo, mean_code, search) -> str:
    """Learner's function: (photo (1, 3, S, S)) → a code (1, n, D); search(code) → the loss after ten steps from it."""
    code = student(photo)
    expect_answer(code)
    expect(
        tuple(code.shape) == tuple(mean_code.shape),
        f"the shape is {tuple(code.shape)}, it should be (1, n, D) = {tuple(mean_code.shape)}.",
    )
    got, mean = search(code.detach()), search(mean_code)
    numbers = f"after ten steps the loss is {got:.3f} from your code and {mean:.3f} from w̄"
    expect(got < 0.99 * mean, f"{numbers}: start where a network believes the code to be.")
    return f"{numbers}. Encoder first, search after it: that is how many systems combine both."
