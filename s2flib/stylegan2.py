"""StyleGAN2: mapping network, synthesis network and discriminator, in plain torch.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), arXiv:1912.04958.
Parameter names and shapes match the published PyTorch checkpoints (the ones pSp builds on), so a published
state dict loads by key. Runs on any device without custom CUDA kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from s2flib.fir import FIR2d, Upsample
from s2flib.presets import Preset, get_preset

Noise = str | Sequence[Tensor] | None  # see Generator.synthesis


def channels(resolution: int, channel_base: int, channel_max: int) -> int:
    """Feature channels at a resolution: min(channel_max, channel_base / resolution)."""
    return min(channel_max, channel_base // resolution)


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.2, scaled by √2 to preserve variance."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class PixelNorm(nn.Module):
    """z / rms(z): (B, D) → (B, D)."""

    def forward(self, z: Tensor) -> Tensor:
        return z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate: the weight is scaled by lr_mul/√fan_in in the forward pass."""

    def __init__(self, in_dim: int, out_dim: int, bias_init: float = 0.0, lr_mul: float = 1.0, activate: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_dim, in_dim) / lr_mul)
        self.bias = nn.Parameter(torch.full((out_dim,), float(bias_init)))
        self.scale = lr_mul / math.sqrt(in_dim)
        self.lr_mul = lr_mul
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.weight * self.scale, self.bias * self.lr_mul)
        return leaky_relu(x) if self.activate else x


class ModulatedConv2d(nn.Module):
    """Convolution whose weight is scaled by each sample's style, then normalised (Sec. 2.2, Eqs. 1–3).

    w'_oik = s_i · w_oik ;  w''_oik = w'_oik / √(Σ_ik w'_oik² + ε)

    Computed on the activations as conv(x · s) · 1/√(…). The result equals a grouped convolution with per-sample
    weights, but this is an ordinary convolution, which is several times faster on CPUs.
    """

    def __init__(
        self, in_ch: int, out_ch: int, kernel_size: int, style_dim: int, demodulate: bool = True, upsample: bool = False
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, out_ch, in_ch, kernel_size, kernel_size))
        self.modulation = EqualLinear(style_dim, in_ch, bias_init=1.0)
        self.scale = 1 / math.sqrt(in_ch * kernel_size**2)
        self.padding = kernel_size // 2
        self.demodulate = demodulate
        self.upsample = upsample
        if upsample:
            self.blur = FIR2d(pad=(1, 1), gain=4.0)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x (B, in, H, W), w (B, style_dim) → (B, out, H, W), or (B, out, 2H, 2W) when upsampling."""
        style = self.modulation(w)  # (B, in)
        weight = self.weight[0] * self.scale  # (out, in, k, k)
        x = x * style[:, :, None, None].to(x.dtype)
        if self.upsample:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1).to(x.dtype), stride=2))
        else:
            x = F.conv2d(x, weight.to(x.dtype), padding=self.padding)
        if self.demodulate:
            power = style.float().square() @ weight.float().square().sum((2, 3)).t()  # (B, out)
            x = x * torch.rsqrt(power + 1e-8)[:, :, None, None].to(x.dtype)
        return x


class NoiseInjection(nn.Module):
    """x + weight · noise, with one learned strength per layer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        return x if noise is None else x + self.weight.to(x.dtype) * noise.to(x.dtype)


class BiasedLeakyReLU(nn.Module):
    """leaky_relu(x + bias) with one bias per channel (published key: ``activate.bias``)."""

    def __init__(self, ch: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(ch))

    def forward(self, x: Tensor) -> Tensor:
        return leaky_relu(x + self.bias[:, None, None].to(x.dtype))


class StyledConv(nn.Module):
    """Modulated 3×3 convolution → noise → bias → leaky ReLU."""

    def __init__(self, in_ch: int, out_ch: int, style_dim: int, upsample: bool = False):
        super().__init__()
        self.conv = ModulatedConv2d(in_ch, out_ch, 3, style_dim, upsample=upsample)
        self.noise = NoiseInjection()
        self.activate = BiasedLeakyReLU(out_ch)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        return self.activate(self.noise(self.conv(x, w), noise))


