"""Training of the mapping network z → w for a generator that was trained from causes (neural_renderer.py).

Synthesis has learnt to draw the codes w that photos have. The mapping network now learns their distribution, in W,
without any picture: first the mean and covariance of the codes, w = μ + Lz, then their shape against a small critic
(non-saturating loss and R1, as for pictures). A step takes milliseconds.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    steps: int = 6_000
    batch: int = 256
    lr: float = 1e-3
    gaussian: float = 0.25  # the first share of the steps: mean and covariance only
    r1_gamma: float = 0.1
    ema_codes: float = 50_000  # half-life of the weights' moving average, in codes


class MappingTrainer(Trainer):
    """One step: a batch of z against a batch of people's codes."""

    kind = "mapping"
    saved = ("mapping", "ema", "critic", "update_m", "update_c")
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
        d = self.preset.style_dim
        self.mapping = copy.deepcopy(self.generator.style).requires_grad_(True)
        self.ema = copy.deepcopy(self.mapping).requires_grad_(False)
        self.critic = nn.Sequential(
            nn.Linear(d, 512), nn.LeakyReLU(0.2), nn.Linear(512, 512), nn.LeakyReLU(0.2), nn.Linear(512, 1)
        ).to(self.device)
        # lr_mul = 0.01 inside the mapping network makes its effective rate a hundred times smaller
        self.update_m = Updates(torch.optim.Adam(self.mapping.parameters(), cfg.lr, betas=(0.0, 0.99)), self)
        self.update_c = Updates(torch.optim.Adam(self.critic.parameters(), cfg.lr, betas=(0.0, 0.99)), self)

    def standardise(self, w: Tensor) -> Tensor:
        return (w - self.mean) / self.codes.std(0)

    def train_step(self) -> Stats:
        cfg = self.cfg
        z = torch.randn(cfg.batch, self.preset.style_dim, device=self.device)
        w = self.mapping(z)
        left = min(1.0, 2 * (1 - self.done / cfg.steps))
        if self.done < cfg.gaussian * cfg.steps:
            radius = z / z.square().mean(1, keepdim=True).sqrt()  # the network sees only z's direction
            loss = F.mse_loss(self.standardise(w), self.standardise(self.mean + radius @ self.root.T))
            self.update_m(loss, lr=cfg.lr * 100)
            update_average(self.ema, self.mapping, cfg.batch, cfg.ema_codes, self.done + 1)
            return {"gaussian": loss.detach()}
        fake = self.standardise(w)
        adversarial = F.softplus(-self.critic(fake)).mean()
        self.update_m(adversarial, lr=cfg.lr * 30 * left)
        index = torch.randint(len(self.codes), (cfg.batch,), device=self.device)
        real = self.standardise(self.codes[index]).requires_grad_()
        on_real, on_fake = self.critic(real), self.critic(fake.detach())
        (grad,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
        r1 = grad.square().sum(1).mean()
        loss = F.softplus(on_fake).mean() + F.softplus(-on_real).mean()
        self.update_c(loss + cfg.r1_gamma / 2 * r1, lr=cfg.lr * left)
        update_average(self.ema, self.mapping, cfg.batch, cfg.ema_codes, self.done + 1)
        return {"adversarial": adversarial.detach(), "critic": loss.detach(), "r1": r1.detach()}

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
