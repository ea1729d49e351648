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
- adversary: what no cause determines (single hairs, the exact background) is blurred by these losses. A critic that
  knows the causes sharpens it, of people with a photo and of people who have causes only.

It grows like a progressive GAN (Karras et al. 2018): the coarse layers first, alone (``reconstructed=0``), at 8, 16 and
32 px, where a step costs a tenth. From the feature map's resolution on, everything is trained together. The ``mapping``
training (training/mapping.py) then learns z → w, and pSp's own training
(training/encoder.py) continues the encoder in front of the frozen generator.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.datasets.faces import SynthFaces, open_dataset
from s2flib.datasets.live import SEED, Pool, identity_number
from s2flib.errors import S2FError, WeightsError
from s2flib.images import contact_sheet, to_array
from s2flib.judges.load import identity_judge, perceptual_judge
from s2flib.judges.synthface_id import face_crop
from s2flib.presets import get_preset
from s2flib.sketch import sketch
from s2flib.synthfaces.causes import cause_names, causes
from s2flib.training.feed import PeopleFeed
from s2flib.training.loop import run_training
from s2flib.training.renderer_networks import CauseCritic, RendererNetworks
from s2flib.training.trainer import RunConfig, Stats, Trainer, Updates, make_accelerator, placed, update_average
from s2flib.weights.load import load_tensors, save_safetensors

FRESH = SEED + 1  # seed of the people who have causes only


@dataclass(frozen=True, kw_only=True)
class RendererConfig(RunConfig):
    """One run of neural-renderer training."""

    people: tuple[str, ...] = ()  # folders of s2f render-people; the last may still be growing
    steps: int = 20_000
    batch: int = 16
    size: int | None = None  # of the pictures, from 8; smaller than the preset's: a stage to grow from
    lr: float = 2e-3  # Adam; the encoder's is half of it
    anneal: float = 0.3  # the last share of the steps in which lr falls linearly to zero
    lines: float = 0.4  # share of line drawings; the rest are pencil sketches
    reconstructed: float = 1.0  # share of the batch that is drawn from its sketches
    rendered: float = 0.25  # share of the batch that is drawn from w alone
    rendered_judged: bool = False  # perceptual and identity losses there, too: once the pixels are right, not before
    lambda_lpips: float = 0.0  # perceptual distance: at 128 px of the face and of the picture at half size in turn
    lambda_id: float = 0.0  # identity loss (the training judge)
    lambda_features: float = 0.1  # T follows F
    lambda_codes: float = 0.1  # the encoder's w+ follows w
    lambda_adv: float = 0.0  # adversarial loss; its weight grows from zero over the first tenth of the steps
    fresh: float = 0.0  # share of the batch that is drawn, for the critic alone, from causes of people without a photo
    r1_gamma: float = 1.0
    r1_every: int = 16
    compile: bool = False  # torch.compile the generator; pays on a CPU after a minute
    ema_images: float = 5_000  # half-life of the weights' moving average, in images
    init: str | None = None  # renderer.safetensors of an earlier stage
    val_people: int = 150  # held-out people of validation


