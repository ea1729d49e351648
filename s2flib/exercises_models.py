"""Checkers of the exercises in notebooks 03, 04, 05. Truths are computed here, not taken from s2flib."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from s2flib.exercises import Wrong, exercise, expect, expect_close


def _rng(seed: int = 30) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- 03_stylegan2 -------------------------------------------------------------------------------------


@exercise("03.demodulate")
def demodulate(student) -> str:
    """Learner's function: (weight (out, in, k, k), s (in,)) → Eq. 3's weight, the same shape."""
    weight, s = torch.randn(5, 4, 3, 3, generator=_rng()), torch.rand(4, generator=_rng(31)) * 3 + 0.2
    truth = torch.stack([(w * s[:, None, None]) / ((w * s[:, None, None]).pow(2).sum() + 1e-8).sqrt()
                         for w in weight])
    got = student(weight.clone(), s.clone())
    if isinstance(got, torch.Tensor) and got.shape == truth.shape:
        modulated = weight * s[None, :, None, None]
        expect(not torch.allclose(got, modulated), "that is Eq. 1; now divide by the norm of Eq. 3.")
        expect(not torch.allclose(got, modulated / modulated.square().sum((1, 2, 3), keepdim=True), atol=1e-4),
               "the square root is missing.")
        expect(not torch.allclose(got, F.normalize(modulated.flatten(2), dim=2).view_as(weight), atol=1e-4),
               "the sum of Eq. 3 runs over i as well: one norm per output channel, not one per channel pair.")
        plain = weight / weight.square().sum((1, 2, 3), keepdim=True).sqrt()
        expect(not torch.allclose(got, plain, atol=1e-4), "the style has no effect yet: Eq. 1 comes first.")
    expect_close(got, truth, "s scales the input channels (axis 1); the norm is taken over axes 1, 2 and 3.")
    tiny = student(weight * 1e-6, s)
    expect(isinstance(tiny, torch.Tensor) and float(tiny.abs().max()) < 0.1,
           "for a very small weight ε = 1e-8 should hold the result down: it stands inside the root.")
    return "each output channel ends with unit norm, whatever the style: no layer can blow up the next."


@exercise("03.rows")
def rows_of(student) -> str:
    """Learner's function: size (4, 8, 16, …) → rows of w+ that its convolutions read."""
    truths = {4: [0], 8: [1, 2], 16: [3, 4], 32: [5, 6], 128: [9, 10], 1024: [15, 16]}
    for size, truth in truths.items():
        got = student(size)
        expect(got is not None, "the function returned None: did you forget 'return'?")
        expect(isinstance(got, list | tuple | range),
               f"return a list of row numbers; for {size} px it gave {got!r}.")
        got = [int(v) for v in got]
        expect(got == truth, f"for {size} px it gives {got}, and it is {truth}: 4 px has one convolution, "
               "every later size has two, and each reads the next row.")
    return "so at 1024 px rows 0 to 6 are all spent below 64 px: shape first, then colour."


@exercise("03.blend")
def blend(student) -> str:
    """Learner's function: (a (n, D), b (n, D), first, last, amount) → rows [first, last) moved towards b."""
    a, b = torch.randn(6, 3, generator=_rng(32)), torch.randn(6, 3, generator=_rng(33))
    for first, last, amount in ((2, 4, 1.0), (0, 6, 0.5), (3, 6, 0.25), (4, 4, 1.0)):
        keep_a, keep_b = a.clone(), b.clone()
        got = student(a, b, first, last, amount)
        expect(torch.equal(a, keep_a) and torch.equal(b, keep_b),
               "the inputs have changed: work on a copy (.clone()).")
        truth = torch.stack([a[r] * (1 - amount) + b[r] * amount if first <= r < last else a[r]
                             for r in range(6)])
        expect_close(got, truth, f"with first={first}, last={last}, amount={amount}: rows {first} to {last - 1} "
                     "move, all others stay a's.")
    return "with b a random person this is pSp's multi-modal output."


# --- 04_cbam_attention --------------------------------------------------------------------------------


