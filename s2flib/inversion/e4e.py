"""e4e, an encoder for editing: Tov et al., "Designing an Encoder for StyleGAN Image Manipulation" (2021),
arXiv:2102.02766.

Codes in W+ reconstruct a photo better, codes near W are edited better (the paper's distortion-editability trade-off).
So e4e stays near W in two ways:

* little variation between rows: the encoder outputs one w and an offset Δ_i for every other row, the offsets learn one
  after another (progressive training), and their size is penalised (L_d-reg);
* little deviation from W: a latent critic D_W tells the rows from mapped codes (L_adv, non-saturating, with R1).

Parameter names and shapes are those of the published ``e4e_ffhq_encode.pt``: the same as pSp's encoder.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.psp import GradualStyleEncoder
from s2flib.stylegan2 import EqualLinear


class Encoder4Editing(GradualStyleEncoder):
    """pSp's encoder read differently: head 0 outputs w − w̄, head i > 0 the offset Δ_i of row i from w.

    stage: how many offsets are used, 0 to n_styles − 1; the other rows are w. Training raises it step by step.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.stage = self.n_styles - 1

    def codes(self, maps: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The pyramid → offsets from w̄, (B, n_styles, style_dim)."""
        return add_offsets(super().codes(maps), self.stage)


def add_offsets(heads: Tensor, stage: int) -> Tensor:
    """The heads' outputs (B, n_styles, D) → w, w + Δ_1, …, w + Δ_stage, w, …, w."""
    w, deltas = heads[:, :1], heads[:, 1:].clone()
    deltas[:, stage:] = 0
    return torch.cat([w, w + deltas], 1)


def stage_of(step: int, start: int, every: int, n_styles: int) -> int:
    """The stage at a step of progressive training: 0 before ``start``, then one more offset every ``every`` steps."""
    return min(max(0, (step - start) // every + 1), n_styles - 1)


def delta_loss(w_plus: Tensor) -> Tensor:
    """L_d-reg = Σ_i ‖Δ_i‖₂, mean over the batch. w_plus: (B, n_styles, D); Δ_i is row i minus row 0."""
    deltas = w_plus[:, 1:] - w_plus[:, :1]
    return (deltas.square().sum(2) + 1e-12).sqrt().sum(1).mean()


class LatentCritic(nn.Module):
    """D_W: a code (N, D) → logit (N, 1), high for mapped codes; ``layers`` hidden layers of width D."""

    def __init__(self, style_dim: int, layers: int = 4):
        super().__init__()
        hidden = [EqualLinear(style_dim, style_dim, activate=True) for _ in range(layers)]
        self.layers = nn.Sequential(*hidden, EqualLinear(style_dim, 1))

    def forward(self, w: Tensor) -> Tensor:
        return self.layers(w)


def adversarial_loss(critic: nn.Module, w_plus: Tensor) -> Tensor:
    """The encoder's L_adv = −E log σ(D_W(w_i)) over all rows. w_plus: (B, n_styles, D)."""
    return F.softplus(-critic(w_plus.flatten(0, 1))).mean()


def critic_loss(critic: nn.Module, mapped: Tensor, encoded: Tensor) -> Tensor:
    """The critic's loss without R1: mapped codes (N, D) are real, the encoder's rows (M, D) are not."""
    return F.softplus(-critic(mapped)).mean() + F.softplus(critic(encoded.detach())).mean()


def r1_penalty(critic: nn.Module, mapped: Tensor) -> Tensor:
    """E ‖∇_w D_W(w)‖² at mapped codes (N, D), to be weighted with γ/2."""
    mapped = mapped.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(mapped).sum(), mapped, create_graph=True)
    return gradient.square().sum(1).mean()


class CodePool:
    """A history of encoded rows for the critic (Shrivastava et al. 2017, arXiv:1612.07828, Sec. 2.3): half of what is
    returned are rows of earlier steps, so that the critic does not forget them. As in the published e4e.

    size: rows kept; 0 returns its input.
    """

    def __init__(self, size: int, style_dim: int):
        self.size, self.codes = size, torch.zeros(0, style_dim)

    def exchange(self, codes: Tensor) -> Tensor:
        """codes (N, D) → (N, D): each is replaced by a kept one with probability ½, once the pool is full."""
        out, self.codes = [], self.codes.to(codes)  # after a resume they are on the CPU
        for code in codes.detach():
            if len(self.codes) < self.size:
                self.codes = torch.cat([self.codes, code[None]])
            elif self.size and torch.rand(()) < 0.5:
                k = int(torch.randint(self.size, ()))
                code, self.codes[k] = self.codes[k].clone(), code
            out.append(code)
        return torch.stack(out)

    def state_dict(self) -> dict[str, Tensor]:
        return {"codes": self.codes}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.codes = state["codes"].clone()
