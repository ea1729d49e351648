"""CBAM: channel and spatial attention gates for a feature map, and the small network that uses them here.

Woo et al., "CBAM: Convolutional Block Attention Module" (2018), arXiv:1807.06521, Sec. 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VARIANTS = ("cbam", "seed")


class ChannelGate(nn.Module):
    """Channel attention: M_c(F) = σ(MLP(avg F) + MLP(max F)) (CBAM, Eq. 2).

    F (B, C, H, W) → M_c (B, C, 1, 1), each in (0, 1). One MLP with C / reduction hidden units processes both
    pooled descriptors.
    """

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))  # (B, C)
        return torch.sigmoid(gate)[:, :, None, None]


class SpatialGate(nn.Module):
    """Spatial attention: M_s(F) = σ(conv([mean over channels; max over channels])) (CBAM, Eq. 3).

    F (B, C, H, W) → M_s (B, 1, H, W), each in (0, 1).
    """

    def __init__(self, kernel_size: int = 7):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd to preserve the map's size, not {kernel_size}")
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)  # (B, 2, H, W)
        return torch.sigmoid(self.conv(pooled))


class CBAM(nn.Module):
    """Channel gate followed by spatial gate (CBAM, Eq. 1): the refined map F'' (B, C, H, W).

    Both variants start with  F' = M_c(F) ⊗ F  and differ in the second line:

    "cbam"  F'' = M_s(F') ⊗ F'   the CBAM paper: the spatial gate multiplies the channel-refined map.
    "seed"  F'' = M_s(F') ⊗ F    the seed paper's formula: the spatial gate multiplies the original map, so the
                                 channel gate only affects the spatial gate and scales no channel of the result.
                                 Probably a typo in the paper; kept so that both readings can be tried.

    Both variants have the same parameters, so weights trained with one load into the other without an error:
    store the variant with the weights.
    """

    def __init__(self, channels: int, reduction: int = 16, kernel_size: int = 7, variant: str = "cbam"):
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {VARIANTS}, not {variant!r}")
        self.channel_gate = ChannelGate(channels, reduction)
        self.spatial_gate = SpatialGate(kernel_size)
        self.variant = variant

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """F (B, C, H, W) → (M_c (B, C, 1, 1), M_s (B, 1, H, W)), e.g. for visualisation."""
        m_c = self.channel_gate(x)
        return m_c, self.spatial_gate(m_c * x)

    def forward(self, x: Tensor) -> Tensor:
        m_c, m_s = self.gates(x)
        return m_s * (m_c * x) if self.variant == "cbam" else m_s * x


class CBAMBlock(nn.Module):
    """Residual block that halves the resolution, with CBAM before the addition (CBAM, Fig. 3)."""

    def __init__(self, in_ch: int, out_ch: int, variant: str):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_ch, out_ch, 3, 2, 1, bias=False),
            nn.BatchNorm2d(out_ch),
            nn.ReLU(),
            nn.Conv2d(out_ch, out_ch, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out_ch),
        )
        self.cbam = CBAM(out_ch, reduction=8, variant=variant)
        self.shortcut = nn.Sequential(nn.Conv2d(in_ch, out_ch, 1, 2, bias=False), nn.BatchNorm2d(out_ch))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, in, H, W) → (block output, refined map F''), both (B, out, H/2, W/2)."""
        refined = self.cbam(self.conv(x))
        return F.relu(refined + self.shortcut(x)), refined


class AttributeNet(nn.Module):
    """A small CBAM network that classifies facial attributes; once frozen, its F'' maps feed the attention loss.

    The seed paper compares F'' of the photo with F'' of the output and does not say which network produces the
    maps. If it were trained jointly with the encoder, the gates would learn to close, and the loss would go to
    zero without any effect. So this network is first trained to predict attributes (what a witness describes)
    and then frozen.

    n_attributes:  number of logits, one per binary attribute
    variant:       see :class:`CBAM`
    About 47 M multiply-adds and 0.3 M parameters at 128 px.
    """

    WIDTHS = (32, 64, 128)
    names: tuple[str, ...]  # of the attributes, set by judges.load

    def __init__(self, n_attributes: int, variant: str = "cbam"):
        super().__init__()
        stem = 16
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
        self.blocks = nn.ModuleList(
            CBAMBlock(i, o, variant) for i, o in zip((stem, *self.WIDTHS), self.WIDTHS, strict=False)
        )
        self.head = nn.Linear(self.WIDTHS[-1], n_attributes)

    def _run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        refined = []
        for block in self.blocks:
            x, f = block(x)
            refined.append(f)
        return x, refined

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W) in [−1, 1], H and W at least 16 → logits (B, n_attributes)."""
        return self.head(self._run(x)[0].mean((2, 3)))

    def attention_features(self, x: Tensor) -> list[Tensor]:
        """x (B, 3, H, W) in [−1, 1] → the refined maps F'' of the three blocks.

        [(B, 32, H/4, W/4), (B, 64, H/8, W/8), (B, 128, H/16, W/16)]. Call it on a network in eval mode with
        ``requires_grad_(False)``: batch statistics would make an image's maps depend on the rest of the batch.
        """
        return self._run(x)[1]
