"""Notebook 09's exercises: a stub is not done, the solution is right, the usual mistakes get their hint."""

import numpy as np
import pytest

from s2flib.course.exercises import grade

MEASURED = {"skin": 20.0, "hair": 40.0, "background": 30.0}


def stub(*args):
    raise NotImplementedError


def alike(e):
    return (e @ e.T)[~np.eye(len(e), dtype=bool)].mean()


def obeys(a, b, inside):
    a, b = a[inside] - a[inside].mean(), b[inside] - b[inside].mean()
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


@pytest.mark.parametrize(
    "name, solution, more",
    [("09.prediction", lambda: "hair", [MEASURED]), ("09.alike", alike, []), ("09.obeys", obeys, [])],
)
def test_solutions_are_right_and_stubs_not_done(name, solution, more):
    assert grade(name, solution, *more).status == "right"
    assert grade(name, stub, *more).status == "not done yet"


@pytest.mark.parametrize(
    "name, answer, more, hint",
    [
        ("09.prediction", lambda: "ears", [MEASURED], "no region"),
        ("09.prediction", lambda: None, [MEASURED], "return"),
        ("09.alike", lambda e: (e @ e.T).mean(), [], "diagonal"),
        ("09.alike", lambda e: alike(e) / 2, [], "mean of e"),
        ("09.obeys", lambda a, b, inside: np.corrcoef(a.ravel(), b.ravel())[0, 1], [], "outside"),
        ("09.obeys", lambda a, b, inside: (a * b)[inside].sum(), [], "subtract"),
        ("09.obeys", lambda a, b, inside: obeys(a, b, inside) * abs(a).max() / 3.5, [], ""),
    ],
)
def test_mistakes_get_their_hint(name, answer, more, hint):
    verdict = grade(name, answer, *more)
    assert verdict.status == "wrong" and hint in verdict.message


def test_a_wrong_prediction_is_told_the_measured_order():
    assert "it is hair; yours comes 3 of 3" in grade("09.prediction", lambda: "skin", MEASURED).message
