"""Training of StyleGAN2, the generator that pSp later freezes.

Karras et al. 2020 (arXiv:1912.04958): non-saturating loss, lazy R1 (every 16 steps), path-length
regularisation, exponential moving average of the weights, style mixing.

The published FFHQ generator saw 25 million photos. After the hundred thousand that a laptop manages, this training
shows one mean face with variations; ``tiny``'s generator is therefore trained in another way (neural_renderer.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s2flib.datasets.faces import open_dataset
from s2flib.images import contact_sheet, to_array
from s2flib.presets import get_preset
from s2flib.training.feed import Feed
from s2flib.training.gan import KIND, GanLoss, Networks, warm_start
from s2flib.training.loop import run_training
from s2flib.training.trainer import RunConfig, Stats, Trainer, Updates, make_accelerator, update_average
from s2flib.weights.load import save_safetensors


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(RunConfig):
    """One run of StyleGAN2 training. ``steps`` counts batches over all processes."""

    steps: int = 10_000
    size: int | None = None  # image size; smaller than the preset's: a stage to grow from
    batch: int = 16  # images per step, over all processes
    lr: float = 2e-3  # Adam, betas (0, 0.99), corrected for lazy regularisation
    r1_gamma: float = 0.1  # R1 penalty γ/2 · |∇D|², Sec. 3.1 of StyleGAN2
    r1_every: int = 16  # 0: off
    path_weight: float = 2.0  # path-length penalty, Sec. 3.2
    path_every: int = 32  # 0: off
    mixing: float = 0.9  # probability of style mixing
    ema_images: float = 5_000  # half-life of the weights' moving average, in images
    init: str | None = None  # initial weights (same size, or half: then it grows)
    workers: int = 4  # worker processes, for data sets that do not fit in memory


class GeneratorTrainer(Trainer):
    """Networks, losses and optimisers; each step is one update of generator and critic."""

    kind = KIND
    saved = ("nets", "loss", "update_g", "update_d")

    def __init__(self, cfg: GeneratorConfig, dataset, accelerator):
        super().__init__(cfg, accelerator)
        preset = get_preset(cfg.preset)
        self.feed = Feed(dataset, cfg.batch, cfg.seed, accelerator, cfg.workers)
        torch.manual_seed(cfg.seed)
        self.nets = Networks(preset, cfg.size or preset.size)
        self.nets.w_avg.copy_(self.nets.generator.mean_latent())
        if cfg.init:
            warm_start(self.nets, cfg.init, preset.name)
        self.nets.to(self.device)
        self.loss = GanLoss(self.nets, cfg)
        # lazy regularisation adds an update every k steps: learning rates and betas are corrected for it (Sec. 3.1)
        lazy_d = cfg.r1_every / (cfg.r1_every + 1) if cfg.r1_every else 1.0
        lazy_g = cfg.path_every / (cfg.path_every + 1) if cfg.path_every else 1.0
        g, d = self.nets.generator.parameters(), self.nets.critic.parameters()
        self.update_g = Updates(torch.optim.Adam(g, cfg.lr * lazy_g, betas=(0.0, 0.99**lazy_g)), self)
        self.update_d = Updates(torch.optim.Adam(d, cfg.lr * lazy_d, betas=(0.0, 0.99**lazy_d)), self)

    def real(self, step: int) -> Tensor:
        """This process's photos of the step, flipped at random, at the generator's size."""
        x, _ = self.feed(step)
        flip = torch.rand(len(x), device=self.device) < 0.5
        return self.resize(torch.where(flip[:, None, None, None], x.flip(3), x))

    def resize(self, x: Tensor) -> Tensor:
        size = self.nets.generator.size
        return x if x.shape[-1] == size else F.interpolate(x, size=(size, size), mode="area")

    def train_step(self) -> Stats:
        """One update of everything; returns the losses."""
        cfg, nets, photo = self.cfg, self.nets, self.real(self.done)
        stats: dict[str, Tensor] = {}

        # generator: min softplus(−D(G(z)))
        nets.critic.requires_grad_(False)
        codes = nets.sample_w(len(photo), cfg.mixing)
        with self.autocast():
            fake = nets.generator.synthesis(codes, noise="random")
            loss = self.loss.generator(fake, stats)
        self.update_g(loss)

        # critic: min softplus(D(G(z))) + softplus(−D(x))
        nets.critic.requires_grad_(True)
        with self.autocast():
            loss = self.loss.critic(photo, fake.detach(), stats)
        self.update_d(loss)
        if cfg.r1_every and self.done % cfg.r1_every == 0:
            self.update_d(self.loss.r1(photo[: max(1, len(photo) // 2)], stats))
        if cfg.path_every and self.done % cfg.path_every == cfg.path_every - 1:
            self.update_g(self.loss.path_length(max(2, len(photo) // 4), stats))
        update_average(self.nets.ema, self.nets.generator, cfg.batch, cfg.ema_images, self.done + 1)
        return stats

    @torch.no_grad()
    def picture(self) -> np.ndarray:
        """Rows of random faces: ψ = 1, then ψ = 0.7 of the same."""
        g = self.nets.ema
        z = torch.randn(10, g.style_dim, generator=torch.Generator().manual_seed(0)).to(self.device)
        w = g.mapping(z)
        rows = [g.synthesis(g.expand(w)), g.synthesis(g.expand(g.truncate(w, 0.7, self.nets.w_avg)))]
        return contact_sheet(to_array(torch.cat(rows)), columns=10)

    def export(self, out: Path) -> None:
        """generator.safetensors and training.safetensors, see :func:`train_generator`."""
        nets, cfg = self.nets, self.cfg
        meta = {"preset": cfg.preset, "size": str(nets.generator.size), "images": str(self.done * cfg.batch)}
        frozen = dict(nets.ema.state_dict()) | {"latent_avg": nets.ema.mean_latent()}
        save_safetensors(out / "generator.safetensors", frozen, meta | {"kind": "stylegan2"}, overwrite=True)
        # the moving average also replaces the generator: it is better, and the file stays small
        trained = {k: v for k, v in nets.state_dict().items() if not k.startswith("generator.")}
        save_safetensors(out / "training.safetensors", trained, meta | {"kind": KIND}, overwrite=True)


def train_generator(cfg: GeneratorConfig) -> Path:
    """Run the training; returns the generator's file (EMA weights and latent_avg, float16).

    Writes generator.safetensors (which pSp freezes) and training.safetensors (moving average and critic in float16, for
    ``init``) to ``cfg.out``, in addition to the files of :func:`loop.run_training`.
    """
    dataset = open_dataset(get_preset(cfg.preset), "train", root=cfg.data, limit=cfg.limit)
    run_training(GeneratorTrainer(cfg, dataset, make_accelerator(cfg.cpu)))
    return Path(cfg.out) / "generator.safetensors"
