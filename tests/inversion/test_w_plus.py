"""W+ optimisation: it finds codes, minimises exactly the stated loss, and keeps the best step."""

from types import SimpleNamespace

import pytest
import torch
from inversion_cases import naive_distances

from s2flib.errors import S2FError
from s2flib.inversion.target import Target
from s2flib.inversion.w_plus import WPlus, optimise


def w_plus(generator, judge, steps, lr=0.05, loss_size=16, lambda_l2=1.0, lambda_lpips=0.8):
    return WPlus(generator, judge, loss_size, lambda_l2, lambda_lpips, steps, lr)


def test_finds_photos_of_random_codes(generator, photos, edges):
    result = w_plus(generator, edges, 50).invert(photos)
    assert (result.trace[-1].error < 0.15 * result.trace[0].error).all()
    start = generator.synthesis(generator.expand(generator.latent_avg[None])).detach()
    torch.testing.assert_close(result.trace[0].reconstruction, start.expand(3, -1, -1, -1), atol=1e-5, rtol=0)


def test_contract(generator, edges, keeps_the_contract, points):
    result = keeps_the_contract(w_plus(generator, edges, 8), points(8))
    assert result.weights is None


@pytest.mark.parametrize("lambda_l2, lambda_lpips", [(1.0, 0.8), (0.0, 1.0), (1.0, 0.0)])
def test_reaches_the_minimum_in_closed_form(edges, lambda_l2, lambda_lpips):
    """Pictures linear in w+ and photos out of reach: the weighted loss is quadratic and its minimum is known."""
    torch.manual_seed(0)
    d, values = 2 * 3, 3 * 8 * 8
    a = torch.randn(d, values) * 0.2
    linear = SimpleNamespace(latent_avg=torch.zeros(3), size=8)
    linear.expand = lambda w: w[:, None].expand(-1, 2, -1)
    linear.synthesis = lambda w: (w.flatten(1) @ a).view(-1, 3, 8, 8)
    photos = torch.rand(2, 3, 8, 8) * 2 - 1
    result = w_plus(linear, edges, 300, 0.02, 8, lambda_l2, lambda_lpips).invert(photos)

    def rows(pictures):
        """The numbers whose squares sum up to the loss, one column a picture."""
        parts = [pictures, *edges.features(pictures)]
        weight = [lambda_l2, *[lambda_lpips] * 3]
        return torch.cat([(w / p[0].numel()) ** 0.5 * p.flatten(1) for w, p in zip(weight, parts, strict=True)], 1).T

    best = torch.linalg.lstsq(rows(a.view(-1, 3, 8, 8)).double(), rows(photos).double()).solution.T  # (2, d)
    torch.testing.assert_close(result.w_plus.flatten(1).double(), best, atol=3e-3, rtol=0)


def test_distances_by_hand(edges, photos):
    other = photos.flip(0)
    got = Target(photos, edges, 16).distances(other)
    want = [naive_distances(x, y) for x, y in zip(other, photos, strict=True)]
    for g, w in zip(got, zip(*want, strict=True), strict=True):
        torch.testing.assert_close(g, torch.stack(w))
    # a judge that is only a function
    plain = Target(photos, lambda x, y: (x - y).abs().amax((1, 2, 3)), 32).distances(other)
    torch.testing.assert_close(plain[1], (photos - other).abs().amax((1, 2, 3)))


def test_target_made_in_inference_mode(photos):
    """evaluate() makes it there, and autograd refuses what inference mode has made, if it must keep it."""
    with torch.inference_mode():
        target = Target(photos + 0, lambda x, y: (x * y).mean((1, 2, 3)), 16)
    pictures = photos.clone().requires_grad_()
    target.distances(pictures)[1].sum().backward()
    torch.testing.assert_close(pictures.grad, photos / photos[0].numel())


def test_distances_at_the_smaller_size(edges, photos):
    half = photos.view(3, 3, 8, 2, 8, 2).mean((3, 5))
    for photo, picture, size in ((photos, photos.flip(0), 8), (half, photos.flip(0), 16)):
        l2, _ = Target(photo, edges, size).distances(picture)
        torch.testing.assert_close(l2, (half - half.flip(0)).square().mean((1, 2, 3)))


def test_larger_photos_are_pooled(generator, photos, edges):
    large = photos.repeat_interleave(2, -1).repeat_interleave(2, -2)
    for loss_size in (16, 32):
        same = w_plus(generator, edges, 5, loss_size=loss_size).invert(large)
        torch.testing.assert_close(same.w_plus, w_plus(generator, edges, 5).invert(photos).w_plus)


def test_the_best_of_all_steps(photos, generator, edges):
    """Steps far too large: every photo's own best pass is returned, whichever it was."""
    passes, target = [], Target(photos, edges, 16)

    def decode(w):
        passes.append(generator.synthesis(w))
        return passes[-1]

    def loss(pictures):
        return target.distances(pictures)[0]

    start = generator.expand(generator.random_codes(3, 5)).contiguous()
    before, shown = start.clone(), []
    w, best = optimise(decode, start, loss, 4, 0.7, lambda step, pictures: shown.append(loss(pictures)))
    history = torch.stack([loss(p) for p in passes])
    assert torch.equal(start, before)
    assert torch.equal(loss(best), history.amin(0)) and len(passes) == 5
    assert torch.equal(torch.stack(shown), history.cummin(0).values)
    assert len(set(history.argmin(0).tolist())) > 1 and (history.argmin(0) < 4).any()
    torch.testing.assert_close(generator.synthesis(w), best, atol=1e-5, rtol=0)


def test_never_worse_than_its_start(generator, photos, edges):
    result = w_plus(generator, edges, 3, lr=1e4).invert(photos)
    torch.testing.assert_close(result.w_plus, generator.expand(generator.latent_avg[None]).expand(3, -1, -1))


def test_refuses(generator, edges):
    for kw in ({"steps": 0}, {"steps": 5, "lr": 0.0}):
        with pytest.raises(S2FError, match="steps of 1 or more"):
            w_plus(generator, edges, **kw)


def test_tiny_on_test_photos(tiny):
    generator, judge, photos = tiny
    result = WPlus(generator, judge, 128, 1.0, 0.8, steps=3, lr=0.1).invert(photos)
    before, after = (s.reconstruction for s in (result.trace[0], result.trace[-1]))
    assert (result.trace[-1].error < 0.9 * result.trace[0].error).all()
    assert (judge(after, photos) < judge(before, photos)).all()
