"""The exercises' checks: right, undone, broken and wrong answers."""

import numpy as np
import pytest
import torch

from s2flib.course import exercises
from s2flib.course.exercises import expect, expect_close, grade
from s2flib.errors import S2FError


def stub(*_):
    raise NotImplementedError


def broken(*_):
    return 1 / 0


def mix_right(a, b, k):
    return torch.cat([a[:k], b[k:]])


def mix_in_place(a, b, k):
    b[:k] = a[:k]
    return b


def r2_right(t, g):
    return 1 - ((t - g) ** 2).sum() / ((t - t.mean(0)) ** 2).sum()


def keep_right(photo, mask, labels):
    return np.where(np.isin(mask, labels)[..., None], photo, np.uint8(255))


def paired_right(a, b):
    return (b - a).mean(), (b - a).std(ddof=1) / len(a) ** 0.5


def rank1_right(s, p, g):
    return (g[s.argmax(1)] == p).mean()


def seeds_right(effect, sd):
    return max(2, int(np.ceil(2 * (1.96 * sd / effect) ** 2)))


RIGHT = {
    "00.n_styles": lambda size: 2 * (size.bit_length() - 2),
    "00.mix": mix_right,
    "01.direct": lambda g, b: np.clip(256 * g / np.maximum(b, 1), 0, 255),
    "01.keep_only": keep_right,
    "01.r2": r2_right,
    "06.trainable": lambda net: sum(p.numel() for p in net.parameters() if p.requires_grad),
    "06.reg": lambda w, m: (w - m).flatten(1).norm(dim=1).mean(),
    "06.split": lambda i: {8: "val", 9: "test"}.get(i % 10, "train"),
    "07.paired": paired_right,
    "07.rank1": rank1_right,
    "07.seeds": seeds_right,
}
WRONG = [
    ("00.n_styles", lambda size: 2 * (size.bit_length() - 1), "two styles"),
    ("00.n_styles", lambda size: 2.0 * (size.bit_length() - 2), "whole number"),
    ("00.n_styles", lambda size: None, "return"),
    ("00.mix", mix_in_place, "clone"),
    ("00.mix", lambda a, b, k: mix_right(b, a, k), "from w_a"),
    ("01.direct", lambda g, b: 256 * g / np.maximum(b, 1), "clip"),
    ("01.direct", lambda g, b: np.clip(256 * g / b, 0, 255), "0/0"),
    ("01.keep_only", lambda p, m, k: np.where(m[..., None] == k[0], p, np.uint8(255)), "white"),
    ("01.keep_only", lambda p, m, k: p.__setitem__(~np.isin(m, k), 255) or p, "copy"),
    ("01.r2", lambda t, g: 1 - ((t - g) ** 2).sum() / ((t - t.mean()) ** 2).sum(), "column"),
    ("06.trainable", lambda net: sum(p.numel() for p in net.parameters()), "frozen"),
    ("06.reg", lambda w, m: (w - m).flatten(1).square().sum(1).mean(), "root"),
    ("06.reg", lambda w, m: (w - m).norm(dim=2).mean(), "one norm per face"),
    ("06.split", lambda i: "train", "identity 8"),
    ("07.paired", lambda a, b: ((b - a).mean(), ((a.var(ddof=1) + b.var(ddof=1)) / 40) ** 0.5), "unpaired"),
    ("07.paired", lambda a, b: ((b - a).mean(), (b - a).std(ddof=1)), "√n"),
    ("07.rank1", lambda s, p, g: (g[s.argmax(0)[:1].repeat(len(p))] == p).mean(), ""),
    ("07.seeds", lambda effect, sd: int((1.96 * sd / effect) ** 2) + 1, "solve"),
]


@pytest.mark.parametrize("name", RIGHT)
def test_checks_know_right_from_undone_and_broken(name):
    verdict = grade(name, RIGHT[name])
    assert verdict.status == "right", verdict.message
    assert grade(name, stub).status == "not done yet"
    failed = grade(name, broken)
    assert failed.status == "error" and "ZeroDivisionError" in failed.message and "broken" in failed.message
    assert grade(name, lambda *_: None).status in ("wrong", "error")


@pytest.mark.parametrize(("name", "answer", "hint"), WRONG, ids=[f"{w[0]}-{i}" for i, w in enumerate(WRONG)])
def test_checks_give_the_right_hint(name, answer, hint):
    with np.errstate(all="ignore"):
        verdict = grade(name, answer)
    assert verdict.status == "wrong", verdict
    assert hint in verdict.message


def test_every_course_exercise_is_tested_here():
    lessons = ("00", "01", "06", "07")
    for number in lessons:
        exercises.find_checker(next(name for name in RIGHT if name.startswith(number)))
    ours = {name for name in exercises.CHECKERS if name.startswith(lessons)}
    assert ours == set(RIGHT)


def test_check_prints_and_strict_raises(capsys):
    exercises.check("00.mix", mix_right, strict=True)
    exercises.check("00.mix", stub)
    assert capsys.readouterr().out.startswith("✓ right: ")
    with pytest.raises(S2FError, match="00.mix is not done yet"):
        exercises.check("00.mix", stub, strict=True)
    for unknown in ("00.nothing", "99.x"):
        with pytest.raises(S2FError, match="there is no exercise"):
            exercises.check(unknown, stub)


def test_expect_close_says_what_differs():
    expect(True, "")
    expect_close(torch.ones(2, requires_grad=True), np.ones(2), "")
    for answer, hint in (
        (np.ones(3), r"shape is \(3,\)"),
        (None, "return"),
        ("text", "numbers"),
        (np.array([1, np.nan]), "not finite"),
        (np.array([1, 1.5]), "difference is 0.5"),
    ):
        with pytest.raises(exercises.Wrong, match=hint):
            expect_close(answer, np.ones(2), "hint")
