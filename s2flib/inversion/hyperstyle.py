"""HyperStyle: a hypernetwork that learns to tune the generator. Alaluf et al., "HyperStyle: StyleGAN Inversion with
HyperNetworks for Real Image Editing" (CVPR 2022), arXiv:2111.15666.

A frozen encoder gives a first, editable code w (here e4e's). PTI would now tune the generator's weights θ for
hundreds of steps; the hypernetwork H predicts the change in one pass from the photo and its reconstruction, as one
factor for each pair of channels of a convolution:

    Δ = H(x ⊕ G(w; θ)),    θ̂_ℓ = θ_ℓ · (1 + Δ_ℓ),    Δ_ℓ ∈ R^(out × in × 1 × 1)

and corrects itself in the same way as ReStyle: H(x ⊕ G(w; θ̂)) is added to Δ.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s2flib.inversion.hypernetwork import Backbone, LayerHead, conv_layers
from s2flib.inversion.protocol import Inversion, Recorder, Watch, Weights, check_photos, synthesise
from s2flib.psp import PSP, Groups, resized
from s2flib.stylegan2 import Generator


class HyperStyle(nn.Module):
    """The hypernetwork around a frozen encoder and generator.

    base:       the :class:`~s2flib.psp.PSP` whose codes are kept
    size:       side of the pictures that the hypernetwork sees, in pixels
    units, widths, head:  its IR-SE backbone and the channels of its heads
    rank:       see :class:`~s2flib.inversion.hypernetwork.LayerHead`
    from_side:  layers from this resolution on may change
    """

    def __init__(self, base: PSP, size: int, units: Groups, widths: Groups, head: int, rank: int, from_side: int = 16):
        super().__init__()
        self.base, self.size = base.eval().requires_grad_(False), size
        self.layers = conv_layers(base.decoder, from_side)
        self.backbone = Backbone(6, units, widths)
        self.heads = nn.ModuleList(LayerHead(widths[3], size // 16, head, rank, layer, 1) for layer in self.layers)

    @property
    def decoder(self) -> Generator:
        return self.base.decoder

    def train(self, mode: bool = True) -> HyperStyle:
        super().train(mode)
        self.base.eval()
        return self

    def start(self, photos: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The frozen encoder's w+ (B, n_styles, D), its reconstruction (B, 3, S, S), and Δ = 0 for every layer."""
        with torch.no_grad():
            w_plus = self.base.encode(photos)
            y = self.base.decode(w_plus)
        zeros = [photos.new_zeros(len(photos), layer.out_ch, layer.in_ch, 1, 1) for layer in self.layers]
        return w_plus, y, zeros

    def refine(self, photos: Tensor, y: Tensor, deltas: list[Tensor]) -> list[Tensor]:
        """One pass: every layer's Δ (B, out, in, 1, 1), plus what H makes of photos and their reconstructions y."""
        pair = torch.cat([resized(photos, self.size), resized(y.detach(), self.size)], 1)
        features = self.backbone(pair)
        return [d.detach() + head(features) for d, head in zip(deltas, self.heads, strict=True)]

    def weights(self, deltas: list[Tensor]) -> tuple[Weights, ...]:
        """θ̂_ℓ = θ_ℓ · (1 + Δ_ℓ) of each photo."""
        state = dict(self.decoder.named_parameters())
        return tuple(
            {layer.name: state[layer.name] * (1 + d[i]) for layer, d in zip(self.layers, deltas, strict=True)}
            for i in range(len(deltas[0]))
        )


class HyperStyleInversion:
    """``steps`` passes of the hypernetwork (5 as published)."""

    name = "hyperstyle"

    def __init__(self, model: HyperStyle, loss_size: int, steps: int = 5):
        if steps < 1:
            raise ValueError(f"HyperStyle needs at least one pass, not {steps}")
        self.model, self.loss_size, self.steps = model.eval(), loss_size, steps

    @torch.no_grad()
    def invert(self, photos: Tensor, watch: Watch | None = None) -> Inversion:
        """photos (B, 3, H, H) in [−1, 1] → their inversion. The trace has the encoder's result and every pass."""
        model = self.model
        photos = check_photos(photos).to(model.base.latent_avg.device)
        recorder = Recorder(photos, self.loss_size, watch)
        w_plus, y, deltas = model.start(photos)
        recorder.record(0, y)
        weights: tuple[Weights, ...] = ()
        for step in range(self.steps):
            deltas = model.refine(photos, y, deltas)
            weights = model.weights(deltas)
            y = synthesise(model.decoder, w_plus, weights)
            recorder.record(step + 1, y)
        return recorder.finish(model.decoder, w_plus, y, weights)
