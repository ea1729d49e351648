"""The checkers of notebooks 03–05: the right answer passes, stubs wait, and each typical slip gets its own hint."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from s2flib.course.exercises import find_checker, grade

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LESSONS = ("03_stylegan2", "04_cbam_attention", "05_losses")


def cells(path: Path, tag: str) -> list[str]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in found if tag in c["metadata"].get("tags", [])]


class Course:
    """Stands for s2flib.course in a notebook's check cells: keeps the verdicts."""

    def __init__(self):
        self.verdicts = {}

    def check(self, name, *answers, strict=False):
        self.verdicts[name] = grade(name, *answers).status


@pytest.mark.parametrize("lesson", LESSONS)
def test_stubs_wait_and_stored_solutions_are_right(lesson):
    for path, tag, wanted in (
        (NOTEBOOKS / f"{lesson}.ipynb", "exercise", "not done yet"),
        (NOTEBOOKS / "solutions" / f"{lesson}_solutions.ipynb", "solution", "right"),
    ):
        course = Course()
        names = {"course": course, "torch": torch, "math": math}
        answers, checks = cells(path, tag), cells(path, "check")
        assert 2 <= len(answers) == len(checks) <= 4
        for source in answers + checks:
            exec(compile(source, str(path), "exec"), names)  # noqa: S102  (the notebook's own cells)
        assert len(course.verdicts) == len(checks) and set(course.verdicts.values()) == {wanted}


def m(weight, s):
    return weight * s[None, :, None, None]


WRONG = [
    ("03.demodulate", lambda weight, s: m(weight, s), "Eq. 3"),
    (
        "03.demodulate",
        lambda weight, s: m(weight, s) / m(weight, s).square().sum((1, 2, 3), keepdim=True),
        "square root",
    ),
    (
        "03.demodulate",
        lambda weight, s: m(weight, s) / m(weight, s).square().sum((2, 3), keepdim=True).sqrt(),
        "runs over i",
    ),
    ("03.demodulate", lambda weight, s: weight / weight.square().sum((1, 2, 3), keepdim=True).sqrt(), "no effect"),
    ("03.demodulate", lambda weight, s: m(weight, s) / m(weight, s).square().sum((1, 2, 3), keepdim=True).sqrt(), "ε"),
    ("03.demodulate", lambda weight, s: None, "return"),
    ("03.rows", lambda size: [0], "two"),
    ("03.rows", lambda size: int(math.log2(size)) - 2, "list"),
    ("03.rows", lambda size: None, "return"),
    ("03.blend", lambda a, b, first, last, amount: a.lerp_(b, amount), "inputs have changed"),
    ("03.blend", lambda a, b, first, last, amount: a + amount * (b - a), "stay a's"),
    ("03.blend", lambda a, b, first, last, amount: torch.cat([a[:first], b[first:last], a[last:]]), "move"),
    ("04.channel_gate", lambda x, mlp: mlp(x.mean((2, 3)) + x.amax((2, 3))).sigmoid(), "by itself"),
    ("04.channel_gate", lambda x, mlp: mlp(x.mean((2, 3))).sigmoid()[..., None, None], "max-pooled"),
    ("04.channel_gate", lambda x, mlp: mlp(x.amax((2, 3))).sigmoid()[..., None, None], "average-pooled"),
    (
        "04.channel_gate",
        lambda x, mlp: (mlp(x.mean((2, 3))) + mlp(x.amax((2, 3))))[..., None, None],
        "sigmoid is missing",
    ),
    ("04.channel_gate", lambda x, mlp: (mlp(x.mean((2, 3))) + mlp(x.amax((2, 3)))).sigmoid(), "shape"),
    ("04.refine", lambda x, m_c, gate, variant: gate(x) * m_c * x if variant == "cbam" else gate(x) * x, "looks at F'"),
    ("04.refine", lambda x, m_c, gate, variant: gate(m_c * x) * m_c * x, 'for "seed"'),
    ("04.refine", lambda x, m_c, gate, variant: gate(m_c * x) * x, 'for "cbam"'),
    (
        "04.attention_loss",
        lambda a, b: torch.stack([(p - q).flatten(1).norm(dim=1) for p, q in zip(a, b, strict=True)]).mean(),
        "divide each norm",
    ),
    (
        "04.attention_loss",
        lambda a, b: torch.stack([(p - q).square().mean() for p, q in zip(a, b, strict=True)]).mean(),
        "root is missing",
    ),
    (
        "04.attention_loss",
        lambda a, b: torch.stack([(p - q).square().mean().sqrt() for p, q in zip(a, b, strict=True)]).mean(),
        "per picture first",
    ),
    ("04.attention_loss", lambda a, b: 0.0, "per map and picture"),
    ("05.reg", lambda w, avg: (w - avg).square().sum((1, 2)).mean(), "root"),
    ("05.reg", lambda w, avg: (w - avg).norm(dim=2).mean(), "Frobenius"),
    ("05.reg", lambda w, avg: (w - avg).flatten(1).norm(dim=1).sum(), "mean over the batch"),
    ("05.reg", lambda w, avg: w.flatten(1).norm(dim=1).mean(), "subtract"),
    ("05.identity", lambda a, b: torch.cosine_similarity(a, b), "1 minus"),
    ("05.identity", lambda a, b: 1 - (a * b).sum(1), "length 1"),
    ("05.identity", lambda a, b: (1 - torch.cosine_similarity(a, b)).mean(), "per pair"),
    ("05.lambda4", lambda t, a, weight: weight * a / t, "whole"),
    ("05.lambda4", lambda t, a, weight: a / (t + a), "share ="),
    ("05.lambda4", lambda t, a, weight: None, "return"),
]


@pytest.mark.parametrize(("name", "answer", "hint"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_a_typical_slip_gets_its_hint(name, answer, hint):
    verdict = grade(name, answer)
    assert verdict.status == "wrong" and hint in verdict.message, verdict


def test_every_exercise_of_these_lessons_has_a_checker_and_a_slip():
    named = {name for name, _, _ in WRONG}
    for name in named:
        find_checker(name)
    from s2flib.course.exercises import CHECKERS

    assert {n for n in CHECKERS if n[:2] in ("03", "04", "05")} == named


def test_garbage_is_an_error_and_never_raises():
    for name in {n for n, _, _ in WRONG}:
        for garbage in (lambda *a: "text", lambda *a: torch.zeros(0), lambda *a: 1 / 0, 7):
            assert grade(name, garbage).status in ("wrong", "error")
