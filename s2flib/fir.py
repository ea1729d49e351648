"""StyleGAN2's low-pass filter [1, 3, 3, 1], part of every change of resolution in generator and discriminator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIR = (1.0, 3.0, 3.0, 1.0)


def fir_filter(x: Tensor, pad: tuple[int, int], gain: float = 1.0) -> Tensor:
    """Low-pass filter with zero padding ``pad`` (before, after) on both axes; (B,C,H,W) → (B,C,H',W').

    The filter is separable: two depthwise passes of 4 taps are several times faster on CPUs than one of 16. On a GPU,
    where grouped convolutions are slow, it is three box filters of 2 pixels: [1, 3, 3, 1] = [1, 1] ∗ [1, 1] ∗ [1, 1].
    """
    if x.device.type == "cuda":
        return three_boxes(x, pad) * gain
    c = x.shape[1]
    taps = torch.tensor(FIR, dtype=x.dtype, device=x.device) / sum(FIR)
    if pad[0] != pad[1]:
        x = F.pad(x, (pad[0], pad[1], pad[0], pad[1]))
        pad = (0, 0)
    x = F.conv2d(x, (taps * gain).view(1, 1, 4, 1).expand(c, 1, 4, 1), padding=(pad[0], 0), groups=c)
    return F.conv2d(x, taps.view(1, 1, 1, 4).expand(c, 1, 1, 4), padding=(0, pad[0]), groups=c)


def three_boxes(x: Tensor, pad: tuple[int, int]) -> Tensor:
    """:func:`fir_filter` with gain 1 as averages of neighbours, differentiable twice."""
    if pad[0] != pad[1] or pad[0] > 2:
        x, pad = F.pad(x, (pad[0], pad[1], pad[0], pad[1])), (0, 0)
    for padding in (min(pad[0], 1), max(pad[0] - 1, 0), 0):
        x = F.avg_pool2d(x, 2, 1, padding)
    return x


class FIR2d(nn.Module):
    """Low-pass filter (:func:`fir_filter`). Stores the (4, 4) ``kernel`` buffer of the published checkpoints."""

    kernel: Tensor

    def __init__(self, pad: tuple[int, int], gain: float = 1.0):
        super().__init__()
        kernel = torch.outer(torch.tensor(FIR), torch.tensor(FIR))
        self.register_buffer("kernel", kernel / kernel.sum() * gain)
        self.pad, self.gain = pad, gain

    def forward(self, x: Tensor) -> Tensor:
        return fir_filter(x, self.pad, self.gain)


class Upsample(FIR2d):
    """Doubles H and W: inserts zeros between pixels, then applies the low-pass filter with gain 4."""

    def __init__(self):
        super().__init__(pad=(2, 1), gain=4.0)

    def forward(self, x: Tensor) -> Tensor:
        # Equivalent to zero insertion + FIR: each output is (3·nearest + 1·next)/4 per axis, i.e. bilinear
        # interpolation with zeros outside the border. Pad by one zero pixel, interpolate, crop.
        x = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2, mode="bilinear", align_corners=False)
        return x[:, :, 2:-2, 2:-2]
