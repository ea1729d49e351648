"""Training of the mapping network z → w for a generator that was trained from causes (neural_renderer.py).

Synthesis has learnt to draw the codes w that photos have. The mapping network now learns their distribution, in W,
without any picture: the mean μ and the covariance LLᵀ of the codes, by regression to w = μ + Lz. A step takes
milliseconds. (A critic that compares codes was tried on top: the codes came no nearer to those of photos, and their
covariance became worse.)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s2flib.datasets.live import Pool
from s2flib.errors import WeightsError
from s2flib.images import contact_sheet, to_array
from s2flib.presets import get_preset
from s2flib.synthfaces.causes import cause_names
from s2flib.training.loop import run_training
from s2flib.training.renderer_networks import RendererNetworks
from s2flib.training.trainer import RunConfig, Stats, Trainer, Updates, make_accelerator, update_average
from s2flib.weights.load import load_tensors, save_safetensors


@dataclass(frozen=True, kw_only=True)
class MappingConfig(RunConfig):
    """One run of mapping training."""

    init: str = ""  # renderer.safetensors
    people: tuple[str, ...] = ()  # folders of s2f render-people
    steps: int = 3_000
    batch: int = 256
    lr: float = 1.0  # Adam; lr_mul = 0.01 inside the mapping network makes it a hundred times smaller
    ema_codes: float = 10_000  # half-life of the weights' moving average, in codes


class MappingTrainer(Trainer):
    """One step: a batch of z and the codes that they should have."""

    kind = "mapping"
    saved = ("mapping", "ema", "update")
    several_processes = False

    def __init__(self, cfg: MappingConfig, people: Pool, accelerator):
        super().__init__(cfg, accelerator)
        self.preset = get_preset(cfg.preset)
        tensors = load_tensors(cfg.init, "neural-renderer", self.preset.name)
        nets = RendererNetworks(self.preset, len(cause_names()), self.preset.size)
        tensors.pop("w_avg", None)
        try:
            nets.load_state_dict(tensors)
        except RuntimeError as e:
            raise WeightsError(
                f"{cfg.init} does not fit this preset: train the renderer at its full size first."
            ) from e
        self.generator = nets.generator.eval().requires_grad_(False).to(self.device)
        known = people.batch(np.arange(len(people)))[3]
        with torch.no_grad():
            self.codes = nets.causes(torch.from_numpy(known)).to(self.device)  # (N, D), of every person
        self.mean = self.codes.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(self.codes.double().T, correction=0))
        # (D, D), covariance = root · rootᵀ; directions in which the codes do not vary are exactly zero
        root = vectors * torch.where(values > 1e-6 * values.max(), values, 0).sqrt()
        self.root = root.float()
        self.mapping = copy.deepcopy(self.generator.style).requires_grad_(True)
        self.ema = copy.deepcopy(self.mapping).requires_grad_(False)
        self.update = Updates(torch.optim.Adam(self.mapping.parameters(), cfg.lr, betas=(0.0, 0.99)), self)

    def standardise(self, w: Tensor) -> Tensor:
        return (w - self.mean) / self.codes.std(0)

    def train_step(self) -> Stats:
        cfg = self.cfg
        z = torch.randn(cfg.batch, self.preset.style_dim, device=self.device)
        radius = z / z.square().mean(1, keepdim=True).sqrt()  # the network sees only z's direction
        loss = F.mse_loss(self.standardise(self.mapping(z)), self.standardise(self.mean + radius @ self.root.T))
        self.update(loss, lr=cfg.lr * min(1.0, 2 * (1 - self.done / cfg.steps)))
        update_average(self.ema, self.mapping, cfg.batch, cfg.ema_codes, self.done + 1)
        return {"gaussian": loss.detach()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """How far the distribution of mapping(z) is from that of the codes: mean, deviation, and the distance of a
        random code to its nearest neighbour among the codes, relative to that between codes."""
        z = torch.randn(2000, self.preset.style_dim, generator=torch.Generator().manual_seed(1)).to(self.device)
        w, real = self.standardise(self.ema(z)), self.standardise(self.codes[:2000])
        nearest = torch.cdist(w[:500], real).min(1).values.mean()
        among = torch.cdist(real[:500], real).kthvalue(2, 1).values.mean()
        return {
            "val_mean": float(w.mean(0).abs().mean()),
            "val_deviation": float(w.std(0).mean()),
            "val_neighbour": float(nearest / among),
        }

    @torch.no_grad()
    def picture(self) -> np.ndarray:
        """Faces of random z over faces of people's codes."""
        g = self.generator
        z = torch.randn(10, g.style_dim, generator=torch.Generator().manual_seed(0)).to(self.device)
        w = torch.cat([self.ema(z), self.codes[:: max(1, len(self.codes) // 10)][:10]])
        return contact_sheet(to_array(g.synthesis(g.expand(w))), columns=10)

    def export(self, out: Path) -> None:
        """generator.safetensors: synthesis, the averaged mapping network and w̄, for ``load_generator``."""
        generator = copy.deepcopy(self.generator)
        generator.style.load_state_dict(self.ema.state_dict())
        tensors = dict(generator.state_dict()) | {"latent_avg": generator.mean_latent()}
        meta = {"kind": "stylegan2", "preset": self.preset.name, "size": str(generator.size)}
        save_safetensors(out / "generator.safetensors", tensors, meta, overwrite=True)


def train_mapping(cfg: MappingConfig) -> Path:
    """Run the training; returns ``out/generator.safetensors``."""
    run_training(MappingTrainer(cfg, Pool(cfg.people), make_accelerator(cfg.cpu)))
    return Path(cfg.out) / "generator.safetensors"
