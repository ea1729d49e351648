"""Training of pSp's encoder with a frozen StyleGAN2 (seed paper, Sec. 3.3 and 4.1)."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s2flib.datasets.faces import SynthFaces, open_dataset
from s2flib.datasets.live import Pool
from s2flib.errors import S2FError, WeightsError
from s2flib.images import contact_sheet, to_array
from s2flib.input_distance import InputDistance
from s2flib.judges.load import loss_networks
from s2flib.losses import LossWeights, SketchLoss, gradient_norms, reg_loss
from s2flib.presets import Preset, get_preset
from s2flib.psp import PSP, GradualStyleEncoder
from s2flib.training.feed import Feed, PeopleFeed, seed_step, stack
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
from s2flib.weights.load import fingerprint, load_generator, load_tensors, safe_load, save_psp
from s2flib.weights.published import load_strict


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(RunConfig):
    """One run of encoder training. None means the preset's value."""

    steps: int | None = None  # the paper: 100,000
    batch: int | None = None  # sketches per step, over all processes and micro-batches; the paper: 4
    lr: float | None = None  # Ranger, constant as in the paper, unless …
    anneal: float = 0.0  # … it falls linearly to zero over this last share of the steps
    lambda4: float | None = None  # weight of the attention loss; 0 is plain pSp
    attention: str = "attributes"  # its form: the paper's formula, or "published", what the author's code computes
    attention_maps: tuple[int, ...] = ()  # the attribute network's maps F'' it compares, 0 to 2; none: all
    attention_share: float | None = None  # its share of the gradient at the output, 0 to 1; lambda4 then follows
    measure_every: int = 20  # steps between measurements of the losses' shares of the gradient
    lambda_l2: float | None = None
    lambda_lpips: float | None = None
    lambda_id: float | None = None
    lambda_reg: float | None = None
    accumulate: int = 1  # micro-batches per step, for GPUs with little memory
    checkpointing: bool = False  # compute the generator's activations again in the backward pass: less memory, slower
    people: tuple[str, ...] = ()  # folders of s2f render-people to train on, with sketches of varied style
    lines: float = 0.4  # share of line drawings among these sketches
    plain: float = 0.25  # with a feature map: share of the batch whose faces are also judged from w+ alone
    ema_images: float = 0.0  # half-life of the weights' moving average, in sketches; 0: no average
    init: str | None = None  # an encoder to start from: encoder.safetensors or renderer.safetensors
    mirror: bool = False  # half of the pairs flipped left to right; the paper flips none
    generator: str | None = None  # the frozen generator's file; None: the preset's own
    workers: int = 4  # worker processes, for data sets that do not fit in memory
    val_limit: int = 64  # validation samples
    typical: int = 800  # training sketches on which the distance of unusual inputs is measured at the end; 0: none

    def resolved(self) -> EncoderConfig:
        """A copy in which every None is replaced by the preset's value."""
        p = get_preset(self.preset)
        names = ("steps", "batch", "lr", "lambda4", "lambda_l2", "lambda_lpips", "lambda_id", "lambda_reg")
        return replace(self, **{n: getattr(p, n) for n in names if getattr(self, n) is None})