@exercise("04.channel_gate")
def channel_gate(student) -> str:
    """Learner's function: (F (B, C, H, W), mlp: (B, C) → (B, C)) → M_c (B, C, 1, 1)."""
    x = torch.randn(2, 6, 5, 4, generator=_rng(40))
    hidden, back = torch.randn(6, 3, generator=_rng(41)), torch.randn(3, 6, generator=_rng(42))

    def mlp(d):
        return (d @ hidden).relu() @ back

    got = student(x.clone(), mlp)
    avg, top = x.mean((2, 3)), x.flatten(2).max(2).values
    truth = (mlp(avg) + mlp(top)).sigmoid()[:, :, None, None]
    for wrong, hint in (((mlp(avg + top)).sigmoid(), "the MLP sees each descriptor by itself; add afterwards."),
                        (mlp(avg).sigmoid(), "the max-pooled descriptor is missing."),
                        (mlp(top).sigmoid(), "the average-pooled descriptor is missing."),
                        (mlp(avg).sigmoid() + mlp(top).sigmoid(), "add first, then the sigmoid: gates stay in (0, 1)."),
                        (mlp(avg) + mlp(top), "the sigmoid is missing.")):
        if isinstance(got, torch.Tensor) and got.numel() == wrong.numel():
            expect(not torch.allclose(got.reshape(2, 6), wrong, atol=1e-5), hint)
    expect_close(got, truth, "pool over height and width, twice (mean and max), and keep two axes of size 1.")
    return "one number in (0, 1) per channel: which features matter in this picture."


@exercise("04.refine")
def refine(student) -> str:
    """Learner's function: (F, m_c, spatial_gate function, "cbam" | "seed") → F''."""
    x, m_c = torch.randn(2, 4, 5, 5, generator=_rng(45)), torch.rand(2, 4, 1, 1, generator=_rng(46))
    places = torch.rand(2, 1, 5, 5, generator=_rng(47))

    def spatial_gate(features):
        return (features.mean(1, keepdim=True) + places).sigmoid()

    m_s, m_s_of_f = spatial_gate(m_c * x), spatial_gate(x)
    for variant, truth in (("cbam", m_s * m_c * x), ("seed", m_s * x)):
        got = student(x.clone(), m_c.clone(), spatial_gate, variant)
        if isinstance(got, torch.Tensor) and got.shape == truth.shape:
            expect(not torch.allclose(got, m_s_of_f * (m_c * x if variant == "cbam" else x), atol=1e-5),
                   "the spatial gate looks at F', the map after the channel gate, in both variants.")
            other = m_s * x if variant == "cbam" else m_s * m_c * x
            expect(not torch.allclose(got, other, atol=1e-5),
                   f'for "{variant}" that is the other reading: CBAM multiplies F\', the seed paper F.')
        expect_close(got, truth, f'"{variant}": first F\' = m_c ⊗ F, then m_s = spatial_gate(F\').', 1e-5)
    return "in the seed paper's line the channel gate only steers the spatial one."


@exercise("04.attention_loss")
def attention_loss(student) -> str:
    """Learner's function: two lists of maps F'' [(B, C, h, w), …] → mean of ‖difference‖₂ / √(numbers)."""
    rng = _rng(43)
    one = [torch.randn(3, c, s, s, generator=rng) for c, s in ((4, 8), (6, 4))]
    two = [torch.randn(3, c, s, s, generator=rng) * k for (c, s), k in zip(((4, 8), (6, 4)), (1, 3), strict=True)]
    got = student([m.clone() for m in one], [m.clone() for m in two])
    sums = [[float((p - q).pow(2).sum()) for p, q in zip(a, b, strict=True)] for a, b in zip(one, two, strict=True)]
    sizes = [a[0].numel() for a in one]
    truth = sum((v / n) ** 0.5 for row, n in zip(sums, sizes, strict=True) for v in row) / 6
    if isinstance(got, torch.Tensor) and got.numel() == 1:
        got = got.reshape(())
        for wrong, hint in (
            (sum(v**0.5 for row in sums for v in row) / 6, "divide each norm by √(numbers in the map)."),
            (sum(v / n for row, n in zip(sums, sizes, strict=True) for v in row) / 6,
             "the root is missing: ‖·‖₂ is not squared."),
            (sum((sum(row) / 3 / n) ** 0.5 for row, n in zip(sums, sizes, strict=True)) / 2,
             "one norm per picture first, then the mean over the batch."),
            (2 * truth, "take the mean over the maps, not the sum.")):
            expect(abs(float(got) - wrong) > 1e-4, hint)
    expect_close(got, truth, "per map and picture: difference, square, sum, root, divided by √n; then the mean.", 1e-4)
    expect(abs(float(student(one, one))) < 1e-4, "equal maps must give 0.")
    return "the distance between what the net attends to in the photo and in the drawing."


