"""Stage 1 of the edit pipeline: the autoencoder for latent diffusion.

As in latent diffusion (Rombach et al., CVPR 2022, arXiv:2112.10752, Sec. 3.1): L1, a perceptual loss, and a very small
KL term that limits the latents. There is no adversarial loss, which would sharpen images but invent detail. The
perceptual network is ST-LPIPS, the tiny preset's judge. Stable Diffusion's VAE is trained on images of all kinds; ours
only on faces of one size in one frame, so it can be narrow.

Its error must be much smaller than an edit, or the loss of detail would hide "make the eyes green". Half of the weight
of a pair's L1 is therefore on the pixels where its two images differ, which may be two irises of a dozen pixels each.
The change itself also has a loss: D(E(after)) − D(E(before)) should equal after − before, which L1 on the two images
barely enforces where make-up changes them by half a grey level on average.

Once a UNet has learned these latents the encoder must not change, but the decoder can be fine-tuned (as Stability AI
did for its ft-MSE decoders): ``decoder_only``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.datasets.edit_pairs import EditPairs, times_drawn
from s2flib.datasets.faces import open_dataset
from s2flib.errors import S2FError
from s2flib.images import as_float, contact_sheet, to_array
from s2flib.instruct_pix2pix.networks import EditorSize, build_vae
from s2flib.instruct_pix2pix.pipeline import load_pipeline
from s2flib.judges.load import perceptual_judge
from s2flib.presets import TINY, get_preset
from s2flib.training.classifiers import read_photos
from s2flib.training.feed import batch_indices
from s2flib.training.loop import run_training
from s2flib.training.trainer import RunConfig, Stats, Trainer, Updates, make_accelerator
from s2flib.weights.load import load_tensors, save_safetensors

KIND = "editor-vae"


@dataclass(frozen=True, kw_only=True)
class VaeConfig(RunConfig):
    """One run of the autoencoder's training."""

    pairs: str | None = None  # folder of edit pairs, whose images before and after are used
    kinds: str | None = None  # use only pairs of these kinds, "eye_color,makeup"; None: all
    photos: bool = True  # also use the preset's training photos
    steps: int = 6000
    batch: int = 8
    lr: float = 1.2e-3  # AdamW; falls linearly to a twentieth over ``steps``
    lambda_lpips: float = 0.5
    lpips_from: float = 0.5  # first share of the steps, without the perceptual loss, which is as expensive …
    lpips_share: float = 0.5  # … as the autoencoder and is only computed on this share of each batch
    lambda_kl: float = 1e-6  # latent diffusion's weight
    chroma: float = 20.0  # weight of the squared error of the colour component
    focus: float = 1.0  # weight of the pixels where a pair's images differ, relative to 1 everywhere
    lambda_change: float = 0.0  # weight of the decoded change's error; above 0, batches contain whole pairs, …
    small: float = 1.0  # … that loss weights them by (mean change)^−small, and …
    often: str = ""  # … pairs of these kinds are sampled more often: "expression=3,eye_color=2"
    init: str | None = None  # a vae.safetensors, or a pipeline's folder, to start from
    decoder_only: bool = False  # freeze the encoder of ``init``


def float_norms(module: nn.Module) -> nn.Module:
    """Make group norms use float32 under autocast: in bfloat16 their backward pass is six times slower on CPUs."""
    for part in module.modules():
        if isinstance(part, nn.GroupNorm):
            part.register_forward_pre_hook(lambda _, x: (x[0].float(),))
    return module


def place_weight(change: Tensor, focus: float) -> Tensor:
    """change (B, h, w) ≥ 0 → weights (B, 1, h, w) of mean 1: focus / (1 + focus) of it where the images differ."""
    mean = change.mean((1, 2), keepdim=True)
    return ((1 + focus * (change + 1e-4) / (mean + 1e-4)) / (1 + focus))[:, None]


def pair_weight(change: Tensor, power: float) -> Tensor:
    """change (N, h, w) ≥ 0 → weights of mean 1 (N,), proportional to (mean change + 0.002)^−power."""
    weight = (change.mean((1, 2)) + 2e-3) ** -power
    return weight / weight.mean()


