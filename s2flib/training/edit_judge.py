"""Training of the edit judge and reader, which read attributes from real renders of train identities
(judges.edit_judge).

The images are those of the edit pairs, before and after, whose attributes are known
(datasets.edit_pairs.attributes_of), and the preset's training photos. Half of them are softened, as by an autoencoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s2flib.datasets.edit_pairs import EditPairs, attributes_of
from s2flib.datasets.faces import open_dataset
from s2flib.errors import S2FError
from s2flib.images import as_float, contact_sheet
from s2flib.judges.edit_judge import HEADS, KIND, READER_KIND, SCALE, EditJudge, EditReader, FaceReader, truth
from s2flib.presets import get_preset
from s2flib.training.classifiers import ClassifierConfig, ClassifierTrainer, read_photos
from s2flib.training.loop import run_training
from s2flib.training.trainer import make_accelerator


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(ClassifierConfig):
    """One run of the edit judge's training."""

    pairs: str | None = None  # folder of edit pairs; required
    photos: bool = True  # also use the preset's training photos
    steps: int = 1500
    batch: int = 32
    mixed_precision: str = "auto"
    log_every: int = 50


@dataclass(frozen=True, kw_only=True)
class ReaderConfig(JudgeConfig):
    """One run of the reader's training: like the judge's, with another seed and learning rate."""

    lr: float = 1e-3
    seed: int = 1


def labelled(cfg, split: str) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) uint8 and targets (N, heads) float: an index, a scaled number, or NaN where unknown."""
    size = get_preset(cfg.preset).size
    pairs = EditPairs(cfg.pairs, split, size, cfg.limit)
    arrays, seed = pairs.arrays(), pairs.seed()
    found = [attributes_of(row, seed) for row in pairs.rows]
    pictures = [torch.from_numpy(arrays["before"]), torch.from_numpy(arrays["after"])]
    attributes = [a for a, _ in found] + [b for _, b in found]
    if split == "train" and cfg.photos:
        photos = open_dataset(cfg.preset, split, limit=cfg.limit)
        pictures.append(read_photos(photos))
        attributes += photos.attributes
    rows = [[np.nan if v is None else v for v in truth(a).values()] for a in attributes]
    return torch.cat(pictures), torch.tensor(rows, dtype=torch.float32)


def heads_loss(out: Tensor, target: Tensor, sizes: list[int]) -> Tensor:
    """Cross-entropy of the heads with values, Huber loss of the numbers; unknown targets are ignored."""
    losses = []
    for part, values, t in zip(out.split(sizes, 1), HEADS.values(), target.T, strict=True):
        known = ~t.isnan()
        if known.any():
            losses.append(
                F.cross_entropy(part[known], t[known].long()) if values else F.smooth_l1_loss(part[known, 0], t[known])
            )
    return torch.stack(losses).sum()


def disturb(x: Tensor) -> Tensor:
    """Augmentation that preserves colours: mirrored half of the time, shifted by up to two pixels, half softened,
    noise.

    Softening blends the image with itself downsampled to a half or a third: an iris reconstructed by an autoencoder has
    its colour but no edge.
    """
    b = len(x)
    flip = torch.rand(b) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    dy, dx = torch.randint(-2, 3, (2,)).tolist()
    x = x.roll((dy, dx), (2, 3))
    half, third = (
        F.interpolate(
            F.interpolate(x, scale_factor=1 / k, mode="area"), x.shape[2:], mode="bilinear", align_corners=False
        )
        for k in (2, 3)
    )
    soft = torch.where(torch.rand(b, 1, 1, 1) < 0.6, half, third)
    amount = torch.rand(b, 1, 1, 1) * (torch.rand(b, 1, 1, 1) < 0.5)
    return x + amount * (soft - x) + 0.02 * torch.randn_like(x)


class JudgeTrainer(ClassifierTrainer):
    """Trains the judge or the reader."""

    def __init__(self, cfg: JudgeConfig, accelerator, net: type[FaceReader] = EditJudge, name: str = KIND):
        if cfg.pairs is None:
            raise S2FError(f"the {name.replace('-', ' ')} is trained on edit pairs: add --set pairs=DIR.")
        self.name, self.kind = name, f"{name}-training"
        torch.manual_seed(cfg.seed)
        super().__init__(cfg, accelerator, net())
        self.pictures, self.target = labelled(cfg, "train")
        self.val, self.val_target = labelled(cfg, "val")

    def batch_loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        i = self.draw(len(self.pictures))
        x = disturb(as_float(self.pictures[i])).to(self.device)
        with self.autocast():
            out = self.net(x)
        loss = heads_loss(out.float(), self.target[i].to(self.device), self.net.sizes)
        return loss, {"loss": loss.detach()}

    def validate(self) -> dict[str, float]:
        """Accuracy per head on val identities; for age and skin tone the mean error in years and tones."""
        net: Any = self.average.module.eval()
        with torch.no_grad():
            parts = [net.heads(as_float(p).to(self.device)) for p in self.val.split(64)]
        found = {}
        for k, (name, values) in enumerate(HEADS.items()):
            said, t = torch.cat([p[name].cpu() for p in parts]), self.val_target[:, k]
            known = ~t.isnan()
            if values:
                found[name] = float((said.argmax(1)[known] == t[known].long()).float().mean())
            else:
                found[f"{name}_error"] = float((said - (t * SCALE[name][1] + SCALE[name][0])).abs().mean())
        return found

    def picture(self) -> np.ndarray:
        n = min(12, len(self.val))
        return contact_sheet(self.val[:n].permute(0, 2, 3, 1).numpy(), columns=n)

    def export(self, out: Path) -> None:
        self.save_weights(out, self.name)


def train_judge(cfg: JudgeConfig) -> Path:
    """Run the training; returns ``out/edit-judge.safetensors`` (float16, the averaged weights)."""
    run_training(JudgeTrainer(cfg, make_accelerator(cfg.cpu)))
    return Path(cfg.out) / f"{KIND}.safetensors"


def train_reader(cfg: ReaderConfig) -> Path:
    """Run the training; returns ``out/edit-reader.safetensors`` (float16, the averaged weights)."""
    run_training(JudgeTrainer(cfg, make_accelerator(cfg.cpu), EditReader, READER_KIND))
    return Path(cfg.out) / f"{READER_KIND}.safetensors"
