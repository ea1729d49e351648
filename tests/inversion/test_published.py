"""Published encoders of photos: their authors' names and shapes, and small stand-ins in their layout."""

import argparse
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from s2flib import weights
from s2flib.errors import WeightsError
from s2flib.inversion import networks, published
from s2flib.inversion.e4e import Encoder4Editing
from s2flib.inversion.methods import load_method
from s2flib.inversion.networks import load_network
from s2flib.inversion.restyle import BackboneEncoder
from s2flib.presets import PAPER
from s2flib.psp import GradualStyleEncoder
from s2flib.stylegan2 import Generator
from s2flib.weights import published as layouts

SMALL = dataclasses.replace(
    PAPER,
    size=64,
    encoder_size=32,
    style_dim=24,
    n_mlp=2,
    channel_base=512,
    channel_max=24,
    encoder_units=(1, 2, 1, 1),
    encoder_widths=(4, 8, 12, 16),
    encoder_head=16,
)
TYPES = {
    "psp": "GradualStyleEncoder",
    "e4e": "Encoder4Editing",
    "restyle-psp": "BackboneEncoder",
    "restyle-e4e": "ProgressiveBackboneEncoder",
}


@pytest.fixture(autouse=True)
def small_paper(request, monkeypatch):
    """The published layout at 64 px, but for the tests of the true shapes."""
    if "at_1024_px" not in request.node.name:
        for module in (published, layouts):
            monkeypatch.setattr(module, "PAPER", SMALL)
        monkeypatch.setattr(networks, "get_preset", lambda preset: SMALL)


# --- names and shapes, from the authors' model definitions


def bn(prefix, n):
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{prefix}.{name}": (n,) for name in names} | {f"{prefix}.num_batches_tracked": ()}