class EncoderTrainer(Trainer):
    """One update: micro-batches of sketches → w+ → frozen generator → pooled image → losses."""

    kind = "psp-training"
    saved = ("encoder", "ema", "update")

    def __init__(self, cfg: Any, train, val, accelerator):
        """cfg: an EncoderConfig, resolved."""
        super().__init__(cfg, accelerator)
        self.preset = get_preset(cfg.preset)
        if not 0 <= cfg.anneal <= 1:
            raise S2FError(f"anneal is a share of the steps, 0 to 1, not {cfg.anneal}.")
        if cfg.batch % cfg.accumulate:
            raise S2FError(f"batch {cfg.batch} cannot be cut into {cfg.accumulate} micro-batches: choose a multiple.")
        if cfg.measure_every < 1:
            raise S2FError(f"measure_every is a number of steps, 1 or more, not {cfg.measure_every}.")
        if cfg.attention_share is not None and not (0 < cfg.attention_share < 1 and cfg.lambda4 > 0):
            raise S2FError(
                f"attention_share is a share of the gradient between 0 and 1, not {cfg.attention_share}; lambda4, "
                "where it starts, must be above 0."
            )
        if not (0 <= cfg.plain <= 1 and 0 <= cfg.lines <= 1):
            raise S2FError(f"plain and lines are shares of the batch, 0 to 1, not {cfg.plain} and {cfg.lines}.")
        if cfg.people:
            self.feed: Any = PeopleFeed(Pool(cfg.people), cfg.batch, cfg.seed, accelerator, cfg.lines)
        else:
            self.feed = Feed(train, cfg.batch, cfg.seed, accelerator, cfg.workers)
        self.val = val
        torch.manual_seed(cfg.seed)
        self.encoder = GradualStyleEncoder.from_preset(self.preset)
        decoder = load_generator(self.preset, cfg.generator)
        if cfg.init:
            start_from(self.encoder, cfg.init, self.preset, decoder.latent_avg)
        self.decoder_id = fingerprint(decoder)
        decoder.checkpointing = cfg.checkpointing
        self.psp = PSP(self.encoder, decoder, decoder.latent_avg).train()
        placed(self.psp, self.device)
        self.ema = copy.deepcopy(self.encoder).eval().requires_grad_(False)
        weights = LossWeights(cfg.lambda_l2, cfg.lambda_lpips, cfg.lambda_id, cfg.lambda_reg, cfg.lambda4)
        networks = loss_networks(self.preset, weights, cfg.attention, cfg.attention_maps, cfg.seed)
        self.loss = SketchLoss(weights, networks)
        placed(self.loss, self.device)
        self.update = Updates(Ranger(self.encoder.parameters(), lr=cfg.lr), self)
        self.shares: Stats = {}  # measured in this step, if any

    def state(self) -> dict:
        others = {"decoder": self.decoder_id, "people": getattr(self.feed, "used", 0)}
        return super().state() | others | {"lambda4": self.loss.weights.attention}

    def load(self, state: dict) -> None:
        if state["decoder"] != self.decoder_id:
            raise WeightsError(
                "this run was trained with another generator: pass its file to --generator, or choose another --out."
            )
        super().load(state)
        self.loss.weights = replace(self.loss.weights, attention=state.get("lambda4", self.loss.weights.attention))
        if isinstance(self.feed, PeopleFeed):
            self.feed.used = state["people"]

    def target(self, photo: Tensor) -> Tensor:
        """Photos pooled to the losses' size (256 of 1024 in the paper)."""
        return F.adaptive_avg_pool2d(photo, self.preset.loss_size)

    def train_step(self) -> Stats:
        """One update of the encoder; returns the losses, each unweighted, and their total."""
        photo, sketch = self.feed(self.done)
        if self.cfg.mirror:
            flip = torch.rand(len(photo), 1, 1, 1, device=self.device) < 0.5
            photo, sketch = torch.where(flip, photo.flip(3), photo), torch.where(flip, sketch.flip(3), sketch)
        stats: dict[str, Any] = {}
        n = self.cfg.accumulate
        self.shares = {}
        self.update.start(lr=self.learning_rate(self.done))
        for x, s in zip(photo.chunk(n), sketch.chunk(n), strict=True):
            with self.autocast():
                total, parts = self.losses(x, s)
            self.update.backward(total / n)
            for k, v in parts.items():
                stats[k] = stats.get(k, torch.zeros_like(v)) + v / n
        stats |= self.shares
        self.update.finish()
        average_buffers(self.encoder, self.acc)
        update_average(self.ema, self.encoder, self.cfg.batch, self.cfg.ema_images, self.done + 1)
        return stats

    def averaged(self) -> PSP:
        """The model that is validated, shown and exported: the averaged weights, in eval mode."""
        return PSP(self.ema, self.psp.decoder, self.psp.latent_avg).eval()

    def learning_rate(self, step: int) -> float:
        """Of step ``step`` of cfg.steps."""
        left = (self.cfg.steps - step) / max(1.0, self.cfg.anneal * self.cfg.steps)
        return self.cfg.lr * min(1.0, left)

    def losses(self, photo: Tensor, sketch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The paper's losses between the photo and D(E(sketch)), both pooled.

        With a feature map, a share of the faces is also generated from w+ alone: otherwise the map would explain
        everything and the codes would not be learned.
        """
        w_plus, features = self.psp.encode_all(sketch)
        w_plus, target, size = w_plus.float(), self.target(photo), self.preset.loss_size
        y = self.psp.decode(w_plus, features, size=size, noise="random")
        known = self.loss.targets(target, sketch)
        if self.done % self.cfg.measure_every == 0 and not self.shares:
            self.shares = self.measure(target, y, w_plus, known)
        total, parts = self.loss(target, y, w_plus, self.psp.latent_avg, known)
        n = round(self.cfg.plain * len(sketch)) if features is not None else 0
        if n:
            y = self.psp.decode(w_plus[:n], size=size, noise="random")
            first = {k: [f[:n] for f in v] if isinstance(v, list) else v[:n] for k, v in known.items()}
            plain, more = self.loss(target[:n], y, w_plus[:n], self.psp.latent_avg, first)
            total = total + n / len(sketch) * plain
            parts |= {f"plain_{k}": v for k, v in more.items()}
        return total, parts

    def measure(self, target: Tensor, y: Tensor, w_plus: Tensor, known: dict[str, Any]) -> Stats:
        """Each weighted loss's share of the gradient, as share_*; with attention_share, adjusts λ4 to it.

        The losses of the output are measured at the output: ‖∂λ_k L_k/∂y‖ of their sum of norms, as in
        :func:`s2flib.losses.gradient_shares`. The regulariser sees only w+ and is measured there, as its norm beside
        that of all other losses together. With attention_share s, λ4 is s / (1 − s) times the sum of the others' norms,
        divided by that of the attention loss; a weight that follows the gradients is known from VQGAN (Esser et al.
        2021, https://arxiv.org/abs/2012.09841, Eq. 7).
        """
        scale = self.update.scaler.scale  # float16 would lose small gradients; a common factor cancels
        losses = self.loss.image_losses(target, known)
        norms = gradient_norms({k: (lambda z, f=f: scale(f(z).float())) for k, f in losses.items()}, y)
        weighted = {k: getattr(self.loss.weights, k) * v for k, v in norms.items()}
        if self.cfg.attention_share is not None:
            share = self.cfg.attention_share
            others = sum(v for k, v in weighted.items() if k != "attention")
            value = float(share / (1 - share) * others / norms["attention"])
            if value > 0 and math.isfinite(value):  # else: nothing else to compare with
                self.loss.weights = replace(self.loss.weights, attention=value)
                weighted["attention"] = value * norms["attention"]
        everything = torch.stack(list(weighted.values())).sum() if weighted else torch.zeros(())
        shares: dict[str, Any] = {f"share_{k}": v / everything for k, v in weighted.items()}
        if self.loss.weights.reg and weighted:
            images = [getattr(self.loss.weights, k) * scale(f(y).float()) for k, f in losses.items()]
            regulariser = self.loss.weights.reg * scale(reg_loss(w_plus, self.psp.latent_avg))
            others, own = (
                torch.autograd.grad(loss, w_plus, retain_graph=True)[0].double().norm()
                for loss in (torch.stack(images).sum(), regulariser)
            )
            shares["share_reg"] = own / (others + own)
        return shares | {"lambda4": self.loss.weights.attention}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The same losses on the first validation samples, in eval mode with the stored noise."""
        sums: dict[str, float] = {}
        psp = self.averaged()
        for first in range(0, len(self.val), 16):
            samples = [self.val[i] for i in range(first, min(first + 16, len(self.val)))]
            photo, sketch = (x.to(self.device) for x in stack(samples))
            w_plus, features = psp.encode_all(sketch)
            y = psp.decode(w_plus, features, size=self.preset.loss_size)
            target = self.target(photo)
            _, parts = self.loss(target, y, w_plus, psp.latent_avg, self.loss.targets(target, sketch))
            for k, v in parts.items():
                sums[k] = sums.get(k, 0.0) + float(v) * len(samples)
        return {f"val_{k}": v / len(self.val) for k, v in sums.items()}

    @torch.no_grad()
    def picture(self) -> np.ndarray:
        """Rows of validation sketches, outputs and photos; with a feature map also the faces of w+ alone."""
        psp = self.averaged()
        samples = [self.val[i] for i in np.linspace(0, len(self.val) - 1, min(10, len(self.val))).astype(int)]
        photo, sketch = (x.to(self.device) for x in stack(samples))
        w_plus, features = psp.encode_all(sketch)
        rows = [sketch.expand(-1, 3, -1, -1) * 2 - 1, psp.decode(w_plus, features)]
        rows += [psp.decode(w_plus)] if features is not None else []
        return contact_sheet(to_array(torch.cat([*rows, photo])), columns=len(samples))

    @torch.no_grad()
    def typical_inputs(self, psp: PSP) -> InputDistance:
        """The distance that tells unusual inputs: statistics of training sketches, the limit from validation's."""
        train, val = [], []
        for step in range(-(-self.cfg.typical // self.cfg.batch)):
            seed_step(self.cfg.seed, step, self.acc.process_index)  # the sketches of that step
            train.append(psp.maps(self.feed(step)[1])[0])
        for i in range(len(self.val)):
            inputs = [self.val[i]["sketch"]]
            if self.cfg.people and self.cfg.lines and isinstance(self.val, SynthFaces):
                inputs.append(torch.from_numpy(self.val.drawing(i))[None].float() / 255)
            val += [psp.maps(x[None].to(self.device))[0] for x in inputs]
        distance = InputDistance(train[0].shape[1]).to(self.device)
        distance.fit(torch.cat(train), torch.cat(val))
        return distance

    def export(self, out: Path) -> None:
        """encoder.safetensors: encoder, w̄ and the distance of unusual inputs in float16, for
        :func:`s2flib.weights.load.load_psp`."""
        model = self.averaged()
        if self.cfg.typical and self.done >= self.cfg.steps:  # it takes half a minute: not at every checkpoint
            model.typical = self.typical_inputs(model)
        about = {"step": self.done, "lambda4": f"{self.loss.weights.attention:g}", "seed": self.cfg.seed}
        metadata = {name: str(value) for name, value in about.items()}
        save_psp(out / "encoder.safetensors", model, self.preset, overwrite=True, metadata=metadata)


def train_encoder(cfg: EncoderConfig) -> Path:
    """Run the training; returns ``out/encoder.safetensors``, which :func:`s2flib.weights.load.load_psp` reads."""
    cfg = cfg.resolved()
    train = None if cfg.people else open_dataset(cfg.preset, "train", root=cfg.data, limit=cfg.limit)
    val = open_dataset(cfg.preset, "val", root=cfg.data, limit=cfg.val_limit)
    run_training(EncoderTrainer(cfg, train, val, make_accelerator(cfg.cpu)))
    return Path(cfg.out) / "encoder.safetensors"


def start_from(encoder: GradualStyleEncoder, path: str, preset: Preset, latent_avg: Tensor) -> None:
    """Initialise ``encoder`` in place from encoder.safetensors or renderer.safetensors.

    Every encoder was trained relative to its own w̄; the heads' biases are corrected for the difference from
    ``latent_avg``, (style_dim,), that of the generator that will be frozen.
    """
    _, meta = safe_load(path, with_metadata=True)
    kind = meta.get("kind", "")
    if kind not in ("psp", "neural-renderer"):
        raise WeightsError(
            f"{path} contains no sketch encoder: pass --init an encoder.safetensors written by s2f train --what "
            "encoder, or a renderer.safetensors written by s2f train --what renderer."
        )
    tensors = load_tensors(path, kind, preset.name)
    by = tensors["latent_avg" if kind == "psp" else "w_avg"] - latent_avg  # (n_styles, D) or (D,)
    own = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
    for key in own:
        if head := re.fullmatch(r"styles\.(\d+)\.linear\.bias", key):
            own[key] = own[key] + (by[int(head[1])] if by.ndim == 2 else by)
    load_strict(encoder, own, path)
