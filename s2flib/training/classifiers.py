"""Training of the two small networks used by the losses: identity (ArcFace) and attributes (CBAM).

Both take minutes on one CPU core. The exported weights are moving averages (like StyleGAN2's EMA), so a run can be
stopped at any time, without a learning-rate schedule.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.cbam import AttributeNet
from s2flib.datasets.attributes import ATTRIBUTE_NAMES, attribute_targets
from s2flib.datasets.faces import FaceDataset, open_dataset
from s2flib.errors import S2FError
from s2flib.files import available_cpus
from s2flib.images import as_float, contact_sheet, to_array
from s2flib.judges.synthface_id import FACE_CENTRE, FACE_SIDE, SynthFaceID, face_crop, rank_1, verification_auc
from s2flib.presets import get_preset
from s2flib.training.feed import batch_indices
from s2flib.training.loop import run_training
from s2flib.training.trainer import RunConfig, Stats, Trainer, Updates, make_accelerator
from s2flib.weights.load import save_safetensors


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(RunConfig):
    """Options that the trainings of small classifiers share."""

    lr: float = 2e-3  # AdamW, constant after a short warm-up
    mixed_precision: str = "no"
    save_every: float = 120.0
    log_every: int = 100
    val_limit: int | None = None  # use only the first validation photos


@dataclass(frozen=True, kw_only=True)
class IdentityConfig(ClassifierConfig):
    """One run of the identity network's training."""

    steps: int = 2500
    batch: int = 64  # crops per step
    margin: float = 0.2  # ArcFace's m in radians: 0 for a quarter of the steps, reached at three quarters
    scale: float = 20.0  # ArcFace's s


@dataclass(frozen=True, kw_only=True)
class AttributesConfig(ClassifierConfig):
    """One run of the attribute network's training."""

    steps: int = 1500
    batch: int = 32  # photos per step
    variant: str = "cbam"  # see s2flib.cbam.CBAM


def arcface_logits(embedding: Tensor, centres: Tensor, target: Tensor, scale: float, margin: float) -> Tensor:
    """s·cos(θ + m) for the true person, s·cos θ for the others (ArcFace, Eq. 3).

    embedding (B,d) unit length, centres (K,d) any length, target (B,) -> (B,K). Where θ + m exceeds π the cosine would
    increase again; there the penalty continues linearly, as in the authors' code.
    """
    cosine = (embedding @ F.normalize(centres, dim=1).T).clamp(-1 + 1e-6, 1 - 1e-6)
    true = cosine.gather(1, target[:, None])
    shifted = true * math.cos(margin) - (1 - true**2).sqrt() * math.sin(margin)
    beyond = true <= math.cos(math.pi - margin)
    shifted = torch.where(beyond, true - math.sin(math.pi - margin) * margin, shifted)
    return scale * cosine.scatter(1, target[:, None], shifted)


class ClassifierTrainer(Trainer):
    """Data in memory, AdamW with a warm-up of 100 steps, clipped gradients; exports the weights' moving average."""

    saved = ("net", "extra", "average", "update")
    several_processes = False

    def __init__(self, cfg: ClassifierConfig, accelerator, net: nn.Module, extra: nn.Module | None = None):
        super().__init__(cfg, accelerator)
        self.net = net.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  not in stubs
        self.extra = (extra or nn.Module()).to(self.device)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
        )
        parameters = [*self.net.parameters(), *self.extra.parameters()]
        self.update = Updates(torch.optim.AdamW(parameters, cfg.lr, weight_decay=0.02), self, clip=5.0)

    def batch_loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        """This step's loss, and values for the log."""
        raise NotImplementedError

    def train_step(self) -> Stats:
        self.net.train()
        loss, stats = self.batch_loss()
        self.update(loss, lr=self.cfg.lr * min(1.0, (self.done + 1) / 100))
        self.average.update_parameters(self.net)
        return stats

    def draw(self, n: int) -> Tensor:
        """This step's sample indices (batch,) out of n."""
        return torch.from_numpy(batch_indices(n, self.cfg.batch, self.done, self.cfg.seed))

    def batched(self, x: Tensor) -> Tensor:
        """The averaged network's outputs in eval mode, on the CPU: (N, ·)."""
        net = self.average.module.eval()
        with torch.no_grad():
            return torch.cat([net(part.to(self.device)).cpu() for part in x.split(128)])

    def save_weights(self, out: Path, name: str, **metadata: str) -> None:
        """Write the averaged weights to ``out/name.safetensors``, in float16."""
        figures = {f"val_{k}": f"{v:.4f}" for k, v in self.validate().items()}
        metadata |= {
            "kind": name,
            "preset": self.cfg.preset,
            "steps": str(self.done),
            "batch": str(self.cfg.batch),
            "seed": str(self.cfg.seed),
            **figures,
        }
        save_safetensors(out / f"{name}.safetensors", self.average.module.state_dict(), metadata, overwrite=True)


