"""StyleGAN2's losses: adversarial, R1, path length, reconstruction (generator.py has the training loop).

Also the networks that are trained together, and their initialisation from an earlier run.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.errors import WeightsError
from s2flib.judges.synthface_id import face_crop
from s2flib.psp import GradualStyleEncoder
from s2flib.stylegan2 import Discriminator, Generator
from s2flib.training.photo_encoder import encode_photo
from s2flib.training.projected import ProjectedCritic, augment
from s2flib.weights.load import safe_load

KIND = "stylegan2-training"


class Networks(nn.Module):
    """Everything that is trained, in one state dict: generator, ema, critic, encoder, w_avg."""

    w_avg: Tensor

    def __init__(self, preset, size: int, critic: str = "stylegan2"):
        super().__init__()
        self.generator = Generator.from_preset(preset, size)
        if critic == "projected":
            self.critic = ProjectedCritic(side=96 if size <= 64 else 128)
        else:
            self.critic = Discriminator.from_preset(preset, size)
        self.encoder = GradualStyleEncoder.from_preset(preset, input_nc=3)
        self.ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.register_buffer("w_avg", torch.zeros(self.generator.style_dim))

    def encode(self, photo: Tensor) -> Tensor:
        """photo (B, 3, H, W) → w+ (B, n_styles of the current size, D), around w̄."""
        return encode_photo(self.encoder, photo)[:, : self.generator.n_styles] + self.w_avg

    def sample_w(self, n: int, mixing: float) -> Tensor:
        """w+ (n, n_styles, D) of random faces, with this probability of style mixing; updates the running mean w̄."""
        g, device = self.generator, self.w_avg.device
        w = g.mapping(torch.randn(n, g.style_dim, device=device))
        self.w_avg.lerp_(w.detach().mean(0), 0.005)
        if torch.rand(()) < mixing:
            other = g.mapping(torch.randn(n, g.style_dim, device=device))
            return g.mix(w, other, int(torch.randint(1, g.n_styles, ())))
        return g.expand(w)


class GanLoss:
    """Every loss of the generator's training, for the :class:`Networks` and weights of a GeneratorConfig.

    Each method returns a loss to minimise and writes its values to ``stats``.
    """

    def __init__(self, nets: Networks, cfg, perceptual: nn.Module | None):
        """cfg: generator.GeneratorConfig. perceptual: judge of reconstructions, or None."""
        self.nets, self.cfg, self.perceptual = nets, cfg, perceptual
        self.projected = isinstance(nets.critic, ProjectedCritic)
        device = nets.w_avg.device
        self.codes = torch.zeros(0, nets.generator.style_dim, device=device)  # E's latest codes, for the SWD
        self.path_mean = torch.zeros((), device=device)

    def state_dict(self) -> dict:
        return {"codes": self.codes, "path_mean": self.path_mean}

    def load_state_dict(self, state: dict) -> None:
        self.codes, self.path_mean = (state[k].to(self.path_mean.device) for k in ("codes", "path_mean"))

    def generator(self, fake: Tensor) -> Tensor:
        """softplus(−D(fake)); for the projected critic's four scales −Σ D(fake), the hinge loss's generator term."""
        if self.projected:
            return -4 * self.nets.critic(augment(fake)).mean()
        return F.softplus(-self.nets.critic(fake)).mean()

    def critic(self, photo: Tensor, fake: Tensor, stats: dict[str, Tensor]) -> Tensor:
        """softplus(D(fake)) + softplus(−D(photo)); for the projected critic the hinge loss."""
        critic = self.nets.critic
        if self.projected:
            on_real, on_fake = critic(augment(photo)), critic(augment(fake))
            loss = F.relu(1 + on_fake).mean() + F.relu(1 - on_real).mean()
        else:
            on_real, on_fake = critic(photo), critic(fake)
            loss = F.softplus(on_fake).mean() + F.softplus(-on_real).mean()
        correct = 0.5 * ((on_real > 0).float().mean() + (on_fake < 0).float().mean())
        stats |= {
            "d_loss": loss.detach(),
            "d_real": on_real.mean().detach(),
            "d_fake": on_fake.mean().detach(),
            "d_correct": correct.detach(),
        }
        return loss

    def r1(self, photo: Tensor, stats: dict[str, Tensor]) -> Tensor:
        """Lazy R1: γ/2 · E|∇_x D(x)|² on real photos, times the interval (StyleGAN2, Sec. 3.1)."""
        photo = photo.detach().requires_grad_()
        (grad,) = torch.autograd.grad(self.nets.critic(photo).sum(), photo, create_graph=True)
        penalty = grad.square().sum((1, 2, 3)).mean()
        stats["r1"] = penalty.detach()
        return penalty * (self.cfg.r1_gamma / 2 * self.cfg.r1_every)

    def path_length(self, n: int, stats: dict[str, Tensor]) -> Tensor:
        """Lazy path-length regularisation of n random faces, times the interval (StyleGAN2, Eq. 4)."""
        w = self.nets.sample_w(n, self.cfg.mixing)
        pictures = self.nets.generator.synthesis(w, noise="random")
        penalty, self.path_mean = path_length(pictures, w, self.path_mean)
        stats["path_length"] = penalty.detach()
        # + 0 · pictures: includes every parameter, so that all processes reduce the same gradients
        return penalty * (self.cfg.path_weight * self.cfg.path_every) + 0 * pictures.mean()

    def reconstruction(self, photo: Tensor, fake: Tensor, stats: dict[str, Tensor]) -> Tensor:
        """λ_rec |x − y|₁ + λ_lpips LPIPS (at half the size) + λ_feat distance of the critic's features.

        Eyes and mouth cover a twentieth of a portrait but contain most of the identity, so λ_face adds the first two
        terms again for the centre of the face, at full size.
        """
        cfg, critic = self.cfg, self.nets.critic
        pixels = (fake - photo).abs().mean()
        loss = cfg.lambda_rec * pixels
        stats |= {"rec_l1": pixels.detach(), "rec_mse": (fake.detach() - photo).square().mean().detach()}
        if self.perceptual is not None:
            half = max(32, photo.shape[-1] // 2)
            lpips = self.perceptual(*(F.adaptive_avg_pool2d(p, half) for p in (photo, fake))).mean()
            loss = loss + cfg.lambda_lpips * lpips
            stats["rec_lpips"] = lpips.detach()
        if cfg.lambda_face:
            part = max(32, photo.shape[-1] // 2)
            x, y = (face_crop(p, part, part / photo.shape[-1]) for p in (photo, fake))
            face = cfg.lambda_rec * (x - y).abs().mean()
            if self.perceptual is not None:
                face = face + cfg.lambda_lpips * self.perceptual(x, y).mean()
            loss = loss + cfg.lambda_face * face
            stats["rec_face"] = face.detach()
        if cfg.lambda_adv and cfg.lambda_feat:
            with torch.no_grad():
                target = critic_features(critic, photo)
            features = feature_distance(critic_features(critic, fake), target)
            loss = loss + cfg.lambda_feat * features
            stats["rec_features"] = features.detach()
        return loss

    def code_losses(self, w_plus: Tensor, stats: dict[str, Tensor]) -> Tensor:
        """Keeps the rows of E's codes together, and moves mapping(z) towards E's last 512 mean codes."""
        cfg, g = self.cfg, self.nets.generator
        w = w_plus.mean(1)  # (B, D)
        spread = (w_plus - w[:, None]).square().mean()
        self.codes = torch.cat([self.codes, w.detach()])[-512:]
        z = torch.randn(len(self.codes), g.style_dim, device=w.device)
        swd = sliced_wasserstein(g.mapping(z), self.codes)
        stats |= {"code_spread": spread.detach(), "code_swd": swd.detach()}
        return cfg.lambda_delta * spread + cfg.lambda_swd * swd


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 64) -> Tensor:
    """Mean squared difference of sorted projections of two samples (N, D) on random directions."""
    d = F.normalize(torch.randn(a.shape[1], directions, device=a.device), dim=0)
    return ((a @ d).sort(0).values - (b @ d).sort(0).values).square().mean()


def tie_rows(w_plus: Tensor, n: int) -> Tensor:
    """w+ (B, n_styles, D) with the rows of the last n codes replaced by their mean, which makes them codes in W."""
    if not n:
        return w_plus
    free, tied = w_plus[:-n], w_plus[-n:]
    return torch.cat([free, tied.mean(1, keepdim=True).expand_as(tied)])


def critic_features(critic: ProjectedCritic | Discriminator, x: Tensor) -> list[Tensor]:
    """The critic's maps after each resolution, finest first."""
    if isinstance(critic, ProjectedCritic):
        return critic.features(x)
    maps = []
    for block in critic.convs:
        x = block(x)
        maps.append(x)
    return maps


