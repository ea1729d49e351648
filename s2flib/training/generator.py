"""Training of StyleGAN2, the generator that pSp later freezes.

Karras et al. 2020 (arXiv:1912.04958): non-saturating loss, lazy R1 (every 16 steps), path-length
regularisation, exponential moving average of the weights, style mixing.

A photo encoder can be trained together with the generator (after VAE-GAN, Larsen et al. 2016, arXiv:1512.09300): part
of every batch of fakes is G(E(photo)), judged by the same critic and also compared with its photo, in pixels, by the
perceptual judge and in the critic's features. The published FFHQ generator was trained on 25 million images; a laptop
manages a hundred thousand, and with the adversarial loss alone the result is one mean face with variations.
Reconstruction makes every training face reachable in W+ early, which is what pSp needs of its decoder. For random
faces, a sliced-Wasserstein term (Kolouri et al. 2018, arXiv:1804.01947) moves mapping(z) towards the encoder's codes. A
random face has one w for all rows, so part of the reconstructions also use a single w (``tie_share``): otherwise the
identity is encoded in the differences between rows.

``lambda_rec=0`` is plain StyleGAN2; ``lambda_adv=0`` is the autoencoder, a cheap first stage on a CPU.
``critic="projected"`` uses a frozen ImageNet network instead (projected.py), as for the shipped weights.

data/weights/tiny-stylegan2.md has the measured cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s2flib.datasets.faces import open_dataset
from s2flib.errors import S2FError
from s2flib.images import contact_sheet, to_array
from s2flib.judges.load import perceptual_judge
from s2flib.presets import get_preset
from s2flib.training.feed import Feed
from s2flib.training.gan import KIND, GanLoss, Networks, tie_rows, warm_start
from s2flib.training.loop import run_training
from s2flib.training.trainer import RunConfig, Stats, Trainer, Updates, make_accelerator, update_average
from s2flib.weights.load import save_safetensors

CRITICS = ("stylegan2", "projected")


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(RunConfig):
    """One run of StyleGAN2 training. ``steps`` counts batches over all processes."""

    steps: int = 10_000
    size: int | None = None  # image size; smaller than the preset's: a stage to grow from
    batch: int = 16  # images per step, over all processes
    lr: float = 2e-3  # Adam, betas (0, 0.99), corrected for lazy regularisation
    r1_gamma: float = 0.1  # R1 penalty γ/2 · |∇D|², Sec. 3.1 of StyleGAN2
    r1_every: int = 16  # 0: off; not used with the projected critic
    path_weight: float = 2.0  # path-length penalty, Sec. 3.2
    path_every: int = 32  # 0: off
    mixing: float = 0.9  # probability of style mixing
    ema_images: float = 5_000  # half-life of the weights' moving average, in images
    mapping_lr: float = 1.0  # the mapping network's rate relative to lr; 50 when only the SWD trains it
    beta1: float = 0.0  # of the generator's Adam; 0.9 learns faster without a critic
    critic: str = "stylegan2"  # "projected": see projected.py; sharp much sooner
    lambda_adv: float = 1.0  # the adversarial loss; 0: no critic, the whole batch is reconstructed
    rec_share: float = 0.5  # share of each batch that reconstructs photos; the rest are random faces
    lambda_rec: float = 5.0  # L1 between photo and G(E(photo)); 0: no photo encoder
    lambda_lpips: float = 1.0  # the perceptual judge on the same pair at half size; 0: off
    lambda_face: float = 0.0  # pixels and perceptual judge again on the face only, at full size
    lambda_feat: float = 1.0  # the critic's features of the same pair
    lambda_swd: float = 1.0  # sliced-Wasserstein distance from mapping(z) to the encoder's codes
    tie_share: float = 0.0  # share of the reconstructions that use one w for all rows, E's mean row
    lambda_delta: float = 0.01  # keeps the rows of E(photo) together, so that W+ stays near W (after e4e)
    init: str | None = None  # initial weights (same size, or half: then it grows)
    workers: int = 4  # worker processes, for data sets that do not fit in memory


class GeneratorTrainer(Trainer):
    """Networks, losses and optimisers; each step is one update of generator, photo encoder and critic."""

    kind = KIND
    saved = ("nets", "loss", "update_g", "update_d")

    def __init__(self, cfg: GeneratorConfig, dataset, accelerator):
        super().__init__(cfg, accelerator)
        if not (cfg.lambda_adv or cfg.lambda_rec):
            raise S2FError("there is nothing to train: set lambda_adv or lambda_rec above 0.")
        if cfg.critic not in CRITICS:
            raise S2FError(f"there is no critic {cfg.critic!r}: choose one of {', '.join(CRITICS)}.")
        for name in ("rec_share", "tie_share"):
            if not 0 <= getattr(cfg, name) <= 1:
                raise S2FError(f"{name} is a share of the batch, 0 to 1, not {getattr(cfg, name)}.")
        self.dataset, preset = dataset, get_preset(cfg.preset)
        self.feed = Feed(dataset, cfg.batch, cfg.seed, accelerator, cfg.workers)
        torch.manual_seed(cfg.seed)
        self.nets = Networks(preset, cfg.size or preset.size, cfg.critic if cfg.lambda_adv else "stylegan2")
        self.nets.w_avg.copy_(self.nets.generator.mean_latent())
        if cfg.init:
            warm_start(self.nets, cfg.init, preset.name)
        self.nets.to(self.device)
        perceptual = perceptual_judge(preset).to(self.device) if cfg.lambda_rec and cfg.lambda_lpips else None
        self.loss = GanLoss(self.nets, cfg, perceptual)
        # lazy regularisation adds an update every k steps: learning rates and betas are corrected for it (Sec. 3.1)
        self.r1_every = 0 if self.loss.projected else cfg.r1_every
        lazy_d = self.r1_every / (self.r1_every + 1) if self.r1_every else 1.0
        lazy_g = cfg.path_every / (cfg.path_every + 1) if cfg.path_every else 1.0
        g, betas = self.nets.generator, (cfg.beta1, 0.99**lazy_g)
        synthesis = [p for name, p in g.named_parameters() if not name.startswith("style.")]
        groups = [
            {"params": synthesis, "betas": betas},
            {"params": list(g.style.parameters()), "betas": betas, "lr": cfg.lr * lazy_g * cfg.mapping_lr},
        ]
        if cfg.lambda_rec:
            groups.append({"params": list(self.nets.encoder.parameters()), "lr": cfg.lr / 2, "betas": (0.9, 0.99)})
        critic = [p for p in self.nets.critic.parameters() if p.requires_grad]
        self.update_g = Updates(torch.optim.Adam(groups, cfg.lr * lazy_g), self)
        self.update_d = Updates(torch.optim.Adam(critic, cfg.lr * lazy_d, betas=(0.0, 0.99**lazy_d)), self)

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

        # generator and photo encoder: min softplus(−D(G)) + reconstruction
        nets.critic.requires_grad_(False)
        share = 0.0 if not cfg.lambda_rec else cfg.rec_share if cfg.lambda_adv else 1.0
        n_rec = round(share * len(photo))
        loss = torch.zeros((), device=self.device)
        codes = []  # w+ in float32: everything in the image depends on it
        if n_rec:
            with self.autocast():
                codes.append(nets.encode(photo[:n_rec]).float())
            loss = loss + self.loss.code_losses(codes[0], stats)
            codes[0] = tie_rows(codes[0], round(cfg.tie_share * n_rec))
        if n_rec < len(photo):
            codes.append(nets.sample_w(len(photo) - n_rec, cfg.mixing))
        with self.autocast():
            fake = nets.generator.synthesis(torch.cat(codes), noise="random")
            if cfg.lambda_adv:
                adversarial = self.loss.generator(fake)
                loss = loss + cfg.lambda_adv * adversarial
                stats["g_adversarial"] = adversarial.detach()
            if n_rec:
                loss = loss + self.loss.reconstruction(photo[:n_rec], fake[:n_rec], stats)
        self.update_g(loss)

        if cfg.lambda_adv:
            nets.critic.requires_grad_(True)
            with self.autocast():
                loss = self.loss.critic(photo, fake.detach(), stats)
            self.update_d(loss)
            if self.r1_every and self.done % self.r1_every == 0:
                self.update_d(self.loss.r1(photo[: max(1, len(photo) // 2)], stats))
            if cfg.path_every and self.done % cfg.path_every == cfg.path_every - 1:
                self.update_g(self.loss.path_length(max(2, len(photo) // 4), stats))
        update_average(self.nets.ema, self.nets.generator, cfg.batch, cfg.ema_images, self.done + 1)
        return stats

    @torch.no_grad()
    def picture(self) -> np.ndarray:
        """Rows of: random faces (ψ = 1, then ψ = 0.7 of the same), then photos over their reconstructions."""
        g, nets = self.nets.ema, self.nets
        nets.encoder.eval()
        z = torch.randn(10, g.style_dim, generator=torch.Generator().manual_seed(0)).to(self.device)
        w = g.mapping(z)
        rows = [g.synthesis(g.expand(w)), g.synthesis(g.expand(g.truncate(w, 0.7, nets.w_avg)))]
        if self.cfg.lambda_rec:
            index = np.linspace(0, len(self.dataset) - 1, 10).astype(int)
            photo = self.resize(torch.stack([self.dataset[i]["photo"] for i in index]).to(self.device))
            rows += [photo, g.synthesis(nets.encode(photo))]
        nets.encoder.train()
        return contact_sheet(to_array(torch.cat(rows)), columns=10)

    def export(self, out: Path) -> None:
        """generator.safetensors and training.safetensors, see :func:`train_generator`."""
        nets, cfg = self.nets, self.cfg
        meta = {"preset": cfg.preset, "size": str(nets.generator.size), "images": str(self.done * cfg.batch)}
        frozen = dict(nets.ema.state_dict()) | {"latent_avg": nets.ema.mean_latent()}
        save_safetensors(out / "generator.safetensors", frozen, meta | {"kind": "stylegan2"}, overwrite=True)
        # the moving average also replaces the generator: it is better, and the file stays small
        trained = {k: v for k, v in nets.state_dict().items() if not k.startswith(("generator.", "critic.backbone."))}
        save_safetensors(
            out / "training.safetensors",
            trained,
            meta | {"kind": KIND, "critic": "projected" if self.loss.projected else "stylegan2"},
            overwrite=True,
        )


def train_generator(cfg: GeneratorConfig) -> Path:
    """Run the training; returns the generator's file (EMA weights and latent_avg, float16).

    Writes generator.safetensors (which pSp freezes) and training.safetensors (moving average, critic and photo encoder
    in float16, for ``init``) to ``cfg.out``, in addition to the files of :func:`loop.run_training`.
    """
    dataset = open_dataset(get_preset(cfg.preset), "train", root=cfg.data, limit=cfg.limit)
    run_training(GeneratorTrainer(cfg, dataset, make_accelerator(cfg.cpu)))
    return Path(cfg.out) / "generator.safetensors"
