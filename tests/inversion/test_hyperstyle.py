"""HyperStyle: θ(1 + Δ) against a generator whose weights were replaced, Δ over passes, heads and layers."""

import copy

import pytest
import torch
from inversion_networks import made_photos, small_generator, untrained

from s2flib.inversion.hypernetwork import LayerHead, conv_layers
from s2flib.inversion.hyperstyle import HyperStyleInversion
from s2flib.stylegan2 import Generator


@pytest.fixture(scope="module")
def generator():
    return small_generator()


def test_layers_of_a_generator():
    """A listing by hand of the 64 px generator: 3×3 convolutions of 16 px and more, no ToRGB."""
    g = Generator(64, 8, 1, channel_base=128, channel_max=12)  # channels: 12 at 4 and 8 px, then 8, 4, 2
    assert conv_layers(g) == [
        ("convs.2.conv.weight", 8, 12, 3),  # 8 → 16 px
        ("convs.3.conv.weight", 8, 8, 3),
        ("convs.4.conv.weight", 4, 8, 3),  # 16 → 32 px
        ("convs.5.conv.weight", 4, 4, 3),
        ("convs.6.conv.weight", 2, 4, 3),  # 32 → 64 px
        ("convs.7.conv.weight", 2, 2, 3),
    ]
    assert [layer.name for layer in conv_layers(g, 4)[:3]] == [
        f"{k}.conv.weight" for k in ("conv1", "convs.0", "convs.1")
    ]
    assert len(conv_layers(g, 8)) == 8 and len(conv_layers(g, 64)) == 2
    with pytest.raises(ValueError, match="no convolution of 128 px"):
        conv_layers(g, 128)


def test_layers_have_the_sides_they_say():
    """The sides of the maps that the convolutions of 16 px and more write."""
    g, sides = Generator(64, 8, 1, channel_base=128, channel_max=12).eval(), {}
    for name, module in g.named_modules():
        if name == "conv1" or name.startswith("convs.") and name.count(".") == 1:
            module.register_forward_hook(lambda m, a, out, name=name: sides.update({name: out.shape[-1]}))
    g.synthesis(torch.randn(1, g.n_styles, 8))
    wanted = [f"{name}.conv.weight" for name, side in sides.items() if side >= 16]
    assert [layer.name for layer in conv_layers(g, 16)] == wanted and sides["convs.2"] == 16


@pytest.mark.parametrize("kernel", [1, 3])
def test_heads_start_at_zero_and_learn(kernel):
    layer = conv_layers(Generator(64, 8, 1, channel_base=128, channel_max=12))[0]
    torch.manual_seed(0)
    head = LayerHead(6, 4, 5, 2, layer, kernel)
    x = torch.randn(3, 6, 4, 4)
    change = head(x)
    assert change.shape == (3, 8, 12, kernel, kernel) and not change.any()
    (change * torch.randn_like(change)).sum().backward()
    assert head.weights.weight.grad.abs().sum() > 0, "a zero start must not stop the gradient"
    assert [type(m).__name__ for m in head.convs] == ["Conv2d", "LeakyReLU"] * 2 and head.convs[0].out_channels == 5
    with torch.no_grad():
        head.weights.weight.normal_()
        change, features = head(x), head.convs(x).flatten(1)
        codes = (features @ head.channel_codes.weight.T + head.channel_codes.bias).reshape(3, 8, 2)
        for out in range(8):  # one code for each output channel, one map for all of them
            own = (codes[:, out] @ head.weights.weight.T).reshape(3, 12, kernel, kernel)
            torch.testing.assert_close(change[:, out], own)


def test_untrained_heads_leave_the_generator_unchanged(generator):
    model = untrained("hyperstyle", generator)
    for head in model.heads:
        torch.nn.init.zeros_(head.weights.weight)
    photos = made_photos(generator, 2, 9)
    found = HyperStyleInversion(model, 16, steps=2).invert(photos)
    torch.testing.assert_close(found.reconstruction, found.trace[0].reconstruction)


def test_passes_written_out(generator):
    """Δ_t = Δ_{t−1} + H(x ⊕ y_{t−1}); y_t by a copy of the generator with θ(1 + Δ_t) in place of θ."""
    model, photos, called = untrained("hyperstyle", generator), made_photos(generator, 2, 9), []
    found = HyperStyleInversion(model, 16, steps=3).invert(photos, called.append)
    with torch.no_grad():
        w_plus = model.base.encoder(photos) + generator.latent_avg
        torch.testing.assert_close(found.w_plus, w_plus)
        for b in range(2):
            x, w, y = photos[b : b + 1], w_plus[b : b + 1], generator.synthesis(w_plus[b : b + 1])
            total = {}
            for t in range(3):
                features = model.backbone(torch.cat([x, y], 1))
                own = copy.deepcopy(generator)
                for layer, head in zip(conv_layers(generator), model.heads, strict=True):
                    total[layer.name] = total.get(layer.name, 0) + head(features)[0]
                    weight = own.get_parameter(layer.name)
                    weight.copy_(weight * (1 + total[layer.name]))
                y = own.synthesis(w)
                torch.testing.assert_close(found.trace[t + 1].reconstruction[b : b + 1], y, atol=1e-5, rtol=1e-4)
            assert set(found.weights[b]) == set(total)
            for name, value in found.weights[b].items():
                torch.testing.assert_close(value, own.get_parameter(name))
    torch.testing.assert_close(found.generate(), found.reconstruction)
    assert [s.step for s in found.trace] == [0, 1, 2, 3] and list(found.trace) == called
    pictures = [s.reconstruction for s in found.trace]
    assert all((a - b).abs().mean() > 1e-4 for a, b in zip(pictures, pictures[1:], strict=False))


def test_gradients_reach_the_hypernetwork_alone(generator):
    model = untrained("hyperstyle", generator).train()
    assert model.backbone.training and not model.base.encoder.training and not model.decoder.training
    photos = made_photos(generator, 2, 9)
    w_plus, y, deltas = model.start(photos)
    before = [d.clone().requires_grad_() for d in deltas]
    y = y.clone().requires_grad_()
    deltas = model.refine(photos, y, before)
    sum(w.square().sum() for own in model.weights(deltas) for w in own.values()).backward()
    assert y.grad is None and all(d.grad is None for d in before), "each pass has its own gradient"
    assert all(p.grad is not None for n, p in model.named_parameters() if not n.startswith("base."))
    assert all(p.grad is None for p in model.base.parameters()) and not w_plus.requires_grad
    with pytest.raises(ValueError, match="at least one pass"):
        HyperStyleInversion(model, 16, steps=0)
