"""HyperInverter: Dinh et al., "HyperInverter: Improving StyleGAN Inversion via Hypernetwork" (CVPR 2022),
arXiv:2112.00719.

Two phases. The first encodes the photo into W, where codes are edited best. The second gives the generator the
details that W lacks: features h of the photo and of its first reconstruction are fused, and hypernetworks turn them
into residual weights of the generator's convolutions:

    w = E_1(x),  y_w = G(w; θ);    Δθ = H(h(x), h(y_w)),  θ̂ = θ + Δθ,    y = G(w; θ̂)

It differs from HyperStyle in three ways: codes in W instead of near it, residuals of whole kernels instead of factors
of channel pairs, and one pass instead of several. E_1 is here e4e's encoder without its offsets: one w for all rows.
The paper's second phase also has an adversarial loss; the one trained here has none.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s2flib.inversion.e4e import Encoder4Editing
from s2flib.inversion.hypernetwork import Backbone, LayerHead, conv_layers
from s2flib.inversion.protocol import Inversion, Recorder, Watch, Weights, check_photos, synthesise
from s2flib.psp import PSP, Groups, resized
from s2flib.stylegan2 import Generator


class HyperInverter(nn.Module):
    """Both phases around a frozen generator.

    base:  a :class:`~s2flib.psp.PSP` with an :class:`Encoder4Editing`; only its first head, w, is used
    size, units, widths, head, rank, from_side:  as in :class:`~s2flib.inversion.hyperstyle.HyperStyle`
    """

    def __init__(self, base: PSP, size: int, units: Groups, widths: Groups, head: int, rank: int, from_side: int = 16):
        super().__init__()
        if not isinstance(base.encoder, Encoder4Editing):
            raise ValueError("HyperInverter's first phase needs an e4e encoder, whose first head is a code in W")
        self.base, self.size = base.eval().requires_grad_(False), size
        self.layers = conv_layers(base.decoder, from_side)
        self.features = Backbone(3, units, widths)
        self.fuse = nn.Sequential(nn.Conv2d(2 * widths[3], widths[3], 3, padding=1), nn.LeakyReLU(0.2))
        self.heads = nn.ModuleList(
            LayerHead(widths[3], size // 16, head, rank, layer, layer.kernel) for layer in self.layers
        )

    @property
    def decoder(self) -> Generator:
        return self.base.decoder

    def train(self, mode: bool = True) -> HyperInverter:
        super().train(mode)
        self.base.eval()
        return self

    def first_phase(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """w, repeated for every row (B, n_styles, D), and its reconstruction (B, 3, S, S)."""
        with torch.no_grad():
            w = self.base.encode(photos)[:, :1]
            w_plus = w.expand(-1, self.decoder.n_styles, -1)
            return w_plus, self.base.decode(w_plus)

    def weights(self, photos: Tensor, y: Tensor) -> tuple[Weights, ...]:
        """Second phase: θ̂ = θ + Δθ of each photo (B, 3, H, H) and its first reconstruction (B, 3, S, S)."""
        both = self.features(torch.cat([resized(photos, self.size), resized(y, self.size)]))
        fused = self.fuse(torch.cat(both.chunk(2), 1))
        residuals = [head(fused) for head in self.heads]  # (B, out, in, k, k) of each layer
        state = dict(self.decoder.named_parameters())
        return tuple(
            {layer.name: state[layer.name] + r[i] for layer, r in zip(self.layers, residuals, strict=True)}
            for i in range(len(photos))
        )


class HyperInverterInversion:
    """Both phases, one pass each."""

    name = "hyperinverter"

    def __init__(self, model: HyperInverter, loss_size: int):
        self.model, self.loss_size = model.eval(), loss_size

    @torch.no_grad()
    def invert(self, photos: Tensor, watch: Watch | None = None) -> Inversion:
        """photos (B, 3, H, H) in [−1, 1] → their inversion. The trace has the first phase and the second."""
        model = self.model
        photos = check_photos(photos).to(model.base.latent_avg.device)
        recorder = Recorder(photos, self.loss_size, watch)
        w_plus, y = model.first_phase(photos)
        recorder.record(0, y)
        weights = model.weights(photos, y)
        y = synthesise(model.decoder, w_plus, weights)
        recorder.record(1, y)
        return recorder.finish(model.decoder, w_plus, y, weights)
