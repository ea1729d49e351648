"""Drawings of many kinds for training: pencil sketches of varied σ, paper and pencil, and line drawings by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from s2flib.sketch import SIGMA, TEXT_SIGMA, sketch

# σ as shares of the image's side, 3 % to 25 %: the published code's 1/26.5 most often, the paper text's 1/4 at times
SIGMAS = (0.03, SIGMA, SIGMA, SIGMA, SIGMA, 0.055, 0.08, TEXT_SIGMA)


def varied_sketches(
    photo: Tensor,  # (B, 3, H, W) in [−1, 1]
    mask: Tensor,  # (B, H, W), foreground where it is not 0
    drawing: Tensor,  # (B, 1, H, W) in [0, 1], line drawings of the same photos
    share: float,  # of line drawings
) -> Tensor:
    """Sketches (B, 1, H, W) in [0, 1] of random style; the randomness is torch's global generator.

    A batch has one σ and one background; each sketch has its own contrast, line width and grain.
    """
    b = (len(photo), 1, 1, 1)
    sigma = SIGMAS[int(torch.randint(len(SIGMAS), ()))] * photo.shape[-1]
    pencil = sketch(photo, mask, sigma, background="black" if torch.rand(()) < 0.2 else "white")

    def chosen(probability: float) -> Tensor:
        return torch.rand(b, device=photo.device) < probability

    by_hand = chosen(share)
    x = torch.where(by_hand, drawing, pencil)
    gamma = torch.exp(0.25 * torch.randn(b, device=x.device))
    x = torch.where(chosen(0.5), x.clamp(1e-3, 1) ** gamma, x)
    thick = -F.max_pool2d(-x, 3, 1, 1)  # lines one pixel wider on each side
    x = torch.where(by_hand & chosen(0.3), 0.6 * thick + 0.4 * x, x)
    paper = 1 - 0.08 * torch.rand(b, device=x.device)  # off-white
    x = torch.where(chosen(0.25), x * paper, x)
    return (x + 0.03 * torch.randn_like(x) * chosen(0.3)).clamp(0, 1)
