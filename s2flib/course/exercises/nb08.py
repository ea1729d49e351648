"""Checks for the exercises of notebook 08_instructpix2pix."""

from __future__ import annotations

import torch

from s2flib.course.exercises import exercise, expect, expect_answer, expect_close, seeded


@exercise("08.needed")
def needed(student) -> str:
    """Learner's function: (s_I, s_T) → the names of the predictions with a factor other than 0 in Eq. 3."""
    for s_i, s_t in ((1.0, 1.0), (1.0, 4.0), (2.0, 2.0), (1.5, 4.0), (1, 1), (1.0, 0.0)):
        got = student(s_i, s_t)
        expect_answer(got)
        expect(isinstance(got, (set, frozenset, list, tuple)), 'return a set of names, such as {"picture", "both"}.')
        unknown = set(got) - {"neither", "picture", "both"}
        expect(not unknown, f'there is no prediction {sorted(map(str, unknown))}: use "neither", "picture" and "both".')
        factors = {"neither": 1 - s_i, "picture": s_i - s_t, "both": s_t}
        truth = {name for name, factor in factors.items() if factor}
        superfluous, missing = set(got) - truth, truth - set(got)
        where = f"at s_I = {s_i:g}, s_T = {s_t:g}"
        hint = "sort Eq. 3 by prediction, and look at the factor of each."
        expect(not superfluous, f"{where} {' and '.join(sorted(superfluous))} cancels out: {hint}")
        expect(not missing, f"{where} {' and '.join(sorted(missing))} is needed: {hint}")
    return "the factors are 1 − s_I, s_I − s_T and s_T; they add up to 1. At (1, 1) one question per step is enough."


@exercise("08.ramp")
def ramp(student) -> str:
    """Learner's function: (u, low, high, peak) → s_T: 1 outside (low, high), a triangle up to peak inside."""
    for low, high, peak in ((0.2, 0.7, 7.0), (0.0, 1.0, 3.0)):
        middle = (low + high) / 2
        cases = (
            (low - 0.1, 1.0, "below low"),
            (high + 0.1, 1.0, "above high"),
            (low, 1.0, "at low"),
            (high, 1.0, "at high"),
            (middle, peak, "midway between low and high"),
            ((low + middle) / 2, (1 + peak) / 2, "half way up"),
            ((high + middle) / 2, (1 + peak) / 2, "half way down"),
        )
        for u, truth, where in cases:
            got = student(u, low, high, peak)
            expect_answer(got)
            hint = "outside the interval the guidance is 1 (none), not 0: 0 would ignore the words."
            expect(not (truth == 1 and abs(float(got)) < 1e-6), hint)
            hint = f"s_T should be {truth:g} {where} (u = {u:g}, low = {low:g}, high = {high:g}, peak = {peak:g})."
            expect_close(float(got), truth, hint, 1e-5)
    return "the area under the ramp is half of the block's: weaker guidance on average, and no jump between two steps."


@exercise("08.dropout")
def dropout(student) -> str:
    """Learner's function: (u (B,) uniform, share) → (no_text (B,) bool, no_picture (B,) bool)."""
    u = torch.rand(60_000, generator=seeded(85))
    got = student(u, 0.05)
    expect(isinstance(got, tuple) and len(got) == 2, "return a pair: (no_text, no_picture).")
    text, picture = (torch.as_tensor(g) for g in got)
    matches = text.shape == picture.shape == u.shape and text.dtype == picture.dtype == torch.bool
    expect(matches, "both answers are bool tensors with one entry per example.")
    shares = {"only the text": text & ~picture, "only the picture": picture & ~text, "both": text & picture}
    for name, gone in shares.items():
        found = float(gone.float().mean())
        hint = f"{name} should be dropped in 5 % of the examples, but is dropped in {100 * found:.1f} %."
        expect(abs(found - 0.05) < 0.006, hint)
    none = student(u, 0.0)
    expect(not bool(none[0].any() or none[1].any()), "with share 0 nothing is dropped: check < against ≤.")
    return "one network learns four distributions, and Eq. 3 can combine them at run time."


@exercise("08.at_least")
def at_least(student) -> str:
    """Learner's function: n → the p with pⁿ = 0.05."""
    for n in (1, 12, 40):
        got, truth = student(n), 0.05 ** (1 / n)
        expect_answer(got)
        hint = "that is the rule of three, 1 − 3/n, an approximation for large n: solve pⁿ = 0.05 exactly."
        expect(abs(float(got) - (1 - 3 / n)) > 1e-6, hint)
        expect(abs(float(got) - 0.05**n) > 1e-9 or n == 1, "that is 0.05ⁿ: solve pⁿ = 0.05 for p.")
        expect(abs(float(got) - 0.95 ** (1 / n)) > 1e-6, "the probability of n successes should be 5 %, not 95 %.")
        expect_close(float(got), truth, f"n = {n}: n independent successes have probability pⁿ; set it to 0.05.", 1e-6)
    return "12 of 12 still allow 78 %, 40 of 40 allow 93 %: a perfect score is a statement about n, too."
