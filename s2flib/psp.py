"""pSp: maps a sketch to a W+ code in one forward pass, for a frozen StyleGAN2.

Richardson et al., "Encoding in Style: a StyleGAN Encoder for Image-to-Image Translation" (2021),
arXiv:2008.00951, Sec. 3 and Fig. 2. With the colab and paper presets, parameter names and shapes match the
published ``psp_*.pt`` files; the ``tiny`` preset uses the same classes with fewer channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.errors import S2FError
from s2flib.input_distance import InputDistance
from s2flib.presets import Preset, get_preset
from s2flib.stylegan2 import EqualLinear, Generator, channels

COARSE, MIDDLE = 3, 7  # styles 0–2 use the coarse map, 3–6 the middle map, 7 and up the fine map
Groups = tuple[int, int, int, int]  # one value for each group of blocks


class SEModule(nn.Module):
    """Squeeze-and-excitation (arXiv:1709.01507): x · σ(fc2(relu(fc1(mean x)))), one gate per channel.

    (B, C, H, W) → the same shape. The reduction is 16, as published, but with at least four hidden channels.
    """

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(4, channels // 16)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(gate))))


class BottleneckIRSE(nn.Module):
    """ArcFace's improved residual block with SE: BN → conv → PReLU → conv(stride) → BN → SE, plus a shortcut.

    (B, in, H, W) → (B, out, H/stride, W/stride).
    """

    def __init__(self, in_ch: int, out_ch: int, stride: int):
        super().__init__()
        if in_ch == out_ch:
            self.shortcut_layer = nn.MaxPool2d(1, stride)  # plain subsampling, no parameters
        else:
            self.shortcut_layer = nn.Sequential(nn.Conv2d(in_ch, out_ch, 1, stride, bias=False), nn.BatchNorm2d(out_ch))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_ch),
            nn.Conv2d(in_ch, out_ch, 3, 1, 1, bias=False),
            nn.PReLU(out_ch),
            nn.Conv2d(out_ch, out_ch, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out_ch),
            SEModule(out_ch),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


def irse_body(units: tuple[int, ...], widths: tuple[int, ...], in_ch: int) -> nn.Sequential:
    """IR-SE backbone: groups of ``units[g]`` blocks with ``widths[g]`` channels; each group halves H and W."""
    blocks = []
    for n, width in zip(units, widths, strict=True):
        for i in range(n):
            blocks.append(BottleneckIRSE(in_ch, width, stride=2 if i == 0 else 1))
            in_ch = width
    return nn.Sequential(*blocks)


class GradualStyleBlock(nn.Module):
    """map2style: a feature map (B, in, s, s) → one style (B, style_dim).

    log2(s) stride-2 convolutions with ``head`` channels reduce the map to 1×1, followed by a linear layer.

    Initialisation: He for the convolutions, and a tenth of the usual scale for the linear layer. (PyTorch's
    default, used by the published code, damps the signal by about √6 per layer, so that the codes of different
    sketches start out almost equal.) Codes therefore start about 0.1 per entry from the average code, the first
    images are near-average faces, and gradients reach every layer.
    """

    def __init__(self, in_ch: int, head: int, style_dim: int, spatial: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(int(math.log2(spatial))):
            conv = nn.Conv2d(in_ch, head, 3, 2, 1)
            nn.init.kaiming_normal_(conv.weight, a=0.01, nonlinearity="leaky_relu")
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
            layers += [conv, nn.LeakyReLU(0.01)]
            in_ch = head
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(head, style_dim)
        with torch.no_grad():
            self.linear.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).flatten(1))  # (B, head, 1, 1) → (B, style_dim)


class FeatureHead(nn.Module):
    """A pyramid map (B, in, s, s) → features (B, out, s, s) for the generator's layer of that resolution.

    With ``detail_ch``, features of twice the side: the first group's output (B, detail, 2s, 2s) joins the enlarged map.
    """

    def __init__(self, in_ch: int, out_ch: int, detail_ch: int = 0):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(in_ch, out_ch, 1), nn.Conv2d(out_ch, out_ch, 3, padding=1)
        if detail_ch:
            self.detail, self.conv3 = nn.Conv2d(detail_ch, out_ch, 1), nn.Conv2d(out_ch, out_ch, 3, padding=1)

    def forward(self, x: Tensor, detail: Tensor | None = None) -> Tensor:
        x = self.conv1(x)
        if detail is not None:
            x = self.conv3(F.leaky_relu(_upsample_add(x, self.detail(detail)), 0.2))
        return self.conv2(F.leaky_relu(x, 0.2))


class GradualStyleEncoder(nn.Module):
    """pSp's encoder: an IR-SE backbone with a feature pyramid, and one map2style head per style (pSp, Fig. 2).

    input_nc:   input channels: 1 for a sketch in [0, 1], 3 for a photo in [−1, 1]
    n_styles:   rows of the W+ code; the coarse map feeds rows 0–2, the middle map 3–6, the fine map 7 and up
    style_dim:  length of a row
    units:      blocks per group; (3, 4, 14, 3) is IR-SE-50
    widths:     channels per group; the last one is also the width of the feature pyramid
    head:       channels in the map2style heads
    size:       side of the input in pixels; the maps have sides size/16, size/8 and size/4
    features:   (side, channels) of an additional head that outputs a feature map for the generator (F/W+ space); the
                side is that of a pyramid map, or size/2. None, as published: codes only

    At (1, 18, 512, (3, 4, 14, 3), (64, 128, 256, 512), 512, 256): 621 state-dict keys, 267.1 M parameters.
    """

    def __init__(
        self,
        input_nc: int,
        n_styles: int,
        style_dim: int,
        units: Groups,
        widths: Groups,
        head: int,
        size: int,
        features: tuple[int, int] | None = None,
    ):
        super().__init__()
        if size < 32 or size & (size - 1):
            raise ValueError(f"size must be a power of two of at least 32, not {size}")
        if n_styles <= MIDDLE:
            raise ValueError(f"n_styles must be more than {MIDDLE} (images of 32 px or more), not {n_styles}")
        self.input_nc, self.n_styles, self.style_dim, self.size = input_nc, n_styles, style_dim, size
        self.input_layer = nn.Sequential(
            nn.Conv2d(input_nc, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        self.body = irse_body(units, widths, widths[0])
        # last block of groups 2, 3 and 4: indices 6, 20 and 23 in IR-SE-50
        self.taps = tuple(sum(units[:g]) - 1 for g in (2, 3, 4))
        self.first = units[0] - 1  # last block of group 1: the detail of a feature map of size/2
        spatial = [size // 16] * COARSE + [size // 8] * (MIDDLE - COARSE) + [size // 4] * (n_styles - MIDDLE)
        self.styles = nn.ModuleList(GradualStyleBlock(widths[3], head, style_dim, s) for s in spatial)
        self.latlayer1 = nn.Conv2d(widths[2], widths[3], 1)
        self.latlayer2 = nn.Conv2d(widths[1], widths[3], 1)
        self.feature_side, channels = features or (None, 0)
        if features:
            if self.feature_side not in (size // 16, size // 8, size // 4, size // 2):
                raise ValueError(f"the features' side must be that of a pyramid map or size/2, not {self.feature_side}")
            self.feature_head = FeatureHead(widths[3], channels, widths[0] if self.feature_side == size // 2 else 0)

    @classmethod
    def from_preset(cls, preset: str | Preset, input_nc: int = 1) -> GradualStyleEncoder:
        """An untrained encoder with the preset's shape."""
        p = get_preset(preset)
        side = p.feature_side
        return cls(
            input_nc,
            p.n_styles,
            p.style_dim,
            p.encoder_units,
            p.encoder_widths,
            p.encoder_head,
            p.encoder_size,
            features=None if side is None else (side, channels(side, p.channel_base, p.channel_max)),
        )

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The pyramid (coarse, middle, fine): (B, widths[3], s, s) with s = size/16, size/8, size/4."""
        return self._pyramid(x)[0]

    def _pyramid(self, x: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """The pyramid, and the output of the first group, (B, widths[0], size/2, size/2)."""
        if x.ndim != 4 or x.shape[1:] != (self.input_nc, self.size, self.size):
            raise ValueError(f"input must be (B, {self.input_nc}, {self.size}, {self.size}), not {tuple(x.shape)}")
        x = self.input_layer(x.contiguous(memory_format=torch.channels_last))
        taps = []
        for i, block in enumerate(self.body):
            x = block(x)
            if i == self.first or i in self.taps:
                taps.append(x)
        detail, fine, middle, coarse = taps
        middle = _upsample_add(coarse, self.latlayer1(middle))
        return (coarse, middle, _upsample_add(middle, self.latlayer2(fine))), detail

    def forward(self, x: Tensor) -> Tensor:
        """x (B, input_nc, size, size) → offsets from the average code, (B, n_styles, style_dim)."""
        return self.codes(self.features(x))

    def codes(self, maps: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The pyramid → offsets (B, n_styles, style_dim)."""
        return torch.stack([head(maps[(i >= COARSE) + (i >= MIDDLE)]) for i, head in enumerate(self.styles)], 1)

    def codes_and_features(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x (B, input_nc, size, size) → offsets (B, n_styles, style_dim) and features for the generator (B, channels,
        side, side), None without a feature head."""
        maps, detail = self._pyramid(x)
        codes, side = self.codes(maps), self.feature_side
        if side is None:
            return codes, None
        if side == self.size // 2:
            return codes, self.feature_head(maps[2], detail)
        return codes, self.feature_head(next(m for m in maps if m.shape[-1] == side))


def resized(x: Tensor, size: int) -> Tensor:
    """Square pictures (B, C, H, H) at ``size``; what is not square stays as it is, for the encoder to refuse."""
    if x.ndim == 4 and x.shape[-1] == x.shape[-2] != size:
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    return x


def _upsample_add(coarse: Tensor, lateral: Tensor) -> Tensor:
    # the published weights were trained with align_corners=True
    return F.interpolate(coarse, size=lateral.shape[-2:], mode="bilinear", align_corners=True) + lateral


class PSP(nn.Module):
    """Encoder → w+ = E(sketch) + w̄ → frozen StyleGAN2 (seed paper, Sec. 3.3; pSp, Eq. 1).

    encoder:     GradualStyleEncoder
    decoder:     Generator; its parameters never require gradients, but gradients flow through it to the code
    latent_avg:  w̄, (style_dim,) or (n_styles, style_dim); stored as a (n_styles, style_dim) buffer
    typical:     the InputDistance of the encoder, where one was measured
    """

    latent_avg: Tensor

    def __init__(
        self, encoder: GradualStyleEncoder, decoder: Generator, latent_avg: Tensor, typical: InputDistance | None = None
    ):
        super().__init__()
        if (encoder.n_styles, encoder.style_dim) != (decoder.n_styles, decoder.style_dim):
            raise S2FError(
                f"the encoder outputs {encoder.n_styles} styles of {encoder.style_dim} but the decoder expects "
                f"{decoder.n_styles} of {decoder.style_dim}: build both from the same preset."
            )
        self.encoder, self.decoder, self.typical = encoder, decoder, typical
        latent_avg = latent_avg.detach().float().expand(encoder.n_styles, encoder.style_dim)
        self.register_buffer("latent_avg", latent_avg.clone())
        self.train(self.training)

    @classmethod
    def from_preset(cls, preset: str | Preset, input_nc: int = 1) -> PSP:
        """Untrained encoder and decoder with the preset's shapes; w̄ is the decoder's mean latent."""
        decoder = Generator.from_preset(preset)
        return cls(GradualStyleEncoder.from_preset(preset, input_nc), decoder, decoder.mean_latent())

    def train(self, mode: bool = True) -> PSP:
        """Sets the mode of the encoder; the decoder always stays frozen and in eval mode."""
        super().train(mode)
        self.decoder.eval().requires_grad_(False)
        return self

    def for_inference(self) -> PSP:
        """In eval mode and frozen; the encoder's convolutions in channels_last, a fifth faster on a CPU.

        To train, build a PSP of its own: oneDNN's backward pass is not safe in this layout (torch 2.14).
        """
        self.eval().encoder.requires_grad_(False).to(memory_format=torch.channels_last)
        return self

    def encode(self, sketch: Tensor) -> Tensor:
        """sketch (B, input_nc, H, W) → w+ (B, n_styles, style_dim); the sketch is resized to the encoder's size."""
        return self.encode_all(sketch)[0]

    def encode_all(self, sketch: Tensor) -> tuple[Tensor, Tensor | None]:
        """sketch (B, input_nc, H, W) → (w+ (B, n_styles, style_dim), features or None).

        features: (B, channels(s), s, s), the generator's features of side s as the sketch determines them (F/W+ space,
        see :meth:`Generator.synthesis`); None if the encoder has no feature head, as published.
        """
        offsets, features = self.encoder.codes_and_features(self.resized(sketch))
        return offsets.to(self.latent_avg.dtype) + self.latent_avg, features

    @torch.no_grad()
    def input_distance(self, sketch: Tensor) -> Tensor | None:
        """sketch (B, input_nc, H, W) → distance from the training sketches (B,), above 1 for one validation sketch in
        a hundred (:class:`InputDistance`); None if it was not measured for this encoder."""
        return None if self.typical is None else self.typical(self.maps(sketch)[0])

    def maps(self, sketch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """sketch (B, input_nc, H, W), resized to the encoder's size → its pyramid, see the encoder's ``features``."""
        return self.encoder.features(self.resized(sketch))

    def resized(self, sketch: Tensor) -> Tensor:
        """A square sketch at the encoder's size."""
        return resized(sketch, self.encoder.size)

    def decode(
        self,
        w_plus: Tensor,
        features: Tensor | None = None,
        size: int | None = None,
        noise: str | None = "const",
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """w+ (B, n_styles, style_dim) → photo (B, 3, size, size), roughly in [−1, 1].

        features: of :meth:`encode_all`; None: w+ alone determines the face, as in pSp
        size:     average-pools the image to this side (the losses' size); None keeps the generator's size
        noise, dtype: as in :meth:`Generator.synthesis`
        """
        photo = self.decoder.synthesis(w_plus, noise=noise, dtype=dtype, features=features)
        if size is None or size == photo.shape[-1]:
            return photo
        if size > photo.shape[-1]:
            raise ValueError(f"size must be at most the generator's {photo.shape[-1]}, not {size}")
        return F.adaptive_avg_pool2d(photo, size)

    def forward(self, sketch: Tensor) -> tuple[Tensor, Tensor]:
        """sketch (B, input_nc, H, W) → (photo (B, 3, S, S), w+ (B, n_styles, style_dim))."""
        w_plus, features = self.encode_all(sketch)
        return self.decode(w_plus, features), w_plus

    def blend(self, features: Tensor | None, w_plus: Tensor, fidelity: float) -> Tensor | None:
        """fidelity · features + (1 − fidelity) · the features that w+ itself gives: how strictly the face follows the
        sketch. 1: as drawn; 0: W+ alone, as in pSp."""
        if not 0 <= fidelity <= 1:
            raise S2FError(f"fidelity must be between 0 and 1, not {fidelity}.")
        if features is None or fidelity == 1:
            return features
        return torch.lerp(self.decoder.coarse_features(w_plus, features.shape[-1]), features, fidelity)

    @torch.no_grad()
    def multimodal(
        self,
        sketch: Tensor,
        n: int,
        seed: int,
        from_style: int | None = None,
        alpha: float = 1.0,
        fidelity: float = 1.0,
    ) -> Tensor:
        """``n`` plausible faces for one sketch: it determines the coarse styles; the fine ones are sampled.

        Style mixing (pSp, Sec. 4.3; seed paper, Fig. 5): rows from ``from_style`` on become
        α · mapping(z) + (1 − α) · w+, one z ~ N(0, I) per face.

        sketch:      (input_nc, H, W) or (1, input_nc, H, W)
        seed:        seed of the z's, which are sampled on the CPU so that all devices agree
        from_style:  first replaced row; None means 8 of 18, scaled to this generator
        alpha:       0 keeps the sketch's own styles, 1 replaces them
        fidelity:    how strictly the sketch's feature map is followed, see :meth:`blend`; 1 without a feature head
        Returns (n, 3, S, S).
        """
        rows = self.encoder.n_styles
        start = round(rows * 8 / 18) if from_style is None else from_style
        if not 0 <= start <= rows:
            raise S2FError(f"from_style must be between 0 and {rows}, not {start}.")
        if not 0 <= alpha <= 1:
            raise S2FError(f"alpha must be between 0 and 1, not {alpha}.")
        if n < 1:
            raise S2FError(f"n must be at least 1, not {n}.")
        sketch = sketch[None] if sketch.ndim == 3 else sketch
        if sketch.shape[0] != 1:
            raise S2FError(f"multimodal takes one sketch at a time, not a batch of {sketch.shape[0]}.")
        z = torch.randn(n, self.decoder.style_dim, generator=torch.Generator().manual_seed(seed))
        w = self.decoder.mapping(z.to(self.latent_avg))  # (n, D)
        own, features = self.encode_all(sketch)
        w_plus = own.repeat(n, 1, 1)  # (n, n_styles, D)
        w_plus[:, start:] = alpha * w[:, None] + (1 - alpha) * w_plus[:, start:]
        if features is not None:
            features = self.blend(features.expand(n, -1, -1, -1), w_plus, fidelity)
        return self.decode(w_plus, features)
