"""Published checkpoints (pSp, StyleGAN2, IR-SE50): their layouts are read, and others refused."""

import argparse
import dataclasses

import pytest
import torch

from s2flib import weights
from s2flib.errors import WeightsError
from s2flib.presets import PAPER
from s2flib.psp import GradualStyleEncoder
from s2flib.stylegan2 import Generator
from s2flib.weights import published
from s2flib.weights.published import IRSE50, load_strict, load_stylegan2, read_psp

SMALL_PAPER = dataclasses.replace(
    PAPER,
    size=64,
    encoder_size=64,
    style_dim=24,
    n_mlp=2,
    channel_base=512,
    channel_max=24,
    encoder_units=(1, 2, 1, 1),
    encoder_widths=(4, 8, 12, 16),
    encoder_head=16,
)


def published_file(path, **changes):
    """A psp_*.pt in the published layout with small tensors, and the networks inside."""
    p = SMALL_PAPER
    encoder = GradualStyleEncoder.from_preset(p)
    decoder = Generator.from_preset(p)
    with torch.no_grad():
        decoder.conv1.noise.weight.fill_(0.5)
    checkpoint = {
        "state_dict": {
            **{f"encoder.{k}": v for k, v in encoder.state_dict().items()},
            **{f"decoder.{k}": v for k, v in decoder.state_dict().items()},
        },
        "opts": {
            "encoder_type": "GradualStyleEncoder",
            "input_nc": 1,
            "label_nc": 1,
            "output_size": 64,
            "start_from_latent_avg": True,
            "resize_factors": None,
        },
        "latent_avg": torch.randn(p.n_styles, p.style_dim),
    } | changes
    torch.save({k: v for k, v in checkpoint.items() if v is not None}, path)
    return encoder.eval(), decoder.eval(), checkpoint


def test_published_psp_file(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "PAPER", SMALL_PAPER)
    encoder, decoder, checkpoint = published_file(tmp_path / "psp.pt")
    psp = weights.load_psp(SMALL_PAPER, tmp_path / "psp.pt")
    assert not psp.training and torch.equal(psp.latent_avg, checkpoint["latent_avg"])
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        w = encoder(x) + checkpoint["latent_avg"]
        image, codes = psp(x)
        torch.testing.assert_close(codes, w, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(image, decoder.synthesis(w), atol=1e-4, rtol=1e-4)


def test_published_psp_of_another_size(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "PAPER", SMALL_PAPER)
    published_file(tmp_path / "psp.pt")
    with pytest.raises(WeightsError, match="another preset"):
        weights.load_psp("tiny", tmp_path / "psp.pt")


def test_published_psp_variants(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "PAPER", SMALL_PAPER)
    path = tmp_path / "psp.pt"
    _, _, c = published_file(path, latent_avg=None)
    with pytest.raises(WeightsError, match="latent_avg"):
        weights.load_psp(SMALL_PAPER, path)
    published_file(path, latent_avg=None, opts=c["opts"] | {"start_from_latent_avg": False})
    assert weights.load_psp(SMALL_PAPER, path).latent_avg.abs().sum() == 0
    published_file(path, opts=argparse.Namespace(**c["opts"]))  # old files keep the options themselves
    weights.load_psp(SMALL_PAPER, path)
    published_file(path, opts={"encoder_type": "BackboneEncoderUsingLastLayerIntoW"})
    with pytest.raises(WeightsError, match="BackboneEncoderUsingLastLayerIntoW"):
        weights.load_psp(SMALL_PAPER, path)
    torch.save({"g_ema": {}}, path)
    with pytest.raises(WeightsError, match="not a pSp checkpoint"):
        weights.load_psp(SMALL_PAPER, path)


def test_published_psp_at_published_shapes():
    """621 + 171 tensors of the published shapes are sorted and fit; nothing is allocated (meta device)."""
    with torch.device("meta"):
        encoder, decoder = GradualStyleEncoder.from_preset(PAPER), Generator.from_preset(PAPER)
        state = {
            **{f"encoder.{k}": torch.empty(v.shape, dtype=v.dtype) for k, v in encoder.state_dict().items()},
            **{f"decoder.{k}": torch.empty(v.shape) for k, v in decoder.state_dict().items()},
        }
        got = read_psp({"state_dict": state, "opts": {}, "latent_avg": torch.empty(18, 512)}, "file")
        assert (len(got.encoder), len(got.decoder), got.input_nc, got.n_styles) == (621, 171, 1, 18)
        load_strict(encoder, got.encoder, "file")
        load_strict(decoder, got.decoder, "file")


def stylegan2_checkpoint():
    torch.manual_seed(3)
    g = Generator.from_preset(SMALL_PAPER)
    with torch.no_grad():
        g.conv1.noise.weight.fill_(1.0)
    return g, {"g_ema": dict(g.state_dict()), "latent_avg": torch.randn(24)}


def test_published_stylegan2():
    source, checkpoint = stylegan2_checkpoint()
    target = Generator.from_preset(SMALL_PAPER)
    w_avg = load_stylegan2(target, checkpoint, "file")
    assert torch.equal(w_avg, checkpoint["latent_avg"])
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())


