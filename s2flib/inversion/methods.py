"""The inversion methods by name, with a preset's networks and budgets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from s2flib.errors import S2FError
from s2flib.inversion import TITLES
from s2flib.inversion.encoder import EncoderInversion
from s2flib.inversion.hyperinverter import HyperInverter, HyperInverterInversion
from s2flib.inversion.hyperstyle import HyperStyle, HyperStyleInversion
from s2flib.inversion.networks import NETWORKS, Network, load_network
from s2flib.inversion.projector import Projector
from s2flib.inversion.protocol import Method
from s2flib.inversion.pti import PTI
from s2flib.inversion.restyle import ReStyle, ReStyleInversion
from s2flib.inversion.w_plus import WPlus
from s2flib.judges.load import perceptual_judge
from s2flib.presets import Preset, get_preset
from s2flib.psp import PSP
from s2flib.stylegan2 import Generator
from s2flib.weights.load import load_generator

METHODS = tuple(TITLES)
BUDGETS = {"w-plus": "w_plus", "projector": "projector", "pti": "tuning"}  # the methods that optimise, see Budget


@dataclass(frozen=True)
class Budget:
    """Updates of the methods that optimise; None: the preset's."""

    w_plus: int | None = None
    projector: int | None = None
    tuning: int | None = None
    seed: int = 0  # of the projector's noise

    @classmethod
    def of(cls, name: str, steps: int | None) -> Budget:
        """``steps`` updates of the method ``name``; S2FError for a method that does not optimise."""
        check_method(name)
        if steps is None:
            return cls()
        if name not in BUDGETS:
            raise S2FError(
                f"{name} is one of the methods that run a network and have no number of updates: leave out --steps, "
                f"or choose {', '.join(BUDGETS)}."
            )
        if steps < 1:
            raise S2FError(f"{name} needs at least one update, not {steps}.")
        return cls(**{BUDGETS[name]: steps})


def check_method(name: str) -> None:
    """S2FError for an unknown method."""
    if name not in METHODS:
        raise S2FError(f"there is no inversion method {name!r}: choose one of {', '.join(METHODS)}.")


def load_method(
    name: str,
    preset: str | Preset = "tiny",
    path: str | Path | None = None,
    generator: Generator | None = None,
    perceptual: nn.Module | None = None,
    pivot: Method | None = None,
    base: str | Path | None = None,
    budget: Budget | None = None,
) -> Method:
    """One of ``METHODS``, ready to invert photos.

    path:        the network's file, for the methods that have one; None: the preset's own
    generator:   in front of which to invert; None: the preset's own
    perceptual:  the judge of the methods that optimise; None: the preset's
    pivot:       of PTI; None: the projector, as in its paper
    base:        the file of the encoder that a hypernetwork starts from; None: the preset's own
    S2FError for an unknown name or a missing file.
    """
    p = get_preset(preset)
    check_method(name)
    size = p.loss_size
    if name in NETWORKS:
        return with_network(name, load_network(name, p, path, generator, base), p)
    b, s = budget or Budget(), p.inversion
    g = load_generator(p) if generator is None else generator
    judge = perceptual_judge(p).to(g.latent_avg.device) if perceptual is None else perceptual
    if name == "w-plus":
        steps = s.w_plus_steps if b.w_plus is None else b.w_plus
        return WPlus(g, judge, size, p.lambda_l2, p.lambda_lpips, steps=steps, lr=s.w_plus_lr)
    if name == "projector":
        steps = s.projector_steps if b.projector is None else b.projector
        return Projector(g, judge, size, steps=steps, lambda_l2=s.projector_l2, seed=b.seed)
    pivot = pivot or load_method("projector", p, generator=g, perceptual=judge, budget=b)
    steps = s.tuning_steps if b.tuning is None else b.tuning
    return PTI(g, judge, size, pivot, steps=steps, lr=s.tuning_lr, threshold=s.tuning_threshold)


def with_network(name: str, network: Network, preset: str | Preset) -> Method:
    """The method that uses this network, with the preset's number of passes."""
    p = get_preset(preset)
    s, size = p.inversion, p.loss_size
    if isinstance(network, PSP):
        return EncoderInversion(name, network, size)
    if isinstance(network, ReStyle):
        return ReStyleInversion(name, network, size, s.passes)
    if isinstance(network, HyperStyle):
        return HyperStyleInversion(network, size, s.passes)
    assert isinstance(network, HyperInverter)
    return HyperInverterInversion(network, size)
