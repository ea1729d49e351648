"""The checkers of notebook 03b: the right answer passes, stubs wait, and each typical slip gets its own hint."""

from __future__ import annotations

import math

import pytest
import torch
from notebook_cells import NOTEBOOKS, check_stubs_and_solutions, run_exercises

from s2flib.course.exercises import CHECKERS, find_checker, grade
from s2flib.presets import PAPER, TINY
from s2flib.psp import GradualStyleEncoder

LESSON = "03b_psp_encoder"
SOLUTIONS = NOTEBOOKS / "solutions" / f"{LESSON}_solutions.ipynb"
PARTS = ("outline of the head", "lines of eyes and mouth", "colour of the skin", "colour of the hair")


def test_stubs_wait_and_stored_solutions_are_right():
    check_stubs_and_solutions(LESSON)


@pytest.mark.parametrize("preset", [TINY, PAPER], ids=lambda p: p.name)
def test_the_solutions_hold_for_the_library(preset):
    """Heads are counted, and views measured: which pixels of the sketch a cell depends on, without SE."""
    solved = run_exercises(SOLUTIONS, "solution")
    with torch.device("meta"):
        encoder = GradualStyleEncoder.from_preset(preset)
    for row, side in ((0, encoder.size // 16), (3, encoder.size // 8), (7, encoder.size // 4)):
        formula = solved["head_parameters"](preset.encoder_widths[3], preset.encoder_head, preset.style_dim, side)
        assert formula == sum(p.numel() for p in encoder.styles[row].parameters())


def test_the_view_is_the_librarys():
    solved = run_exercises(SOLUTIONS, "solution")
    units = (1, 2, 1, 1)
    encoder = GradualStyleEncoder(1, 8, 8, units, (4, 4, 4, 4), 4, 256).double().eval()
    for block in encoder.body:
        block.res_layer[5] = torch.nn.Identity()  # SE sees the whole picture
    sketch = torch.rand(1, 1, 256, 256, dtype=torch.float64, requires_grad=True)
    x, views = encoder.input_layer(sketch), []
    for i, block in enumerate(encoder.body):
        x = block(x)
        if i in encoder.taps:
            middle = x[0, :, x.shape[2] // 2, x.shape[3] // 2].sum()
            (gradient,) = torch.autograd.grad(middle, sketch, retain_graph=True)
            seen = gradient[0, 0].abs().sum(0).nonzero().flatten()
            views.append(int(seen.max() - seen.min() + 1))
    assert views == list(solved["view"](units))


def rms(after, before, rows):
    return (after - before)[:, rows].flatten(1).square().mean(1).sqrt().mean()


def per_level(measure):
    """A wrong level_change from a measure of (B, values)."""

    def change(before, after):
        moved = after - before
        return {
            n: measure(moved[:, r].flatten(1))
            for n, r in (("coarse", slice(0, 3)), ("middle", slice(3, 7)), ("fine", slice(7, None)))
        }

    return change


def head(in_ch, head, style_dim, side, convs=0, kernel=9, bias=1, last=1):
    n = int(math.log2(side)) + convs
    return head * (in_ch * kernel + bias) + (n - 1) * head * (head * kernel + bias) + style_dim * (head + last)


WRONG = [
    ("03b.parameters", lambda *a: head(*a, convs=1), "one convolution too many"),
    ("03b.parameters", lambda *a: head(*a, kernel=1), "nine weights"),
    ("03b.parameters", lambda *a: head(*a, bias=0), "one bias for each output"),
    ("03b.parameters", lambda *a: head(*a, last=0), "linear layer has a bias"),
    ("03b.parameters", lambda i, h, d, s: head(h, h, d, s), "reads in_ch"),
    ("03b.parameters", lambda *a: 7, "the head has"),
    ("03b.parameters", lambda *a: None, "return"),
    ("03b.view", lambda units: None, "return"),
    ("03b.view", lambda units: 39, "three numbers"),
    ("03b.view", lambda units: [215, 119, 39], "order"),
    ("03b.view", lambda units: [37, 117, 213], "before the first block"),
    ("03b.view", lambda units: [1, 2, 3], "should give"),
    ("03b.predict", lambda: None, "return"),
    ("03b.predict", lambda: {"skin": "A"}, "keys"),
    ("03b.predict", lambda: dict.fromkeys(PARTS, "C"), "value"),
    ("03b.predict", lambda: dict.fromkeys(PARTS, "A"), "colour of the skin"),
    ("03b.predict", lambda: dict.fromkeys(PARTS, "B"), "outline"),
    ("03b.change", lambda before, after: None, "return"),
    ("03b.change", lambda before, after: rms(after, before, slice(None)), "keys"),
    ("03b.change", per_level(lambda m: m.norm(dim=1).mean()), "norm"),
    ("03b.change", per_level(lambda m: m.square().mean(1).mean()), "root of each"),
    ("03b.change", per_level(lambda m: m.square().mean().sqrt()), "each sketch first"),
    ("03b.change", per_level(lambda m: m.abs().mean()), "mean of the squares"),
    ("03b.change", per_level(lambda m: m.sum()), "rows 0 to 2"),
]


@pytest.mark.parametrize(("name", "answer", "hint"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_a_typical_slip_gets_its_hint(name, answer, hint):
    verdict = grade(name, answer)
    assert verdict.status == "wrong" and hint in verdict.message, verdict


def test_every_exercise_has_a_checker_and_a_slip():
    named = {name for name, _, _ in WRONG}
    for name in named:
        find_checker(name)
    assert {n for n in CHECKERS if n.startswith("03b.")} == named


def test_garbage_is_an_error_and_never_raises():
    for name in {n for n, _, _ in WRONG}:
        for garbage in (lambda *a: "text", lambda *a: torch.zeros(0), lambda *a: 1 / 0, 7):
            assert grade(name, garbage).status in ("wrong", "error")
