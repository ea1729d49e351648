"""Pivotal tuning: against the same algorithm on a plain copy of the generator, and what it must leave alone."""

import copy

import pytest
import torch
from inversion_cases import naive_distances, slope

from s2flib.errors import S2FError
from s2flib.inversion.projector import Projector
from s2flib.inversion.protocol import Inversion, Recorder, synthesise
from s2flib.inversion.pti import PTI, local_code, tunable
from s2flib.inversion.w_plus import WPlus


@pytest.fixture
def pivot(generator, edges):
    return WPlus(generator, edges, 16, 1.0, 0.8, steps=1, lr=0.05)


@pytest.fixture
def tune(generator, edges, pivot):
    def make(**kw):
        return PTI(generator, edges, 16, **{"pivot": pivot, "steps": 5, "lr": 1e-2, "threshold": 0.0, **kw})

    return make


def test_contract(tune, keeps_the_contract, points, generator):
    result = keeps_the_contract(tune(steps=4), points(1) + [1 + s for s in points(4)[1:]])
    names = {k for k, _ in generator.named_parameters() if not k.startswith("style.")}
    assert len(result.weights) == 3 and "input.input" in names and "conv1.noise.weight" in names
    for own in result.weights:
        assert set(own) == names
        assert all(not torch.equal(v, generator.get_parameter(k)) for k, v in own.items() if "modulation" in k)
    # the shared generator still makes the pivot's pictures
    torch.testing.assert_close(
        synthesise(generator, result.w_plus).detach(), result.trace[len(points(1)) - 1].reconstruction
    )


def test_better_than_its_pivot(tune, photos, pivot):
    before, result = pivot.invert(photos), tune(steps=20).invert(photos)
    torch.testing.assert_close(result.w_plus, before.w_plus)
    assert (result.trace[-1].error < 0.3 * before.trace[-1].error).all()


def test_tunable_is_the_synthesis_network(generator):
    """Every tensor of the synthesis network but noise maps and filters: all that gives a gradient, and no more."""
    generator.synthesis(generator.expand(generator.latent_avg[None])).sum().backward()
    assert set(tunable(generator)) == {k for k, p in generator.named_parameters() if p.grad is not None}


def test_gradient_of_pivotal_tuning(tune, generator, photos, monkeypatch):
    """One plain gradient step is −lr ∂L_pt/∂θ, L_pt = LPIPS + λ_L2 MSE, by finite differences."""
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    generator.double()
    pivot = Fixed(generator, generator.expand(generator.random_codes(1, 9)))
    result = tune(pivot=pivot, steps=1, lr=1e-2, lambda_l2=3.0).invert(photos[:1])
    theta = {k: v.double() for k, v in tunable(generator).items()}
    torch.manual_seed(0)
    for name in ("conv1.conv.weight", "input.input", "convs.3.noise.weight", "to_rgbs.1.conv.modulation.bias"):

        def loss(value, name=name):
            picture = synthesise(generator, result.w_plus, [{name: value}]).detach()[0]
            l2, perceptual = naive_distances(picture, photos[0])
            return perceptual + 3 * l2

        v = torch.randn_like(theta[name])
        gradient = (theta[name] - result.weights[0][name]) / 1e-2
        want = slope(loss, theta[name], v, 1e-3)
        assert float((gradient * v).sum() / v.norm()) == pytest.approx(want, rel=0.02, abs=1e-7)


def reference(generator, judge, photo, w_p, steps, lr, lambda_r, alpha, seed):
    """Pivotal tuning of a deep copy, as the paper writes it: the copy after ``steps`` updates."""
    tuned = copy.deepcopy(generator)
    random = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam([p for k, p in tuned.named_parameters() if not k.startswith("style.")], lr=lr)

    def distance(x, y):
        return judge(x, y).mean() + torch.mean((x - y) ** 2)

    for _ in range(steps):
        loss = distance(tuned.synthesis(w_p), photo)
        if lambda_r:
            w_z = generator.mapping(torch.randn(1, generator.style_dim, generator=random).to(w_p)).detach()
            away = w_z[:, None] - w_p
            w_r = w_p + alpha * away / away.square().sum().sqrt()
            loss = loss + lambda_r * distance(tuned.synthesis(w_r), generator.synthesis(w_r).detach())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return tuned


@pytest.mark.parametrize("lambda_r", [0.0, 0.7])
def test_equals_the_algorithm_on_a_copy(tune, generator, edges, photos, pivot, lambda_r):
    """In double precision, because Adam divides by gradients that rounding would change."""
    generator.double()
    pivot = Fixed(generator, generator.expand(generator.random_codes(2, 9)))
    result = tune(pivot=pivot, lambda_r=lambda_r, alpha=3.0, seed=5, lr=1e-3).invert(photos[:2])
    for i, own in enumerate(result.weights):
        tuned = reference(generator, edges, photos[i : i + 1], result.w_plus[i : i + 1], 5, 1e-3, lambda_r, 3.0, 5)
        for name, value in own.items():
            torch.testing.assert_close(value, tuned.get_parameter(name).detach(), atol=1e-5, rtol=0)


def test_local_code(generator):
    """At distance α from the pivot, in the direction of w_z, over all rows."""
    torch.manual_seed(0)
    w_p, w_z = torch.randn(2, 1, 6, 32, dtype=torch.float64)
    away = local_code(w_p, w_z, 30.0) - w_p
    assert away.square().sum().sqrt() == pytest.approx(30)
    assert torch.cosine_similarity(away.flatten(), (w_z - w_p).flatten(), 0) == pytest.approx(1)


