import math

import pytest
import torch
import torch.nn.functional as F
from filter_references import filter_reference, upsample_reference

from s2flib.presets import PRESETS
from s2flib.stylegan2 import Discriminator, EqualLinear, Generator, ModulatedConv2d, PixelNorm

# --- the published layout, written out without any of our classes ---

CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}


def published_generator_shapes(size):
    def modulated(p, i, o, k):
        return {f"{p}.weight": (1, o, i, k, k), f"{p}.modulation.weight": (i, 512), f"{p}.modulation.bias": (i,)}

    def styled(p, i, o, up):
        blur = {f"{p}.conv.blur.kernel": (4, 4)} if up else {}
        return {**modulated(f"{p}.conv", i, o, 3), **blur, f"{p}.noise.weight": (1,), f"{p}.activate.bias": (o,)}

    def rgb(p, i, up):
        kernel = {f"{p}.upsample.kernel": (4, 4)} if up else {}
        return {**modulated(f"{p}.conv", i, 3, 1), **kernel, f"{p}.bias": (1, 3, 1, 1)}

    shapes = {
        "input.input": (1, 512, 4, 4),
        "noises.noise_0": (1, 1, 4, 4),
        **styled("conv1", 512, 512, False),
        **rgb("to_rgb1", 512, False),
    }
    for n in range(1, 9):
        shapes |= {f"style.{n}.weight": (512, 512), f"style.{n}.bias": (512,)}
    res, i = 8, 0
    while res <= size:
        a, b = CHANNELS[res // 2], CHANNELS[res]
        shapes |= {
            **styled(f"convs.{2 * i}", a, b, True),
            **styled(f"convs.{2 * i + 1}", b, b, False),
            **rgb(f"to_rgbs.{i}", b, True),
            f"noises.noise_{2 * i + 1}": (1, 1, res, res),
            f"noises.noise_{2 * i + 2}": (1, 1, res, res),
        }
        res, i = res * 2, i + 1
    return shapes


@pytest.mark.parametrize("preset, keys, millions", [("paper", 171, 30.37), ("colab", 135, 30.03)])
def test_generator_published_names_shapes_and_count(preset, keys, millions):
    with torch.device("meta"):
        g = Generator.from_preset(preset)
    state = {k: tuple(v.shape) for k, v in g.state_dict().items()}
    assert state == published_generator_shapes(PRESETS[preset].size)
    assert len(state) == keys
    assert sum(p.numel() for p in g.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)
    assert g.n_styles == PRESETS[preset].n_styles


def test_discriminator_published_names():
    with torch.device("meta"):
        state = {k: tuple(v.shape) for k, v in Discriminator(256).state_dict().items()}
    want = {
        "convs.0.0.weight": (128, 3, 1, 1),
        "convs.0.1.bias": (128,),
        "final_conv.0.weight": (512, 513, 3, 3),
        "final_conv.1.bias": (512,),
        "final_linear.0.weight": (512, 8192),
        "final_linear.0.bias": (512,),
        "final_linear.1.weight": (1, 512),
        "final_linear.1.bias": (1,),
    }
    for n, res in enumerate((256, 128, 64, 32, 16, 8), 1):
        i, o = CHANNELS[res], CHANNELS[res // 2]
        want |= {
            f"convs.{n}.conv1.0.weight": (i, i, 3, 3),
            f"convs.{n}.conv1.1.bias": (i,),
            f"convs.{n}.conv2.0.kernel": (4, 4),
            f"convs.{n}.conv2.1.weight": (o, i, 3, 3),
            f"convs.{n}.conv2.2.bias": (o,),
            f"convs.{n}.skip.0.kernel": (4, 4),
            f"convs.{n}.skip.1.weight": (o, i, 1, 1),
        }
    assert state == want


@pytest.mark.parametrize("size", [128, 256, 1024])
def test_meta_forward_at_published_sizes(size):
    with torch.device("meta"):
        g = Generator(size)
        assert g.synthesis(torch.empty(2, g.n_styles, 512)).shape == (2, 3, size, size)


# --- an independent StyleGAN2, straight from the papers' formulas and the state dict ---


def modulated_reference(s, p, x, w, demodulate=True, up=False):
    """Eqs. 1–3 of StyleGAN2 with one weight per sample, sample by sample."""
    weight, out = s[f"{p}.weight"][0], []
    fan_in = weight.shape[1] * weight.shape[2] ** 2
    for xi, wi in zip(x, w, strict=True):
        style = s[f"{p}.modulation.weight"] @ wi / math.sqrt(wi.numel()) + s[f"{p}.modulation.bias"]
        k = weight / math.sqrt(fan_in) * style[None, :, None, None]
        if demodulate:
            k = k / (k.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            y = F.conv_transpose2d(xi[None], k.transpose(0, 1), stride=2)
            out.append(filter_reference(y, (1, 1), 4))
        else:
            out.append(F.conv2d(xi[None], k, padding=weight.shape[2] // 2))
    return torch.cat(out)


def synthesis_reference(s, w_plus, layers):
    def lrelu(x):
        return torch.where(x > 0, x, 0.2 * x) * 2**0.5

    def styled(p, x, w, noise, up=False):
        x = modulated_reference(s, f"{p}.conv", x, w, up=up)
        return lrelu(x + s[f"{p}.noise.weight"] * s[f"noises.noise_{noise}"] + s[f"{p}.activate.bias"][:, None, None])

    def rgb(p, x, w):
        return modulated_reference(s, f"{p}.conv", x, w, demodulate=False) + s[f"{p}.bias"]

    x = styled("conv1", s["input.input"].repeat(len(w_plus), 1, 1, 1), w_plus[:, 0], 0)
    picture, row = rgb("to_rgb1", x, w_plus[:, 1]), 1
    for i in range(layers):
        x = styled(f"convs.{2 * i}", x, w_plus[:, row], row, up=True)
        x = styled(f"convs.{2 * i + 1}", x, w_plus[:, row + 1], row + 1)
        picture = upsample_reference(picture) + rgb(f"to_rgbs.{i}", x, w_plus[:, row + 2])
        row += 2
    return picture


@pytest.fixture
def g():
    """32 px, style 12, every parameter moved away from its initial zero."""
    torch.manual_seed(0)
    g = Generator(32, 12, 3, channel_base=128, channel_max=10).double()
    with torch.no_grad():
        for p in g.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return g


def codes(g, n=2):
    return torch.randn(n, g.n_styles, g.style_dim, dtype=torch.float64)


def test_synthesis_equals_the_papers_formulas(g):
    w = codes(g)
    with torch.no_grad():
        got, want = g.synthesis(w), synthesis_reference(g.state_dict(), w, 3)
    # ToRGB ends in float32
    assert torch.allclose(got.double(), want, atol=1e-4 * want.abs().max().item())


def grouped_form(conv: ModulatedConv2d, x, w):
    """One weight per sample and a grouped convolution, as the paper writes it (Sec. 2.2)."""
    b, in_ch, h, wd = x.shape
    weight = conv.weight * conv.scale * conv.modulation(w)[:, None, :, None, None]  # (B, out, in, k, k)
    if conv.demodulate:
        weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    x = x.reshape(1, b * in_ch, h, wd)
    if conv.upsample:
        k = weight.transpose(1, 2).reshape(b * in_ch, -1, *weight.shape[3:])
        x = F.conv_transpose2d(x, k, stride=2, groups=b)
        x = x.reshape(b, -1, *x.shape[2:])
        fir = conv.blur.kernel.to(x.dtype)[None, None].repeat(x.shape[1], 1, 1, 1)
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), fir, groups=x.shape[1])
    x = F.conv2d(x, weight.reshape(-1, *weight.shape[2:]), padding=conv.padding, groups=b)
    return x.reshape(b, -1, *x.shape[2:])


@pytest.mark.parametrize("demodulate, upsample, k", [(True, False, 3), (True, True, 3), (False, False, 1)])
def test_modulated_conv_forms_agree_with_gradients(demodulate, upsample, k):
    torch.manual_seed(0)
    conv = ModulatedConv2d(6, 5, k, 7, demodulate=demodulate, upsample=upsample).double()
    x = torch.randn(3, 6, 8, 8, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    fast, grouped = conv(x, w), grouped_form(conv, x, w)
    state = {f"c.{n}": v for n, v in conv.state_dict().items()}
    assert torch.allclose(fast, modulated_reference(state, "c", x, w, demodulate, upsample), atol=1e-7)
    assert torch.allclose(fast, grouped, atol=1e-7)
    probe = torch.randn_like(fast)
    inputs = (x, w, conv.weight, conv.modulation.weight)
    for a, b in zip(
        torch.autograd.grad((fast * probe).sum(), inputs),
        torch.autograd.grad((grouped * probe).sum(), inputs),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-6)


def test_equal_linear_and_pixel_norm():
    layer = EqualLinear(5, 4, bias_init=1.0, lr_mul=0.01, activate=True)
    x = torch.randn(3, 5)
    y = x @ (layer.weight * 0.01 / math.sqrt(5)).T + layer.bias * 0.01
    assert torch.allclose(layer(x), torch.where(y > 0, y, 0.2 * y) * math.sqrt(2), atol=1e-6)
    assert layer.weight.std() > 20  # stored at 1/lr_mul
    assert torch.allclose(PixelNorm()(x).square().mean(1), torch.ones(3), atol=1e-5)


def test_mapping_ignores_the_length_of_z(g):
    z = torch.randn(4, 12, dtype=torch.float64)
    assert torch.allclose(g.mapping(z), g.mapping(3 * z), atol=1e-5)
    assert not torch.allclose(g.mapping(z), g.mapping(-z))


def test_mean_latent(g):
    z = torch.randn(512, 12, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        want = g.mapping(z.double()).mean(0)
    assert torch.allclose(g.mean_latent(512, seed=3), want)
    assert not torch.allclose(g.mean_latent(512, seed=4), want)


def test_truncation(g):
    w, avg = torch.randn(3, 12), torch.randn(12)
    assert torch.equal(g.truncate(w, 1.0, avg), avg + (w - avg))
    assert torch.allclose(g.truncate(w, 0.0, avg), avg.expand(3, 12))
    assert torch.allclose(g.truncate(w, 0.7, avg), 0.7 * w + 0.3 * avg, atol=1e-6)
    z, avg = torch.randn(2, 12, dtype=torch.float64), g.mean_latent(64)
    with torch.no_grad():
        half = g(z, psi=0.5, w_avg=avg)
        assert torch.allclose(half, g.synthesis(g.expand(0.5 * (g.mapping(z) + avg))), atol=1e-4)
    with pytest.raises(ValueError, match="w_avg"):
        g(z, psi=0.5)


def test_w_and_w_plus(g):
    w = torch.randn(2, 12, dtype=torch.float64)
    plus = g.expand(w)
    assert plus.shape == (2, g.n_styles, 12) and g.n_styles == 8
    assert all(torch.equal(plus[:, i], w) for i in range(8))
    other = codes(g)
    assert g.expand(other) is other
    # every row of W+ reaches the picture, and the last one only through the last ToRGB
    with torch.no_grad():
        base = g.synthesis(other)
        for row in range(8):
            moved = other.clone()
            moved[:, row] += 1
            assert not torch.allclose(g.synthesis(moved), base)


def test_style_mixing(g):
    w1, w2 = torch.randn(2, 2, 12, dtype=torch.float64)
    mixed = g.mix(w1, w2, 3)
    assert mixed.shape == (2, 8, 12)
    assert torch.equal(mixed[:, :3], g.expand(w1)[:, :3]) and torch.equal(mixed[:, 3:], g.expand(w2)[:, 3:])
    assert torch.equal(g.mix(w1, w2, 0), g.expand(w2)) and torch.equal(g.mix(w1, w2, 8), g.expand(w1))


def test_noise_modes(g):
    w = codes(g, 1)
    with torch.no_grad():
        const, again, none = g.synthesis(w), g.synthesis(w), g.synthesis(w, noise=None)
        random = g.synthesis(w, noise="random")
        assert torch.equal(const, again)
        assert not torch.allclose(const, none) and not torch.allclose(const, random)
        torch.manual_seed(1)
        a = g.synthesis(w, noise="random")
        torch.manual_seed(1)
        assert torch.equal(a, g.synthesis(w, noise="random"))
        # two samples of a batch get different noise
        pair = g.synthesis(w.expand(2, -1, -1), noise="random")
        assert not torch.allclose(pair[0], pair[1])
        for name, p in g.named_parameters():
            if name.endswith("noise.weight"):
                p.zero_()
        assert torch.allclose(g.synthesis(w), g.synthesis(w, noise=None), atol=1e-5)
    with pytest.raises(ValueError, match="noise"):
        g.synthesis(w, noise="fixed")


def test_bfloat16_is_close():
    torch.manual_seed(0)
    g = Generator(32, 12, 3, channel_base=128, channel_max=10)
    w = torch.randn(2, 8, 12)
    with torch.no_grad():
        full, low = g.synthesis(w), g.synthesis(w, dtype=torch.bfloat16)
    assert low.dtype == torch.float32
    assert (full - low).abs().max() < 0.05 * full.abs().max()


def test_generator_refuses(g):
    for size in (4, 100):
        with pytest.raises(ValueError, match="power of two"):
            Generator(size, 8, 1)
    with pytest.raises(ValueError, match=r"w_plus must be \(B, 8, 12\)"):
        g.synthesis(torch.randn(2, 12))
    with pytest.raises(ValueError, match="w_plus"):
        g.synthesis(torch.randn(2, 7, 12))


def test_gradient_reaches_every_generator_parameter(g):
    w = g.expand(g.mapping(torch.randn(2, 12, dtype=torch.float64)))
    g.synthesis(w).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in g.parameters())


def test_discriminator_forward_and_gradient():
    torch.manual_seed(0)
    d = Discriminator(32, channel_base=128, channel_max=10)
    x = torch.randn(4, 3, 32, 32, requires_grad=True)
    out = d(x)
    assert out.shape == (4, 1)
    (grad,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    grad.square().sum().backward()  # R1's double backward
    assert all(p.grad is not None for n, p in d.named_parameters() if n.endswith("weight"))


@pytest.mark.parametrize("batch, group", [(8, 4), (4, 4), (6, 2), (3, 1)])
def test_minibatch_stddev(batch, group):
    x = torch.randn(batch, 5, 4, 4)
    y = Discriminator.minibatch_stddev(x)
    assert y.shape == (batch, 6, 4, 4) and torch.equal(y[:, :5], x)
    for n in range(batch):
        members = [m for m in range(batch) if m % (batch // group) == n % (batch // group)]
        assert len(members) == group
        want = (x[members].var(0, unbiased=False) + 1e-8).sqrt().mean()
        assert torch.allclose(y[n, 5], want.expand(4, 4), atol=1e-5)


def test_resblock_halves_by_the_formula():
    """conv2(conv1(x)) + skip(x), over √2, with the published paddings."""
    d = Discriminator(16, channel_base=64, channel_max=6)
    s, x = d.state_dict(), torch.randn(2, 4, 16, 16)

    def conv(y, key, **kw):
        w = s[key]
        return F.conv2d(y, w / math.sqrt(w[0].numel()), **kw)

    def lrelu(y, key):
        y = y + s[key][:, None, None]
        return torch.where(y > 0, y, 0.2 * y) * 2**0.5

    y = lrelu(conv(x, "convs.1.conv1.0.weight", padding=1), "convs.1.conv1.1.bias")
    y = lrelu(conv(filter_reference(y, (2, 2), 1), "convs.1.conv2.1.weight", stride=2), "convs.1.conv2.2.bias")
    skip = conv(filter_reference(x, (1, 1), 1), "convs.1.skip.1.weight", stride=2)
    assert torch.allclose(d.convs[1](x), (y + skip) / 2**0.5, atol=1e-5)


def test_features_of_w_give_the_image_of_w():
    """G(w, features=coarse_features(w)) is G(w) without the images of the smaller resolutions."""
    torch.manual_seed(0)
    g = Generator(64, 16, 1, 512, 16)
    w = torch.randn(2, g.n_styles, 16)
    with torch.no_grad():
        features = g.coarse_features(w, 16)
        assert features.shape == (2, 16, 16, 16)
        got = g.synthesis(w, features=features)
        assert not torch.allclose(got, g.synthesis(w), atol=1e-4)
        for to_rgb in (g.to_rgb1, g.to_rgbs[0]):  # 4 and 8 px
            to_rgb.conv.weight.zero_()
        assert torch.allclose(got, g.synthesis(w), atol=1e-5)


def test_features_take_the_place_of_the_coarse_rows():
    torch.manual_seed(0)
    g = Generator(64, 16, 1, 512, 16)
    w, features = torch.randn(1, g.n_styles, 16), torch.randn(1, 16, 16, 16)
    with torch.no_grad():
        before = g.synthesis(w, features=features)
        for row in range(g.n_styles):
            other = w.clone()
            other[:, row] += 1
            same = torch.equal(g.synthesis(other, features=features), before)
            assert same == (row < 2 * 4 - 3)  # 16 = 2⁴


@pytest.mark.parametrize("side", [3, 12, 128])
def test_features_need_a_side_of_the_generator(side):
    g = Generator(64, 16, 1, 512, 16)
    with pytest.raises(ValueError, match=f"power of two from 4 to 64, not {side}"):
        g.synthesis(torch.randn(1, g.n_styles, 16), features=torch.randn(1, 16, side, side))
    with pytest.raises(ValueError, match="power of two"):
        g.coarse_features(torch.randn(1, g.n_styles, 16), side)


def test_noise_maps_as_an_argument(g):
    """Explicit maps do what the same maps do when they are stored; a batch has one of each per picture."""
    w = codes(g, 2)
    own = [[torch.randn_like(m) for m in g.noises.buffers()] for _ in range(2)]
    with torch.no_grad():
        assert torch.equal(g.synthesis(w, noise=list(g.noises.buffers())), g.synthesis(w))
        together = g.synthesis(w, noise=[torch.cat(pair) for pair in zip(*own, strict=True)])
        features = g.coarse_features(w, 8, noise=[torch.cat(pair) for pair in zip(*own, strict=True)])
        for i in range(2):
            for stored, new in zip(g.noises.buffers(), own[i], strict=True):
                stored.copy_(new)
            assert torch.allclose(g.synthesis(w[i : i + 1]), together[i : i + 1], atol=1e-5)
            assert torch.allclose(g.coarse_features(w[i : i + 1], 8), features[i : i + 1], atol=1e-5)


def test_noise_maps_have_gradients(g):
    maps = [m.clone().requires_grad_() for m in g.noises.buffers()]
    g.synthesis(codes(g, 1), noise=maps).square().sum().backward()
    assert len(maps) == 7 and all(m.grad.abs().min() > 0 for m in maps)


def test_noise_maps_that_do_not_fit(g):
    maps = list(g.noises.buffers())
    for wrong in (maps[:-1], [*maps, maps[-1]], maps[::-1], [m[0] for m in maps]):
        with pytest.raises(ValueError, match="noise must be 7 maps"):
            g.synthesis(codes(g, 1), noise=wrong)


def test_random_codes_are_seeded(g):
    w = g.random_codes(100, seed=3)
    assert torch.equal(w, g.random_codes(100, seed=3)) and not torch.allclose(w, g.random_codes(100, seed=4))
    assert torch.allclose(w.mean(0), g.mean_latent(100, seed=3)) and w.shape == (100, 12)