class ToRGB(nn.Module):
    """Modulated 1×1 convolution to RGB, added to the upsampled image of the previous resolution."""

    def __init__(self, in_ch: int, style_dim: int, upsample: bool = True):
        super().__init__()
        if upsample:
            self.upsample = Upsample()
        self.conv = ModulatedConv2d(in_ch, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, w: Tensor, skip: Tensor | None = None) -> Tensor:
        rgb = self.conv(x, w).float() + self.bias
        return rgb if skip is None else rgb + self.upsample(skip)


class ConstantInput(nn.Module):
    """The learned 4×4 tensor that every image starts from."""

    def __init__(self, ch: int):
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, ch, 4, 4))


class Generator(nn.Module):
    """Mapping network (z → w) and synthesis network (w+ → image).

    size:          image side in pixels, a power of two ≥ 8
    style_dim:     length of z and w
    n_mlp:         number of layers of the mapping network (learning-rate multiplier 0.01)
    channel_base:  channels(res) = min(channel_max, channel_base / res); published: 32768 and 512
    """

    latent_avg: Tensor  # w̄, registered by weights.load_generator

    def __init__(
        self, size: int, style_dim: int = 512, n_mlp: int = 8, channel_base: int = 32768, channel_max: int = 512
    ):
        super().__init__()
        if size < 8 or size & (size - 1):
            raise ValueError(f"size must be a power of two of at least 8, not {size}")
        self.size, self.style_dim = size, style_dim
        self.checkpointing = False  # with gradients, keep only each resolution's input and compute the rest again
        self.n_styles = 2 * int(math.log2(size)) - 2
        self.style = nn.Sequential(
            PixelNorm(), *(EqualLinear(style_dim, style_dim, lr_mul=0.01, activate=True) for _ in range(n_mlp))
        )
        ch = channels(4, channel_base, channel_max)
        self.input = ConstantInput(ch)
        self.conv1 = StyledConv(ch, ch, style_dim)
        self.to_rgb1 = ToRGB(ch, style_dim, upsample=False)
        self.convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        for layer in range(self.n_styles - 1):
            res = 2 ** ((layer + 5) // 2)  # 4, 8, 8, 16, 16, …
            self.noises.register_buffer(f"noise_{layer}", torch.randn(1, 1, res, res))
        for log2_res in range(3, size.bit_length()):
            out = channels(2**log2_res, channel_base, channel_max)
            self.convs.append(StyledConv(ch, out, style_dim, upsample=True))
            self.convs.append(StyledConv(out, out, style_dim))
            self.to_rgbs.append(ToRGB(out, style_dim))
            ch = out

    @classmethod
    def from_preset(cls, preset: str | Preset, size: int | None = None) -> Generator:
        """An untrained generator with the preset's shape; ``size`` overrides its size, e.g. for progressive growing."""
        p = get_preset(preset)
        return cls(size or p.size, p.style_dim, p.n_mlp, p.channel_base, p.channel_max)

    def mapping(self, z: Tensor) -> Tensor:
        """z (B, style_dim) ~ N(0, I) → w (B, style_dim)."""
        return self.style(z)

    @torch.no_grad()
    def random_codes(self, n: int, seed: int) -> Tensor:
        """w (n, style_dim) of random z, sampled on the CPU so that all devices agree."""
        z = torch.randn(n, self.style_dim, generator=torch.Generator().manual_seed(seed))
        return self.mapping(z.to(self.input.input))

    def mean_latent(self, n: int = 4096, seed: int = 0) -> Tensor:
        """w̄ (style_dim,): the mean of ``n`` random codes."""
        return self.random_codes(n, seed).mean(0)

    @staticmethod
    def truncate(w: Tensor, psi: float, w_avg: Tensor) -> Tensor:
        """w̄ + ψ (w − w̄): a smaller ψ gives more typical and less varied faces."""
        return w_avg + psi * (w - w_avg)

    def expand(self, w: Tensor) -> Tensor:
        """w (B, D) → w+ (B, n_styles, D) with the same row for every layer; a w+ is returned unchanged."""
        return w[:, None].expand(-1, self.n_styles, -1) if w.ndim == 2 else w

    def mix(self, w1: Tensor, w2: Tensor, crossover: int) -> Tensor:
        """Style mixing: rows below ``crossover`` from w1, the rest from w2; → (B, n_styles, D)."""
        return torch.cat([self.expand(w1)[:, :crossover], self.expand(w2)[:, crossover:]], 1)

    def synthesis(
        self, w_plus: Tensor, noise: Noise = "const", dtype: torch.dtype | None = None, features: Tensor | None = None
    ) -> Tensor:
        """w+ (B, n_styles, D) → image (B, 3, size, size), roughly in [−1, 1] and not clamped.

        noise:    "const" uses the stored noise (the same code gives the same image), "random" samples new noise,
                  None adds none; or one map of each layer, (B or 1, 1, r, r) with the stored maps' sides r.
        dtype:    dtype of the activations (e.g. bfloat16 where the CPU supports it); the image is always float32.
        features: (B, channels(s), s, s) to use in place of :meth:`coarse_features`: the F/W+ space of Kang et al. 2021
                  (arXiv:2108.08998). The layers and images of smaller resolutions are skipped, so the rows of w+
                  before their ToRGB, 2·log2(s) − 3, have no effect.
        """
        self._check_codes(w_plus)
        if features is None:
            x, skip, first = self._constant(w_plus, dtype), None, 0
        else:
            x = features.to(dtype or w_plus.dtype).contiguous(memory_format=torch.channels_last)
            first = self._block_index(x.shape[-1]) + 1
            skip = self._to_rgb(first - 1, x, w_plus, None)
        for i in range(first, len(self.to_rgbs) + 1):
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(self._block, i, x, w_plus, noise, use_reentrant=False)  # with the same random noise
            else:
                x = self._block(i, x, w_plus, noise)
            skip = self._to_rgb(i, x, w_plus, skip)
        assert skip is not None
        return skip

    def coarse_features(
        self, w_plus: Tensor, side: int, noise: Noise = "const", dtype: torch.dtype | None = None
    ) -> Tensor:
        """w+ (B, n_styles, D) → the features (B, channels(side), side, side) after the last layer of a resolution."""
        self._check_codes(w_plus)
        x = self._constant(w_plus, dtype)
        for i in range(self._block_index(side) + 1):
            x = self._block(i, x, w_plus, noise)
        return x

    def _check_codes(self, w_plus: Tensor) -> None:
        if w_plus.ndim != 3 or w_plus.shape[1:] != (self.n_styles, self.style_dim):
            raise ValueError(f"w_plus must be (B, {self.n_styles}, {self.style_dim}), not {tuple(w_plus.shape)}")

    def _block_index(self, side: int) -> int:
        """The index of the block of a resolution: 4 → 0, 8 → 1, …"""
        if side not in [4 * 2**i for i in range(len(self.to_rgbs) + 1)]:
            raise ValueError(f"the features' side must be a power of two from 4 to {self.size}, not {side}")
        return int(math.log2(side)) - 2

    def _constant(self, w_plus: Tensor, dtype: torch.dtype | None) -> Tensor:
        x = self.input.input.expand(len(w_plus), -1, -1, -1).to(dtype or w_plus.dtype)
        return x.contiguous(memory_format=torch.channels_last)

    def _block(self, i: int, x: Tensor, w_plus: Tensor, noise: Noise) -> Tensor:
        """Features of resolution 4·2^i from those of the resolution below (i = 0: from the constant)."""
        if i == 0:
            return self.conv1(x, w_plus[:, 0], self._noise(0, x, noise))
        x = self.convs[2 * i - 2](x, w_plus[:, 2 * i - 1], self._noise(2 * i - 1, x, noise))
        return self.convs[2 * i - 1](x, w_plus[:, 2 * i], self._noise(2 * i, x, noise))

    def _to_rgb(self, i: int, x: Tensor, w_plus: Tensor, skip: Tensor | None) -> Tensor:
        """The image so far (B, 3, 4·2^i, 4·2^i): ToRGB of the features plus the enlarged image of the block below."""
        return (self.to_rgb1 if i == 0 else self.to_rgbs[i - 1])(x, w_plus[:, 2 * i + 1], skip)

    def _noise(self, layer: int, x: Tensor, noise: Noise) -> Tensor | None:
        if noise is None:
            return None
        stored = getattr(self.noises, f"noise_{layer}")
        if not isinstance(noise, str):
            if len(noise) != self.n_styles - 1 or noise[layer].shape[1:] != stored.shape[1:]:
                raise ValueError(f"noise must be {self.n_styles - 1} maps of the stored ones' shapes, a batch of each")
            return noise[layer]
        if noise == "const":
            return stored
        if noise == "random":
            return torch.randn(len(x), *stored.shape[1:], device=x.device)
        raise ValueError(f'noise must be "const", "random", None or one map of each layer, not {noise!r}')

    def forward(self, z: Tensor, psi: float = 1.0, w_avg: Tensor | None = None, noise: Noise = "const") -> Tensor:
        """z (B, D) → image (B, 3, size, size); ψ < 1 needs ``w_avg`` (see :meth:`mean_latent`)."""
        w = self.mapping(z)
        if psi != 1.0:
            if w_avg is None:
                raise ValueError("truncation (psi < 1) needs w_avg: pass generator.mean_latent()")
            w = self.truncate(w, psi, w_avg)
        return self.synthesis(self.expand(w), noise=noise)


class EqualConv2d(nn.Module):
    """Convolution with equalised learning rate and no bias (the activation adds it)."""

    def __init__(self, in_ch: int, out_ch: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_ch, in_ch, kernel_size, kernel_size))
        self.scale = 1 / math.sqrt(in_ch * kernel_size**2)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, (self.weight * self.scale).to(x.dtype), stride=self.stride, padding=self.padding)


