"""Notebook 02's exercises: a stub is not done, the solution is right, the usual mistakes get their hint."""

import numpy as np
import pytest

from s2flib.course.exercises import grade
from s2flib.course.exercises import nb02 as exercises  # noqa: F401  (registers the checkers)
from s2flib.synthfaces.labels import LABEL


def stub(*args):
    raise NotImplementedError


def morph(vertices, targets, weights):
    out = vertices.copy()
    for name, weight in weights.items():
        out[targets[name][0]] += weight * targets[name][1]
    return out


def mirror(labels):
    out = labels[:, ::-1].copy()
    for part in ("eye", "brow", "ear"):
        left, right = out == LABEL[f"l_{part}"], out == LABEL[f"r_{part}"]
        out[left], out[right] = LABEL[f"r_{part}"], LABEL[f"l_{part}"]
    return out


def remember(truth, mean, sigma, error, noise):
    return mean + np.sqrt(1 - error**2) * (truth - mean) + error * sigma * noise


def in_place(vertices, targets, weights):
    vertices[:] = morph(vertices, targets, weights)
    return vertices


def overwrites(vertices, targets, weights):
    out = vertices.copy()
    for name, weight in weights.items():
        out[targets[name][0]] = vertices[targets[name][0]] + weight * targets[name][1]
    return out


WRONG = [
    ("02.morph", in_place, "work on a copy"),
    ("02.morph", overwrites, "belongs to both"),
    ("02.morph", lambda v, t, w: v.copy(), "Nothing moved"),
    ("02.mirror", lambda m: m[:, ::-1], "in a mirror"),
    ("02.mirror", lambda m: mirror(m)[:, ::-1], "flip along x"),
    ("02.remember", lambda x, m, s, e, n: m + (1 - e) * (x - m) + e * s * n, "not with 1 − e"),
    ("02.remember", lambda x, m, s, e, n: x + e * s * n, "nothing of the truth"),
]


@pytest.mark.parametrize("name, solution", [("02.morph", morph), ("02.mirror", mirror), ("02.remember", remember)])
def test_solutions_are_right_and_stubs_not_done(name, solution):
    assert grade(name, solution).status == "right"
    assert grade(name, stub).status == "not done yet"


@pytest.mark.parametrize("name, answer, hint", WRONG)
def test_mistakes_get_their_hint(name, answer, hint):
    verdict = grade(name, answer)
    assert verdict.status == "wrong" and hint in verdict.message
