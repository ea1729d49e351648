"""StyleGAN2's losses (adversarial, R1, path length) and the networks that are trained together.

generator.py has the training loop.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.errors import WeightsError
from s2flib.stylegan2 import Discriminator, Generator
from s2flib.weights.load import safe_load

KIND = "stylegan2-training"


class Networks(nn.Module):
    """Everything that is trained, in one state dict: generator, ema, critic, w_avg."""

    w_avg: Tensor

    def __init__(self, preset, size: int):
        super().__init__()
        self.generator = Generator.from_preset(preset, size)
        self.critic = Discriminator.from_preset(preset, size)
        self.ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.register_buffer("w_avg", torch.zeros(self.generator.style_dim))

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

    def __init__(self, nets: Networks, cfg):
        """cfg: generator.GeneratorConfig."""
        self.nets, self.cfg = nets, cfg
        self.path_mean = torch.zeros((), device=nets.w_avg.device)

    def state_dict(self) -> dict:
        return {"path_mean": self.path_mean}

    def load_state_dict(self, state: dict) -> None:
        self.path_mean = state["path_mean"].to(self.path_mean.device)

    def generator(self, fake: Tensor, stats: dict[str, Tensor]) -> Tensor:
        """softplus(−D(fake)), the non-saturating loss."""
        loss = F.softplus(-self.nets.critic(fake)).mean()
        stats["g_adversarial"] = loss.detach()
        return loss

    def critic(self, photo: Tensor, fake: Tensor, stats: dict[str, Tensor]) -> Tensor:
        """softplus(D(fake)) + softplus(−D(photo))."""
        on_real, on_fake = self.nets.critic(photo), self.nets.critic(fake)
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
    if size * 2 == nets.generator.size:
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
