"""Builds, saves and loads the networks of the methods that need training, by their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from s2flib.errors import S2FError, WeightsError
from s2flib.files import weights_dir
from s2flib.inversion.e4e import Encoder4Editing
from s2flib.inversion.hyperinverter import HyperInverter
from s2flib.inversion.hyperstyle import HyperStyle
from s2flib.inversion.published import build_photo_encoder, build_restyle
from s2flib.inversion.restyle import BackboneEncoder, ReStyle
from s2flib.presets import Preset, get_preset
from s2flib.psp import PSP, GradualStyleEncoder
from s2flib.stylegan2 import Generator
from s2flib.weights.load import fingerprint, load_generator, load_tensors, safe_load, save_safetensors
from s2flib.weights.published import check_latent_avg, load_strict
from s2flib.weights.registry import fetch

NETWORKS = ("psp", "e4e", "restyle-psp", "restyle-e4e", "hyperstyle", "hyperinverter")
BASES = {"hyperstyle": "e4e", "hyperinverter": "e4e"}  # the encoder that a hypernetwork starts from
FROZEN = ("decoder.", "base.")  # parts that are not saved with a network
Network = PSP | ReStyle | HyperStyle | HyperInverter


def training(name: str) -> str:
    """What ``s2f train --what`` calls a network: "psp" alone would be the encoder of sketches."""
    return "photo-psp" if name == "psp" else name


def check_network(name: str) -> None:
    """S2FError for an unknown network."""
    if name not in NETWORKS:
        raise S2FError(f"there is no inversion network {name!r}: choose one of {', '.join(NETWORKS)}.")


def build_network(name: str, preset: str | Preset, generator: Generator, base: PSP | None = None) -> Network:
    """An untrained network in front of ``generator`` (with w̄ in latent_avg). base: the hypernetworks' encoder."""
    p = get_preset(preset)
    s, shape = p.inversion, (generator.n_styles, generator.style_dim)
    check_network(name)
    if name in ("psp", "e4e"):
        kind = GradualStyleEncoder if name == "psp" else Encoder4Editing
        return PSP(kind(3, *shape, s.units, s.widths, s.head, s.size), generator, generator.latent_avg)
    if name.startswith("restyle"):
        encoder = BackboneEncoder(*shape, s.units, s.widths, s.head, s.size, progressive=name == "restyle-e4e")
        return ReStyle(encoder, generator, generator.latent_avg)
    if base is None:
        raise S2FError(f"{name} needs a trained {BASES[name]}: pass it as base.")
    kind = HyperStyle if name == "hyperstyle" else HyperInverter
    return kind(base, s.size, s.units, s.widths, s.head, s.rank)


def saved_part(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network that are its own: not those of the frozen generator or encoder."""
    return {k: v for k, v in network.state_dict().items() if not k.startswith(FROZEN)}


def load_part(network: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """The opposite of :func:`saved_part`; WeightsError if tensors are missing, unknown or of another shape."""
    frozen = {k: v for k, v in network.state_dict().items() if k.startswith(FROZEN)}
    for key in frozen.keys() & tensors.keys():
        raise WeightsError(f"{what} has the tensor {key} of a frozen part: use a file of s2f train.")
    load_strict(network, frozen | dict(tensors), what)


def save_network(
    path: Path, name: str, network: Network, preset: str | Preset, metadata: Mapping[str, str], overwrite: bool = False
) -> Path:
    """Write the network's own tensors as float16 safetensors, with the fingerprints of what it was trained with."""
    meta = {**metadata, "kind": name, "preset": get_preset(preset).name, "decoder": fingerprint(network.decoder)}
    if isinstance(network, (HyperStyle, HyperInverter)):
        meta["base"] = fingerprint(network.base.encoder)
    return save_safetensors(path, saved_part(network), meta, overwrite=overwrite)


def network_file(name: str, preset: str | Preset) -> Path:
    """The preset's file of a network: shipped, or published and downloaded first. WeightsError if there is none."""
    p = get_preset(preset)
    check_network(name)
    if p.inversion.shipped:
        return weights_dir() / f"{p.name}-{training(name)}.safetensors"
    published = dict(p.inversion.published)
    if name not in published:
        raise WeightsError(
            f"no {name} for the preset {p.name} is published: train one with s2f train --what {training(name)} "
            f"--preset {p.name}, and pass its file."
        )
    return fetch(published[name])


def load_network(
    name: str,
    preset: str | Preset,
    path: str | Path | None = None,
    generator: Generator | None = None,
    base: str | Path | None = None,
) -> Network:
    """A trained network, frozen, in eval mode.

    path:       its file; None: the preset's own. A ``.pt`` in the published layout has its own generator
    generator:  the one it was trained with; None: the preset's own
    base:       for hypernetworks, the file of the encoder they were trained with; None: the preset's own
    WeightsError for a file of another network, preset, generator or base.
    """
    p = get_preset(preset)
    check_network(name)
    path = Path(path) if path is not None else network_file(name, p)
    if path.suffix != ".safetensors":
        build = build_restyle if name.startswith("restyle") else build_photo_encoder
        if name in BASES:
            raise WeightsError(f"{path}: a {name} in its published layout is not supported; use a file of s2f train.")
        network = build(name, safe_load(path), str(path))
        if network.decoder.size != p.size:
            raise WeightsError(
                f"{path} is a checkpoint of another preset ({network.decoder.size} px, not {p.size}): choose one for "
                f"{p.size} px."
            )
        return _ready(network, generator)
    tensors, meta = load_tensors(path, name, p.name, with_metadata=True)
    decoder = load_generator(p) if generator is None else generator
    if meta.get("decoder") != fingerprint(decoder):
        raise WeightsError(
            f"{path} was trained with another generator: pass the one that it was trained with, or train it again."
        )
    own_base = load_network(BASES[name], p, base, decoder) if name in BASES else None
    assert own_base is None or isinstance(own_base, PSP)
    if own_base is not None and meta.get("base") != fingerprint(own_base.encoder):
        raise WeightsError(f"{path} was trained with another {BASES[name]}: pass its file as base, or train it again.")
    network = build_network(name, p, decoder, own_base)
    if "latent_avg" in tensors:
        check_latent_avg(tensors["latent_avg"], decoder.n_styles, decoder.style_dim, str(path))
    load_part(network, tensors, str(path))
    return _ready(network, decoder)


def _ready(network: Network, generator: Generator | None) -> Network:
    """Frozen, in eval mode, on the generator's device."""
    network = network.eval().requires_grad_(False)
    return network if generator is None else network.to(generator.input.input.device)