def ir_se50(input_nc):
    """input_layer and body of models/encoders/helpers.py: get_blocks(50) and bottleneck_IR_SE."""
    state = {"input_layer.0.weight": (64, input_nc, 3, 3), **bn("input_layer.1", 64), "input_layer.2.weight": (64,)}
    groups, i = [(64, 64, 3), (64, 128, 4), (128, 256, 14), (256, 512, 3)], 0
    for in_ch, depth, units in groups:
        for c in [in_ch] + [depth] * (units - 1):
            b = f"body.{i}"
            if c != depth:
                state |= {f"{b}.shortcut_layer.0.weight": (depth, c, 1, 1), **bn(f"{b}.shortcut_layer.1", depth)}
            state |= {**bn(f"{b}.res_layer.0", c), f"{b}.res_layer.1.weight": (depth, c, 3, 3)}
            state |= {f"{b}.res_layer.2.weight": (depth,), f"{b}.res_layer.3.weight": (depth, depth, 3, 3)}
            state |= {**bn(f"{b}.res_layer.4", depth), f"{b}.res_layer.5.fc1.weight": (depth // 16, depth, 1, 1)}
            state[f"{b}.res_layer.5.fc2.weight"] = (depth, depth // 16, 1, 1)
            i += 1
    return state


def heads(pools):
    """GradualStyleBlock(512, 512, 2^pools): Conv2d and LeakyReLU alternate, then EqualLinear."""
    state = {}
    for i, n in enumerate(pools):
        for k in range(n):
            state |= {f"styles.{i}.convs.{2 * k}.weight": (512, 512, 3, 3), f"styles.{i}.convs.{2 * k}.bias": (512,)}
        state |= {f"styles.{i}.linear.weight": (512, 512), f"styles.{i}.linear.bias": (512,)}
    return state


def test_e4e_names_at_1024_px():
    listed = ir_se50(3) | heads([4] * 3 + [5] * 4 + [6] * 11)
    for name, in_ch in (("latlayer1", 256), ("latlayer2", 128)):
        listed |= {f"{name}.weight": (512, in_ch, 1, 1), f"{name}.bias": (512,)}
    p = PAPER
    with torch.device("meta"):
        shape = (3, 18, p.style_dim, p.encoder_units, p.encoder_widths, p.encoder_head, p.encoder_size)
        found = [kind(*shape).state_dict() for kind in (Encoder4Editing, GradualStyleEncoder)]
    for state in found:
        assert {k: tuple(v.shape) for k, v in state.items()} == listed


@pytest.mark.parametrize("progressive", [False, True])
def test_restyle_names_at_1024_px(progressive):
    p = PAPER
    with torch.device("meta"):
        encoder = BackboneEncoder(
            18, p.style_dim, p.encoder_units, p.encoder_widths, p.encoder_head, p.encoder_size, progressive
        )
    listed = ir_se50(6) | heads([4] * 18)
    assert {k: tuple(v.shape) for k, v in encoder.state_dict().items()} == listed


@pytest.mark.parametrize("name", TYPES)
def test_published_files_load_at_1024_px(name, monkeypatch):
    """All names and shapes fit, with w̄ (18, 512) and further entries; nothing is allocated (meta device)."""
    listed = ir_se50(6) | heads([4] * 18) if name.startswith("restyle") else None
    if listed is None:
        listed = ir_se50(3) | heads([4] * 3 + [5] * 4 + [6] * 11)
        listed |= {"latlayer1.weight": (512, 256, 1, 1), "latlayer2.weight": (512, 128, 1, 1)}
        listed |= {"latlayer1.bias": (512,), "latlayer2.bias": (512,)}
    monkeypatch.setattr(published, "build_decoder", lambda c, what: Generator.from_preset(PAPER))
    with torch.device("meta"):
        dtypes = {True: torch.int64, False: torch.float32}
        state = {f"encoder.{k}": torch.empty(s, dtype=dtypes[k.endswith("tracked")]) for k, s in listed.items()}
        state |= {f"decoder.{k}": v for k, v in Generator.from_preset(PAPER).state_dict().items()}
        checkpoint = {"state_dict": state, "latent_avg": torch.empty(18, 512), "opts": {"encoder_type": TYPES[name]}}
        build = published.build_restyle if name.startswith("restyle") else published.build_photo_encoder
        model = build(name, checkpoint | {"discriminator_state_dict": {}}, "file")
    assert model.latent_avg.shape == (18, 512) and model.encoder.size == 256 and model.decoder.size == 1024


# --- stand-ins


def checkpoint_of(name, **changes):
    """A checkpoint in the published layout with small random tensors, and the networks inside."""
    p = SMALL
    torch.manual_seed(1)
    shape = (p.n_styles, p.style_dim, p.encoder_units, p.encoder_widths, p.encoder_head, p.encoder_size)
    if name.startswith("restyle"):
        encoder = BackboneEncoder(*shape, progressive=name == "restyle-e4e")
    else:
        encoder = (Encoder4Editing if name == "e4e" else GradualStyleEncoder)(3, *shape)
    decoder = Generator.from_preset(p)
    with torch.no_grad():
        decoder.conv1.noise.weight.fill_(0.5)
        for head in encoder.styles:
            head.linear.weight.mul_(20)
    state = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    state |= {f"decoder.{k}": v for k, v in decoder.state_dict().items()}
    opts = {"encoder_type": TYPES[name], "input_nc": 6 if name.startswith("restyle") else 3, "dataset_type": "ffhq"}
    latent_avg = torch.randn(1, p.style_dim).repeat(p.n_styles, 1)
    return encoder.eval(), decoder.eval(), {"state_dict": state, "opts": opts, "latent_avg": latent_avg} | changes


@pytest.mark.parametrize("kept", [dict, lambda opts: argparse.Namespace(**opts)], ids=["dict", "Namespace"])
@pytest.mark.parametrize("name", TYPES)
def test_published_files_invert(name, kept, tmp_path):
    """By the papers' formulas with the networks inside; y is average-pooled to the encoder's size."""
    encoder, decoder, c = checkpoint_of(name)
    torch.save(c | {"opts": kept(c["opts"])}, tmp_path / "file.pt")
    method = load_method(name, SMALL, tmp_path / "file.pt")
    photos = torch.rand(2, 3, 64, 64) * 2 - 1
    found = method.invert(photos)
    small = F.interpolate(photos, size=(32, 32), mode="bilinear", antialias=True)
    w = c["latent_avg"].expand(2, -1, -1)
    with torch.no_grad():
        if name.startswith("restyle"):
            for _ in range(5):
                w = w + encoder(torch.cat([small, F.avg_pool2d(decoder.synthesis(w), 2)], 1))
        else:
            w = w + encoder(small)
        torch.testing.assert_close(found.w_plus, w, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(found.generate(), decoder.synthesis(found.w_plus), atol=1e-4, rtol=1e-4)
        assert (w - w[:, :1]).abs().mean() > 0.01
    assert torch.equal(found.generator.latent_avg, c["latent_avg"][0])
    assert not any(p.requires_grad for p in method.model.parameters())


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("other", TYPES)
def test_each_file_is_told_from_the_others(name, other, tmp_path):
    torch.save(checkpoint_of(other)[2], tmp_path / "file.pt")
    if name == other:
        assert load_network(name, SMALL, tmp_path / "file.pt").encoder.n_styles == SMALL.n_styles
        return
    with pytest.raises(WeightsError, match=rf"file\.pt contains a {TYPES[other]}, not the {TYPES[name]}"):
        load_network(name, SMALL, tmp_path / "file.pt")


@pytest.mark.parametrize("name, input_nc", [("psp", 1), ("e4e", 6), ("restyle-psp", 3)])
def test_another_number_of_channels(name, input_nc, tmp_path):
    *_, c = checkpoint_of(name)
    c["state_dict"]["encoder.input_layer.0.weight"] = torch.zeros(4, input_nc, 3, 3)
    torch.save(c, tmp_path / "file.pt")
    with pytest.raises(WeightsError, match=f"reads {input_nc} channels"):
        load_network(name, SMALL, tmp_path / "file.pt")


@pytest.mark.parametrize("name", TYPES)
def test_damaged_files(name, tmp_path):
    encoder, _, c = checkpoint_of(name)
    key = "encoder.styles.3.linear.weight"
    for spoil, message in (
        (lambda s: s.pop(key), "lacks the tensor styles.3.linear.weight"),
        (lambda s: s.update({key: torch.full_like(s[key], torch.nan)}), "NaN or infinite"),
        (lambda s: s.update({key: s[key][:-1]}), "instead of"),
        (lambda s: s.pop("decoder.conv1.conv.weight"), "lacks the tensor conv1.conv.weight"),
    ):
        state = dict(c["state_dict"])
        spoil(state)
        torch.save(c | {"state_dict": state}, tmp_path / "file.pt")
        with pytest.raises(WeightsError, match=message):
            load_network(name, SMALL, tmp_path / "file.pt")
    torch.save({k: v for k, v in c.items() if k != "latent_avg"}, tmp_path / "file.pt")
    with pytest.raises(WeightsError, match="lacks latent_avg"):
        load_network(name, SMALL, tmp_path / "file.pt")
    torch.save({"g_ema": {}}, tmp_path / "file.pt")
    with pytest.raises(WeightsError, match="state_dict"):
        load_network(name, SMALL, tmp_path / "file.pt")


def test_restyles_further_tensors_are_ignored(tmp_path):
    """The authors' code reads these encoders with strict=False."""
    *_, c = checkpoint_of("restyle-psp")
    torch.save(c | {"state_dict": c["state_dict"] | {"encoder.latlayer1.bias": torch.zeros(2)}}, tmp_path / "file.pt")
    load_network("restyle-psp", SMALL, tmp_path / "file.pt")


def test_a_file_of_another_size(tmp_path, monkeypatch):
    torch.save(checkpoint_of("e4e")[2], tmp_path / "file.pt")
    monkeypatch.setattr(networks, "get_preset", lambda preset: dataclasses.replace(SMALL, size=128))
    with pytest.raises(WeightsError, match=r"another preset \(64 px, not 128\)"):
        load_network("e4e", SMALL, tmp_path / "file.pt")


def test_a_preset_without_shipped_networks_downloads_the_published(tmp_path, monkeypatch):
    torch.save(checkpoint_of("e4e")[2], tmp_path / "file.pt")
    asked = []
    monkeypatch.setattr(networks, "fetch", lambda name: asked.append(name) or tmp_path / "file.pt")
    load_network("e4e", SMALL)
    assert asked == ["e4e-ffhq"] and asked[0] in weights.REGISTRY
    assert {registered for _, registered in PAPER.inversion.published} <= set(weights.REGISTRY)
    assert {name for name, _ in PAPER.inversion.published} == set(TYPES)
