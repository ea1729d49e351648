"""Checks for the notebooks' exercises: ``check("01.dodge", my_function)`` says what is right or wrong.

A checker is a function that takes the learner's answers and returns one sentence on why the exercise matters.
It raises ``Wrong`` with a hint if an answer is not right. Register it with ``@exercise("NN.word")``.
The checkers of notebook NN are in ``nbNN.py``; they compute the expected values without s2flib.
"""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from s2flib.errors import S2FError  # on Colab this is imported before numpy and torch are installed

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
    """Decorator that registers the checker of exercise ``name`` ("NN.word", NN is the notebook's number: 03, 03b)."""

    def register(checker: Callable[..., str]) -> Callable[..., str]:
        CHECKERS[name] = checker
        return checker

    return register


def find_checker(name: str) -> Callable[..., str]:
    """Returns the checker; imports its module on first use. Raises S2FError for an unknown name."""
    module = f"{__name__}.nb{name.partition('.')[0]}"
    if importlib.util.find_spec(module):
        importlib.import_module(module)
    if name not in CHECKERS:
        known = ", ".join(sorted(CHECKERS))
        raise S2FError(f"there is no exercise {name!r}: the exercises are {known}.")
    return CHECKERS[name]


def grade(name: str, *answers: object) -> Verdict:
    """Runs the checker of exercise ``name`` on the learner's answers without printing anything."""
    checker = find_checker(name)
    try:
        return Verdict("right", checker(*answers))
    except Wrong as hint:
        return Verdict("wrong", str(hint))
    except NotImplementedError:
        message = f"exercise {name} is not done: write the function above, then run its cell and this one again."
        return Verdict("not done yet", message)
    except Exception as error:
        # also if the checker itself fails on an unexpected answer: show a sentence instead of a traceback
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"line {frame.lineno} of {frame.name}: {frame.line or 'source not available'}"
        return Verdict("error", f"your code, or its answer, raised {type(error).__name__}: {error} ({place}).")


def check(name: str, *answers: object, strict: bool = False) -> None:
    """Prints the verdict on an exercise. With ``strict`` (solutions), anything but "right" raises S2FError."""
    verdict = grade(name, *answers)
    print(verdict)
    if strict and verdict.status != "right":
        raise S2FError(f"exercise {name} is {verdict.status}: {verdict.message}")


def expect(condition: object, hint: str) -> None:
    """Raises Wrong(hint) unless the condition holds. Checkers are lists of these."""
    if not condition:
        raise Wrong(hint)


def expect_answer(answer: object) -> None:
    """Raises Wrong if the learner's function returned nothing."""
    expect(answer is not None, "the function returned None: did you forget 'return'?")


def expect_close(answer: object, truth: object, hint: str, tolerance: float = 1e-4) -> None:
    """Raises Wrong unless answer (tensor, array, number) has truth's shape and equals it to ± tolerance."""
    import numpy as np

    def as_array(value: Any) -> np.ndarray:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
        return np.asarray(value, dtype=np.float64)

    expect_answer(answer)
    try:
        got = as_array(answer)
    except (TypeError, ValueError):
        raise Wrong(f"the function should return numbers, but it returned {type(answer).__name__}.") from None
    want = as_array(truth)
    expect(got.shape == want.shape, f"the shape is {got.shape}, it should be {want.shape}. {hint}")
    expect(np.isfinite(got).all(), f"some values are not finite (a division by zero?). {hint}")
    worst = float(np.abs(got - want).max()) if got.size else 0.0
    expect(worst <= tolerance, f"the largest difference is {worst:.4g} (allowed: {tolerance:g}). {hint}")


def predicted(student: Callable[[], object], measured: Mapping[str, float], digits: int = 0) -> str:
    """The learner's prediction of the largest of ``measured`` (shares), beside the figures; any of its names is right:
    a prediction is no test of knowledge. Wrong for another answer."""
    got = student()
    expect_answer(got)
    expect(got in measured, f"{got!r} is no answer: return one of {', '.join(map(repr, measured))}.")
    best = max(measured, key=lambda name: measured[name])
    numbers = ", ".join(f"{name} {100 * value:.{digits}f} %" for name, value in measured.items())
    return f"{'as you said' if got == best else f'it was {best}'}: {numbers}."


def seeded(seed: int):
    """A ``torch.Generator`` with this seed, for random test inputs."""
    import torch

    return torch.Generator().manual_seed(seed)
