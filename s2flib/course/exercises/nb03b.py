"""Checks for the exercises of notebook 03b_psp_encoder."""

from __future__ import annotations

import torch

from s2flib.course.exercises import exercise, expect, expect_answer, expect_close, seeded

PARTS = {
    "outline of the head": "A",
    "lines of eyes and mouth": "A",
    "colour of the skin": "B",
    "colour of the hair": "B",
}


@exercise("03b.parameters")
def head_parameters(student) -> str:
    """Learner's function: (in_ch, head, style_dim, side) → number of parameters of one map2style head."""

    def count(in_ch, head, style_dim, side, kernel=9, conv_bias=1, linear_bias=1, first=None, more=0):
        total, channels, convs = 0, in_ch if first is None else first, side.bit_length() - 1 + more
        for _ in range(convs):
            total += head * (channels * kernel + conv_bias)
            channels = head
        return total + style_dim * (head + linear_bias)

    for case in ((5, 3, 7, 8), (192, 64, 256, 8), (192, 64, 256, 32), (512, 512, 512, 16), (512, 512, 512, 64)):
        got = student(*case)
        expect_answer(got)
        for wrong, hint in (
            (count(*case, more=1), "that is one convolution too many: log₂(side) of them reach 1 × 1."),
            (count(*case, kernel=1), "a 3×3 kernel has nine weights for each pair of channels."),
            (count(*case, conv_bias=0), "each convolution also has one bias for each output channel."),
            (count(*case, linear_bias=0), "the linear layer has a bias, too."),
            (count(*case, first=case[1]), "the first convolution reads in_ch channels, only the others read head."),
        ):
            expect(got != wrong or wrong == count(*case), hint)
        in_ch, head, style_dim, side = case
        where = f"in_ch={in_ch}, head={head}, style_dim={style_dim}, side={side}"
        expect(got == count(*case), f"for {where} it gives {got}, but the head has {count(*case)}.")
    return "the fine rows have the largest heads: a larger map takes more convolutions until one cell is left."


@exercise("03b.view")
def view(student) -> str:
    """Learner's function: blocks in each group → the taps' views in pixels, from the largest map to the smallest."""

    def truth(units, first=3, late=True, both=True):
        pixels, step, ends = first, 1, []
        for blocks in units:
            for block in range(blocks):
                pixels += 2 * step
                if block == 0 and not late:
                    step *= 2
                pixels += 2 * step * both
                if block == 0 and late:
                    step *= 2
            ends.append(pixels)
        return ends[1:]

    for units in ((2, 2, 3, 2), (3, 4, 14, 3), (1, 1, 1, 1)):
        got = student(units)
        expect_answer(got)
        expect(
            isinstance(got, list | tuple) and len(got) == 3, f"return three numbers, one for each tap; it gave {got!r}."
        )
        got, right = [int(v) for v in got], truth(units)
        for wrong, hint in (
            (truth(units, first=1), "the input layer widens the view, too: before the first block it is 3 pixels."),
            (truth(units, late=False), "the step doubles after the second convolution, not before it."),
            (truth(units, both=False), "every block has two 3×3 convolutions."),
            (right[::-1], "the order is S/4, S/8, S/16."),
        ):
            expect(got != wrong, hint)
        expect(got == right, f"for the blocks {units} it gives {got}, but should give {right}.")
    return "and through SE, which averages over all positions, every cell knows something of the whole picture."


@exercise("03b.predict")
def predict(student) -> str:
    """Learner's function: () → for each part of the face, the sketch that it comes from: "A" (F) or "B" (w+)."""
    got = student()
    expect_answer(got)
    expect(
        isinstance(got, dict) and set(got) == set(PARTS), f"return a dict with the keys {', '.join(map(repr, PARTS))}."
    )
    expect(set(got.values()) <= {"A", "B"}, 'every value is "A" or "B".')
    for part, right in PARTS.items():
        if got[part] != right:
            where = "F says what is where" if right == "A" else "the rows that still run, from 64 px on, set colours"
            expect(False, f"not the {part}: {where}. Look at the last rows of section 6's figure again.")
    return "with F, w+ only colours in what the feature map has drawn. Run the next cell and compare."


@exercise("03b.change")
def level_change(student) -> str:
    """Learner's function: (before, after), (B, n_styles, D) each → {level: root mean square of the change}."""
    for people, styles in ((3, 12), (2, 18)):
        before = torch.randn(people, styles, 5, generator=seeded(34))
        after = before + torch.randn(people, styles, 5, generator=seeded(35)) * torch.arange(1, styles + 1)[:, None]
        got = student(before.clone(), after.clone())
        expect_answer(got)
        names = ("coarse", "middle", "fine")
        expect(isinstance(got, dict) and set(got) == set(names), f"return a dict with the keys {', '.join(names)}.")
        for name, (first, last) in zip(names, ((0, 3), (3, 7), (7, styles)), strict=True):
            moved = (after - before)[:, first:last].flatten(1)
            value = float(torch.as_tensor(got[name]))
            for wrong, hint in (
                (moved.norm(dim=1).mean(), "that is the norm: divide by the root of the number of values."),
                (moved.square().mean(1).mean(), "take the root of each sketch's mean square."),
                (moved.square().mean().sqrt(), "take the root for each sketch first, then average over the batch."),
                (moved.abs().mean(), "take the mean of the squares, then the root."),
            ):
                expect(abs(value - float(wrong)) > 1e-5, f"{name}: {hint}")
            rows = f"rows {first} to {last - 1}"
            expect_close(torch.tensor(value), moved.square().mean(1).sqrt().mean(), f"{name} has {rows}.")
    return "now any two sketches can be compared level by level."