class RendererTrainer(Trainer):
    """One step: a batch of people → reconstruction, rendering and code losses → one update of all networks."""

    kind = "neural-renderer"
    saved = ("nets", "ema", "w_avg", "update", "critic", "update_critic")
    several_processes = False

    def __init__(self, cfg: RendererConfig, people: Pool, val: SynthFaces, accelerator):
        super().__init__(cfg, accelerator)
        self.preset, self.val = get_preset(cfg.preset), val
        if self.preset.feature_side is None or people.size != self.preset.size:
            raise S2FError("neural-renderer training needs a preset with a feature map, and people of its size.")
        for name in ("lines", "reconstructed", "rendered", "anneal", "fresh"):
            if not 0 <= getattr(cfg, name) <= 1:
                raise S2FError(f"{name} is a share, 0 to 1, not {getattr(cfg, name)}.")
        self.size = cfg.size or self.preset.size
        self.below = self.size < self.preset.feature_side  # a stage of the coarse layers alone
        if not 8 <= self.size <= self.preset.size or self.size & (self.size - 1):
            raise S2FError(f"size is a power of two from 8 to {self.preset.size}, not {self.size}.")
        if self.below and round(cfg.reconstructed * cfg.batch):
            raise S2FError(
                f"below {self.preset.feature_side} px nothing is drawn from sketches: set reconstructed=0 rendered=1."
            )
        if not round(cfg.reconstructed * cfg.batch) + round(cfg.rendered * cfg.batch):
            raise S2FError(f"a batch of {cfg.batch} would draw nothing: raise reconstructed or rendered.")
        self.feed = PeopleFeed(people, cfg.batch, cfg.seed, accelerator, cfg.lines)
        self.nets = RendererNetworks(self.preset, len(cause_names()), self.size)
        self.nets.causes.fit(people.batch(np.arange(min(len(people), 4000)))[3])
        self.w_avg = torch.zeros(self.preset.style_dim, device=self.device)
        if cfg.init:
            self.grow_from(cfg.init)
        placed(self.nets, self.device)
        generator = self.nets.generator
        self.synthesis = torch.compile(generator.synthesis, dynamic=False) if cfg.compile else generator.synthesis
        self.ema = copy.deepcopy(self.nets).eval().requires_grad_(False)
        slow = list(self.nets.encoder.parameters())
        fast = [p for name, p in self.nets.named_parameters() if not name.startswith("encoder.")]
        groups = [{"params": fast}, {"params": slow, "share": 0.5}]
        fused = self.device.type == "cuda"
        self.update = Updates(torch.optim.Adam(groups, cfg.lr, betas=(0.9, 0.99), fused=fused), self, clip=10.0)
        self.critic = nn.Module()  # nothing to save
        self.update_critic: Any = self.critic
        if cfg.lambda_adv:
            self.critic = placed(CauseCritic(self.preset, self.size, len(cause_names())), self.device)
            critic = torch.optim.Adam(self.critic.parameters(), cfg.lr, betas=(0.0, 0.99), fused=fused)
            self.update_critic = Updates(critic, self)
        self.perceptual: Any = None  # (x, y) → distances
        self.embed: Any = None  # photos → embeddings of the training judge
        if cfg.lambda_lpips:
            self.perceptual = placed(perceptual_judge(self.preset), self.device)
        if cfg.lambda_id:
            self.embed = placed(identity_judge(self.preset, role="train"), self.device).embed

    def grow_from(self, path: str) -> None:
        """Start from renderer.safetensors of this size, or of half of it: a resolution above the feature map's starts
        without a picture."""
        tensors = load_tensors(path, self.kind, self.preset.name)
        self.w_avg.copy_(tensors.pop("w_avg"))
        own = self.nets.state_dict()
        new = own.keys() - tensors.keys()
        may_be_new = ("generator.convs.", "generator.to_rgbs.", "generator.noises.")
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
        known = torch.cat([known, self.fresh_causes(round(cfg.fresh * b))]) if cfg.lambda_adv else known
        codes = features = coarse = torch.empty(0)
        w = nets.causes(known)
        self.w_avg.lerp_(w.detach().mean(0), 0.01)
        w_plus = generator.expand(w)
        with self.autocast():
            alone = torch.cat([w_plus[:n], w_plus[b:]])
            if self.below:
                y = nets.preview(alone, noise="random").float()
            else:
                if r:
                    codes, features = nets.encode(sketches[:r], self.w_avg)
                if len(alone):
                    coarse = generator.coarse_features(alone, side, noise="random")
                inputs = torch.cat([x for x in (features, coarse) if len(x)])
                y = self.synthesis(torch.cat([w_plus[:r], alone]), noise="random", features=inputs).float()
        photo, stats = self.resize(photo), {}
        loss = torch.zeros((), device=self.device)
        if r:
            reconstructed, more = self.picture_losses(photo[:r], y[:r])
            more["codes"] = F.mse_loss(codes.float(), w_plus[:r].detach()) / (w.detach().var(0).mean() + 1e-4)
            loss = loss + r / b * reconstructed + cfg.lambda_codes * more["codes"]
            stats |= more
        if n:
            rendered, more = self.picture_losses(photo[:n], y[r : r + n], cfg.rendered_judged)
            loss = loss + n / b * rendered
            stats |= {f"rendered_{k}": v for k, v in more.items()}
        if both := min(r, n):
            features = features.detach().float()
            stats["features"] = F.mse_loss(coarse[:both].float(), features[:both]) / (features.var(0).mean() + 1e-4)
            loss = loss + n / b * cfg.lambda_features * stats["features"]
        if cfg.lambda_adv:
            told = nets.causes.standardise(known)
            fake, of_fake = y, torch.cat([told[:r], told[:n], told[b:]])
            self.critic.requires_grad_(False)
            stats["adversarial"] = F.softplus(-self.critic(fake, of_fake)).mean()
            self.critic.requires_grad_(True)
            loss = loss + cfg.lambda_adv * min(1.0, self.done / (0.1 * cfg.steps)) * stats["adversarial"]
        self.update(loss, lr=self.learning_rate())
        if cfg.lambda_adv:
            stats |= self.update_the_critic(photo, told[:b], fake.detach(), of_fake)
        update_average(self.ema, self.nets, cfg.batch, cfg.ema_images, self.done + 1)
        return {k: v.detach() for k, v in stats.items()}

    def fresh_causes(self, n: int) -> Tensor:
        """Causes (n, C) of people whom no data set contains; a person takes 2 ms."""
        cfg, first = self.cfg, self.done * n
        new = [causes(FRESH + cfg.seed, identity_number(first + k)) for k in range(n)]
        return torch.from_numpy(np.array(new, np.float32).reshape(n, len(cause_names()))).to(self.device)

    def update_the_critic(self, photo: Tensor, of_photo: Tensor, fake: Tensor, of_fake: Tensor) -> Stats:
        """The critic's update: softplus(D(fake)) + softplus(−D(photo)), and lazy R1 (StyleGAN2, Sec. 3.1)."""
        cfg, stats = self.cfg, {}
        on_fake, on_real = self.critic(fake, of_fake), self.critic(photo, of_photo)
        loss = stats["critic"] = F.softplus(on_fake).mean() + F.softplus(-on_real).mean()
        stats["critic_right"] = 0.5 * ((on_real > 0).float().mean() + (on_fake < 0).float().mean())
        if self.done % cfg.r1_every == 0:
            photo = photo.detach().requires_grad_()
            (grad,) = torch.autograd.grad(self.critic(photo, of_photo).sum(), photo, create_graph=True)
            stats["r1"] = grad.square().sum((1, 2, 3)).mean()
            loss = loss + cfg.r1_gamma / 2 * cfg.r1_every * stats["r1"]
        self.update_critic(loss, lr=self.learning_rate())
        return stats

    def resize(self, photo: Tensor) -> Tensor:
        return photo if self.size == photo.shape[-1] else F.adaptive_avg_pool2d(photo, self.size)

    def picture_losses(self, photo: Tensor, y: Tensor, judged: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
        """L1 of the picture and of the face; if ``judged``, also the perceptual and identity losses."""
        cfg, side = self.cfg, photo.shape[-1] // 2
        x_face, y_face = face_crop(photo, side, 0.5), face_crop(y, side, 0.5)
        stats = {"l1": (y - photo).abs().mean(), "face": (y_face - x_face).abs().mean()}
        loss = stats["l1"] + stats["face"]
        if judged and self.perceptual is not None:
            if side >= 64 and self.done % 2:  # the face and the picture take turns
                stats["lpips_face"] = self.perceptual(x_face, y_face).mean()
                loss = loss + cfg.lambda_lpips * stats["lpips_face"]
            else:
                small = F.adaptive_avg_pool2d(torch.cat([photo, y]), 64).chunk(2)
                stats["lpips"] = self.perceptual(*small).mean()
                loss = loss + cfg.lambda_lpips * stats["lpips"]
        if judged and self.embed is not None:
            with torch.no_grad():
                target = self.embed(photo)
            stats["id"] = 1 - (target * self.embed(y)).sum(1).mean()
            loss = loss + cfg.lambda_id * stats["id"]
        return loss, stats

    @torch.no_grad()
    def faces(self, samples: dict[str, Tensor]) -> dict[str, Tensor]:
        """Generated faces (N, 3, S, S) of samples: from pencil and line drawing, with the true w, and from w alone."""
        nets, g = self.ema, self.ema.generator
        out: dict[str, list[Tensor]] = {k: [] for k in self.ways}
        for first in range(0, len(samples["photo"]), 25):
            part = {k: v[first : first + 25].to(self.device) for k, v in samples.items()}
            w_plus = g.expand(nets.causes(part["causes"]))
            for kind in self.ways[:-2]:
                codes, features = nets.encode(part[kind], self.w_avg)
                out[kind].append(g.synthesis(codes, features=features))
                if kind == "pencil":
                    out["true_w"].append(g.synthesis(w_plus, features=features))
            out["rendered"].append(nets.preview(w_plus) if self.below else g.synthesis(w_plus))
        side = self.preset.size
        return {k: enlarge(torch.cat(v).float().clamp(-1, 1), side).cpu() for k, v in out.items()}

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways to a face that this stage learns."""
        return ("rendered",) if self.below else ("pencil", "line", "true_w", "rendered")

    def held_out(self) -> dict[str, Tensor]:
        """Validation people: photo, pencil sketch, line drawing and causes of their second photo; their first photo."""
        if not hasattr(self, "_held_out"):
            second = [i for i, name in enumerate(self.val.names) if name.endswith("_1")][: self.cfg.val_people]
            first = {int(self.val.identities[i]): i for i, name in enumerate(self.val.names) if name.endswith("_0")}
            items = [self.val[i] for i in second]
            photo = torch.stack([s["photo"] for s in items])
            self._held_out = {
                "photo": photo,
                "pencil": sketch(photo, torch.stack([s["mask"] for s in items])),
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
        face, the photo's causes rendered; for the coarse layers alone, the photo and its causes rendered."""
        samples = {k: v[:: max(1, len(v) // 12)][:12] for k, v in self.held_out().items()}
        y = self.faces(samples)
        rgb = {k: samples[k].expand(-1, 3, -1, -1) * 2 - 1 for k in ("pencil", "line")}
        rows = [samples["photo"], y["rendered"]]
        if not self.below:
            rows = [rgb["pencil"], y["pencil"], y["true_w"], rows[0], rgb["line"], y["line"], rows[1]]
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
