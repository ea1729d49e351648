"""What StyleGAN2's training is made of: the networks under one roof, their warm start, and its extra losses.

The loop that uses them is pretrain.py.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.errors import WeightsError
from s2flib.psp import GradualStyleEncoder
from s2flib.stylegan2 import Discriminator, Generator
from s2flib.training.projected import ProjectedCritic
from s2flib.weights import safe_load

KIND = "stylegan2-training"


class Networks(nn.Module):
    """Everything that is trained, under one state dict: generator, ema, critic, encoder, w_avg."""

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
        side = self.encoder.size
        if photo.shape[-1] != side:
            photo = F.interpolate(photo, size=(side, side), mode="bilinear", antialias=True)
        return self.encoder(photo)[:, :self.generator.n_styles] + self.w_avg


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 64) -> Tensor:
    """Mean squared difference of sorted projections of two samples (N, D) on random directions."""
    d = F.normalize(torch.randn(a.shape[1], directions, device=a.device), dim=0)
    return ((a @ d).sort(0).values - (b @ d).sort(0).values).square().mean()


def tie_rows(w_plus: Tensor, n: int) -> Tensor:
    """The last n of w+ (B, n_styles, D) with every row replaced by their mean: codes that lie in W."""
    if not n:
        return w_plus
    free, tied = w_plus[:-n], w_plus[-n:]
    return torch.cat([free, tied.mean(1, keepdim=True).expand_as(tied)])


def critic_features(critic: nn.Module, x: Tensor) -> list[Tensor]:
    """The critic's maps after each resolution, finest first."""
    if isinstance(critic, ProjectedCritic):
        return critic.features(x)
    maps = []
    for block in critic.convs:
        x = block(x)
        maps.append(x)
    return maps


def feature_distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Mean L1 between feature maps, each divided by the mean size of the second's (learned similarity, VAE-GAN)."""
    parts = [(x - y).abs().mean() / (y.abs().mean() + 1e-6) for x, y in zip(a, b, strict=True)]
    return torch.stack(parts).mean()


def path_length(pictures: Tensor, w_plus: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Path-length penalty and the new running mean (StyleGAN2, Eq. 4): E (|Jᵀ y| − a)²."""
    y = torch.randn_like(pictures) / math.sqrt(pictures.shape[2] * pictures.shape[3])
    grad, = torch.autograd.grad((pictures * y).sum(), w_plus, create_graph=True)   # (B, n_styles, D)
    length = grad.square().sum(2).mean(1).sqrt()                                   # (B,)
    new_mean = mean + 0.01 * (length.mean().detach() - mean)
    return (length - new_mean).square().mean(), new_mean


def warm_start(nets: Networks, path: str, preset: str) -> None:
    """Weights of an earlier run: the same size, or half of it (then a resolution is added on top).

    The new resolution's ToRGB starts at zero, so the grown generator first draws the smaller one's picture,
    enlarged. The critic's new first block starts at random in front of the old ones.
    """
    tensors, meta = safe_load(path, with_metadata=True)
    if meta.get("kind") != KIND or meta.get("preset") != preset:
        raise WeightsError(f"{path} holds no StyleGAN2 training weights of the {preset} preset: "
                           "give --init a file written by s2f train --what generator.")
    tensors = {k: v.float() for k, v in tensors.items()}
    tensors |= {"generator" + k.removeprefix("ema"): v for k, v in tensors.items() if k.startswith("ema.")}
    own, size = nets.state_dict(), int(meta["size"])
    projected = isinstance(nets.critic, ProjectedCritic)
    if projected != (meta.get("critic") == "projected"):              # another kind of critic starts afresh
        tensors = {k: v for k, v in tensors.items() if not k.startswith("critic.")}
    if size * 2 == nets.generator.size:
        if not projected:
            tensors = {_shift_critic(k): v for k, v in tensors.items() if not k.startswith("critic.convs.0.")}
        newest = len(nets.generator.to_rgbs) - 1
        for k in own:
            if f".to_rgbs.{newest}.conv.weight" in k or f".to_rgbs.{newest}.bias" in k:
                own[k].zero_()
    elif size != nets.generator.size:
        raise WeightsError(f"{path} draws {size} px: --init takes weights of {nets.generator.size} px "
                           f"or of {nets.generator.size // 2} px, to grow from.")
    for k, v in tensors.items():
        if k not in own or own[k].shape != v.shape:
            raise WeightsError(f"{path} does not fit this preset ({k}): it was written by another version.")
        own[k].copy_(v)


def _shift_critic(key: str) -> str:
    """critic.convs.k → critic.convs.k+1: a grown critic has one more block in front."""
    if not key.startswith("critic.convs."):
        return key
    head, k, tail = "critic.convs.", *key[len("critic.convs."):].split(".", 1)
    return f"{head}{int(k) + 1}.{tail}"