def _open(cfg) -> tuple[FaceDataset, FaceDataset]:
    """The train and val splits of a config's data set."""
    if get_preset(cfg.preset).data != "synthfaces":
        raise S2FError(f"preset {cfg.preset} uses published networks for this: train with preset tiny.")
    return (
        open_dataset(cfg.preset, "train", cfg.data, cfg.limit),
        open_dataset(cfg.preset, "val", cfg.data, cfg.val_limit),
    )


def read_photos(ds: FaceDataset) -> Tensor:
    """All photos (N,3,H,W) uint8; the data set's arrays() would also compute the sketches."""

    def read(i: int) -> np.ndarray:
        photo = ds.read(i)[0]
        return photo if len(photo) == ds.size else cv2.resize(photo, (ds.size, ds.size), interpolation=cv2.INTER_AREA)

    with ThreadPoolExecutor(available_cpus()) as pool:
        photos = list(pool.map(read, range(len(ds))))
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).contiguous()


def jitter(x: Tensor, zoom: float, shift: float, size: int, side: float, centre: tuple[float, float]) -> Tensor:
    """Random crops around ``centre``, mirrored half of the time, with random light: (B,3,H,H) -> (B,3,size,size).

    side and shift are fractions of H; zoom is the maximum relative change of the crop's side. A third are also blurred,
    because generated faces are softer than rendered ones, and the network should not depend on that.
    """
    b, device = len(x), x.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(b, *shape, device=device) * (high - low) + low

    scale = side * (1 + uniform(-zoom, zoom))
    mirror = torch.where(torch.rand(b, device=device) < 0.5, -1.0, 1.0)
    angle = uniform(-0.06, 0.06)  # radians
    theta = torch.zeros(b, 2, 3, device=device)  # output -> input, both in [-1,1]
    theta[:, 0, 0], theta[:, 0, 1] = mirror * scale * angle.cos(), -scale * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = mirror * scale * angle.sin(), scale * angle.cos()
    theta[:, 0, 2] = 2 * centre[0] - 1 + 2 * uniform(-shift, shift)
    theta[:, 1, 2] = 2 * centre[1] - 1 + 2 * uniform(-shift, shift)
    grid = F.affine_grid(theta, [b, 3, size, size], align_corners=False)
    y = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    soft = F.interpolate(F.avg_pool2d(y, 2), (size, size), mode="bilinear", align_corners=False)
    y = torch.where(uniform(0, 1, 1, 1, 1) < 0.33, soft, y)
    y = y * uniform(0.8, 1.2, 1, 1, 1) + uniform(-0.15, 0.15, 1, 1, 1) + uniform(-0.04, 0.04, 3, 1, 1)
    return (y + 0.03 * torch.randn_like(y)).clamp(-1, 1)