# --- 05_losses ----------------------------------------------------------------------------------------


@exercise("05.reg")
def reg(student) -> str:
    """Learner's function: (w_plus (B, n, D), w_avg (D,)) → scalar, mean over the batch of ‖w+ − w̄‖₂."""
    w_plus, w_avg = torch.randn(4, 5, 6, generator=_rng(50)), torch.randn(6, generator=_rng(51))
    norms = torch.stack([(w - w_avg).pow(2).sum().sqrt() for w in w_plus])
    got = student(w_plus.clone(), w_avg.clone())
    if isinstance(got, torch.Tensor) and got.numel() == 1:
        value = got.reshape(())
        expect(not torch.isclose(value, norms.pow(2).mean(), rtol=1e-4), "the root is missing.")
        expect(not torch.isclose(value, (w_plus - w_avg).norm(dim=2).mean(), rtol=1e-4),
               "one norm per picture over all its rows (the Frobenius norm), not one per row.")
        expect(not torch.isclose(value, norms.sum(), rtol=1e-4), "take the mean over the batch, not the sum.")
        got = value
    expect_close(got, norms.mean(), "subtract w̄ from every row, take one norm per picture, then the mean.")
    return "an encoder that strays from the faces the generator knows pays for it."


@exercise("05.identity")
def identity(student) -> str:
    """Learner's function: (a (B, d), b (B, d)) embeddings of any length → (B,) loss 1 − cos."""
    a, b = torch.randn(5, 7, generator=_rng(52)) * 3, torch.randn(5, 7, generator=_rng(53)) * 0.2
    cosine = torch.stack([(p @ q) / (p.norm() * q.norm()) for p, q in zip(a, b, strict=True)])
    got = student(a.clone(), b.clone())
    if isinstance(got, torch.Tensor) and got.shape == cosine.shape:
        expect(not torch.allclose(got, cosine, atol=1e-5), "that is the similarity; the loss is 1 minus it.")
        expect(not torch.allclose(got, 1 - (a * b).sum(1), atol=1e-4),
               "these embeddings do not have length 1: divide by their lengths first.")
    expect_close(got, 1 - cosine, "one number per pair: 1 − ⟨a, b⟩ / (‖a‖ ‖b‖).")
    return "0 for the same direction, 1 for strangers; lengths do not count."


@exercise("05.lambda4")
def lambda4(student) -> str:
    """Learner's function: (total_without float, attention float, lambda4 float) → attention's share of the loss."""
    for without, attention, weight in ((0.2, 0.01, 1.0), (0.3, 0.002, 1e6), (0.5, 0.1, 0.0)):
        got = student(without, attention, weight)
        expect(got is not None, "the function returned None: did you forget 'return'?")
        truth = weight * attention / (without + weight * attention)
        if abs(float(got) - truth) > 1e-9 and abs(float(got) - weight * attention / without) < 1e-9:
            raise Wrong("that is the ratio to the other terms; the share is of the *whole* loss.")
        expect_close(float(got), truth, "share = λ4 · attention / (all other terms + λ4 · attention).", 1e-9)
    return "for large λ4 every other term is a rounding error: the encoder hears the attention loss only."
