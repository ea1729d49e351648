"""HyperInverter: a code in W, and θ + Δθ against a generator whose weights were replaced."""

import copy

import pytest
import torch
from inversion_networks import DIM, STYLES, made_photos, small_generator, untrained

from s2flib.inversion.hyperinverter import HyperInverter, HyperInverterInversion
from s2flib.inversion.hypernetwork import conv_layers


@pytest.fixture(scope="module")
def generator():
    return small_generator()


def test_both_phases_written_out(generator):
    model, photos, called = untrained("hyperinverter", generator), made_photos(generator, 2, 9), []
    found = HyperInverterInversion(model, 16).invert(photos, called.append)
    with torch.no_grad():
        first = model.base.encoder(photos)[:, 0] + generator.latent_avg  # e4e's first head, without offsets
        w_plus = first[:, None].expand(2, STYLES, DIM)
        torch.testing.assert_close(found.w_plus, w_plus)
        for b in range(2):
            x, w = photos[b : b + 1], w_plus[b : b + 1]
            y = generator.synthesis(w)
            torch.testing.assert_close(found.trace[0].reconstruction[b : b + 1], y)
            fused = model.fuse(torch.cat([model.features(x), model.features(y)], 1))
            own = copy.deepcopy(generator)
            for layer, head in zip(conv_layers(generator), model.heads, strict=True):
                own.get_parameter(layer.name).add_(head(fused)[0])
            assert set(found.weights[b]) == {layer.name for layer in conv_layers(generator)}
            for name, value in found.weights[b].items():
                assert value.shape == generator.get_parameter(name).shape
                torch.testing.assert_close(value, own.get_parameter(name))
            torch.testing.assert_close(found.reconstruction[b : b + 1], own.synthesis(w), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.generate(), found.reconstruction)
    assert [s.step for s in found.trace] == [0, 1] and list(found.trace) == called
    assert (found.trace[0].reconstruction - found.reconstruction).abs().mean() > 1e-4


def test_photos_of_a_batch_do_not_mix(generator):
    model, photos = untrained("hyperinverter", generator), made_photos(generator, 3, 9)
    method = HyperInverterInversion(model, 16)
    alone = method.invert(photos[1:2])
    torch.testing.assert_close(method.invert(photos).reconstruction[1:2], alone.reconstruction, atol=1e-5, rtol=1e-4)


def test_gradients_reach_the_second_phase_alone(generator):
    model = untrained("hyperinverter", generator).train()
    assert model.features.training and not model.base.encoder.training
    photos = made_photos(generator, 2, 9)
    w_plus, y = model.first_phase(photos)
    assert not w_plus.requires_grad and not y.requires_grad
    sum(w.square().sum() for own in model.weights(photos, y) for w in own.values()).backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if not n.startswith("base."))
    assert all(p.grad is None for p in model.base.parameters())


def test_its_first_phase_is_an_e4e(generator):
    with pytest.raises(ValueError, match="needs an e4e encoder"):
        HyperInverter(untrained("psp", generator), 32, (1, 1, 1, 1), (8, 8, 12, 16), 8, 4)
