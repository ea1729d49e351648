import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from s2flib.errors import S2FError
from s2flib.presets import PAPER, TINY
from s2flib.psp import PSP, BottleneckIRSE, GradualStyleBlock, GradualStyleEncoder, SEModule
from s2flib.stylegan2 import Generator

SMALL = dict(units=(1, 2, 1, 1), widths=(4, 8, 12, 16), head=10, size=64)


def small_encoder(n_styles=10, style_dim=24, input_nc=1, **kw):
    return GradualStyleEncoder(input_nc, n_styles, style_dim, **{**SMALL, **kw})


@pytest.fixture
def psp():
    """64 px, 10 styles of 24."""
    torch.manual_seed(0)
    decoder = Generator(64, 24, 2, channel_base=512, channel_max=24)
    return PSP(small_encoder(), decoder, decoder.mean_latent(256)).eval()


def published_encoder_shapes(input_nc, n_styles, size):
    """Key → shape of pSp's released encoder, written out from its architecture, without any of our classes."""

    def norm(p, c):
        return {
            f"{p}.weight": (c,),
            f"{p}.bias": (c,),
            f"{p}.running_mean": (c,),
            f"{p}.running_var": (c,),
            f"{p}.num_batches_tracked": (),
        }

    shapes = {
        "input_layer.0.weight": (64, input_nc, 3, 3),
        **norm("input_layer.1", 64),
        "input_layer.2.weight": (64,),
        "latlayer1.weight": (512, 256, 1, 1),
        "latlayer1.bias": (512,),
        "latlayer2.weight": (512, 128, 1, 1),
        "latlayer2.bias": (512,),
    }
    block, i = 0, 64
    for n, o in ((3, 64), (4, 128), (14, 256), (3, 512)):
        for _ in range(n):
            b = f"body.{block}"
            if i != o:
                shapes |= {f"{b}.shortcut_layer.0.weight": (o, i, 1, 1), **norm(f"{b}.shortcut_layer.1", o)}
            shapes |= {
                **norm(f"{b}.res_layer.0", i),
                f"{b}.res_layer.1.weight": (o, i, 3, 3),
                f"{b}.res_layer.2.weight": (o,),
                f"{b}.res_layer.3.weight": (o, o, 3, 3),
                **norm(f"{b}.res_layer.4", o),
                f"{b}.res_layer.5.fc1.weight": (o // 16, o, 1, 1),
                f"{b}.res_layer.5.fc2.weight": (o, o // 16, 1, 1),
            }
            block, i = block + 1, o
    for s in range(n_styles):
        spatial = size // 16 if s < 3 else size // 8 if s < 7 else size // 4
        for c in range(int(math.log2(spatial))):
            shapes |= {f"styles.{s}.convs.{2 * c}.weight": (512, 512, 3, 3), f"styles.{s}.convs.{2 * c}.bias": (512,)}
        shapes |= {f"styles.{s}.linear.weight": (512, 512), f"styles.{s}.linear.bias": (512,)}
    return shapes


@pytest.mark.parametrize("preset, keys, millions", [("paper", 621, 267.1), ("colab", 565, 209.4)])
def test_published_names_shapes_and_count(preset, keys, millions):
    with torch.device("meta"):
        net = GradualStyleEncoder.from_preset(preset)
    state = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    assert state == published_encoder_shapes(1, net.n_styles, 256)
    assert len(state) == keys
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
    if preset == "paper":
        assert sum(p.numel() for p in net.styles.parameters()) / 1e6 == pytest.approx(236, abs=0.5)
        assert net.taps == (6, 20, 23)


def test_published_maps_and_flow_of_shapes():
    with torch.device("meta"):
        net = GradualStyleEncoder.from_preset(PAPER)
        maps = net.features(torch.empty(2, 1, 256, 256))
        assert [tuple(m.shape) for m in maps] == [(2, 512, 16, 16), (2, 512, 32, 32), (2, 512, 64, 64)]
        assert net(torch.empty(2, 1, 256, 256)).shape == (2, 18, 512)


def test_tiny_is_cheap():
    net = GradualStyleEncoder.from_preset(TINY).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        codes = net(torch.rand(1, 1, TINY.encoder_size, TINY.encoder_size))
    assert codes.shape == (1, TINY.n_styles, TINY.style_dim)
    assert counter.get_total_flops() / 2 < 1e9  # IR-SE-50 at 256 px: 30e9


def test_block_by_hand():
    torch.manual_seed(1)
    for i, o, stride in ((4, 6, 2), (5, 5, 2), (5, 5, 1)):
        block = BottleneckIRSE(i, o, stride).eval()
        for m in block.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.normal_()
                m.running_var.uniform_(0.5, 2)
        x = torch.randn(2, i, 8, 8)
        p = block.state_dict()

        def norm(y, key, p=p):
            mean, var, w, b = (
                p[f"{key}.{n}"][:, None, None] for n in ("running_mean", "running_var", "weight", "bias")
            )
            return (y - mean) / (var + 1e-5).sqrt() * w + b

        y = F.conv2d(norm(x, "res_layer.0"), p["res_layer.1.weight"], padding=1)
        y = torch.where(y > 0, y, y * p["res_layer.2.weight"][:, None, None])
        y = norm(F.conv2d(y, p["res_layer.3.weight"], stride=stride, padding=1), "res_layer.4")
        gate = F.conv2d(
            F.conv2d(y.mean((2, 3), keepdim=True), p["res_layer.5.fc1.weight"]).clamp(min=0),
            p["res_layer.5.fc2.weight"],
        )
        y = y / (1 + (-gate).exp())
        if i == o:
            short = x[:, :, ::stride, ::stride]
        else:
            short = norm(F.conv2d(x, p["shortcut_layer.0.weight"], stride=stride), "shortcut_layer.1")
        assert torch.allclose(block(x), y + short, atol=1e-5)


def test_se_reduction():
    assert SEModule(64).fc1.weight.shape == (4, 64, 1, 1)
    assert SEModule(512).fc1.weight.shape == (32, 512, 1, 1)
    assert SEModule(16).fc1.weight.shape == (4, 16, 1, 1)  # never fewer than four


def test_styles_come_from_their_map():
    """Style j must answer to a change in its own map and to no other."""
    net = small_encoder().eval()
    maps = [torch.randn(1, 16, s, s) for s in (4, 8, 16)]
    owner = [0] * 3 + [1] * 4 + [2] * 3
    with torch.no_grad():
        for changed in range(3):
            net.features = lambda x: tuple(maps)
            before = net(None)
            net.features = lambda x, c=changed: tuple(m + 1 if i == c else m for i, m in enumerate(maps))
            moved = (net(None) - before).abs().amax((0, 2)) > 1e-6
            assert moved.tolist() == [o == changed for o in owner]


def test_pyramid_is_top_down():
    """fine = lateral(fine) + up(middle), middle = lateral(middle) + up(coarse), bilinear with aligned corners."""
    net = small_encoder().eval()
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        y, raw = net.input_layer(x), []
        for block in net.body:
            y = block(y)
            raw.append(y)
        fine, middle, coarse = raw[2], raw[3], raw[4]  # units (1, 2, 1, 1)

        def up(m, n):
            """Bilinear interpolation with aligned corners as two small matrices."""
            pos = torch.linspace(0, m.shape[-1] - 1, n)
            a = (1 - (pos[:, None] - torch.arange(m.shape[-1])).abs()).clamp(min=0)
            return a @ m @ a.T

        p1 = net.latlayer1(middle) + up(coarse, 8)
        p2 = net.latlayer2(fine) + up(p1, 16)
        for got, want in zip(net.features(x), (coarse, p1, p2), strict=True):
            assert torch.allclose(got, want, atol=1e-5)


def test_start_is_near_the_average_code_and_trainable():
    torch.manual_seed(0)
    net = GradualStyleEncoder.from_preset(TINY)
    y, features = net.codes_and_features(torch.rand(4, 1, TINY.encoder_size, TINY.encoder_size))
    assert 0.005 < y.std() < 0.3
    assert y.std(0).mean() > 0.005  # different sketches start with different codes
    ((y - 1).square().mean() + features.square().mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_map2style_depth():
    for spatial in (4, 16, 64):
        head = GradualStyleBlock(6, 8, 20, spatial)
        assert head(torch.randn(3, 6, spatial, spatial)).shape == (3, 20)
        assert sum(isinstance(m, nn.Conv2d) for m in head.modules()) == math.log2(spatial)


def test_encoder_refuses():
    with pytest.raises(ValueError, match="power of two"):
        small_encoder(size=100)
    with pytest.raises(ValueError, match="n_styles"):
        small_encoder(n_styles=7)
    with pytest.raises(ValueError, match=r"input must be \(B, 1, 64, 64\)"):
        small_encoder()(torch.rand(1, 3, 64, 64))


def test_photo_input():
    assert small_encoder(input_nc=3)(torch.rand(2, 3, 64, 64)).shape == (2, 10, 24)


def test_psp_adds_the_average(psp):
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        image, w = psp(x)
        assert torch.allclose(w, psp.encoder(x) + psp.latent_avg, atol=1e-6)
        assert image.shape == (2, 3, 64, 64)
        assert torch.allclose(image, psp.decoder.synthesis(w))
    assert psp.latent_avg.shape == (10, 24) and (psp.latent_avg == psp.latent_avg[0]).all()
    assert "latent_avg" in psp.state_dict()


def test_psp_keeps_a_full_latent_avg():
    rows = torch.randn(10, 24)
    assert torch.equal(PSP(small_encoder(), Generator(64, 24, 1, 512, 24), rows).latent_avg, rows)


def test_decoder_stays_frozen(psp):
    """The decoder neither gathers gradients nor leaves eval mode; the encoder learns through it."""
    psp.requires_grad_(True)
    psp.train()
    assert psp.encoder.training and not psp.decoder.training
    assert not any(p.requires_grad for p in psp.decoder.parameters())
    before = {k: v.clone() for k, v in psp.decoder.state_dict().items()}
    opt = torch.optim.SGD([p for p in psp.parameters() if p.requires_grad], 0.1)
    image, _ = psp(torch.rand(2, 1, 64, 64))
    image.square().mean().backward()
    assert all(p.grad is None for p in psp.decoder.parameters())
    assert all(p.grad is not None for p in psp.encoder.parameters())
    opt.step()
    assert all(torch.equal(v, before[k]) for k, v in psp.decoder.state_dict().items())
    psp.eval()
    assert not psp.encoder.training


def test_for_inference_is_frozen_and_gives_the_same_face():
    torch.manual_seed(0)
    psp, sketch = PSP.from_preset("tiny").eval(), torch.rand(2, 1, 128, 128)
    with torch.no_grad():
        before = psp(sketch)
        ready = psp.train().for_inference()
        after = ready(sketch)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert ready is psp and not psp.training and not any(p.requires_grad for p in psp.parameters())
    conv = psp.encoder.body[1].res_layer[1].weight
    assert conv.is_contiguous(memory_format=torch.channels_last) and not conv.is_contiguous()


def test_sketch_is_resized(psp):
    x = torch.rand(1, 1, 64, 64)
    big = F.interpolate(x, scale_factor=4, mode="nearest")
    with torch.no_grad():
        assert psp.encode(big).shape == (1, 10, 24)
        assert (psp.encode(big) - psp.encode(x)).abs().max() < (psp.encode(1 - x) - psp.encode(x)).abs().max()


def test_decode_pools(psp):
    w = psp.latent_avg[None]
    with torch.no_grad():
        full, half = psp.decode(w), psp.decode(w, size=32)
    assert torch.allclose(half, full.reshape(1, 3, 32, 2, 32, 2).mean((3, 5)), atol=1e-5)
    with pytest.raises(ValueError, match="at most"):
        psp.decode(w, size=128)


def test_psp_refuses_a_pair_that_does_not_fit():
    with pytest.raises(S2FError, match="same preset"):
        PSP(small_encoder(), Generator(128, 24, 1, 512, 24), torch.zeros(24))


def test_multimodal_is_seeded_and_mixes_the_fine_rows(psp):
    x = torch.rand(1, 64, 64)
    a, b, c = psp.multimodal(x, 3, seed=5), psp.multimodal(x, 3, seed=5), psp.multimodal(x, 3, seed=6)
    assert a.shape == (3, 3, 64, 64)
    assert torch.equal(a, b) and not torch.allclose(a, c)
    assert not torch.allclose(a[0], a[1])
    # by hand: rows 4… of 10 (8 of 18, scaled) come from the mapped z, the others from the sketch
    z = torch.randn(3, 24, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        own, w = psp.encode(x[None])[0], psp.decoder.mapping(z)
        for alpha in (1.0, 0.3):
            rows = torch.stack(
                [torch.cat([own[:4], alpha * w[i].expand(6, -1) + (1 - alpha) * own[4:]]) for i in range(3)]
            )
            assert torch.allclose(psp.multimodal(x, 3, 5, alpha=alpha), psp.decode(rows), atol=1e-5)


def test_multimodal_limits(psp):
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        own = psp(x)[0]
        assert torch.allclose(psp.multimodal(x, 2, 0, alpha=0.0), own.expand(2, -1, -1, -1), atol=1e-5)
        assert torch.allclose(psp.multimodal(x, 1, 0, from_style=10), own, atol=1e-5)
    for kw in (dict(n=0), dict(from_style=11), dict(alpha=1.5)):
        with pytest.raises(S2FError):
            psp.multimodal(x, **{"n": 1, "seed": 0, **kw})
    with pytest.raises(S2FError, match="one sketch"):
        psp.multimodal(torch.rand(2, 1, 64, 64), 1, 0)


def test_default_injection_row_of_the_paper():
    """18 styles: rows 8–17 are replaced, as pSp's paper does for sketches."""
    seen = {}

    class Recorder(PSP):
        def decode(self, w_plus, features=None, size=None, noise="const", dtype=None):
            seen["w"] = w_plus
            return w_plus

    encoder = small_encoder(n_styles=18)
    psp = Recorder(encoder, Generator(1024, 24, 1, 1024, 4), torch.zeros(24)).eval()
    x = torch.rand(1, 1, 64, 64)
    psp.multimodal(x, 2, seed=0)
    with torch.no_grad():
        same = (seen["w"] - psp.encode(x)).abs().amax((0, 2)) < 1e-6
    assert same.tolist() == [True] * 8 + [False] * 10


# --- F/W+: the sketch also determines a feature map --------------------------------------------------------------


@pytest.fixture
def fw_psp():
    """As psp, with a feature head at side 16."""
    torch.manual_seed(1)
    decoder = Generator(64, 24, 2, channel_base=512, channel_max=24)
    return PSP(small_encoder(features=(16, 24)), decoder, decoder.mean_latent(256)).eval()


def test_feature_map_replaces_the_coarse_layers(fw_psp):
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        w_plus, features = fw_psp.encode_all(x)
        assert features.shape == (2, 24, 16, 16)
        photo, codes = fw_psp(x)
        assert torch.equal(codes, w_plus) and torch.equal(codes, fw_psp.encode(x))
        assert torch.equal(photo, fw_psp.decoder.synthesis(w_plus, features=features))
        assert not torch.allclose(photo, fw_psp.decode(w_plus))
        assert fw_psp.decode(w_plus, features, size=32).shape == (2, 3, 32, 32)


def test_published_encoders_have_no_feature_map(psp):
    w_plus, features = psp.encode_all(torch.rand(1, 1, 64, 64))
    assert features is None and psp.blend(None, w_plus, 0.5) is None


def test_features_of_half_the_sketch_see_the_first_group():
    """Side 32 of 64: the fine map, enlarged, plus the first group's output, each through its 1 × 1 convolution."""
    torch.manual_seed(2)
    net, x = small_encoder(features=(32, 24)).eval(), torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        codes, features = net.codes_and_features(x)
        head, detail = net.feature_head, net.body[0](net.input_layer(x))
        fine = F.interpolate(head.conv1(net.features(x)[2]), size=(32, 32), mode="bilinear", align_corners=True)
        wanted = F.leaky_relu(head.conv3(F.leaky_relu(fine + head.detail(detail), 0.2)), 0.2)
        assert torch.allclose(features, head.conv2(wanted), atol=1e-5) and torch.allclose(codes, net(x), atol=1e-6)
    assert features.shape == (2, 24, 32, 32)


def test_feature_head_needs_a_side_of_the_pyramid():
    with pytest.raises(ValueError, match="size/2, not 64"):
        small_encoder(features=(64, 24))


def test_fidelity_blends_with_the_features_of_w(fw_psp):
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        w_plus, features = fw_psp.encode_all(x)
        own = fw_psp.decoder.coarse_features(w_plus, 16)
        assert torch.equal(fw_psp.blend(features, w_plus, 1.0), features)
        assert torch.allclose(fw_psp.blend(features, w_plus, 0.0), own, atol=1e-6)
        assert torch.allclose(fw_psp.blend(features, w_plus, 0.25), 0.75 * own + 0.25 * features, atol=1e-5)
        own_face = fw_psp(x)[0]
        assert torch.allclose(fw_psp.multimodal(x, 1, 0, from_style=10), own_face, atol=1e-5)
        assert not torch.allclose(fw_psp.multimodal(x, 1, 0, from_style=10, fidelity=0.5), own_face, atol=1e-3)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(S2FError, match="fidelity"):
            fw_psp.multimodal(x, 1, 0, fidelity=wrong)


def test_gradients_reach_the_feature_head(fw_psp):
    fw_psp.train()
    fw_psp(torch.rand(2, 1, 64, 64))[0].square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in fw_psp.encoder.feature_head.parameters())