def test_locality_keeps_other_faces(tune, generator, photos):
    """Pictures on the sphere around the pivot change less with the regularisation; its z are seeded."""
    free, kept, other = (
        tune(steps=12, lambda_r=r, alpha=4.0, seed=s).invert(photos[:1]) for r, s in ((0.0, 0), (3.0, 0), (3.0, 1))
    )
    w_z = generator.expand(generator.random_codes(16, 99)).detach()
    w_r = torch.cat([local_code(free.w_plus, z[None], 4.0) for z in w_z])
    true = generator.synthesis(w_r).detach()
    free_moved, kept_moved = (
        (synthesise(generator, w_r, r.weights * 16).detach() - true).square().mean() for r in (free, kept)
    )
    assert kept_moved < 0.6 * free_moved
    assert not torch.allclose(kept.reconstruction, other.reconstruction)
    again = tune(steps=12, lambda_r=0.0, seed=1).invert(photos[:1])
    assert torch.equal(again.reconstruction, free.reconstruction)  # without it nothing is random


class Fixed:
    """A method that knows its codes and, if given, its weights."""

    name = "fixed"

    def __init__(self, generator, w_plus, weights=None):
        self.generator, self.w_plus, self.weights = generator, w_plus.detach().clone(), weights

    def invert(self, photos, watch=None):
        recorder = Recorder(photos, 16, watch)
        pictures = synthesise(self.generator, self.w_plus, self.weights).detach()
        recorder.record(0, pictures)
        return recorder.finish(self.generator, self.w_plus, pictures, self.weights)


def test_stops_at_the_threshold(tune, generator, photos, edges):
    """Each photo at its own step: the first distance at or below the threshold ends it."""
    pivot = Fixed(generator, generator.expand(generator.random_codes(3, 77)))  # the photos' own codes …
    pivot.w_plus[1:] += 0.3 * torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))  # … but for two
    start = pivot.invert(photos)
    threshold = float(edges(start.reconstruction[1:], photos[1:]).min()) / 2
    result = tune(pivot=pivot, steps=100, lr=1e-3, threshold=threshold).invert(photos)
    end = result.trace[-1].step
    assert 1 < end < 100 and (edges(result.reconstruction, photos) <= threshold).all()
    earlier = tune(pivot=pivot, steps=end - 1, lr=1e-3, threshold=threshold).invert(photos)
    assert (edges(earlier.reconstruction, photos) > threshold).any()
    assert all(torch.equal(v, generator.get_parameter(k)) for k, v in result.weights[0].items())  # nothing to do
    none = tune(pivot=pivot, threshold=1e3).invert(photos)
    assert len(none.trace) == 1 and torch.equal(none.w_plus, pivot.w_plus)
    torch.testing.assert_close(none.reconstruction, start.reconstruction, atol=1e-5, rtol=0)


def test_keeps_the_noise_of_its_pivot(tune, generator, edges, photos):
    projector = Projector(generator, edges, 16, steps=5)
    before, result = projector.invert(photos[:2]), tune(pivot=projector, steps=3).invert(photos[:2])
    names = {f"noises.{k}" for k, _ in generator.noises.named_buffers()} | set(tunable(generator))
    for own, given in zip(result.weights, before.weights, strict=True):
        assert set(own) == names and all(torch.equal(own[k], v) for k, v in given.items())
    torch.testing.assert_close(result.generate(), result.reconstruction, atol=1e-5, rtol=0)


def test_continues_from_the_weights_of_its_pivot(tune, generator, photos):
    """Tuning twice: the second one starts where the first ended, locality refers to that, and it stays as it is."""
    first = tune(steps=5).invert(photos[:1])
    kept = {k: v.clone() for k, v in first.weights[0].items()}
    pivot = Fixed(generator, first.w_plus, first.weights)
    for lambda_r in (0.0, 0.5):
        second = tune(pivot=pivot, steps=2, lr=1e-9, lambda_r=lambda_r).invert(photos[:1])
        torch.testing.assert_close(second.reconstruction, first.reconstruction, atol=1e-4, rtol=0)
    tune(pivot=pivot, steps=2).invert(photos[:1])
    assert all(torch.equal(v, kept[k]) for k, v in first.weights[0].items())


def test_edits_with_its_own_generator(tune, photos, generator):
    result = tune(steps=5).invert(photos)
    moved = result.generate(result.w_plus + 0.1)
    assert isinstance(result, Inversion) and not torch.allclose(moved, result.reconstruction)
    for i in range(3):
        tuned = copy.deepcopy(generator)
        tuned.load_state_dict({**tuned.state_dict(), **result.weights[i]})
        torch.testing.assert_close(tuned.synthesis(result.w_plus[i : i + 1] + 0.1).detach(), moved[i : i + 1])


def test_refuses(tune):
    for kw in ({"steps": 0}, {"lr": 0.0}):
        with pytest.raises(S2FError, match="steps of 1 or more"):
            tune(**kw)


def test_published_defaults(generator, edges, pivot):
    method = PTI(generator, edges, 16, pivot)
    assert (method.steps, method.lr, method.lambda_l2, method.threshold) == (350, 3e-4, 1.0, 0.06)
    assert (method.lambda_r, method.alpha) == (0.0, 30.0)


def test_tiny_on_test_photos(tiny):
    generator, judge, photos = tiny
    pivot = WPlus(generator, judge, 128, 1.0, 0.8, steps=1, lr=0.1)
    result = PTI(generator, judge, 128, pivot, steps=3, lr=3e-5, threshold=0.0).invert(photos)
    before, after = (s.reconstruction for s in (result.trace[1], result.trace[-1]))
    assert (result.trace[-1].error < 0.95 * result.trace[1].error).all()
    assert (judge(after, photos) < judge(before, photos)).all()
