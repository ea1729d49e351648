"""Checks for the exercises of notebook 04_cbam_attention."""

from __future__ import annotations

import torch

from s2flib.course.exercises import exercise, expect, expect_close, seeded


@exercise("04.channel_gate")
def channel_gate(student) -> str:
    """Learner's function: (F (B, C, H, W), mlp: (B, C) → (B, C)) → M_c (B, C, 1, 1)."""
    x = torch.randn(2, 6, 5, 4, generator=seeded(40))
    hidden, back = torch.randn(6, 3, generator=seeded(41)), torch.randn(3, 6, generator=seeded(42))

    def mlp(d):
        return (d @ hidden).relu() @ back

    got = student(x.clone(), mlp)
    avg, top = x.mean((2, 3)), x.flatten(2).max(2).values
    truth = (mlp(avg) + mlp(top)).sigmoid()[:, :, None, None]
    for wrong, hint in (
        ((mlp(avg + top)).sigmoid(), "the MLP sees each descriptor by itself; add afterwards."),
        (mlp(avg).sigmoid(), "the max-pooled descriptor is missing."),
        (mlp(top).sigmoid(), "the average-pooled descriptor is missing."),
        (mlp(avg).sigmoid() + mlp(top).sigmoid(), "add first, then apply the sigmoid: gates stay in (0, 1)."),
        (mlp(avg) + mlp(top), "the sigmoid is missing."),
    ):
        if isinstance(got, torch.Tensor) and got.numel() == wrong.numel():
            expect(not torch.allclose(got.reshape(2, 6), wrong, atol=1e-5), hint)
    expect_close(got, truth, "pool over height and width, twice (mean and max), and keep two axes of size 1.")
    return "one number in (0, 1) per channel: how much that feature matters in this image."


@exercise("04.refine")
def refine(student) -> str:
    """Learner's function: (F, m_c, spatial_gate function, "cbam" | "seed") → F''."""
    x, m_c = torch.randn(2, 4, 5, 5, generator=seeded(45)), torch.rand(2, 4, 1, 1, generator=seeded(46))
    places = torch.rand(2, 1, 5, 5, generator=seeded(47))

    def spatial_gate(features):
        return (features.mean(1, keepdim=True) + places).sigmoid()

    m_s = spatial_gate(m_c * x)
    for variant, truth, other, multiplied in (
        ("cbam", m_s * m_c * x, m_s * x, m_c * x),
        ("seed", m_s * x, m_s * m_c * x, x),
    ):
        got = student(x.clone(), m_c.clone(), spatial_gate, variant)
        if isinstance(got, torch.Tensor) and got.shape == truth.shape:
            hint = "the spatial gate looks at F', the map after the channel gate, in both variants."
            expect(not torch.allclose(got, spatial_gate(x) * multiplied, atol=1e-5), hint)
            hint = f'for "{variant}" that is the other reading: CBAM multiplies F\', the seed paper F.'
            expect(not torch.allclose(got, other, atol=1e-5), hint)
        expect_close(got, truth, f"\"{variant}\": first F' = m_c ⊗ F, then m_s = spatial_gate(F').", 1e-5)
    return "in the seed paper's formula, the channel gate only affects the spatial gate."


@exercise("04.attention_loss")
def attention_loss(student) -> str:
    """Learner's function: two lists of maps F'' [(B, C, h, w), …] → mean of ‖difference‖₂ / √(numbers)."""
    rng = seeded(43)
    one = [torch.randn(3, c, s, s, generator=rng) for c, s in ((4, 8), (6, 4))]
    two = [torch.randn(3, c, s, s, generator=rng) * k for c, s, k in ((4, 8, 1), (6, 4, 3))]
    got = student([m.clone() for m in one], [m.clone() for m in two])
    sums = [[float((p - q).pow(2).sum()) for p, q in zip(a, b, strict=True)] for a, b in zip(one, two, strict=True)]
    sizes = [a[0].numel() for a in one]
    truth = sum((v / n) ** 0.5 for row, n in zip(sums, sizes, strict=True) for v in row) / 6
    if isinstance(got, torch.Tensor) and got.numel() == 1:
        got = got.reshape(())
        squared = sum(v / n for row, n in zip(sums, sizes, strict=True) for v in row) / 6
        batch = sum((sum(row) / 3 / n) ** 0.5 for row, n in zip(sums, sizes, strict=True)) / 2
        for wrong, hint in (
            (sum(v**0.5 for row in sums for v in row) / 6, "divide each norm by √(numbers in the map)."),
            (squared, "the root is missing: ‖·‖₂ is not squared."),
            (batch, "one norm per picture first, then the mean over the batch."),
            (2 * truth, "take the mean over the maps, not the sum."),
        ):
            expect(abs(float(got) - wrong) > 1e-4, hint)
    expect_close(got, truth, "per map and picture: difference, square, sum, root, divided by √n; then the mean.", 1e-4)
    expect(abs(float(student(one, one))) < 1e-4, "equal maps must give 0.")
    return "the distance between what the network attends to in the photo and in the output."
