"""Training pSp's encoder in front of a frozen StyleGAN2 (seed paper, Sec. 3.3 and 4.1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s2flib.datasets import open_dataset
from s2flib.errors import S2FError, WeightsError
from s2flib.losses import LossWeights, SketchLoss
from s2flib.presets import Preset, get_preset
from s2flib.psp import PSP, GradualStyleEncoder
from s2flib.training import engine
from s2flib.training.ranger import Ranger
from s2flib.weights import fingerprint, load_generator, load_tensors, save_psp

KIND = "psp-training"


@dataclass(frozen=True)
class EncoderConfig:
    """One run of encoder training. None means the preset's value."""

    out: str
    preset: str = "tiny"
    data: str | None = None           # a data set's folder; None: the preset's own
    steps: int | None = None          # the paper: 100,000; warm-up counted in
    batch: int | None = None          # sketches a step, all processes and micro-batches together; the paper: 4
    lr: float | None = None           # Ranger, constant as in the paper, unless …
    anneal: float = 0.0               # … over this last share of the steps it falls to zero, in a line
    lambda4: float | None = None      # weight of the attention loss; 0 is plain pSp
    lambda_l2: float | None = None
    lambda_lpips: float | None = None
    lambda_id: float | None = None
    lambda_reg: float | None = None
    seed: int = 0
    accumulate: int = 1               # micro-batches a step, for GPUs with little memory
    init: str | None = None           # training weights whose photo encoder the sketch encoder starts from
    warmup: int = 0                   # first so many steps: imitate that photo encoder in W+, no picture drawn
    mirror: bool = False              # half of the pairs flipped left to right; the paper flips none
    generator: str | None = None      # the frozen generator's file; None: the preset's own
    mixed_precision: str = "auto"
    cpu: bool = False
    resume: bool = False
    max_time: float | None = None     # seconds
    save_every: float = 240.0         # seconds between checkpoints
    log_every: int = 50               # steps
    workers: int = 4                  # reading processes, for data sets too large for memory
    limit: int | None = None          # use only the first training samples
    val_limit: int = 64               # validation samples

    def resolved(self) -> EncoderConfig:
        """The same with every None that the preset decides filled in."""
        p = get_preset(self.preset)
        names = ("steps", "batch", "lr", "lambda4", "lambda_l2", "lambda_lpips", "lambda_id", "lambda_reg")
        return replace(self, **{n: getattr(p, n) for n in names if getattr(self, n) is None})