def feature_distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Mean L1 between feature maps, each divided by the second's mean magnitude (learned similarity, VAE-GAN)."""
    parts = [(x - y).abs().mean() / (y.abs().mean() + 1e-6) for x, y in zip(a, b, strict=True)]
    return torch.stack(parts).mean()


def path_length(pictures: Tensor, w_plus: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Path-length penalty and the new running mean (StyleGAN2, Eq. 4): E (|Jᵀ y| − a)²."""
    y = torch.randn_like(pictures) / math.sqrt(pictures.shape[2] * pictures.shape[3])
    (grad,) = torch.autograd.grad((pictures * y).sum(), w_plus, create_graph=True)  # (B, n_styles, D)
    length = grad.square().sum(2).mean(1).sqrt()  # (B,)
    new_mean = mean + 0.01 * (length.mean().detach() - mean)
    return (length - new_mean).square().mean(), new_mean


def warm_start(nets: Networks, path: str, preset: str) -> None:
    """Load the weights of an earlier run of the same size, or of half the size (then a resolution is added).

    The new resolution's ToRGB starts at zero, so the larger generator initially generates the smaller one's image,
    enlarged. The critic's new first block is initialised randomly.
    """
    tensors, meta = safe_load(path, with_metadata=True)
    if meta.get("kind") != KIND or meta.get("preset") != preset:
        raise WeightsError(
            f"{path} contains no StyleGAN2 training weights of the {preset} preset: pass --init a file "
            "written by s2f train --what generator."
        )
    tensors = {k: v.float() for k, v in tensors.items()}
    tensors |= {"generator" + k.removeprefix("ema"): v for k, v in tensors.items() if k.startswith("ema.")}
    own, size = nets.state_dict(), int(meta["size"])
    projected = isinstance(nets.critic, ProjectedCritic)
    if projected != (meta.get("critic") == "projected"):  # another kind of critic is trained from scratch
        tensors = {k: v for k, v in tensors.items() if not k.startswith("critic.")}
    if size * 2 == nets.generator.size:
        if not projected:
            tensors = {_shift_critic(k): v for k, v in tensors.items() if not k.startswith("critic.convs.0.")}
        newest = len(nets.generator.to_rgbs) - 1
        for k in own:
            if f".to_rgbs.{newest}.conv.weight" in k or f".to_rgbs.{newest}.bias" in k:
                own[k].zero_()
    elif size != nets.generator.size:
        raise WeightsError(
            f"{path} is a generator of {size} px: --init needs weights of {nets.generator.size} px or "
            f"of {nets.generator.size // 2} px, to grow from."
        )
    for k, v in tensors.items():
        if k not in own or own[k].shape != v.shape:
            raise WeightsError(f"{path} does not fit this preset ({k}): it was written by another version.")
        own[k].copy_(v)


def _shift_critic(key: str) -> str:
    """critic.convs.k → critic.convs.k+1: a grown critic has one more block in front."""
    if not key.startswith("critic.convs."):
        return key
    head, k, tail = "critic.convs.", *key[len("critic.convs.") :].split(".", 1)
    return f"{head}{int(k) + 1}.{tail}"
