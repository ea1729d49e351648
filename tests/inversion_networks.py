"""A preset of 32 px and its six inversion networks, untrained: for tests of encoders, hypernetworks and trainings.

``mini_weights`` is a weights folder with all of them, written by the library's own functions.
"""

import dataclasses

import numpy as np
import pytest
import torch
from inversion_cases import Edges

from s2flib import presets
from s2flib.inversion.networks import BASES, NETWORKS, build_network, save_network, training
from s2flib.presets import TINY, InversionSettings
from s2flib.stylegan2 import Generator
from s2flib.weights import save_safetensors

SIDE, STYLES, DIM = 32, 8, 32
MINI = dataclasses.replace(
    TINY,
    name="mini",
    size=SIDE,
    encoder_size=SIDE,
    loss_size=SIDE,
    style_dim=DIM,
    n_mlp=2,
    channel_base=256,
    channel_max=16,
    shipped_generator="mini-stylegan2.safetensors",
    label="mini preset of the tests",
    inversion=InversionSettings(
        size=SIDE,
        units=(1, 1, 1, 1),
        widths=(8, 8, 12, 16),
        head=8,
        rank=4,
        passes=5,
        lpips_size=SIDE // 2,
        w_plus_steps=4,
        w_plus_lr=0.1,
        projector_steps=4,
        projector_l2=1.0,
        tuning_steps=4,
        tuning_lr=1e-2,
        tuning_threshold=0.0,
        shipped=True,
    ),
)


def small_generator(seed=0):
    """32 px, random, frozen, with w̄, visible noise and pictures within [−1, 1]."""
    torch.manual_seed(seed)
    g = Generator.from_preset(MINI).eval()
    g.register_buffer("latent_avg", g.mean_latent(1024), persistent=False)
    with torch.no_grad():
        for name, p in g.named_parameters():
            if name.endswith("noise.weight"):
                p.fill_(0.1)
        reach = g.synthesis(g.expand(g.random_codes(64, 1))).abs().max()
        for rgb in (g.to_rgb1, *g.to_rgbs):  # pictures are linear in these weights
            rgb.conv.weight.div_(reach)
            rgb.bias.div_(reach)
    return g.requires_grad_(False)


@torch.no_grad()
def made_photos(generator, n, seed, spread=1.0):
    """(n, 3, 32, 32): pictures of random codes; spread: of the codes around w̄."""
    w = generator.latent_avg + spread * (generator.random_codes(n, seed) - generator.latent_avg)
    return generator.synthesis(generator.expand(w)).clamp(-1, 1)


def awake(network):
    """The network with heads that say something: untrained ones hardly move the code or the weights."""
    torch.manual_seed(7)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if "base." not in name and name.startswith(("encoder.styles", "heads")):
                if name.endswith("linear.weight"):
                    p.mul_(20)
                elif name.endswith(".weights.weight"):  # a LayerHead's last map, which starts at zero
                    p.normal_(std=0.1)
    return network.eval()


def untrained(name, generator, base=None):
    """An untrained network of the mini preset, awake; base: None: an e4e of its own."""
    if name in BASES and base is None:
        base = untrained(BASES[name], generator)
    torch.manual_seed(3)
    return awake(build_network(name, MINI, generator, base))


def save_generator(path, generator):
    tensors = dict(generator.state_dict()) | {"latent_avg": generator.latent_avg}
    return save_safetensors(path, tensors, {"kind": "stylegan2", "preset": "mini"}, overwrite=True)


@pytest.fixture(scope="session", name="mini_data")
def mini_data_fixture(tmp_path_factory):
    """Weights of the mini preset: the generator and all six networks."""
    folder = tmp_path_factory.mktemp("mini")
    save_generator(folder / "mini-stylegan2.safetensors", small_generator())
    from s2flib.inversion.networks import load_network
    from s2flib.weights import load_generator

    generator = load_generator(MINI, folder / "mini-stylegan2.safetensors")
    for name in NETWORKS:
        base = load_network("e4e", MINI, folder / "mini-e4e.safetensors", generator) if name in BASES else None
        save_network(
            folder / f"mini-{training(name)}.safetensors", name, untrained(name, generator, base), MINI, {"step": "0"}
        )
    return folder


@pytest.fixture(name="mini_weights")
def mini_weights_fixture(mini_data, monkeypatch):
    """The mini preset by its name, its weights, and a perceptual judge without weights."""
    monkeypatch.setitem(presets.PRESETS, "mini", MINI)
    monkeypatch.setenv("S2F_WEIGHTS", str(mini_data))
    for module in ("s2flib.inversion.invert", "s2flib.inversion.methods", "s2flib.training.inversion"):
        monkeypatch.setattr(f"{module}.perceptual_judge", lambda preset: Edges())
    return mini_data


class Photos(torch.utils.data.Dataset):
    """Pictures that a generator made, as a data set. They differ more than those of random codes."""

    size = SIDE

    def __init__(self, generator, n, seed):
        self.photos = made_photos(generator, n, seed, 3.0)

    def __len__(self):
        return len(self.photos)

    def __getitem__(self, i):
        return {"photo": self.photos[i], "sketch": torch.ones(1, SIDE, SIDE)}

    def arrays(self):
        photos = ((self.photos + 1) * 127.5).round().to(torch.uint8).numpy()
        return {"photos": photos, "sketches": np.full((len(self), 1, SIDE, SIDE), 255, np.uint8)}


def make_trainer(name, out, train=64, val=16, **more):
    """The trainer of a network on pictures of the mini generator, without an identity loss. Needs ``mini_weights``."""
    from s2flib.training import inversion, inversion_refining
    from s2flib.training.trainer import make_accelerator

    kinds = {
        "psp": (inversion.PhotoPSPTrainer, inversion.PhotoPSPConfig),
        "e4e": (inversion.E4ETrainer, inversion.E4EConfig),
        "restyle-psp": (inversion_refining.ReStyleTrainer, inversion_refining.RefiningConfig),
        "restyle-e4e": (inversion_refining.ReStyleE4ETrainer, inversion_refining.RefiningConfig),
        "hyperstyle": (inversion_refining.HyperStyleTrainer, inversion_refining.RefiningConfig),
        "hyperinverter": (inversion_refining.HyperInverterTrainer, inversion.InversionConfig),
    }
    trainer, config = kinds[name]
    options = dict(out=str(out), preset="mini", batch=4, steps=20, cpu=True, mixed_precision="no", lambda_id=0.0)
    cfg = config(**options | more)
    g = small_generator()
    return trainer(cfg, Photos(g, train, 31), Photos(g, val, 32), make_accelerator(cpu=True))