def masked(arrays: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    """EditPairs.arrays() → images before and after (N, 3, H, W) uint8.

    Outside its mask a pair differs only by WebP artefacts; there the image after is replaced by the one before.
    """
    before, mask = torch.from_numpy(arrays["before"]), torch.from_numpy(arrays["mask"])
    return before, torch.where(mask[:, None], torch.from_numpy(arrays["after"]), before)


def training_pictures(cfg: VaeConfig) -> tuple[Tensor, Tensor, Tensor]:
    """The training images and some val images.

    Images (N, 3, H, W) uint8; the difference of each pixel from the pair's other image (M, H, W) uint8 for the first
    M ≤ N of them (photos have none); the val images.
    """
    size, parts, held = get_preset(cfg.preset).size, [], None
    change = torch.zeros(0, size, size, dtype=torch.uint8)
    if cfg.pairs is not None:
        pairs = EditPairs(cfg.pairs, "train", size, cfg.limit)
        if cfg.kinds is not None:
            pairs.keep_kinds(cfg.kinds.split(","))
        parts += masked(pairs.arrays())
        change = torch.cat(
            [
                (a.float() - b.float()).abs().mean(1).round().byte()
                for a, b in zip(*(p.split(256) for p in parts), strict=True)
            ]
        ).repeat(2, 1, 1)
        arrays = EditPairs(cfg.pairs, "val", size, 16).arrays()
        held = torch.from_numpy(np.concatenate([arrays["before"], arrays["after"]]))
    if cfg.photos:
        parts.append(read_photos(open_dataset(cfg.preset, "train", limit=cfg.limit)))
        if held is None:
            held = read_photos(open_dataset(cfg.preset, "val", limit=32))
    if held is None:
        raise S2FError("there is nothing to train the autoencoder on: add --pairs, or do not set photos=false.")
    return torch.cat(parts), change, held


def pairs_drawn(cfg: VaeConfig) -> np.ndarray:
    """Indices of training pairs, each repeated as often as ``cfg.often`` specifies for its kind."""
    if cfg.pairs is None:
        raise S2FError("lambda_change compares the two images of a pair: add --pairs.")
    pairs, often = EditPairs(cfg.pairs, "train", limit=cfg.limit), times_drawn(cfg.often)
    if cfg.kinds is not None:
        pairs.keep_kinds(cfg.kinds.split(","))
    return np.repeat(np.arange(len(pairs)), [max(often.get(edit.kind, 1) for edit in row.edits) for row in pairs.rows])


class VaeTrainer(Trainer):
    """AdamW on one autoencoder; exports the moving average."""

    kind = KIND
    saved = ("vae", "average", "update")
    vae: Any
    several_processes = False

    def __init__(self, cfg: VaeConfig, accelerator):
        super().__init__(cfg, accelerator)
        self.size = EditorSize()
        self.vae = build_vae(self.size)
        if cfg.init:
            self.vae.load_state_dict(vae_tensors(cfg.init))
        elif cfg.decoder_only:
            raise S2FError("a decoder is trained for the latents of an encoder: add --set decoder.init=FILE.")
        for part in (self.vae.encoder, self.vae.quant_conv):
            part.requires_grad_(not cfg.decoder_only)
        self.vae = float_norms(self.vae.to(self.device, memory_format=torch.channels_last))
        self.average = torch.optim.swa_utils.AveragedModel(
            self.vae, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
        )
        learning = [p for p in self.vae.parameters() if p.requires_grad]
        adam = torch.optim.AdamW(learning, cfg.lr, betas=(0.9, 0.99), weight_decay=1e-4)
        self.update = Updates(adam, self, clip=1.0)
        self.judge = perceptual_judge(cfg.preset).to(self.device)
        self.pictures, self.change, self.held = training_pictures(cfg)
        self.n_pairs = len(self.change) // 2
        if cfg.lambda_change:
            self.drawn = pairs_drawn(cfg)
            means = torch.stack([change.float().mean() / 255 for change in self.change[: self.n_pairs]])
            self.weight = pair_weight(means[:, None, None], cfg.small)

    def train_step(self) -> Stats:
        cfg = self.cfg
        index, k = self.indices()
        x = as_float(self.pictures[index]).to(self.device).contiguous(memory_format=torch.channels_last)
        flip = torch.rand(len(x), device=self.device) < 0.5
        flip[k : 2 * k] = flip[:k]  # both images of a pair, or neither
        x = torch.where(flip[:, None, None, None], x.flip(3), x)
        weight = place_weight(self.change_of(index).to(self.device), cfg.focus)
        weight = torch.where(flip[:, None, None, None], weight.flip(3), weight)
        with self.autocast():
            with torch.set_grad_enabled(not cfg.decoder_only):
                latents = self.vae.encode(x).latent_dist
            y = self.vae.decode(latents.sample()).sample
        y, n = y.float(), max(1, round(cfg.lpips_share * len(x)))
        l1, kl = (weight * self.error(y - x)).mean(), latents.kl().mean() / x[0].numel()
        loss = l1 + cfg.lambda_kl * kl
        stats = {"l1": (y - x).abs().mean().detach(), "weighted": l1.detach(), "kl": kl.detach()}
        if k:
            off = y - x
            missed = (weight[:k] * self.error(off[k : 2 * k] - off[:k])).mean((1, 2, 3))
            missed = (missed * self.weight[index[:k]].to(self.device)).mean()
            loss = loss + cfg.lambda_change * missed
            stats["missed"] = missed.detach()
        if cfg.lambda_lpips and self.done >= cfg.lpips_from * cfg.steps:
            with self.autocast():
                lpips = self.judge(y[:n], x[:n]).mean()
            loss = loss + cfg.lambda_lpips * lpips
            stats["lpips"] = lpips.detach()
        self.update(loss, lr=cfg.lr * min(1.0, (self.done + 1) / 100) * max(0.05, 1 - self.done / cfg.steps))
        self.average.update_parameters(self.vae)
        return stats

    def indices(self) -> tuple[np.ndarray, int]:
        """The batch's images, and k: with lambda_change the first k are before a change, the next k after it, and the
        rest, a quarter if there are any, photos. Otherwise k is 0."""
        cfg, photos = self.cfg, len(self.pictures) - len(self.change)

        def some(n: int, batch: int) -> np.ndarray:
            return batch_indices(n, batch, self.done, cfg.seed)

        if not cfg.lambda_change:
            return some(len(self.pictures), cfg.batch), 0
        k = max(1, (cfg.batch - cfg.batch // 4 * (photos > 0)) // 2)
        before = self.drawn[some(len(self.drawn), k)]
        rest = len(self.change) + some(photos, cfg.batch - 2 * k) if photos else before[:0]
        return np.concatenate([before, before + self.n_pairs, rest]), k

    def error(self, off: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 1, H, W): L1 plus squared colour error; with L1 alone, lips and irises get brownish."""
        return off.abs().mean(1, keepdim=True) + self.cfg.chroma * colours_only(off).square().mean(1, keepdim=True)

    def change_of(self, index) -> Tensor:
        """(B, H, W) in [0, 1]: the difference of each pixel from the pair's other image; 0 for photos."""
        none = torch.zeros(self.pictures.shape[2:])
        return torch.stack([self.change[i] / 255.0 if i < len(self.change) else none for i in index])

    @torch.no_grad()
    def rebuild(self, pictures: Tensor) -> Tensor:
        """uint8 → the average's reconstruction in [−1, 1]."""
        vae: Any = self.average.module.eval()
        parts = [
            vae.decode(vae.encode(as_float(p).to(self.device)).latent_dist.mode()).sample.cpu()
            for p in pictures.split(8)
        ]
        return torch.cat(parts).clamp(-1, 1)

    def validate(self) -> dict[str, float]:
        """PSNR in dB (peak 2 in [−1, 1] units) and the judge's distance on held-out images."""
        y, x = self.rebuild(self.held), as_float(self.held)
        with torch.no_grad():
            lpips = self.judge(y.to(self.device), x.to(self.device)).mean().item()
        return {"val_psnr": float(10 * torch.log10(4 / F.mse_loss(y, x))), "val_lpips": lpips}

    def picture(self) -> np.ndarray:
        x = self.held[:8]
        return contact_sheet(to_array(torch.cat([as_float(x), self.rebuild(x)])), columns=8)

    def export(self, out: Path) -> None:
        figures = {k: f"{v:.4f}" for k, v in self.validate().items()}
        save_safetensors(
            out / "vae.safetensors",
            self.average.module.state_dict(),
            figures | {"kind": KIND, "preset": self.cfg.preset, "images": self.done * self.cfg.batch},
            half=False,
            overwrite=True,
        )


def vae_tensors(path: str | Path) -> dict[str, Tensor]:
    """The autoencoder's float32 tensors, from a vae.safetensors of this training or a pipeline's folder."""
    if Path(path).is_dir():
        return {k: v.float() for k, v in load_pipeline(TINY, path, "cpu").vae.state_dict().items()}
    return load_tensors(path, KIND, TINY.name)


def colours_only(x: Tensor) -> Tensor:
    """(B, 3, H, W) minus each pixel's mean over the channels, which removes brightness."""
    return x - x.mean(1, keepdim=True)


def train_vae(cfg: VaeConfig) -> Path:
    """Run the training; returns ``out/vae.safetensors`` (the averaged weights, float32)."""
    run_training(VaeTrainer(cfg, make_accelerator(cfg.cpu)))
    return Path(cfg.out) / "vae.safetensors"
