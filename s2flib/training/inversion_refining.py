"""Training of the inversion networks that correct a first result: ReStyle, HyperStyle and HyperInverter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from s2flib.errors import S2FError
from s2flib.inversion.hyperinverter import HyperInverter
from s2flib.inversion.hyperstyle import HyperStyle
from s2flib.inversion.networks import BASES
from s2flib.inversion.protocol import synthesise
from s2flib.inversion.restyle import ReStyle
from s2flib.psp import PSP
from s2flib.training.inversion import InversionConfig, InversionTrainer, load_encoder, run
from s2flib.training.trainer import Stats


@dataclass(frozen=True, kw_only=True)
class RefiningConfig(InversionConfig):
    """Networks that are applied several times."""

    passes: int | None = None  # per update, each with its own loss; None: the preset's, as at inference


class RefiningTrainer(InversionTrainer):
    """One update: ``passes`` passes on a batch, each with a backward pass of its own, as published."""

    def __init__(self, cfg: RefiningConfig, train, val, accelerator):
        super().__init__(cfg, train, val, accelerator)
        self.passes = self.preset.inversion.passes if cfg.passes is None else cfg.passes
        if self.passes < 1:
            raise S2FError(f"passes must be at least 1, not {self.passes}.")

    def take(self, photo: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The backward pass of one pass; returns its losses."""
        loss, parts = self.picture_loss(photo, y)
        self.update.backward(loss / self.passes)
        return parts


class ReStyleTrainer(RefiningTrainer):
    """ReStyle over pSp. network: :class:`~s2flib.inversion.restyle.ReStyle`."""

    name = "restyle-psp"

    def train_step(self) -> Stats:
        network, photo, parts = self.network, self.photos(), {}
        assert isinstance(network, ReStyle)
        with torch.no_grad():
            w_plus, y = network.start(photo)
        self.update.start(lr=self.learning_rate())
        for _ in range(self.passes):
            with self.autocast():
                w_plus, y = network.refine(photo, w_plus, y, noise="random")
            parts = self.take(photo, y)
        self.finish_step()
        return parts

    def reconstruct(self, photo: Tensor) -> list[Tensor]:
        w_plus, y = self.ema.start(photo)
        pictures = [y]
        for _ in range(self.passes):
            w_plus, y = self.ema.refine(photo, w_plus, y)
            pictures.append(y)
        return pictures


class ReStyleE4ETrainer(ReStyleTrainer):
    """ReStyle over e4e: one change of w and offsets from it."""

    name = "restyle-e4e"


class HyperStyleTrainer(RefiningTrainer):
    """HyperStyle on a frozen e4e."""

    name = "hyperstyle"

    def load_base(self) -> PSP:
        return load_encoder(BASES[self.name], self.cfg, self.generator)

    def train_step(self) -> Stats:
        network, photo, parts = self.network, self.photos(), {}
        assert isinstance(network, HyperStyle)
        w_plus, y, deltas = network.start(photo)
        self.update.start(lr=self.learning_rate())
        for _ in range(self.passes):
            with self.autocast():
                deltas = network.refine(photo, y, deltas)
                y = synthesise(network.decoder, w_plus, network.weights(deltas))
            parts = self.take(photo, y)
        self.finish_step()
        return parts

    def reconstruct(self, photo: Tensor) -> list[Tensor]:
        w_plus, y, deltas = self.ema.start(photo)
        pictures = [y]
        for _ in range(self.passes):
            deltas = self.ema.refine(photo, y, deltas)
            y = synthesise(self.ema.decoder, w_plus, self.ema.weights(deltas))
            pictures.append(y)
        return pictures


class HyperInverterTrainer(InversionTrainer):
    """HyperInverter's second phase, on the first head of a frozen e4e."""

    name = "hyperinverter"

    def load_base(self) -> PSP:
        return load_encoder(BASES[self.name], self.cfg, self.generator)

    def train_step(self) -> Stats:
        network, photo = self.network, self.photos()
        assert isinstance(network, HyperInverter)
        w_plus, y = network.first_phase(photo)
        self.update.start(lr=self.learning_rate())
        with self.autocast():
            y = synthesise(network.decoder, w_plus, network.weights(photo, y))
        loss, parts = self.picture_loss(photo, y)
        self.update.backward(loss)
        self.finish_step()
        return parts

    def reconstruct(self, photo: Tensor) -> list[Tensor]:
        w_plus, y = self.ema.first_phase(photo)
        return [y, synthesise(self.ema.decoder, w_plus, self.ema.weights(photo, y))]


def train_restyle_psp(cfg: RefiningConfig) -> Path:
    """ReStyle over pSp; returns ``out/restyle-psp.safetensors``."""
    return run(ReStyleTrainer, cfg)


def train_restyle_e4e(cfg: RefiningConfig) -> Path:
    """ReStyle over e4e; returns ``out/restyle-e4e.safetensors``."""
    return run(ReStyleE4ETrainer, cfg)


def train_hyperstyle(cfg: RefiningConfig) -> Path:
    """HyperStyle; returns ``out/hyperstyle.safetensors``."""
    return run(HyperStyleTrainer, cfg)


def train_hyperinverter(cfg: InversionConfig) -> Path:
    """HyperInverter; returns ``out/hyperinverter.safetensors``."""
    return run(HyperInverterTrainer, cfg)
