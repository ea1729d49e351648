"""Checks for the exercises of notebook 04_cbam_attention."""

from __future__ import annotations

import torch

from s2flib.course.exercises import exercise, expect, expect_answer, expect_close, seeded

OUTCOMES = ("the same", "shuffled alike", "different")


def _outcome(attend) -> str:
    """What becomes of ``attend``'s result when the positions of its input are shuffled."""
    x, order = torch.randn(2, 8, 5, 5, generator=seeded(40)), torch.randperm(25, generator=seeded(41))
    with torch.no_grad():
        old, new = attend(x).flatten(2), attend(x.flatten(2)[:, :, order].view(x.shape)).flatten(2)
    if torch.allclose(new, old, atol=1e-5):
        return "the same"
    same_size = old.shape[2] == len(order)
    return "shuffled alike" if same_size and torch.allclose(new, old[:, :, order], atol=1e-5) else "different"


def _attentions() -> dict:
    """Name → a function F (B, 8, H, W) → the gate, or the output of self-attention; random weights."""
    down, up = torch.randn(8, 3, generator=seeded(42)), torch.randn(3, 8, generator=seeded(43))
    kernel = torch.randn(1, 2, 7, 7, generator=seeded(44)) / 7
    q, k, v = (torch.randn(8, 8, generator=seeded(45 + i)) / 3 for i in range(3))

    def channel_gate(x):
        avg, top = ((pooled @ down).relu() @ up for pooled in (x.mean((2, 3)), x.amax((2, 3))))
        return (avg + top).sigmoid()[:, :, None]  # (B, C, 1)

    def spatial_gate(x):
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return torch.nn.functional.conv2d(pooled, kernel, padding=3).sigmoid()

    def self_attention(x):
        tokens = x.flatten(2).transpose(1, 2)  # (B, N, C)
        weights = (tokens @ q @ (tokens @ k).transpose(1, 2) / 8**0.5).softmax(-1)
        return (tokens + weights @ tokens @ v).transpose(1, 2)

    return {"M_c": channel_gate, "M_s": spatial_gate, "self-attention": self_attention}


@exercise("04.shuffle")
def shuffle(student) -> str:
    """Learner's function: () → what a shuffle of the positions does to each of the three."""
    got = student()
    expect_answer(got)
    attentions = _attentions()
    expect(isinstance(got, dict) and set(got) == set(attentions), f"return a dict with the keys {list(attentions)}.")
    hints = {
        "M_c": "it sees nothing but each channel's mean and maximum. Does either change?",
        "M_s": "its 7×7 convolution looks at a position's neighbours. Who are they after the shuffle?",
        "self-attention": "a row of A is computed from features alone; nothing in it says where a position is.",
    }
    for name, attend in attentions.items():
        expect(got[name] in OUTCOMES, f"{name}: answer with one of {', '.join(map(repr, OUTCOMES))}.")
        expect(got[name] == _outcome(attend), f"{name} is not {got[name]!r}: {hints[name]}")
    return (
        "only the spatial gate knows about neighbours. Transformers must be told where a position is, by an encoding."
    )


@exercise("04.fill")
def fill(student) -> str:
    """Learner's function: (pictures (B, 3, H, W), covered (B, 1, H, W) bool) → filled with the rest's mean colour."""
    x = torch.rand(3, 3, 6, 6, generator=seeded(48)) * 2 - 1
    covered = torch.rand(3, 1, 6, 6, generator=seeded(49)) < 0.4
    given = x.clone()
    got = student(given, covered.clone())
    expect_answer(got)
    expect(torch.equal(given, x), "the pictures that came in have changed: work on a copy (torch.where makes one).")
    if isinstance(got, torch.Tensor) and got.shape == x.shape:
        outside = ~covered.expand_as(x)
        expect(torch.allclose(got[outside], x[outside]), "pixels that are not covered must stay as they are.")
        rest = (~covered).float()
        means = (x * rest).sum((2, 3), keepdim=True) / rest.sum((2, 3), keepdim=True)  # (B, 3, 1, 1)
        for colour, hint in (
            (x.mean((2, 3), keepdim=True), "the mean includes the covered pixels: leave them out."),
            (means.mean(1, keepdim=True), "that is a grey: take the mean of each of the three colours by itself."),
            (means.mean(0, keepdim=True), "every picture has its own mean: do not average over the batch."),
            ((x * rest).mean((2, 3), keepdim=True), "divide by the number of uncovered pixels, not by all pixels."),
        ):
            expect(not torch.allclose(got, torch.where(covered, colour, x), atol=1e-5), hint)
    truth = x.clone()
    for b in range(3):
        keep = ~covered[b, 0]
        for c in range(3):
            truth[b, c][covered[b, 0]] = x[b, c][keep].mean()
    expect_close(got, truth, "covered pixels get the mean of the uncovered ones, per picture and colour.", 1e-5)
    return "no way of covering is neutral; a verdict that depends on the paint is about the paint."


@exercise("04.direction")
def direction(student) -> str:
    """Learner's function: two lists of maps [(B, C, h, w), …] → mean ‖a/‖a‖ − b/‖b‖‖₂ over maps and pictures."""
    rng = seeded(43)
    one = [torch.randn(3, c, s, s, generator=rng) for c, s in ((4, 8), (6, 4))]
    two = [torch.randn(3, c, s, s, generator=rng) * k for c, s, k in ((4, 8, 1), (6, 4, 3))]
    got = student([m.clone() for m in one], [m.clone() for m in two])

    def unit(maps):
        return [[p.flatten() / p.norm() for p in m] for m in maps]

    gaps = [
        [float((p - q).norm()) for p, q in zip(a, b, strict=True)] for a, b in zip(unit(one), unit(two), strict=True)
    ]
    truth = sum(map(sum, gaps)) / 6
    if isinstance(got, torch.Tensor) and got.numel() == 1:
        got = got.reshape(())
        plain = sum(float((p - q).norm()) for a, b in zip(one, two, strict=True) for p, q in zip(a, b, strict=True)) / 6
        whole = [
            float((a / a.norm() - b / b.norm()).flatten(1).norm(dim=1).mean()) for a, b in zip(one, two, strict=True)
        ]
        for wrong, hint in (
            (plain, "the maps are not scaled yet: divide each by its own length first."),
            (sum(whole) / 2, "scale the map of every picture by itself, not the whole batch at once."),
            (2 * truth, "take the mean over the maps, not the sum."),
            (sum(v * v for row in gaps for v in row) / 6, "the distance is not squared."),
        ):
            expect(abs(float(got) - wrong) > 1e-4, hint)
    expect_close(got, truth, "per map and picture: scale both to length 1, difference, norm; then the mean.", 1e-4)
    scaled = student([5 * m for m in one], [0.1 * m for m in two])
    expect(abs(float(scaled) - truth) < 1e-4, "a common factor must not change the loss.")
    return "the size of F'' no longer matters. Whether this is enough, the next cell shows."
