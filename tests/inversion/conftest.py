"""A small generator, photos that it can make, and what every inversion method must keep."""

import pytest
import torch
from inversion_cases import SIZE, WRONG, Edges, bytes_of

from s2flib.errors import ImageError
from s2flib.inversion.protocol import recorded_steps
from s2flib.stylegan2 import Generator


@pytest.fixture(scope="session")
def edges():
    return Edges()


@pytest.fixture
def generator():
    """16 px, 6 rows of w+, style 32, random, visible noise, pictures within [−1, 1]; not frozen: the harder case."""
    torch.manual_seed(0)
    g = Generator(SIZE, 32, 2, channel_base=256, channel_max=16).eval()
    g.register_buffer("latent_avg", g.mean_latent(1024), persistent=False)
    with torch.no_grad():
        for name, p in g.named_parameters():
            if name.endswith("noise.weight"):
                p.fill_(0.1)
        reach = g.synthesis(g.expand(g.random_codes(64, 1))).abs().max()
        for rgb in (g.to_rgb1, *g.to_rgbs):  # pictures are linear in these weights
            rgb.conv.weight.div_(reach)
    return g


@pytest.fixture
def photos(generator):
    """(3, 3, 16, 16): pictures of random codes in W, with the generator's own noise."""
    with torch.no_grad():
        return generator.synthesis(generator.expand(generator.random_codes(3, 77))).clamp(-1, 1)


@pytest.fixture
def keeps_the_contract(generator, photos):
    """check(method, points): what protocol.Method promises; points: the steps of the trace."""

    def check(method, points):
        before, rng, called = bytes_of(generator), torch.get_rng_state(), []
        result = method.invert(photos, called.append)
        b = len(photos)
        # the generator is as it was
        assert bytes_of(generator) == before
        assert all(p.grad is None and p.requires_grad for p in generator.parameters())
        assert torch.equal(torch.get_rng_state(), rng)
        # the result
        assert result.generator is generator and result.w_plus.shape == (b, 6, 32)
        assert result.reconstruction.shape == photos.shape
        assert not result.w_plus.requires_grad and not result.reconstruction.requires_grad
        assert result.weights is None or not any(v.requires_grad for own in result.weights for v in own.values())
        torch.testing.assert_close(result.generate(), result.reconstruction, atol=1e-5, rtol=0)
        # the trace
        steps = [s.step for s in result.trace]
        assert steps == points and all(a is b for a, b in zip(called, result.trace, strict=True))
        assert all(a.seconds <= b.seconds for a, b in zip(result.trace, result.trace[1:], strict=False))
        assert result.trace[-1].seconds <= result.seconds
        for s in result.trace:
            torch.testing.assert_close(s.error, (s.reconstruction - photos).square().mean((1, 2, 3)))
        torch.testing.assert_close(result.trace[-1].reconstruction, result.reconstruction, atol=1e-5, rtol=0)
        # again, alone, in another order, and where gradients are off
        again = method.invert(photos)
        assert torch.equal(again.reconstruction, result.reconstruction) and torch.equal(again.w_plus, result.w_plus)
        alone = method.invert(photos[1:2])
        torch.testing.assert_close(alone.reconstruction, result.reconstruction[1:2], atol=2e-3, rtol=0)
        turned = method.invert(photos.flip(0))
        torch.testing.assert_close(turned.reconstruction.flip(0), result.reconstruction, atol=2e-3, rtol=0)
        with torch.inference_mode():
            off = method.invert(photos + 0)
        assert torch.equal(off.reconstruction, result.reconstruction)
        for spoil in WRONG.values():
            with pytest.raises(ImageError, match=r"square photos|values from -1 to 1"):
                method.invert(spoil(photos))
        return result

    return check


@pytest.fixture
def points():
    return lambda steps: sorted(recorded_steps(steps))


@pytest.fixture(scope="session")
def tiny():
    """The shipped generator and judge, and two test photos (2, 3, 128, 128)."""
    from s2flib.datasets.faces import open_dataset
    from s2flib.judges.load import perceptual_judge
    from s2flib.weights.load import load_generator

    test = open_dataset("tiny", "test")
    return load_generator("tiny"), perceptual_judge("tiny"), torch.stack([test[i]["photo"] for i in (0, 40)])
