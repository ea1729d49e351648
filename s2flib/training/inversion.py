"""Training of the networks that invert photos: pSp and e4e here, those that refine in inversion_refining.py.

Each is trained on photos in front of the frozen generator, with pSp's losses between the photo and its reconstruction:

    L = λ_l2 L2 + λ_lpips LPIPS + λ_id ID        LPIPS at the preset's inversion.lpips_size, the others at full size

and what its paper adds.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from s2flib.datasets.faces import open_dataset
from s2flib.errors import S2FError, WeightsError
from s2flib.images import contact_sheet, to_array
from s2flib.inversion.e4e import (
    CodePool,
    Encoder4Editing,
    LatentCritic,
    adversarial_loss,
    critic_loss,
    delta_loss,
    r1_penalty,
    stage_of,
)
from s2flib.inversion.networks import FROZEN, Network, build_network, load_network, save_network, saved_part
from s2flib.inversion.protocol import pooled
from s2flib.judges.load import identity_judge, perceptual_judge
from s2flib.losses import id_loss, l2_loss, lpips_loss, reg_loss
from s2flib.presets import get_preset
from s2flib.psp import PSP
from s2flib.training.feed import Feed, stack
from s2flib.training.loop import run_training
from s2flib.training.ranger import Ranger
from s2flib.training.trainer import (
    RunConfig,
    Stats,
    Trainer,
    Updates,
    average_buffers,
    make_accelerator,
    placed,
    update_average,
)
from s2flib.weights.load import fingerprint, load_generator, safe_load


@dataclass(frozen=True, kw_only=True)
class InversionConfig(RunConfig):
    """What the trainings of all inversion networks share."""

    steps: int = 1_000
    batch: int = 8
    lr: float = 1e-3  # Ranger; the papers: 1e-4
    anneal: float = 0.5  # the last share of the steps in which lr falls linearly to zero
    lambda_l2: float = 1.0
    lambda_lpips: float = 0.8
    lambda_id: float = 0.3
    mirror: bool = True  # half of the photos flipped left to right
    ema_images: float = 1_000  # half-life of the weights' moving average, in photos
    init: str | None = None  # a file of another inversion network: its tensors of the same name and shape are the start
    generator: str | None = None  # the frozen generator's file; None: the preset's own
    base: str | None = None  # for hypernetworks: the encoder's file; None: the preset's own
    workers: int = 4  # worker processes, for data sets that do not fit in memory
    val_limit: int = 64  # validation photos


class InversionTrainer(Trainer):
    """One update: photos → codes (and weights) → reconstructions → losses. Subclasses say how."""

    name = ""  # of the network, see inversion.networks
    saved = ("network", "ema", "update")

    def __init__(self, cfg: Any, train, val, accelerator):
        super().__init__(cfg, accelerator)
        self.kind = f"inversion-{self.name}"
        self.preset, self.val = get_preset(cfg.preset), val
        if not 0 <= cfg.anneal <= 1:
            raise S2FError(f"anneal is a share of the steps, 0 to 1, not {cfg.anneal}.")
        self.feed = Feed(train, cfg.batch, cfg.seed, accelerator, cfg.workers)
        self.generator = load_generator(self.preset, cfg.generator)
        base = self.load_base()
        torch.manual_seed(cfg.seed)
        network: Any = build_network(self.name, self.preset, self.generator, base)
        self.initialise(network)
        if cfg.init:
            start_from(network, self.name, cfg.init)
        self.network: Any = placed(network, self.device).train()
        self.ema: Any = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.perceptual = placed(perceptual_judge(self.preset), self.device) if cfg.lambda_lpips else None
        self.identity = placed(identity_judge(self.preset, role="train"), self.device) if cfg.lambda_id else None
        self.update = Updates(Ranger([p for p in self.network.parameters() if p.requires_grad], lr=cfg.lr), self)

    def initialise(self, network: Network) -> None:
        """Changes of a new network's weights before it is trained."""

    def load_base(self) -> PSP | None:
        """The frozen encoder of a hypernetwork."""
        return None

    def state(self) -> dict:
        own = {k: saved_part(getattr(self, k)) for k in ("network", "ema")}  # without the frozen parts
        return super().state() | own | {"decoder": fingerprint(self.generator)}

    def load(self, state: dict) -> None:
        if state["decoder"] != fingerprint(self.generator):
            raise WeightsError(
                "this run was trained with another generator: pass its file to --generator, or choose another --out."
            )
        whole = {k: getattr(self, k).state_dict() | state[k] for k in ("network", "ema")}
        super().load(state | whole)

    def learning_rate(self) -> float:
        left = (self.cfg.steps - self.done) / max(1.0, self.cfg.anneal * self.cfg.steps)
        return self.cfg.lr * min(1.0, left)

    def photos(self) -> Tensor:
        """This step's photos (B, 3, H, W)."""
        photo, _ = self.feed(self.done)
        if self.cfg.mirror:
            flip = torch.rand(len(photo), 1, 1, 1, device=self.device) < 0.5
            photo = torch.where(flip, photo.flip(3), photo)
        return pooled(photo, self.preset.loss_size)

    def picture_loss(self, photo: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """λ_l2 L2 + λ_lpips LPIPS + λ_id ID of reconstructions y (B, 3, S, S), and the unweighted losses."""
        cfg, y = self.cfg, pooled(y.float(), photo.shape[-1])
        parts = {"l2": l2_loss(photo, y)}
        total = cfg.lambda_l2 * parts["l2"]
        if self.perceptual is not None:
            size = self.preset.inversion.lpips_size
            parts["lpips"] = lpips_loss(pooled(photo, size), pooled(y, size), self.perceptual)
            total = total + cfg.lambda_lpips * parts["lpips"]
        if self.identity is not None:
            parts["id"] = id_loss(photo, y, self.identity)
            total = total + cfg.lambda_id * parts["id"]
        return total, {k: v.detach() for k, v in parts.items()}

    def finish_step(self) -> None:
        """The update of the network whose gradients are there, and of its average."""
        self.update.finish()
        average_buffers(self.network, self.acc)
        update_average(self.ema, self.network, self.cfg.batch, self.cfg.ema_images, self.done + 1)

    def reconstruct(self, photo: Tensor) -> list[Tensor]:
        """The averaged network's pictures (B, 3, S, S): its starting point, then every step up to its result."""
        raise NotImplementedError

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The losses on the first validation photos, of the starting point and of the result."""
        sums: dict[str, float] = {}
        for first in range(0, len(self.val), 16):
            samples = [self.val[i] for i in range(first, min(first + 16, len(self.val)))]
            photo = pooled(stack(samples)[0].to(self.device), self.preset.loss_size)
            pictures = self.reconstruct(photo)
            for prefix, y in (("val_start_", pictures[0]), ("val_", pictures[-1])):
                for k, v in self.picture_loss(photo, y)[1].items():
                    sums[prefix + k] = sums.get(prefix + k, 0.0) + float(v) * len(photo) / len(self.val)
        return sums

    @torch.no_grad()
    def picture(self) -> np.ndarray:
        """Columns: validation photos. Rows: photo, the starting point and every step."""
        index = np.linspace(0, len(self.val) - 1, min(10, len(self.val))).astype(int)
        photo = stack([self.val[i] for i in index])[0].to(self.device)
        rows = [photo, *self.reconstruct(photo)]
        return contact_sheet(to_array(torch.cat([x.clamp(-1, 1) for x in rows])), columns=len(index))

    def export(self, out: Path) -> None:
        """<name>.safetensors, for :func:`s2flib.inversion.networks.load_network`."""
        network: Network = self.ema
        meta = {"step": str(self.done), "images": str(self.done * self.cfg.batch), "seed": str(self.cfg.seed)}
        save_network(out / f"{self.name}.safetensors", self.name, network, self.preset, meta, overwrite=True)


def start_from(network: nn.Module, name: str, path: str) -> None:
    """Copy the tensors of a file that have a namesake of the same shape in the network; WeightsError if none has.

    Heads are copied from a file of the same network only: pSp's rows are no offsets.
    """
    tensors, meta = safe_load(path, with_metadata=True)
    tensors = tensors if isinstance(tensors, Mapping) else {}
    own, copied = network.state_dict(), 0
    for key, value in own.items():
        if key.startswith((*FROZEN, "latent_avg")) or (".styles." in key and meta.get("kind") != name):
            continue
        # encoders and hypernetworks have the same IR-SE backbone
        found = tensors.get(key, tensors.get(re.sub("^(backbone|features)\\.", "encoder.", key)))
        if isinstance(found, Tensor) and found.shape == value.shape:
            value.copy_(found)
            copied += value.is_floating_point()  # a counter of batches would fit every network
    if not copied:
        raise WeightsError(f"{path} has no tensor that fits: pass --init a file of another inversion network.")


def run(trainer_class: type[InversionTrainer], cfg: InversionConfig) -> Path:
    """Train; returns ``out/<name>.safetensors``."""
    train = open_dataset(cfg.preset, "train", root=cfg.data, limit=cfg.limit)
    val = open_dataset(cfg.preset, "val", root=cfg.data, limit=cfg.val_limit)
    trainer = trainer_class(cfg, train, val, make_accelerator(cfg.cpu))
    run_training(trainer)
    return Path(cfg.out) / f"{trainer.name}.safetensors"


@dataclass(frozen=True, kw_only=True)
class PhotoPSPConfig(InversionConfig):
    """pSp for photos."""

    lambda_reg: float = 0.0  # ‖w+ − w̄‖; pSp uses none for photos


class PhotoPSPTrainer(InversionTrainer):
    """One update of pSp's encoder of photos."""

    name = "psp"

    def train_step(self) -> Stats:
        photo = self.photos()
        self.update.start(lr=self.learning_rate())
        with self.autocast():
            w_plus = self.network.encode(photo).float()
            y = self.network.decode(w_plus, noise="random")
        loss, parts = self.picture_loss(photo, y)
        more, loss = self.code_losses(w_plus, loss)
        self.update.backward(loss)
        self.finish_step()
        return parts | more

    def code_losses(self, w_plus: Tensor, loss: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of the codes (B, n_styles, D), and the total with them."""
        if not self.cfg.lambda_reg:
            return {}, loss
        reg = reg_loss(w_plus, self.network.latent_avg)
        return {"reg": reg.detach()}, loss + self.cfg.lambda_reg * reg

    def reconstruct(self, photo: Tensor) -> list[Tensor]:
        average = self.ema.latent_avg.expand(len(photo), -1, -1)
        return [self.ema.decode(w) for w in (average, self.ema.encode(photo))]


@dataclass(frozen=True, kw_only=True)
class E4EConfig(InversionConfig):
    """e4e; the published values are those of 200,000 steps."""

    lambda_delta: float = 2e-4  # L_d-reg
    lambda_adv: float = 0.1  # L_adv
    critic_lr: float = 2e-5
    r1_gamma: float = 10.0
    r1_every: int = 16  # lazy, as in StyleGAN2
    pool: int = 50  # rows that the critic remembers
    progress_from: float = 0.1  # the first offset joins after this share of the steps (published: 20,000 steps) …
    progress_to: float = 0.3  # … and the last one here (published: 2,000 steps each)


class E4ETrainer(PhotoPSPTrainer):
    """One update of e4e's encoder, with as many offsets as the step has reached, and one of the latent critic."""

    name = "e4e"
    saved = ("network", "ema", "update", "critic", "update_critic", "pool")

    def __init__(self, cfg: E4EConfig, train, val, accelerator):
        super().__init__(cfg, train, val, accelerator)
        if not 0 <= cfg.progress_from <= cfg.progress_to <= 1:
            raise S2FError("progress_from and progress_to are shares of the steps, from 0 to 1, in this order.")
        self.critic = placed(LatentCritic(self.preset.style_dim), self.device)
        self.update_critic = Updates(torch.optim.Adam(self.critic.parameters(), lr=cfg.critic_lr), self)
        self.pool = CodePool(cfg.pool, self.preset.style_dim)

    def initialise(self, network: Network) -> None:
        assert isinstance(network, PSP)
        for head in network.encoder.styles[1:]:  # offsets start at zero, so every row starts as w
            nn.init.zeros_(head.get_parameter("linear.weight"))

    def set_stage(self) -> None:
        cfg, n = self.cfg, self.preset.n_styles
        start, end = round(cfg.progress_from * cfg.steps), round(cfg.progress_to * cfg.steps)
        stage = stage_of(self.done, start, max(1, (end - start) // max(1, n - 2)), n)
        for network in (self.network, self.ema):
            assert isinstance(network.encoder, Encoder4Editing)
            network.encoder.stage = stage

    def train_step(self) -> Stats:
        self.set_stage()
        return super().train_step()

    def code_losses(self, w_plus: Tensor, loss: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        cfg, stats = self.cfg, {}
        stats["delta"] = delta_loss(w_plus)
        self.critic.requires_grad_(False)
        stats["adversarial"] = adversarial_loss(self.critic, w_plus)
        self.critic.requires_grad_(True)
        loss = loss + cfg.lambda_delta * stats["delta"] + cfg.lambda_adv * stats["adversarial"]
        stats |= self.update_the_critic(w_plus.detach().flatten(0, 1))
        return {k: v.detach() for k, v in stats.items()}, loss

    def update_the_critic(self, rows: Tensor) -> dict[str, Tensor]:
        """Mapped codes against the encoder's rows (B · n_styles, D)."""
        cfg, z = self.cfg, torch.randn(len(rows), self.preset.style_dim, device=self.device)
        with torch.no_grad():
            mapped = self.generator.mapping(z)
        stats = {"critic": critic_loss(self.critic, mapped, self.pool.exchange(rows))}
        loss = stats["critic"]
        if self.done % cfg.r1_every == 0:
            stats["r1"] = r1_penalty(self.critic, mapped)
            loss = loss + cfg.r1_gamma / 2 * cfg.r1_every * stats["r1"]
        self.update_critic(loss)
        return stats

    def load(self, state: dict) -> None:
        super().load(state)
        self.set_stage()


def train_photo_psp(cfg: PhotoPSPConfig) -> Path:
    """pSp for photos; returns ``out/psp.safetensors``."""
    return run(PhotoPSPTrainer, cfg)


def train_e4e(cfg: E4EConfig) -> Path:
    """e4e; returns ``out/e4e.safetensors``."""
    return run(E4ETrainer, cfg)


def load_encoder(name: str, cfg: InversionConfig, generator: Any) -> PSP:
    """The frozen encoder that a hypernetwork builds on."""
    network = load_network(name, cfg.preset, cfg.base, generator)
    assert isinstance(network, PSP)
    return network