class EncoderTrainer:
    """One update: micro-batches of sketches → w+ → frozen generator → pooled picture → losses."""

    def __init__(self, cfg: EncoderConfig, train, val, accelerator):
        self.cfg, self.acc, self.device = cfg, accelerator, accelerator.device
        self.preset = get_preset(cfg.preset)
        if not 0 <= cfg.anneal <= 1:
            raise S2FError(f"anneal is a share of the steps, 0 to 1, not {cfg.anneal}.")
        if cfg.batch % cfg.accumulate:
            raise S2FError(f"batch {cfg.batch} cannot be cut into {cfg.accumulate} micro-batches: choose a multiple.")
        self.feed = engine.Feed(train, cfg.batch, cfg.seed, accelerator, cfg.workers)
        self.val = val
        torch.manual_seed(cfg.seed)
        encoder = GradualStyleEncoder.from_preset(self.preset)
        if cfg.warmup and not cfg.init:
            raise S2FError("a warm-up imitates the photo encoder of --init: give one, or set warmup to 0.")
        decoder = load_generator(self.preset, cfg.generator)
        photo_encoder = from_photo_encoder(encoder, cfg.init, self.preset, decoder.latent_avg) if cfg.init else None
        self.teacher = photo_encoder.to(self.device) if cfg.warmup else None
        self.decoder_id = fingerprint(decoder)
        self.psp = PSP(encoder, decoder, decoder.latent_avg).to(self.device).train()
        weights = LossWeights(cfg.lambda_l2, cfg.lambda_lpips, cfg.lambda_id, cfg.lambda_reg, cfg.lambda4)
        self.loss = SketchLoss(self.preset, weights).to(self.device)
        self.params = list(self.psp.encoder.parameters())
        self.opt = accelerator.prepare(Ranger(self.params, lr=cfg.lr))
        self.done = 0

    def state(self) -> dict:
        return {"encoder": self.psp.encoder.state_dict(), "opt": self.opt.state_dict(), "step": self.done,
                "decoder": self.decoder_id}

    def load(self, state: dict) -> None:
        if state["decoder"] != self.decoder_id:
            raise WeightsError("this run was trained before another generator: give --generator the same file, "
                               "or choose another --out.")
        self.psp.encoder.load_state_dict(state["encoder"])
        self.opt.load_state_dict(state["opt"])
        self.done = state["step"]

    def target(self, photo: Tensor) -> Tensor:
        """Photos pooled to the losses' size (256 of 1024 in the paper)."""
        return F.adaptive_avg_pool2d(photo, self.preset.loss_size)

    def step(self) -> dict[str, float]:
        """One update of the encoder; returns the losses, each unweighted, and their total."""
        engine.seed_step(self.cfg.seed, self.done, self.acc.process_index)
        photo, sketch = self.feed(self.done)
        if self.cfg.mirror:
            flip = torch.rand(len(photo), 1, 1, 1, device=self.device) < 0.5
            photo, sketch = torch.where(flip, photo.flip(3), photo), torch.where(flip, sketch.flip(3), sketch)
        for group in self.opt.param_groups:
            group["lr"] = self.learning_rate(self.done)
        self.opt.zero_grad(set_to_none=True)
        stats: dict[str, float] = {}
        n = self.cfg.accumulate
        losses = self.imitation if self.done < self.cfg.warmup else self.losses
        for x, s in zip(photo.chunk(n), sketch.chunk(n), strict=True):
            with self.acc.autocast():
                total, parts = losses(x, s)
            self.acc.backward(total / n)
            for k, v in parts.items():
                stats[k] = stats.get(k, 0.0) + v / n
        engine.average_gradients(self.params, self.acc)
        self.opt.step()
        engine.average_buffers(self.psp.encoder, self.acc)
        self.done += 1
        return stats

    def learning_rate(self, step: int) -> float:
        """Of step ``step`` of cfg.steps."""
        left = (self.cfg.steps - step) / max(1.0, self.cfg.anneal * self.cfg.steps)
        return self.cfg.lr * min(1.0, left)

    def losses(self, photo: Tensor, sketch: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The paper's losses between the photo and D(E(sketch)), both pooled."""
        w_plus = self.psp.encode(sketch).float()
        y = self.psp.decode(w_plus, size=self.preset.loss_size, noise="random")
        return self.loss(self.target(photo), y, w_plus, self.psp.latent_avg)

    def imitation(self, photo: Tensor, sketch: Tensor) -> tuple[Tensor, dict[str, float]]:
        """‖E(sketch) − E_photo(photo)‖² / (n_styles · D), mean over the batch: what the sketch should have said.

        No picture is drawn and none judged, so a step costs a fraction of the real losses'.
        """
        side = self.teacher.size
        with torch.no_grad():
            target = self.teacher(F.interpolate(photo, size=(side, side), mode="bilinear", antialias=True))
        loss = F.mse_loss(self.psp.encode(sketch).float() - self.psp.latent_avg, target.float())
        return loss, {"imitation": loss.item()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The same losses on the first validation samples, in eval mode with the stored noise."""
        sums: dict[str, float] = {}
        self.psp.eval()
        for first in range(0, len(self.val), 16):
            samples = [self.val[i] for i in range(first, min(first + 16, len(self.val)))]
            photo = torch.stack([s["photo"] for s in samples]).to(self.device)
            w_plus = self.psp.encode(torch.stack([s["sketch"] for s in samples]).to(self.device))
            y = self.psp.decode(w_plus, size=self.preset.loss_size)
            _, parts = self.loss(self.target(photo), y, w_plus, self.psp.latent_avg)
            for k, v in parts.items():
                sums[k] = sums.get(k, 0.0) + v * len(samples)
        self.psp.train()
        return {f"val_{k}": v / len(self.val) for k, v in sums.items()}

    @torch.no_grad()
    def picture(self) -> np.ndarray:
        """Rows of validation sketches, outputs and photos."""
        self.psp.eval()
        samples = [self.val[i] for i in np.linspace(0, len(self.val) - 1, min(10, len(self.val))).astype(int)]
        sketch = torch.stack([s["sketch"] for s in samples]).to(self.device)
        output, _ = self.psp(sketch)
        photo = torch.stack([s["photo"] for s in samples]).to(self.device)
        self.psp.train()
        return engine.picture_grid(torch.cat([sketch.expand(-1, 3, -1, -1) * 2 - 1, output, photo]), len(samples))

    def export(self, out: Path) -> None:
        """encoder.safetensors: encoder and w̄ in float16, for :func:`s2flib.weights.load_psp`."""
        save_psp(out / "encoder.safetensors", self.psp, self.preset, overwrite=True, metadata={
            "step": str(self.done), "lambda4": str(self.cfg.lambda4), "seed": str(self.cfg.seed)})


def from_photo_encoder(
    encoder: GradualStyleEncoder,      # gets the weights, in place
    path: str,                         # training.safetensors
    preset: Preset,
    latent_avg: Tensor,                # (style_dim,), w̄ of the generator that will be frozen
) -> GradualStyleEncoder:
    """Start from the photo encoder of the generator's own training (``training.safetensors``); returns it, frozen.

    It already knows where the generator keeps faces in W+; only what a face looks like in pencil is left to
    learn. Its three input channels are summed into one: a grey photo and a sketch share their edges. It was trained
    around a w̄ of its own; the heads' biases take up the difference.
    """
    tensors = load_tensors(path, "stylegan2-training", preset.name)
    own = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
    key = "input_layer.0.weight"
    if own.get(key) is None or own[key].shape[0] != encoder.input_layer[0].weight.shape[0]:
        raise WeightsError(f"{path} holds no photo encoder of this preset: give --init a training.safetensors "
                           "that s2f train --what generator wrote.")
    for name in own:
        if name.startswith("styles.") and name.endswith(".linear.bias"):
            own[name] = own[name] + tensors["w_avg"] - latent_avg
    photo_encoder = GradualStyleEncoder.from_preset(preset, input_nc=3)
    photo_encoder.load_state_dict(own)
    encoder.load_state_dict(own | {key: own[key].sum(1, keepdim=True)})
    return photo_encoder.eval().requires_grad_(False)


def train_encoder(cfg: EncoderConfig) -> Path:
    """Train by ``cfg``; returns ``out/encoder.safetensors``, which :func:`s2flib.weights.load_psp` reads."""
    cfg = cfg.resolved()
    acc = engine.make_accelerator(cfg.mixed_precision, cfg.cpu)
    train = open_dataset(cfg.preset, "train", root=cfg.data, limit=cfg.limit)
    val = open_dataset(cfg.preset, "val", root=cfg.data, limit=cfg.val_limit)
    engine.run_training(EncoderTrainer(cfg, train, val, acc), cfg, KIND, acc)
    return Path(cfg.out) / "encoder.safetensors"
