"""Training of the tiny generator and sketch encoder as a neural renderer.

StyleGAN2's adversarial training needs about 500,000 photos before people vary, days on a laptop. SynthFaces knows more
than photos: for every photo it knows the *causes* (``synthfaces.causes``) and the drawing. So the networks learn with
targets:

    causes → CauseEncoder → w → coarse layers → features T      ┐
    sketch → encoder → features F and codes w+                  ├→ fine layers, modulated by w → photo
                                                                ┘
- reconstruction: the fine layers draw the photo from F and the true w. F knows the drawing, w knows what a drawing
  leaves open (skin, hair and eye colour, light, background), so each learns its part.
- rendering: T follows F, and part of the batch is drawn from w alone, so every w in W is a face.
- codes: the encoder's w+ follows w.

Everything is trained together; ``mapping`` training (training/mapping.py) then learns z → w, and pSp's own training
(training/encoder.py) continues the encoder in front of the frozen generator.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.datasets.faces import SynthFaces, open_dataset
from s2flib.datasets.live import Pool
from s2flib.errors import S2FError, WeightsError
from s2flib.images import contact_sheet, to_array
from s2flib.judges.load import identity_judge, perceptual_judge
from s2flib.judges.synthface_id import face_crop
from s2flib.presets import get_preset
from s2flib.psp import GradualStyleEncoder
from s2flib.sketch import CODE_SIGMA, sketch
from s2flib.stylegan2 import Generator
from s2flib.synthfaces.causes import cause_names, causes
from s2flib.training.feed import PeopleFeed
from s2flib.training.loop import run_training
from s2flib.training.trainer import RunConfig, Stats, Trainer, Updates, make_accelerator, update_average
from s2flib.weights.load import load_tensors, save_safetensors


@dataclass(frozen=True, kw_only=True)
class RendererConfig(RunConfig):
    """One run of neural-renderer training."""

    people: tuple[str, ...] = ()  # folders of s2f render-people; the last may still be growing
    steps: int = 20_000
    batch: int = 16
    size: int | None = None  # of the pictures; smaller than the preset's: a stage to grow from
    lr: float = 2e-3  # Adam; the encoder's is half of it
    anneal: float = 0.3  # the last share of the steps in which lr falls linearly to zero
    lines: float = 0.4  # share of line drawings; the rest are pencil sketches
    reconstructed: float = 1.0  # share of the batch that is drawn from its sketches
    rendered: float = 0.25  # share of the batch that is drawn from w alone
    rendered_judged: bool = False  # perceptual and identity losses there, too: once the pixels are right, not before
    lambda_lpips: float = 0.0  # perceptual distance of the face, and of the picture at half size
    lambda_id: float = 0.0  # identity loss (the training judge)
    lambda_features: float = 0.1  # T follows F
    lambda_codes: float = 0.1  # the encoder's w+ follows w
    compile: bool = False  # torch.compile the generator; pays on a CPU after a minute
    ema_images: float = 5_000  # half-life of the weights' moving average, in images
    init: str | None = None  # renderer.safetensors of an earlier stage
    val_people: int = 150  # held-out people of validation


class CauseEncoder(nn.Module):
    """Causes (B, C) → w (B, style_dim): standardised, then three layers. It is needed in training only."""

    mean: Tensor
    std: Tensor

    def __init__(self, n_causes: int, style_dim: int, width: int = 512):
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_causes))
        self.register_buffer("std", torch.ones(n_causes))
        self.layers = nn.Sequential(
            nn.Linear(n_causes, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2),
            nn.Linear(width, style_dim),
        )  # fmt: skip
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, a=0.2)

    def fit(self, samples: np.ndarray) -> None:
        """Set mean and standard deviation from samples (N, C)."""
        self.mean.copy_(torch.from_numpy(samples.mean(0)))
        self.std.copy_(torch.from_numpy(samples.std(0)) + 1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(((x - self.mean) / self.std).clamp(-4, 4))


class RendererNetworks(nn.Module):
    """Everything that is trained, in one state dict."""

    def __init__(self, preset, n_causes: int, size: int):
        super().__init__()
        self.causes = CauseEncoder(n_causes, preset.style_dim)
        self.generator = Generator.from_preset(preset, size)
        # weights stay in the default memory format: in channels_last, oneDNN (torch 2.14) wrote out of bounds in the
        # backward pass of narrow convolutions
        self.encoder = GradualStyleEncoder.from_preset(preset)
        # No image below the feature map's resolution: G(w) is then the same as G(w, features=coarse_features(w)).
        to_rgbs = [self.generator.to_rgb1, *self.generator.to_rgbs]
        for to_rgb in to_rgbs[: int(math.log2(preset.feature_side)) - 2]:
            to_rgb.conv.weight.data.zero_()
            to_rgb.requires_grad_(False)

    def encode(self, sketches: Tensor, w_avg: Tensor) -> tuple[Tensor, Tensor]:
        """Sketches (B, 1, H, W) → w+ (B, n_styles, D) and features (B, C, s, s)."""
        maps = self.encoder.features(sketches)
        codes = self.encoder.codes(maps)[:, : self.generator.n_styles] + w_avg
        features = self.encoder.feature_map(maps)
        assert features is not None
        return codes, features


class RendererTrainer(Trainer):
    """One step: a batch of people → reconstruction, rendering and code losses → one update of all networks."""

    kind = "neural-renderer"
    saved = ("nets", "ema", "w_avg", "update")
    several_processes = False

    def __init__(self, cfg: RendererConfig, people: Pool, val: SynthFaces, accelerator):
        super().__init__(cfg, accelerator)
        self.preset, self.val = get_preset(cfg.preset), val
        if self.preset.feature_side is None or people.size != self.preset.size:
            raise S2FError("neural-renderer training needs a preset with a feature map, and people of its size.")
        for name in ("lines", "reconstructed", "rendered", "anneal"):
            if not 0 <= getattr(cfg, name) <= 1:
                raise S2FError(f"{name} is a share, 0 to 1, not {getattr(cfg, name)}.")
        if round(cfg.reconstructed * cfg.batch) < 1:
            raise S2FError(f"a batch of {cfg.batch} has no sketch to draw from: raise reconstructed.")
        self.feed = PeopleFeed(people, cfg.batch, cfg.seed, accelerator, cfg.lines)
        self.size = cfg.size or self.preset.size
        self.nets = RendererNetworks(self.preset, len(cause_names()), self.size)
        self.nets.causes.fit(people.batch(np.arange(min(len(people), 4000)))[3])
        self.w_avg = torch.zeros(self.preset.style_dim, device=self.device)
        if cfg.init:
            self.grow_from(cfg.init)
        self.nets.to(self.device)
        generator = self.nets.generator
        self.synthesis = torch.compile(generator.synthesis, dynamic=False) if cfg.compile else generator.synthesis
        self.ema = copy.deepcopy(self.nets).eval().requires_grad_(False)
        slow = list(self.nets.encoder.parameters())
        fast = [*self.nets.causes.parameters(), *self.nets.generator.parameters()]
        groups = [{"params": fast}, {"params": slow, "share": 0.5}]
        self.update = Updates(torch.optim.Adam(groups, cfg.lr, betas=(0.9, 0.99)), self, clip=10.0)
        self.perceptual = perceptual_judge(self.preset).to(self.device) if cfg.lambda_lpips else None
        self.id_judge = identity_judge(self.preset, role="train").to(self.device) if cfg.lambda_id else None

    def grow_from(self, path: str) -> None:
        """Start from renderer.safetensors of this size, or of half of it: the new resolution starts without a
        picture."""
        tensors = load_tensors(path, self.kind, self.preset.name)
        self.w_avg.copy_(tensors.pop("w_avg"))
        own = self.nets.state_dict()
        new = own.keys() - tensors.keys()
        may_be_new = tuple(f"generator.{part}" for part in ("convs.", "to_rgbs.", "noises."))
        if any(not k.startswith(may_be_new) for k in new) or any(
            k not in own or own[k].shape != v.shape for k, v in tensors.items()
        ):
            raise WeightsError(
                f"{path} does not fit this preset: it was written for another one or by another version."
            )
        self.nets.load_state_dict(tensors, strict=False)
        for name in new:
            if ".to_rgbs." in name and name.endswith(("conv.weight", ".bias")) and "modulation" not in name:
                self.nets.get_parameter(name).data.zero_()

    def state(self) -> dict:
        return super().state() | {"people": self.feed.used}

    def load(self, state: dict) -> None:
        super().load(state)
        self.feed.used = state["people"]

    def learning_rate(self) -> float:
        """Of this step: a ramp of 100 steps, constant, then linear to zero over the last ``anneal`` of the steps."""
        cfg, k = self.cfg, self.done
        left = (cfg.steps - k) / max(1.0, cfg.anneal * cfg.steps)
        return cfg.lr * min(1.0, left, (k + 1) / 100)

    def train_step(self) -> Stats:
        cfg, nets = self.cfg, self.nets
        photo, sketches, known = self.feed.everything(self.done)
        generator, side, b = nets.generator, self.preset.feature_side, len(photo)
        assert side is not None
        r, n = round(cfg.reconstructed * b), round(cfg.rendered * b)  # the first r from sketches, the first n from w
        with self.autocast():
            w = nets.causes(known).float()
            self.w_avg.lerp_(w.detach().mean(0), 0.01)
            w_plus = generator.expand(w)
            codes, features = nets.encode(sketches[:r], self.w_avg)
            coarse = generator.coarse_features(w_plus[:n], side, noise="random")
            inputs = torch.cat([features, coarse])
            y = self.synthesis(torch.cat([w_plus[:r], w_plus[:n]]), noise="random", features=inputs).float()
        photo, features, both = self.resize(photo), features.detach().float(), min(r, n)
        loss, stats = self.picture_losses(photo[:r], y[:r])
        loss = loss * r / b
        if n:
            rendered, more = self.picture_losses(photo[:n], y[r:], cfg.rendered_judged)
            stats |= {f"rendered_{k}": v for k, v in more.items()}
            stats["features"] = F.mse_loss(coarse[:both].float(), features[:both]) / (features.var(0).mean() + 1e-4)
            loss = loss + n / b * (rendered + cfg.lambda_features * stats["features"])
        stats["codes"] = F.mse_loss(codes.float(), w_plus[:r].detach()) / (w.detach().var(0).mean() + 1e-4)
        loss = loss + cfg.lambda_codes * stats["codes"]
        self.update(loss, lr=self.learning_rate())
        update_average(self.ema, self.nets, cfg.batch, cfg.ema_images, self.done + 1)
        return {k: v.detach() for k, v in stats.items()}

    def resize(self, photo: Tensor) -> Tensor:
        return photo if self.size == photo.shape[-1] else F.adaptive_avg_pool2d(photo, self.size)

    def picture_losses(self, photo: Tensor, y: Tensor, judged: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
        """L1 of the picture and of the face; if ``judged``, also the perceptual and identity losses."""
        cfg, side = self.cfg, photo.shape[-1] // 2
        x_face, y_face = face_crop(photo, side, 0.5), face_crop(y, side, 0.5)
        stats = {"l1": (y - photo).abs().mean(), "face": (y_face - x_face).abs().mean()}
        loss = stats["l1"] + stats["face"]
        if judged and self.perceptual is not None:
            small = F.adaptive_avg_pool2d(torch.cat([photo, y]), 64).chunk(2)
            stats["lpips"] = self.perceptual(*small).mean()
            loss = loss + cfg.lambda_lpips * stats["lpips"]
            if side >= 64:
                stats["lpips_face"] = self.perceptual(x_face, y_face).mean()
                loss = loss + cfg.lambda_lpips * stats["lpips_face"]
        if judged and self.id_judge is not None:
            with torch.no_grad():
                target = self.id_judge.embed(photo)
            stats["id"] = 1 - (target * self.id_judge.embed(y)).sum(1).mean()
            loss = loss + cfg.lambda_id * stats["id"]
        return loss, stats

    @torch.no_grad()
    def faces(self, samples: dict[str, Tensor]) -> dict[str, Tensor]:
        """Generated faces (N, 3, S, S) of samples: from pencil and line drawing, with the true w, and from w alone."""
        nets, g = self.ema, self.ema.generator
        out: dict[str, list[Tensor]] = {k: [] for k in ("pencil", "line", "true_w", "rendered")}
        for first in range(0, len(samples["photo"]), 25):
            part = {k: v[first : first + 25].to(self.device) for k, v in samples.items()}
            w_plus = g.expand(nets.causes(part["causes"]))
            for kind in ("pencil", "line"):
                codes, features = nets.encode(part[kind], self.w_avg)
                out[kind].append(g.synthesis(codes, features=features))
                if kind == "pencil":
                    out["true_w"].append(g.synthesis(w_plus, features=features))
            out["rendered"].append(g.synthesis(w_plus))
        side = self.preset.size
        return {k: enlarge(torch.cat(v).float().clamp(-1, 1), side).cpu() for k, v in out.items()}

    def held_out(self) -> dict[str, Tensor]:
        """Validation people: photo, pencil sketch, line drawing and causes of their second photo; their first photo."""
        if not hasattr(self, "_held_out"):
            second = [i for i, name in enumerate(self.val.names) if name.endswith("_1")][: self.cfg.val_people]
            first = {int(self.val.identities[i]): i for i, name in enumerate(self.val.names) if name.endswith("_0")}
            items = [self.val[i] for i in second]
            photo = torch.stack([s["photo"] for s in items])
            self._held_out = {
                "photo": photo,
                "pencil": sketch(photo, torch.stack([s["mask"] for s in items]), CODE_SIGMA * photo.shape[-1]),
                "line": torch.stack([torch.from_numpy(self.val.drawing(i))[None].float() / 255 for i in second]),
                "causes": torch.from_numpy(np.stack([causes(self.val.seed, s["identity"], 1) for s in items])),
                "other": torch.stack([self.val[first[s["identity"]]]["photo"] for s in items]),
            }
        return self._held_out

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Held-out people: MSE, similarity and rank-1 / rank-10 against another photo, by the measuring judge."""
        self.feed.refresh()  # new people join at checkpoints only, so that a resumed run sees the same ones
        samples, judge = self.held_out(), identity_judge(self.preset, role="measure").to(self.device)

        def embed(x: Tensor) -> Tensor:
            return torch.cat([judge.embed(part.to(self.device)).cpu() for part in x.split(50)])

        gallery, truth = embed(samples["other"]), embed(samples["photo"])
        out: dict[str, float] = {"people": float(self.feed.used)}
        for name, y in self.faces(samples).items():
            e = embed(y)
            scores = e @ gallery.T
            rank = (scores > scores.diagonal()[:, None]).sum(1)
            out |= {
                f"val_{name}_mse": float(F.mse_loss(y, samples["photo"])),
                f"val_{name}_similarity": float((e * truth).sum(1).mean()),
                f"val_{name}_rank1": float((rank < 1).float().mean()),
                f"val_{name}_rank10": float((rank < 10).float().mean()),
            }
        return out

    @torch.no_grad()
    def picture(self) -> np.ndarray:
        """Columns: held-out people. Rows: pencil sketch, its face, the same with the true w, photo, line drawing, its
        face, the photo's causes rendered."""
        samples = {k: v[:: max(1, len(v) // 12)][:12] for k, v in self.held_out().items()}
        y = self.faces(samples)
        rgb = {k: samples[k].expand(-1, 3, -1, -1) * 2 - 1 for k in ("pencil", "line")}
        rows = [rgb["pencil"], y["pencil"], y["true_w"], samples["photo"], rgb["line"], y["line"], y["rendered"]]
        return contact_sheet(to_array(torch.cat(rows)), columns=len(samples["photo"]))

    def export(self, out: Path) -> None:
        """renderer.safetensors: the moving averages of all networks, float16."""
        meta = {"kind": self.kind, "preset": self.preset.name, "images": str(self.done * self.cfg.batch)}
        tensors = dict(self.ema.state_dict()) | {"w_avg": self.w_avg}
        save_safetensors(out / "renderer.safetensors", tensors, meta, overwrite=True)


def enlarge(x: Tensor, side: int) -> Tensor:
    """Pictures of a smaller stage at the preset's size, for the judges and for the eye."""
    return x if x.shape[-1] == side else F.interpolate(x, size=(side, side), mode="bilinear")


def train_renderer(cfg: RendererConfig) -> Path:
    """Run the training; returns ``out/renderer.safetensors``."""
    val = open_dataset(cfg.preset, "val", root=cfg.data)
    assert isinstance(val, SynthFaces)
    run_training(RendererTrainer(cfg, Pool(cfg.people), val, make_accelerator(cfg.cpu)))
    return Path(cfg.out) / "renderer.safetensors"
