"""Checks of the notebooks' exercises: ``check("01.dodge", my_function)`` says what is right or wrong.

A checker is a function that takes the learner's answer(s) and returns one sentence: why it matters.
It raises ``Wrong`` with a hint when the answer is not right. Register it with ``@exercise("NN.word")``.
Checkers of notebooks 03-05 live in exercises_models.py, of 08 in exercises_editing.py, those of the others in
exercises_course.py.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from s2flib.errors import S2FError

_MODULES = {
    "00": "s2flib.exercises_course",
    "01": "s2flib.exercises_course",
    "06": "s2flib.exercises_course",
    "07": "s2flib.exercises_course",
    "02": "s2flib.synthfaces.exercises",
    "03": "s2flib.exercises_models",
    "04": "s2flib.exercises_models",
    "05": "s2flib.exercises_models",
    "08": "s2flib.exercises_editing",
}
CHECKERS: dict[str, Callable[..., str]] = {}


class Wrong(Exception):
    """The answer is not right yet; the message is the hint."""


@dataclass(frozen=True)
class Verdict:
    """status: "right" | "wrong" | "not done yet" | "error"; message: one or two sentences for the learner."""

    status: str
    message: str

    def __str__(self) -> str:
        mark = {"right": "✓", "wrong": "✗", "not done yet": "…", "error": "✗"}[self.status]
        return f"{mark} {self.status}: {self.message}"


def exercise(name: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Decorator: register the checker of exercise ``name`` ("NN.word", NN the notebook's number)."""

    def register(checker: Callable[..., str]) -> Callable[..., str]:
        CHECKERS[name] = checker
        return checker

    return register


def find_checker(name: str) -> Callable[..., str]:
    """The checker of that name; its module is imported on first use. Raises S2FError for an unknown name."""
    module = _MODULES.get(name.partition(".")[0])
    if module is not None:
        importlib.import_module(module)
    if name not in CHECKERS:
        known = ", ".join(sorted(CHECKERS))
        raise S2FError(f"there is no exercise {name!r}: the exercises here are {known}.")
    return CHECKERS[name]


def grade(name: str, *answers: object) -> Verdict:
    """Run the checker of exercise ``name`` on the learner's answer(s) without printing anything."""
    checker = find_checker(name)
    try:
        praise = checker(*answers)
    except Wrong as hint:
        return Verdict("wrong", str(hint))
    except NotImplementedError:
        return Verdict(
            "not done yet",
            f"exercise {name} waits for you: write the function above, run its cell and this one again.",
        )
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        # also when the checker stumbles over an answer nobody thought of: a sentence, never a traceback
        return Verdict(
            "error",
            f"your code, or its answer, raised {type(error).__name__}: {error} "
            f"(line {frame.lineno} of {frame.name}: {frame.line or 'source not shown'}).",
        )
    return Verdict("right", praise)


def check(name: str, *answers: object, strict: bool = False) -> None:
    """Print the verdict on an exercise. With ``strict`` (solutions) anything but "right" raises S2FError."""
    verdict = grade(name, *answers)
    print(verdict)
    if strict and verdict.status != "right":
        raise S2FError(f"exercise {name} is {verdict.status}: {verdict.message}")


def expect(condition: object, hint: str) -> None:
    """Raise Wrong(hint) unless the condition holds. Checkers are lists of these."""
    if not condition:
        raise Wrong(hint)


def expect_close(answer: object, truth: object, hint: str, tolerance: float = 1e-4) -> None:
    """Raise Wrong unless answer (tensor, array, number) has truth's shape and equals it to ± tolerance."""
    import numpy as np

    def as_array(value: object) -> np.ndarray:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
        return np.asarray(value, dtype=np.float64)

    expect(answer is not None, "the function returned None: did you forget 'return'?")
    try:
        got = as_array(answer)
    except (TypeError, ValueError):
        raise Wrong(f"the function should return numbers, and returned {type(answer).__name__}.") from None
    want = as_array(truth)
    expect(got.shape == want.shape, f"the shape is {got.shape}, it should be {want.shape}. {hint}")
    expect(np.isfinite(got).all(), f"there are values that are not finite (a division by zero?). {hint}")
    worst = float(np.abs(got - want).max()) if got.size else 0.0
    expect(worst <= tolerance, f"the largest difference is {worst:.4g} (allowed: {tolerance:g}). {hint}")
