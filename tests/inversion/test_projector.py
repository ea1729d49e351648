"""StyleGAN2's projector: its ramps, its noise regularisation, the gradient of its loss, and what it finds."""

import math

import numpy as np
import pytest
import torch
from inversion_cases import naive_distances, slope

from s2flib.errors import S2FError
from s2flib.inversion import projector
from s2flib.inversion.projector import (
    Projector,
    code_statistics,
    learning_rate,
    noise_regularisation,
    noise_strength,
    normalise,
)


def test_ramps():
    rates = {0: 0, 0.025: 0.5, 0.05: 1, 0.5: 1, 0.75: 1, 0.875: 0.5, 1: 0}
    for t, share in rates.items():
        assert learning_rate(t, 0.1) == pytest.approx(0.1 * share, abs=1e-12)
    assert learning_rate(0.8125, 1) == pytest.approx(0.5 + math.sqrt(0.125))  # a cosine, not a line
    strengths = {0: 1, 0.05: (1 - 1 / 15) ** 2, 0.375: 0.25, 0.75: 0, 1: 0}
    for t, share in strengths.items():
        assert noise_strength(t, 4.0) == pytest.approx(0.05 * 4.0 * share, abs=1e-12)


def naive_regularisation(maps):
    """App. D with loops, one photo's maps (r, r)."""
    total = 0.0
    for n in maps:
        while True:
            r = len(n)
            across = sum(n[y, x] * n[y, x - 1] for y in range(r) for x in range(r)) / r**2  # index −1: the last
            down = sum(n[y, x] * n[y - 1, x] for y in range(r) for x in range(r)) / r**2
            total = total + across**2 + down**2
            if r <= 8:
                break
            n = [[2 * (n[y : y + 2, x : x + 2].sum() / 4) for x in range(0, r, 2)] for y in range(0, r, 2)]
            n = torch.stack([torch.stack(row) for row in n])
    return total


def test_noise_regularisation_equals_the_loops():
    torch.manual_seed(0)
    maps = [torch.randn(2, 1, r, r, dtype=torch.float64) for r in (4, 8, 8, 16, 32)]
    maps[3] += maps[3].roll(1, 2)  # correlated vertically
    got = noise_regularisation(maps)
    want = [naive_regularisation([n[b, 0] for n in maps]) for b in range(2)]
    torch.testing.assert_close(got, torch.stack(want))


def test_noise_regularisation_sees_every_scale_and_axis():
    """White noise: near 0. Stripes, or noise that is correlated only after averaging: not."""
    torch.manual_seed(0)
    white = torch.randn(1, 1, 64, 64)
    blocks = torch.randn(1, 1, 16, 16).repeat_interleave(4, -1).repeat_interleave(4, -2)
    for signal in (white.mean(2, keepdim=True).expand_as(white), white.mean(3, keepdim=True).expand_as(white), blocks):
        n = signal.clone()
        normalise([n])
        assert noise_regularisation([n]) > 100 * noise_regularisation([white])
    x = torch.randn(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda n: noise_regularisation([n]), x)


def test_normalise():
    maps = [torch.randn(3, 1, r, r) * 4 + 2 for r in (4, 16)]
    scaled = [(n - n.mean((2, 3), keepdim=True)) / n.std((2, 3), keepdim=True, correction=0) for n in maps]
    normalise(maps)
    for n, want in zip(maps, scaled, strict=True):
        torch.testing.assert_close(n, want)


def test_code_statistics(generator):
    mu, sigma = code_statistics(generator, 0)
    z = torch.randn(10_000, 32, generator=torch.Generator().manual_seed(0))
    w = generator.mapping(z).detach().double().numpy()
    np.testing.assert_allclose(mu, w.mean(0), atol=1e-5)
    assert sigma == pytest.approx(np.sqrt(w.var(0).sum()), rel=1e-4)  # of the vector, not of one number


def test_contract(generator, edges, keeps_the_contract, points):
    result = keeps_the_contract(Projector(generator, edges, 16, steps=6), points(6))
    assert (result.w_plus == result.w_plus[:, :1]).all()
    shapes = {f"noises.{k}": v.shape for k, v in generator.noises.named_buffers()}
    for own in result.weights:
        assert {k: v.shape for k, v in own.items()} == shapes
        for n in own.values():
            assert abs(n.mean()) < 1e-5 and n.square().mean() == pytest.approx(1, abs=1e-4)
    assert not torch.equal(*(own["noises.noise_3"] for own in result.weights[:2]))


def test_finds_photos_of_random_codes(generator, photos, edges):
    result = Projector(generator, edges, 16, steps=60).invert(photos)
    assert (result.trace[-1].error < 0.5 * result.trace[0].error).all()
    mu, _ = code_statistics(generator, 0)
    start = generator.synthesis(generator.expand(mu[None]), noise=None).detach()
    torch.testing.assert_close(result.trace[0].reconstruction.mean((2, 3)), start.mean((2, 3)).expand(3, -1), atol=0.05,
                               rtol=0)  # fmt: skip


def test_seed(generator, photos, edges):
    first, second = (Projector(generator, edges, 16, steps=3, seed=s).invert(photos) for s in (1, 2))
    assert not torch.allclose(first.w_plus, second.w_plus)
    both = torch.stack([r.weights[0]["noises.noise_4"].flatten() for r in (first, second)])
    assert torch.corrcoef(both)[0, 1].abs() < 0.3  # 256 independent numbers: ± 0.06


