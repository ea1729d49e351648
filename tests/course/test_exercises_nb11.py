"""Notebook 11's exercises: a stub is not done, the solution is right, the usual mistakes get their hint."""

import pytest
import torch

from s2flib.course.exercises import grade
from s2flib.course.exercises import nb11 as exercises  # noqa: F401  (registers the checkers)

MEASURED = {"w-plus": 0.4, "psp": 0.6, "e4e": 0.7}
PHOTO, MEAN = torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 5)


def stub(*args):
    raise NotImplementedError


def near(w_p, w_z, alpha):
    return w_p + alpha * (w_z - w_p) / (w_z - w_p).norm()


def condition(n1, n2):
    rest = n1 - (n1 @ n2) * n2
    return rest / rest.norm()


def loss(code):
    """The nearer to ones, the smaller."""
    return float((code - 1).square().mean())


def start(photo):
    return torch.full((1, 4, 5), 0.8)


@pytest.mark.parametrize("name, solution, given", [
    ("11.prediction", lambda: "psp", [MEASURED]), ("11.near", near, []), ("11.condition", condition, []),
    ("11.start", start, [PHOTO, MEAN, loss]),
])  # fmt: skip
def test_solutions_are_right_and_stubs_not_done(name, solution, given):
    assert grade(name, solution, *given).status == "right"
    assert grade(name, stub, *given).status == "not done yet"


WRONG = [
    ("11.prediction", lambda: "styleclip", [MEASURED], "no answer"),
    ("11.near", lambda p, z, a: p + a * (z - p) / (z - p).norm(dim=2, keepdim=True), [], "all rows together"),
    ("11.near", lambda p, z, a: p - a * (z - p) / (z - p).norm(), [], "away from w_z"),
    ("11.near", lambda p, z, a: p + a * (z - p), [], "‖w_z − w_p‖"),
    ("11.near", lambda p, z, a: near(p, z, a)[0], [], "the shape is"),
    ("11.condition", lambda a, b: a - b, [], "not all of n2"),
    ("11.condition", lambda a, b: a - (a @ b) * b, [], "divide by its length"),
    ("11.condition", lambda a, b: a, [], "product with n2 is 0"),
    ("11.condition", lambda a, b: a[:3], [], "the shape is"),
    ("11.start", lambda photo: MEAN, [PHOTO, MEAN, loss], "where a network believes"),
    ("11.start", lambda photo: MEAN[0], [PHOTO, MEAN, loss], "the shape is"),
]


@pytest.mark.parametrize("name, answer, given, hint", WRONG)
def test_mistakes_get_their_hint(name, answer, given, hint):
    verdict = grade(name, answer, *given)
    assert verdict.status == "wrong" and hint in verdict.message


def test_a_prediction_is_compared_with_what_was_measured():
    assert "it was e4e" in grade("11.prediction", lambda: "psp", MEASURED).message
    assert "as you said" in grade("11.prediction", lambda: "e4e", MEASURED).message
