"""Training StyleGAN2, the generator that pSp later freezes.

Karras et al. 2020 (arXiv:1912.04958): non-saturating loss, lazy R1 (every 16 steps), path-length
regularisation, exponential moving average of the weights, style mixing.

Beside it, a photo encoder can be trained with the generator (after VAE-GAN, Larsen et al. 2016,
arXiv:1512.09300): part of every batch of fakes is G(E(photo)), judged by the same critic and also compared
with its photo, in pixels, by the perceptual judge and in the critic's features. The published FFHQ generator
learnt from 25 million pictures; a laptop shows its own a hundred thousand, and the adversary alone then draws one
mean face with variations. Reconstruction makes every training face reachable in W+ early, which is what pSp
needs of its decoder. Random faces follow by a sliced-Wasserstein term (Kolouri et al. 2018, arXiv:1804.01947)
that moves mapping(z) to where the encoder's codes are. A random face has one w for all rows, so part of the
reconstructions must make do with one as well (``tie_share``): else what tells people apart hides between the rows.

``lambda_rec=0`` leaves plain StyleGAN2; ``lambda_adv=0`` leaves the autoencoder, a cheap first stage on a CPU.
``critic="projected"`` judges through a frozen ImageNet net instead (projected.py): what the shipped weights used.

Cost, measured: see data/weights/tiny-stylegan2.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.datasets import open_dataset
from s2flib.errors import S2FError
from s2flib.faceid import face_crop
from s2flib.judges import perceptual_judge
from s2flib.presets import get_preset
from s2flib.training import engine
from s2flib.training.gan import (
    KIND,
    Networks,
    critic_features,
    feature_distance,
    path_length,
    sliced_wasserstein,
    tie_rows,
    warm_start,
)
from s2flib.training.projected import ProjectedCritic, augment
from s2flib.weights import save_safetensors

CRITICS = ("stylegan2", "projected")


@dataclass(frozen=True)
class GeneratorConfig:
    """One run of StyleGAN2 training. ``steps`` counts batches over all processes."""

    out: str
    preset: str = "tiny"
    data: str | None = None           # a data set's folder; None: the preset's own
    steps: int = 10_000
    size: int | None = None           # picture side; smaller than the preset's: a stage to grow from
    batch: int = 16                   # pictures a step, all processes together
    lr: float = 2e-3                  # Adam, betas (0, 0.99), corrected for lazy regularisation
    seed: int = 0
    r1_gamma: float = 0.1             # R1 penalty γ/2 · |∇D|², Sec. 3.1 of StyleGAN2
    r1_every: int = 16                # 0: off; the projected critic never needs it
    path_weight: float = 2.0          # path-length penalty, Sec. 3.2
    path_every: int = 32              # 0: off
    mixing: float = 0.9               # probability of style mixing
    ema_images: float = 5_000         # half-life of the weights' moving average, in pictures
    mapping_lr: float = 1.0           # the mapping network's share of lr; 50 when only the SWD moves it
    beta1: float = 0.0                # of the generator's Adam; 0.9 learns faster without a critic
    critic: str = "stylegan2"         # "projected": see projected.py; crisp far sooner
    lambda_adv: float = 1.0           # the adversary; 0: no critic, the whole batch is reconstructed
    rec_share: float = 0.5            # of each batch reconstructs photos, the rest are random faces
    lambda_rec: float = 5.0           # L1 between photo and G(E(photo)); 0: no photo encoder
    lambda_lpips: float = 1.0         # the perceptual judge on the same pair at half the size; 0: off
    lambda_face: float = 0.0          # pixels and perceptual judge once more on the face alone, at full size
    lambda_feat: float = 1.0          # the critic's features of the same pair
    lambda_swd: float = 1.0           # sliced-Wasserstein distance from mapping(z) to the encoder's codes
    tie_share: float = 0.0            # of the reconstructions, those drawn from one w for all rows, E's mean row
    lambda_delta: float = 0.01        # keeps the rows of E(photo) together, so that W+ stays near W (after e4e)
    mixed_precision: str = "auto"
    cpu: bool = False
    init: str | None = None           # weights to start from (same size, or half: then it grows)
    resume: bool = False
    max_time: float | None = None     # seconds
    save_every: float = 240.0         # seconds between checkpoints
    log_every: int = 50               # steps
    workers: int = 4                  # reading processes, for data sets too large for memory
    limit: int | None = None          # use only the first photos (tests)


class GeneratorTrainer:
    """Holds networks and optimisers; :meth:`step` is one update of generator, encoder and critic."""

    def __init__(self, cfg: GeneratorConfig, dataset, accelerator):
        if not (cfg.lambda_adv or cfg.lambda_rec):
            raise S2FError("nothing would be trained: give lambda_adv or lambda_rec a weight.")
        if cfg.critic not in CRITICS:
            raise S2FError(f"there is no critic {cfg.critic!r}: choose one of {', '.join(CRITICS)}.")
        for name in ("rec_share", "tie_share"):
            if not 0 <= getattr(cfg, name) <= 1:
                raise S2FError(f"{name} is a part of the batch, 0 to 1, not {getattr(cfg, name)}.")
        self.cfg, self.dataset, self.acc = cfg, dataset, accelerator
        self.feed = engine.Feed(dataset, cfg.batch, cfg.seed, accelerator, cfg.workers)
        self.device = accelerator.device
        preset = get_preset(cfg.preset)
        size = cfg.size or preset.size
        torch.manual_seed(cfg.seed)
        self.nets = Networks(preset, size, cfg.critic if cfg.lambda_adv else "stylegan2")
        self.projected = isinstance(self.nets.critic, ProjectedCritic)
        self.nets.w_avg.copy_(self.nets.generator.mean_latent())
        if cfg.init:
            warm_start(self.nets, cfg.init, preset.name)
        self.nets.to(self.device)
        lazy_d = cfg.r1_every / (cfg.r1_every + 1) if cfg.r1_every and not self.projected else 1.0
        lazy_g = cfg.path_every / (cfg.path_every + 1) if cfg.path_every else 1.0
        g, betas = self.nets.generator, (cfg.beta1, 0.99**lazy_g)
        synthesis = [p for name, p in g.named_parameters() if not name.startswith("style.")]
        groups = [{"params": synthesis, "betas": betas},
                  {"params": list(g.style.parameters()), "betas": betas, "lr": cfg.lr * lazy_g * cfg.mapping_lr}]
        if cfg.lambda_rec:
            groups.append({"params": list(self.nets.encoder.parameters()), "lr": cfg.lr / 2, "betas": (0.9, 0.99)})
        self.g_params = [p for g in groups for p in g["params"]]
        self.d_params = [p for p in self.nets.critic.parameters() if p.requires_grad]
        self.g_opt = torch.optim.Adam(groups, cfg.lr * lazy_g)
        self.d_opt = torch.optim.Adam(self.d_params, cfg.lr * lazy_d, betas=(0.0, 0.99**lazy_d))
        self.perceptual = perceptual_judge(preset).to(self.device) if cfg.lambda_rec and cfg.lambda_lpips else None
        self.codes = torch.zeros(0, preset.style_dim, device=self.device)     # E's latest codes, for the SWD
        self.path_mean = torch.zeros((), device=self.device)
        self.done = 0                                             # steps taken

    def state(self) -> dict:
        return {"nets": self.nets.state_dict(), "g_opt": self.g_opt.state_dict(), "d_opt": self.d_opt.state_dict(),
                "path_mean": self.path_mean, "codes": self.codes, "step": self.done}

    def load(self, state: dict) -> None:
        self.nets.load_state_dict(state["nets"])
        self.g_opt.load_state_dict(state["g_opt"])
        self.d_opt.load_state_dict(state["d_opt"])
        self.path_mean, self.codes = state["path_mean"].to(self.device), state["codes"].to(self.device)
        self.done = state["step"]

    def real(self, step: int) -> Tensor:
        """This process's photos of the step, flipped at random, at the generator's size."""
        x, _ = self.feed(step)
        flip = torch.rand(len(x), device=self.device) < 0.5
        return self.resize(torch.where(flip[:, None, None, None], x.flip(3), x))

    def resize(self, x: Tensor) -> Tensor:
        size = self.nets.generator.size
        return x if x.shape[-1] == size else F.interpolate(x, size=(size, size), mode="area")

    def sample_w(self, n: int) -> Tensor:
        """w+ of n random faces, with style mixing; moves the running mean w̄."""
        g = self.nets.generator
        w = g.mapping(torch.randn(n, g.style_dim, device=self.device))
        self.nets.w_avg.lerp_(w.detach().mean(0), 0.005)
        if torch.rand(()) < self.cfg.mixing:
            other = g.mapping(torch.randn(n, g.style_dim, device=self.device))
            return g.mix(w, other, int(torch.randint(1, g.n_styles, ())))
        return g.expand(w)

    def step(self) -> dict[str, float]:
        """One update of everything; returns the losses."""
        cfg, nets = self.cfg, self.nets
        engine.seed_step(cfg.seed, self.done, self.acc.process_index)
        photo = self.real(self.done)
        stats: dict[str, float] = {}

        # generator and photo encoder: min softplus(−D(G)) + reconstruction
        nets.critic.requires_grad_(False)
        share = 0.0 if not cfg.lambda_rec else cfg.rec_share if cfg.lambda_adv else 1.0
        n_rec = round(share * len(photo))
        loss = torch.zeros((), device=self.device)
        codes = []                                                 # w+ in float32: the pictures hang on it
        if n_rec:
            with self.acc.autocast():
                codes.append(nets.encode(photo[:n_rec]).float())
            loss = loss + self.code_losses(codes[0], stats)
            codes[0] = tie_rows(codes[0], round(cfg.tie_share * n_rec))
        if n_rec < len(photo):
            codes.append(self.sample_w(len(photo) - n_rec))
        with self.acc.autocast():
            fake = nets.generator.synthesis(torch.cat(codes), noise="random")
            if cfg.lambda_adv:
                adversarial = self.generator_loss(fake)
                loss = loss + cfg.lambda_adv * adversarial
                stats["g_adversarial"] = adversarial.item()
            if n_rec:
                loss = loss + self.reconstruction(photo[:n_rec], fake[:n_rec], stats)
        self.update(self.g_opt, self.g_params, loss)

        if cfg.lambda_adv:
            self.train_critic(photo, fake.detach(), stats)
        if cfg.lambda_adv and cfg.path_every and self.done % cfg.path_every == cfg.path_every - 1:
            stats["path_length"] = self.regularise_generator(max(2, len(photo) // 4))
        self.update_ema()
        self.done += 1
        return stats

    def reconstruction(self, photo: Tensor, fake: Tensor, stats: dict[str, float]) -> Tensor:
        """λ_rec |x − y|₁ + λ_lpips LPIPS (at half the size) + λ_feat distance of the critic's features.

        Eyes and mouth are a twentieth of a portrait and most of what tells people apart, so λ_face adds the first
        two terms once more on the middle of the face, at full size.
        """
        cfg, critic = self.cfg, self.nets.critic
        pixels = (fake - photo).abs().mean()
        loss = cfg.lambda_rec * pixels
        stats |= {"rec_l1": pixels.item(), "rec_mse": (fake.detach() - photo).square().mean().item()}
        if self.perceptual is not None:
            half = max(32, photo.shape[-1] // 2)
            lpips = self.perceptual(*(F.adaptive_avg_pool2d(p, half) for p in (photo, fake))).mean()
            loss = loss + cfg.lambda_lpips * lpips
            stats["rec_lpips"] = lpips.item()
        if cfg.lambda_face:
            part = max(32, photo.shape[-1] // 2)
            x, y = (face_crop(p, part, part / photo.shape[-1]) for p in (photo, fake))
            face = cfg.lambda_rec * (x - y).abs().mean()
            if self.perceptual is not None:
                face = face + cfg.lambda_lpips * self.perceptual(x, y).mean()
            loss = loss + cfg.lambda_face * face
            stats["rec_face"] = face.item()
        if cfg.lambda_adv and cfg.lambda_feat:
            with torch.no_grad():
                target = critic_features(critic, photo)
            features = feature_distance(critic_features(critic, fake), target)
            loss = loss + cfg.lambda_feat * features
            stats["rec_features"] = features.item()
        return loss

    def code_losses(self, w_plus: Tensor, stats: dict[str, float]) -> Tensor:
        """Rows of E's codes held together, and mapping(z) drawn to where E's last 512 mean codes lie."""
        cfg, g = self.cfg, self.nets.generator
        w = w_plus.mean(1)                                                     # (B, D)
        spread = (w_plus - w[:, None]).square().mean()
        self.codes = torch.cat([self.codes, w.detach()])[-512:]
        z = torch.randn(len(self.codes), g.style_dim, device=self.device)
        swd = sliced_wasserstein(g.mapping(z), self.codes)
        stats |= {"code_spread": spread.item(), "code_swd": swd.item()}
        return cfg.lambda_delta * spread + cfg.lambda_swd * swd

    def generator_loss(self, fake: Tensor) -> Tensor:
        """softplus(−D(fake)); of the projected critic's four scales −Σ D(fake), as hinge losses have it."""
        if self.projected:
            return -4 * self.nets.critic(augment(fake)).mean()
        return F.softplus(-self.nets.critic(fake)).mean()

    def train_critic(self, photo: Tensor, fake: Tensor, stats: dict[str, float]) -> None:
        """min softplus(D(fake)) + softplus(−D(photo)) and lazy R1; the projected critic's hinge loss instead."""
        critic = self.nets.critic.requires_grad_(True)
        with self.acc.autocast():
            if self.projected:
                on_real, on_fake = critic(augment(photo)), critic(augment(fake))
                loss = F.relu(1 + on_fake).mean() + F.relu(1 - on_real).mean()
            else:
                on_real, on_fake = critic(photo), critic(fake)
                loss = F.softplus(on_fake).mean() + F.softplus(-on_real).mean()
        stats |= {"d_loss": loss.item(), "d_real": on_real.mean().item(), "d_fake": on_fake.mean().item(),
                  "d_correct": 0.5 * ((on_real > 0).float().mean() + (on_fake < 0).float().mean()).item()}
        self.update(self.d_opt, self.d_params, loss)
        if self.cfg.r1_every and not self.projected and self.done % self.cfg.r1_every == 0:
            stats["r1"] = self.regularise_critic(photo[:max(1, len(photo) // 2)])

    def update(self, optimiser: torch.optim.Optimizer, params: list[nn.Parameter], loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        engine.average_gradients(params, self.acc)
        optimiser.step()

    def regularise_critic(self, photo: Tensor) -> float:
        """Lazy R1: γ/2 · E|∇_x D(x)|² on real photos, times the interval (Sec. 3.1)."""
        photo = photo.detach().requires_grad_()
        grad, = torch.autograd.grad(self.nets.critic(photo).sum(), photo, create_graph=True)
        penalty = grad.square().sum((1, 2, 3)).mean()
        self.update(self.d_opt, self.d_params, penalty * (self.cfg.r1_gamma / 2 * self.cfg.r1_every))
        return penalty.item()

    def regularise_generator(self, n: int) -> float:
        w = self.sample_w(n)
        pictures = self.nets.generator.synthesis(w, noise="random")
        penalty, self.path_mean = path_length(pictures, w, self.path_mean)
        # + 0 · pictures: every parameter takes part, so that all processes reduce the same gradients
        loss = penalty * (self.cfg.path_weight * self.cfg.path_every) + 0 * pictures.mean()
        self.update(self.g_opt, self.g_params, loss)
        return penalty.item()

    @torch.no_grad()
    def update_ema(self) -> None:
        # shorter memory at the start (StyleGAN2-ADA's ramp), so that early noise is forgotten
        images = (self.done + 1) * self.cfg.batch
        decay = 0.5 ** (self.cfg.batch / min(self.cfg.ema_images, 0.05 * images + 1e-8))
        for average, now in zip(self.nets.ema.parameters(), self.nets.generator.parameters(), strict=True):
            average.lerp_(now, 1 - decay)

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
        return engine.picture_grid(torch.cat(rows), 10)

    def validate(self) -> dict[str, float]:
        """Nothing is validated: how good the pictures are is for evaluation to say."""
        return {}

    def export(self, out: Path) -> None:
        """generator.safetensors and training.safetensors, see :func:`train_generator`."""
        nets, cfg = self.nets, self.cfg
        meta = {"preset": cfg.preset, "size": str(nets.generator.size), "images": str(self.done * cfg.batch)}
        frozen = dict(nets.ema.state_dict()) | {"latent_avg": nets.ema.mean_latent()}
        save_safetensors(out / "generator.safetensors", frozen, meta | {"kind": "stylegan2"}, overwrite=True)
        # the moving average stands for the generator too: it is the better one, and the file stays small
        learnt = {k: v for k, v in nets.state_dict().items() if not k.startswith(("generator.", "critic.backbone."))}
        save_safetensors(out / "training.safetensors", learnt,
                         meta | {"kind": KIND, "critic": "projected" if self.projected else "stylegan2"},
                         overwrite=True)


def train_generator(cfg: GeneratorConfig) -> Path:
    """Train by ``cfg``; returns the generator's file (EMA weights and latent_avg, float16).

    ``cfg.out`` gets generator.safetensors (what pSp freezes) and training.safetensors (moving average,
    critic and photo encoder in float16, for ``init``), beside what :func:`engine.run_training` writes.
    """
    acc = engine.make_accelerator(cfg.mixed_precision, cfg.cpu)
    dataset = open_dataset(get_preset(cfg.preset), "train", root=cfg.data, limit=cfg.limit)
    engine.run_training(GeneratorTrainer(cfg, dataset, acc), cfg, KIND, acc)
    return Path(cfg.out) / "generator.safetensors"