def test_regularisation_alone_whitens_the_maps(generator, edges, photos):
    """Noise that is invisible: only the regularisation moves the maps."""
    with torch.no_grad():
        for conv in (generator.conv1, *generator.convs):
            conv.noise.weight.zero_()
    # t = 0 has a learning rate of 0, so one step only normalises
    start, end = (Projector(generator, edges, 16, steps=n).invert(photos[:1]).weights[0] for n in (1, 40))
    assert noise_regularisation(list(end.values())) < 0.05 * noise_regularisation(list(start.values()))


@pytest.fixture
def passes(generator, monkeypatch):
    """The codes (B, n_styles, D) of every pass that has a gradient, as the method makes them."""
    seen, synthesis = [], generator.synthesis

    def spy(w_plus, noise):
        if torch.is_grad_enabled():
            seen.append(w_plus.detach().clone())
        return synthesis(w_plus, noise=noise)

    monkeypatch.setattr(generator, "synthesis", spy)
    return seen


def test_noise_on_the_codes(generator, photos, edges, passes):
    """At t = 0: σ = 0.05 σ_w in each of D numbers, the same for all rows and photos; from t = 0.75 on: none."""
    mu, sigma = code_statistics(generator, 0)
    result = Projector(generator, edges, 16, steps=4).invert(photos)
    noise = passes[0] - mu
    assert (noise == noise[:1, :1]).all()
    assert noise[0, 0].square().mean().sqrt() == pytest.approx(0.05 * sigma, rel=0.35)  # 32 numbers: ± 0.125
    assert len(passes) == 4
    # the result has none: its distance from the last pass is one update of the noise-free code
    move = (result.w_plus - passes[3]).abs().max()
    assert 0 < move < 1.1 * learning_rate(0.75, 0.1)


def test_rate_of_learning_in_the_course(generator, photos, edges, passes):
    """From t = 0.75 on the codes have no noise and Adam's updates are as large as the rate of learning allows."""
    Projector(generator, edges, 16, steps=40).invert(photos)
    for step in range(31, 39):
        moved = (passes[step + 1] - passes[step]).abs().max()
        assert 0.1 * learning_rate(step / 40, 0.1) < moved < 1.1 * learning_rate(step / 40, 0.1)


# L_image's part in the maps' gradient is invisible next to α = 1e5
@pytest.mark.parametrize("alpha, lambda_l2", [(0.0, 0.0), (0.0, 3.0), (1e5, 0.0)])
def test_gradient_of_the_loss(generator, photos, edges, monkeypatch, alpha, lambda_l2):
    """One plain gradient step is −lr ∂L/∂(w, n), L = LPIPS + λ_l2 MSE + α Σ L_ij by finite differences of the loops."""
    lr, photo = (1e-6 if alpha else 100.0), photos[:1]
    assert projector.ALPHA == 1e5
    monkeypatch.setattr(projector, "ALPHA", alpha)
    monkeypatch.setattr(projector, "learning_rate", lambda t, highest: lr)
    monkeypatch.setattr(projector, "noise_strength", lambda t, sigma: 0.0)
    monkeypatch.setattr(projector, "normalise", lambda maps: None)
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    generator.double()  # small steps are lost in float32
    random = torch.Generator().manual_seed(0)
    start = [torch.randn(1, *n.shape[1:], generator=random) for n in generator.noises.buffers()]
    mu, _ = code_statistics(generator, 0)
    result = Projector(generator, edges, 16, steps=1, lambda_l2=lambda_l2).invert(photo)
    gradient_w = -(result.w_plus[0, 0] - mu) / lr
    found = list(result.weights[0].values())
    gradient_n = [-(n.double() - s.double()) / lr for n, s in zip(found, start, strict=True)]

    def loss(w, maps):
        picture = generator.synthesis(generator.expand(w[None]), noise=maps).detach()[0]
        l2, image = naive_distances(picture, photo[0])
        image = image + lambda_l2 * l2
        return image + (alpha * naive_regularisation([n[0, 0] for n in maps]) if alpha else 0)

    torch.manual_seed(1)
    doubles = [n.double() for n in start]
    for _ in range(3):
        v = torch.randn(32, dtype=torch.float64)
        assert slope(lambda w: loss(w, doubles), mu, v) == pytest.approx(float(gradient_w @ v / v.norm()), rel=0.02)
    for i in (0, 2, 4):
        v = torch.nn.functional.normalize(torch.randn_like(doubles[i]), dim=(2, 3))
        v = v + gradient_n[i] / gradient_n[i].norm()  # a random one alone is nearly at right angles to the gradient
        want = slope(lambda n, i=i: loss(mu, [*doubles[:i], n, *doubles[i + 1 :]]), doubles[i], v, 1e-3)
        assert want == pytest.approx(float((gradient_n[i] * v).sum() / v.norm()), rel=0.02)


def test_refuses(generator, edges):
    for kw in ({"steps": 0}, {"lr": 0.0}):
        with pytest.raises(S2FError, match="steps of 1 or more"):
            Projector(generator, edges, 16, **kw)


def test_published_defaults(generator, edges):
    method = Projector(generator, edges, 16)
    assert (method.steps, method.lr, method.lambda_l2) == (1000, 0.1, 0.0)
    assert (projector.ALPHA, projector.SAMPLES) == (1e5, 10_000)