def test_published_stylegan2_without_noise_filters_and_average():
    source, checkpoint = stylegan2_checkpoint()
    bare = {k: v for k, v in checkpoint["g_ema"].items() if not k.startswith("noises.") and ".kernel" not in k}
    targets = [Generator.from_preset(SMALL_PAPER) for _ in range(2)]
    averages = [load_stylegan2(t, {"g_ema": bare}, "file") for t in targets]
    assert torch.equal(averages[0], source.mean_latent())
    w = torch.randn(1, SMALL_PAPER.n_styles, 24)
    with torch.no_grad():
        a, b = (t.synthesis(w) for t in targets)
        assert torch.equal(a, b)  # the drawn noise is seeded
        assert torch.equal(targets[0].synthesis(w, noise=None), source.synthesis(w, noise=None))
    bare["mapping.w_avg"] = torch.arange(24.0)  # as in conversions from stylegan2-ada
    assert torch.equal(load_stylegan2(targets[0], {"g_ema": bare}, "file"), torch.arange(24.0))


def test_published_stylegan2_refuses():
    _, checkpoint = stylegan2_checkpoint()
    g = Generator.from_preset(SMALL_PAPER)
    with pytest.raises(WeightsError, match="g_ema"):
        load_stylegan2(g, {"state_dict": {}}, "file")
    with pytest.raises(WeightsError, match="another preset"):
        load_stylegan2(Generator(64, 24, 2, channel_base=512, channel_max=20), checkpoint, "file")
    with pytest.raises(WeightsError, match="unknown tensor"):
        load_stylegan2(Generator(32, 24, 2, channel_base=512, channel_max=24), checkpoint, "file")
    checkpoint["g_ema"]["convs.0.conv.blur.kernel"] = torch.ones(4, 4)
    with pytest.raises(WeightsError, match="low-pass filter"):
        load_stylegan2(g, checkpoint, "file")


def test_own_generator_file_in_the_published_layout(tmp_path):
    source, checkpoint = stylegan2_checkpoint()
    torch.save(checkpoint, tmp_path / "g.pt")
    g = weights.load_generator(SMALL_PAPER, tmp_path / "g.pt")
    assert torch.equal(g.latent_avg, checkpoint["latent_avg"])
    assert torch.equal(g.input.input, source.input.input)


def test_ir_se50_published_names():
    with torch.device("meta"):
        net = IRSE50()
    state = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    assert len([k for k in state if k.startswith("body.")]) == 24 * 15 + 3 * 6
    assert state["input_layer.0.weight"] == (64, 3, 3, 3)
    assert state["body.23.res_layer.5.fc2.weight"] == (512, 32, 1, 1)
    assert state["body.3.shortcut_layer.1.running_var"] == (128,)
    tail = {k: s for k, s in state.items() if k.startswith("output_layer.")}
    assert tail == {"output_layer.3.weight": (512, 25088), "output_layer.3.bias": (512,)} | {
        f"output_layer.{i}.{n}": () if n == "num_batches_tracked" else (512,)
        for i in (0, 4)
        for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(43.8, abs=0.1)


# --- checkpoints of anything


ODD = {
    "text": "text",
    "list": [torch.zeros(2)],
    "sparse": torch.zeros(2, 2).to_sparse(),
    "meta": torch.empty(2, device="meta"),
    "int": torch.zeros(2, dtype=torch.int64),
    "complex": torch.zeros(2, dtype=torch.complex64),
    "empty": torch.zeros(0),
    "scalar": torch.tensor(1.0),
}


@pytest.mark.parametrize("checkpoint", [3, None, [], torch.zeros(3), {}, {"g_ema": 1, "state_dict": []}], ids=repr)
def test_what_is_no_checkpoint_is_one_sentence(checkpoint):
    with pytest.raises(WeightsError, match="g_ema"):
        load_stylegan2(Generator.from_preset(SMALL_PAPER), checkpoint, "file")
    with pytest.raises(WeightsError, match="state_dict"):
        read_psp(checkpoint, "file")


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("key", ["conv1.conv.weight", "convs.0.conv.blur.kernel", "noises.noise_0", "latent_avg"])
def test_what_is_no_tensor_in_a_generator(key, odd):
    _, checkpoint = stylegan2_checkpoint()
    (checkpoint if key == "latent_avg" else checkpoint["g_ema"])[key] = ODD[odd]
    with pytest.raises(WeightsError, match=key):
        load_stylegan2(Generator.from_preset(SMALL_PAPER), checkpoint, "file")


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("key", ["encoder.input_layer.0.weight", "latent_avg", "opts"])
def test_what_is_no_tensor_in_an_encoder(key, odd, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "PAPER", SMALL_PAPER)
    *_, checkpoint = published_file(tmp_path / "psp.pt")
    (checkpoint["state_dict"] if key.startswith("encoder") else checkpoint)[key] = ODD[odd]
    with pytest.raises(WeightsError, match="file"):
        published.build_psp(checkpoint, "file")


def test_style_heads_are_counted_without_odd_names(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "PAPER", SMALL_PAPER)
    *_, checkpoint = published_file(tmp_path / "psp.pt", opts={"start_from_latent_avg": False})
    checkpoint["state_dict"]["encoder.styles.99999999.x"] = torch.zeros(2)
    del checkpoint["latent_avg"]
    assert read_psp(checkpoint, "file").latent_avg.shape == (SMALL_PAPER.n_styles, 24)  # not 10⁸ rows
    with pytest.raises(WeightsError, match="unknown tensor styles.99999999.x"):
        published.build_psp(checkpoint, "file")
