"""The checkers of notebooks 03–05: the right answer passes, stubs wait, and each typical slip gets its own hint."""

from __future__ import annotations

import math

import pytest
import torch
from notebook_cells import check_stubs_and_solutions

from s2flib.course.exercises import find_checker, grade

LESSONS = ("03_stylegan2", "04_cbam_attention", "05_losses")


@pytest.mark.parametrize("lesson", LESSONS)
def test_stubs_wait_and_stored_solutions_are_right(lesson):
    check_stubs_and_solutions(lesson)


def m(weight, s):
    return weight * s[None, :, None, None]


def slope(distance, gamma, loss=lambda s, d, g: 2 * math.log1p(math.exp(-s * d / 2)) + g / 2 * s * s):
    return min((k / 200 for k in range(4001)), key=lambda s: loss(s, distance, gamma))


def softplus(t):
    return math.log1p(math.exp(t))


_ALL_DIFFERENT = dict.fromkeys(("M_c", "M_s", "self-attention"), "different")


def _rest(x, covered):
    """The mean colour of the uncovered pixels, (B, 3, 1, 1)."""
    return (x * ~covered).sum((2, 3), keepdim=True) / (~covered).sum((2, 3), keepdim=True)


def _over_maps(distance, a, b):
    return torch.stack([distance(p, q) for p, q in zip(a, b, strict=True)]).mean()


def _unit_distance(p, q):
    p, q = (torch.nn.functional.normalize(m.flatten(1), dim=1) for m in (p, q))
    return (p - q).norm(dim=1)


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
    ("03.slope", lambda d, g: slope(d, 2 * g), "one half"),
    ("03.slope", lambda d, g: slope(d, g, lambda s, d, g: softplus(-s * d / 2) + g / 2 * s * s), "two softplus terms"),
    ("03.slope", lambda d, g: slope(d, g, lambda s, d, g: 2 * softplus(-s * d) + g / 2 * s * s), "s·d/2"),
    ("03.slope", lambda d, g: d / g, "upper bound"),
    ("03.slope", lambda d, g: 2 * softplus(-slope(d, g) * d / 2) + g / 2 * slope(d, g) ** 2, "not the loss"),
    ("03.slope", lambda d, g: -1.0, "smallest loss"),
    ("03.slope", lambda d, g: None, "return"),
    ("04.shuffle", lambda: {"M_c": "the same", "M_s": "the same"}, "keys"),
    ("04.shuffle", lambda: {"M_c": "equal", "M_s": "the same", "self-attention": "different"}, "answer with one"),
    ("04.shuffle", lambda: _ALL_DIFFERENT, "mean and maximum"),
    ("04.shuffle", lambda: _ALL_DIFFERENT | {"M_c": "the same", "M_s": "shuffled alike"}, "neighbours"),
    ("04.shuffle", lambda: _ALL_DIFFERENT | {"M_c": "the same"}, "where a position is"),
    ("04.fill", lambda x, covered: torch.where(covered, x.mean((2, 3), keepdim=True), x), "leave them out"),
    ("04.fill", lambda x, covered: torch.where(covered, _rest(x, covered).mean(1, keepdim=True), x), "three colours"),
    ("04.fill", lambda x, covered: torch.where(covered, _rest(x, covered).mean(0, keepdim=True), x), "its own mean"),
    ("04.fill", lambda x, covered: torch.where(covered, (x * ~covered).mean((2, 3), keepdim=True), x), "divide by"),
    ("04.fill", lambda x, covered: _rest(x, covered).expand_as(x), "must stay"),
    ("04.fill", lambda x, covered: x.masked_fill_(covered, 0.0), "work on a copy"),
    ("04.fill", lambda x, covered: torch.zeros(3, 3), "shape"),
    ("04.direction", lambda a, b: _over_maps(lambda p, q: (p - q).flatten(1).norm(dim=1), a, b), "not scaled yet"),
    (
        "04.direction",
        lambda a, b: _over_maps(lambda p, q: (p / p.norm() - q / q.norm()).flatten(1).norm(dim=1), a, b),
        "by itself",
    ),
    ("04.direction", lambda a, b: 2 * _over_maps(_unit_distance, a, b), "not the sum"),
    ("04.direction", lambda a, b: _over_maps(lambda p, q: _unit_distance(p, q) ** 2, a, b), "not squared"),
    ("04.direction", lambda a, b: 0.0, "length 1"),
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

    assert {n for n in CHECKERS if n.partition(".")[0] in ("03", "04", "05")} == named


def test_garbage_is_an_error_and_never_raises():
    for name in {n for n, _, _ in WRONG}:
        for garbage in (lambda *a: "text", lambda *a: torch.zeros(0), lambda *a: 1 / 0, 7):
            assert grade(name, garbage).status in ("wrong", "error")
