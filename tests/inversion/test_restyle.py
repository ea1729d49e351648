"""ReStyle: its recursion written out, its encoder's rows, and where gradients flow."""

import pytest
import torch
from inversion_networks import DIM, MINI, SIDE, STYLES, made_photos, small_generator, untrained

from s2flib.inversion.restyle import BackboneEncoder, ReStyle, ReStyleInversion


@pytest.fixture(scope="module")
def generator():
    return small_generator()


@pytest.mark.parametrize("name", ["restyle-psp", "restyle-e4e"])
def test_the_recursion(generator, name):
    """w_{t+1} = w_t + E(x ⊕ G(w_t)) from w̄, written out."""
    model, photos, called = untrained(name, generator), made_photos(generator, 3, 9), []
    found = ReStyleInversion(name, model, 16, steps=3).invert(photos, called.append)
    with torch.no_grad():
        w = generator.latent_avg.expand(3, STYLES, DIM)
        pictures = [generator.synthesis(w)]
        for _ in range(3):
            w = w + model.encoder(torch.cat([photos, pictures[-1]], 1))
            pictures.append(generator.synthesis(w))
    torch.testing.assert_close(found.w_plus, w)
    torch.testing.assert_close(found.reconstruction, pictures[-1])
    assert [s.step for s in found.trace] == [0, 1, 2, 3] and list(found.trace) == called and found.weights is None
    for step, picture in zip(found.trace, pictures, strict=True):
        torch.testing.assert_close(step.reconstruction, picture)
    assert (pictures[3] - pictures[2]).abs().mean() > 1e-3, "the passes differ"


def test_photos_of_any_size_are_resized(generator):
    model = untrained("restyle-psp", generator)
    photos = made_photos(generator, 2, 9)
    large = photos.repeat_interleave(2, -1).repeat_interleave(2, -2)
    seen = []
    model.encoder.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    ReStyleInversion("restyle-psp", model, 16, steps=1).invert(large)
    assert seen[0].shape == (2, 6, SIDE, SIDE)
    assert (seen[0][:, :3] - photos).abs().mean() < 0.5 * (seen[0][:, 3:] - photos).abs().mean()


def backbone(progressive):
    s = MINI.inversion
    torch.manual_seed(2)
    return BackboneEncoder(STYLES, DIM, s.units, s.widths, s.head, s.size, progressive).eval()


def test_encoder_heads_share_the_last_map():
    plain, progressive = backbone(False), backbone(True)
    x, maps = torch.randn(2, 6, SIDE, SIDE), []
    plain.body.register_forward_hook(lambda module, args, out: maps.append(out))
    with torch.no_grad():
        rows = plain(x)
        assert maps[0].shape == (2, MINI.inversion.widths[3], SIDE // 16, SIDE // 16) and rows.shape == (2, STYLES, DIM)
        for i, head in enumerate(plain.styles):
            torch.testing.assert_close(rows[:, i], head(maps[0]))
        torch.testing.assert_close(progressive(x), torch.cat([rows[:, :1], rows[:, :1] + rows[:, 1:]], 1))
        progressive.stage = 2
        torch.testing.assert_close(progressive(x)[:, 3:], rows[:, :1].expand(-1, STYLES - 3, -1))


def test_no_gradient_flows_into_the_last_step(generator):
    """Each pass trains the encoder by its own change alone."""
    model = untrained("restyle-psp", generator)
    photos = made_photos(generator, 2, 9)
    w, y = (t.clone().requires_grad_() for t in model.start(photos))
    after, picture = model.refine(photos, w, y)
    picture.square().mean().backward()
    assert w.grad is None and y.grad is None
    assert all(p.grad is not None for p in model.encoder.parameters())
    assert all(p.grad is None for p in generator.parameters())
    torch.testing.assert_close(after - w, model.change(photos, y))


def test_random_noise_is_asked_for_in_training(generator):
    model = untrained("restyle-psp", generator)
    photos = made_photos(generator, 1, 9)
    with torch.no_grad():
        start = model.start(photos)
        (_, a), (_, b) = (model.refine(photos, *start, noise="random") for _ in range(2))
        (_, c), (_, d) = (model.refine(photos, *start) for _ in range(2))
    assert not torch.equal(a, b) and torch.equal(c, d)


def test_modes_and_steps(generator):
    model = untrained("restyle-psp", generator)
    model.train()
    assert model.encoder.training and not model.decoder.training
    with pytest.raises(ValueError, match="at least one step"):
        ReStyleInversion("restyle-psp", model, 16, steps=0)
    rows = torch.randn(STYLES, DIM)
    assert torch.equal(ReStyle(model.encoder, generator, rows).latent_avg, rows)