class IdentityTrainer(ClassifierTrainer):
    """ArcFace on the train identities; validated on unseen people."""

    kind = "synthface-id-training"

    def __init__(self, cfg: IdentityConfig, accelerator):
        torch.manual_seed(cfg.seed)
        train, val = _open(cfg)
        people, target = np.unique(train.identities, return_inverse=True)
        centres = nn.Module()
        # length 1: AdamW's steps do not scale with the weights, so long centres would hardly rotate
        centres.weight = nn.Parameter(F.normalize(torch.randn(len(people), SynthFaceID.dim), dim=1))
        super().__init__(cfg, accelerator, SynthFaceID(), centres)
        self.target = torch.from_numpy(target).to(self.device)
        # downsampled once so that a crop is about 64 px, which makes augmentation cheap
        small = round(SynthFaceID.size / FACE_SIDE)
        self.photos = torch.cat(
            [
                ((F.interpolate(as_float(p), (small, small), mode="bilinear", antialias=True) + 1) * 127.5)
                .round()
                .byte()
                for p in read_photos(train).split(256)
            ]
        ).to(self.device)
        self.val = torch.cat([face_crop(as_float(p), SynthFaceID.size) for p in read_photos(val).split(256)])
        self.val_identity = torch.from_numpy(val.identities)

    def batch_loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        i = self.draw(len(self.photos)).to(self.device)
        x = jitter(as_float(self.photos[i]), 0.06, 0.03, SynthFaceID.size, FACE_SIDE, FACE_CENTRE)
        margin = self.cfg.margin * min(1.0, max(0.0, 2 * self.done / self.cfg.steps - 0.5))
        with self.autocast():
            embedding = self.net(x)
        centres = self.extra.get_parameter("weight")
        logits = arcface_logits(embedding.float(), centres, self.target[i], self.cfg.scale, margin)
        loss = F.cross_entropy(logits, self.target[i])
        accuracy = (logits.argmax(1) == self.target[i]).float().mean()
        return loss, {"arcface": loss.detach(), "accuracy": accuracy.detach()}

    def validate(self) -> dict[str, float]:
        e = self.batched(self.val)
        return {"auc": verification_auc(e, self.val_identity), "rank_1": rank_1(e, self.val_identity)}

    def picture(self) -> np.ndarray:
        """Columns: a face, the nearest other photo, and the nearest other person."""
        e = self.batched(self.val)
        n = min(12, len(e))
        likeness = e[:n] @ e.T
        likeness[torch.arange(n), torch.arange(n)] = -2
        nearest = likeness.argmax(1)
        other = likeness.masked_fill(self.val_identity[:n, None] == self.val_identity[None], -2).argmax(1)
        return contact_sheet(to_array(torch.cat([self.val[:n], self.val[nearest], self.val[other]])), columns=n)

    def export(self, out: Path) -> None:
        self.save_weights(out, "synthface-id")


class AttributesTrainer(ClassifierTrainer):
    """Binary cross-entropy on every attribute at once."""

    kind = "attributes-training"

    def __init__(self, cfg: AttributesConfig, accelerator):
        torch.manual_seed(cfg.seed)
        train, val = _open(cfg)
        super().__init__(cfg, accelerator, AttributeNet(len(ATTRIBUTE_NAMES), variant=cfg.variant))
        self.y = torch.from_numpy(attribute_targets(train)).float().to(self.device)
        self.val_y = torch.from_numpy(attribute_targets(val)).float()
        self.photos = read_photos(train).to(self.device)
        self.val = as_float(read_photos(val))

    def batch_loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        i = self.draw(len(self.photos)).to(self.device)
        x = as_float(self.photos[i])
        if self.done < 0.7 * self.cfg.steps:  # half size is sufficient for most of the training
            x = F.avg_pool2d(x, 2)
        x = jitter(x, 0.05, 0.03, x.shape[-1], 0.95, (0.5, 0.5))
        with self.autocast():
            logits = self.net(x)
        loss = F.binary_cross_entropy_with_logits(logits.float(), self.y[i])
        return loss, {"bce": loss.detach()}

    def validate(self) -> dict[str, float]:
        return attribute_scores(self.batched(self.val), self.val_y)

    def picture(self) -> np.ndarray:
        n = min(12, len(self.val))
        return contact_sheet(to_array(self.val[:n]), columns=n)

    def export(self, out: Path) -> None:
        self.save_weights(out, "attributes", names=",".join(ATTRIBUTE_NAMES), variant=self.cfg.variant)


def attribute_scores(logits: Tensor, y: Tensor) -> dict[str, float]:
    """Means over attributes of accuracy, majority-class accuracy and balanced accuracy (0.5 is chance).

    logits, y: (N,K). Attributes that never or always occur have no balanced accuracy and are excluded from it.
    """
    right = ((logits > 0) == (y > 0.5)).double()
    share = y.double().mean(0)
    both = (share > 0) & (share < 1)
    yes = (right * y).sum(0) / y.sum(0)
    no = (right * (1 - y)).sum(0) / (1 - y).sum(0)
    return {
        "accuracy": float(right.mean()),
        "majority": float(torch.maximum(share, 1 - share).mean()),
        "balanced": float(((yes + no) / 2)[both].mean()),
    }


def train_identity(cfg: IdentityConfig) -> Path:
    """Run the training; returns ``out/synthface-id.safetensors`` (float16, the averaged weights)."""
    run_training(IdentityTrainer(cfg, make_accelerator(cfg.cpu)))
    return Path(cfg.out) / "synthface-id.safetensors"


def train_attributes(cfg: AttributesConfig) -> Path:
    """Run the training; returns ``out/attributes.safetensors`` (float16, the averaged weights)."""
    run_training(AttributesTrainer(cfg, make_accelerator(cfg.cpu)))
    return Path(cfg.out) / "attributes.safetensors"
