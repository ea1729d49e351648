"""Notebook 10's exercises: a stub is not done, the solution is right, the usual mistakes get their hint."""

import numpy as np
import pytest

from s2flib.course.exercises import grade
from s2flib.course.exercises import nb10 as exercises  # noqa: F401  (registers the checkers)


def stub(*args):
    raise NotImplementedError


def rates(mate, rank, top, threshold):
    return (top >= threshold).mean(), 1 - ((rank == 1) & (mate >= threshold)).mean()


def tau(own, coverage):
    k = int(np.floor((1 - coverage) * (len(own) + 1) + 1e-9))
    return np.sort(own)[k - 1] if k else 0.0


def fuse(e):
    e = e / np.linalg.norm(e, axis=1, keepdims=True)
    return e.mean(axis=0) / np.linalg.norm(e.mean(axis=0))


WRONG = [
    ("10.rates", lambda m, r, t, x: ((t > x).mean(), rates(m, r, t, x)[1]), "use >="),
    ("10.rates", lambda m, r, t, x: (rates(m, r, t, x)[0], (m < x).mean()), "somebody else ranks first"),
    ("10.rates", lambda m, r, t, x: rates(m, r, t, x)[0], "two numbers"),
    ("10.rates", lambda m, r, t, x: ((m >= x).mean(), rates(m, r, t, x)[1]), "non-mated searches"),
    ("10.tau", lambda own, c: np.quantile(own, 1 - c), "interpolates"),
    ("10.tau", lambda own, c: np.sort(own)[int((1 - c) * (len(own) + 1) + 1e-9)], "one too far"),
    ("10.tau", lambda own, c: np.sort(own)[max(int((1 - c) * (len(own) + 1) + 1e-9), 1) - 1], "keeps everybody"),
    ("10.fuse", lambda e: e.mean(axis=0) / np.linalg.norm(e.mean(axis=0)), "before averaging"),
    ("10.fuse", lambda e: (e / np.linalg.norm(e, axis=1, keepdims=True)).mean(axis=0), "divide it by its length"),
    ("10.fuse", lambda e: e.mean(axis=1), "average over the drawings"),
]


@pytest.mark.parametrize("name, solution", [("10.rates", rates), ("10.tau", tau), ("10.fuse", fuse)])
def test_solutions_are_right_and_stubs_not_done(name, solution):
    assert grade(name, solution).status == "right"
    assert grade(name, stub).status == "not done yet"


@pytest.mark.parametrize("name, answer, hint", WRONG)
def test_mistakes_get_their_hint(name, answer, hint):
    verdict = grade(name, answer)
    assert verdict.status == "wrong" and hint in verdict.message


def test_a_prediction_is_compared_with_what_was_measured():
    measured = {"face": 0.266, "matcher": 0.413}
    assert "as you said: face 26.6 %, matcher 41.3 %" in grade("10.prediction", lambda: "matcher", measured).message
    surprised = grade("10.prediction", lambda: "face", measured)
    assert surprised.status == "right" and "it was matcher" in surprised.message
    assert grade("10.prediction", lambda: "both", measured).status == "wrong"
    assert grade("10.prediction", stub, measured).status == "not done yet"