def conv_layer(
    in_ch: int, out_ch: int, kernel_size: int, downsample: bool = False, activate: bool = True
) -> nn.Sequential:
    """[low-pass filter] → convolution (stride 2 when downsampling) → [bias, leaky ReLU]."""
    layers: list[nn.Module] = []
    if downsample:
        pad = 2 + kernel_size - 1  # keeps 2·out = in
        layers.append(FIR2d(pad=((pad + 1) // 2, pad // 2)))
        layers.append(EqualConv2d(in_ch, out_ch, kernel_size, stride=2))
    else:
        layers.append(EqualConv2d(in_ch, out_ch, kernel_size, padding=kernel_size // 2))
    if activate:
        layers.append(BiasedLeakyReLU(out_ch))
    return nn.Sequential(*layers)


class ResBlock(nn.Module):
    """Two 3×3 convolutions that halve the resolution plus a 1×1 skip connection, divided by √2."""

    def __init__(self, in_ch: int, out_ch: int):
        super().__init__()
        self.conv1 = conv_layer(in_ch, in_ch, 3)
        self.conv2 = conv_layer(in_ch, out_ch, 3, downsample=True)
        self.skip = conv_layer(in_ch, out_ch, 1, downsample=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2)


class Discriminator(nn.Module):
    """Residual discriminator: image (B, 3, size, size) → logit (B, 1). Names and shapes as published."""

    def __init__(self, size: int, channel_base: int = 32768, channel_max: int = 512):
        super().__init__()
        self.size = size
        ch = channels(size, channel_base, channel_max)
        blocks: list[nn.Module] = [conv_layer(3, ch, 1)]
        res = size
        while res > 4:
            out = channels(res // 2, channel_base, channel_max)
            blocks.append(ResBlock(ch, out))
            ch, res = out, res // 2
        self.convs = nn.Sequential(*blocks)
        self.final_conv = conv_layer(ch + 1, ch, 3)
        self.final_linear = nn.Sequential(EqualLinear(ch * 16, ch, activate=True), EqualLinear(ch, 1))

    @classmethod
    def from_preset(cls, preset: str | Preset, size: int | None = None) -> Discriminator:
        """An untrained discriminator with the preset's shape; ``size`` overrides its size."""
        p = get_preset(preset)
        return cls(size or p.size, p.critic_base, p.channel_max)

    @staticmethod
    def minibatch_stddev(x: Tensor, group: int = 4) -> Tensor:
        """Appends one channel: the standard deviation within a group of samples, averaged over features.

        (B, C, H, W) → (B, C + 1, H, W). Lets the discriminator detect a lack of variety.
        """
        b, c, h, w = x.shape
        g = math.gcd(b, group)
        y = x.float().reshape(g, b // g, c, h, w)
        std = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # (B/g,)
        return torch.cat([x, std.repeat(g)[:, None, None, None].expand(-1, 1, h, w).to(x.dtype)], 1)

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        x = x.to(dtype or x.dtype).contiguous(memory_format=torch.channels_last)
        x = self.final_conv(self.minibatch_stddev(self.convs(x)))
        return self.final_linear(x.flatten(1).to(next(self.final_linear.parameters()).dtype))
