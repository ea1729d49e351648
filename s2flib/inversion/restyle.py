"""ReStyle: an encoder that corrects itself. Alaluf et al., "ReStyle: A Residual-Based StyleGAN Encoder via Iterative
Refinement" (ICCV 2021), arXiv:2104.02699.

The encoder sees the photo beside its current reconstruction and outputs by how much the code should change (Sec. 3):

    Δ_t = E(x ⊕ y_t),   w_{t+1} = Δ_t + w_t,   y_{t+1} = G(w_{t+1}),   starting from w_0 = w̄, y_0 = G(w̄)

``progressive`` is ReStyle over e4e (one Δ for w and offsets from it), otherwise ReStyle over pSp. Parameter names and
shapes are those of the published ``restyle_psp_ffhq_encode.pt`` and ``restyle_e4e_ffhq_encode.pt``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s2flib.inversion.e4e import add_offsets
from s2flib.inversion.protocol import Inversion, Recorder, Watch, check_photos, pooled
from s2flib.psp import GradualStyleBlock, Groups, irse_body, resized
from s2flib.stylegan2 import Generator


class BackboneEncoder(nn.Module):
    """ReStyle's simplified encoder: an IR-SE backbone whose last map feeds every head, no feature pyramid (Sec. 3.3).

    Photo ⊕ reconstruction (B, 6, size, size) → changes of the code (B, n_styles, style_dim).

    units, widths, head:  as in :class:`~s2flib.psp.GradualStyleEncoder`; the last map has the side size/16
    progressive:          e4e's codes: one w and offsets, of which ``stage`` are used
    """

    def __init__(
        self,
        n_styles: int,
        style_dim: int,
        units: Groups,
        widths: Groups,
        head: int,
        size: int,
        progressive: bool = False,
        input_nc: int = 6,
    ):
        super().__init__()
        self.n_styles, self.style_dim, self.size, self.input_nc = n_styles, style_dim, size, input_nc
        self.progressive, self.stage = progressive, n_styles - 1
        self.input_layer = nn.Sequential(
            nn.Conv2d(input_nc, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        self.body = irse_body(units, widths, widths[0])
        self.styles = nn.ModuleList(GradualStyleBlock(widths[3], head, style_dim, size // 16) for _ in range(n_styles))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.input_layer(x.contiguous(memory_format=torch.channels_last)))
        changes = torch.stack([head(x) for head in self.styles], 1)
        return add_offsets(changes, self.stage) if self.progressive else changes


class ReStyle(nn.Module):
    """The refinement loop around a frozen generator.

    latent_avg: w̄, (D,) or (n_styles, D); w_0 of every photo
    """

    latent_avg: Tensor

    def __init__(self, encoder: BackboneEncoder, decoder: Generator, latent_avg: Tensor):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder.eval().requires_grad_(False)
        self.register_buffer("latent_avg", latent_avg.detach().float().expand(encoder.n_styles, -1).clone())

    def train(self, mode: bool = True) -> ReStyle:
        super().train(mode)
        self.decoder.eval()
        return self

    def start(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """w_0 (B, n_styles, D) and y_0 (B, 3, S, S)."""
        average = self.latent_avg[None]
        face = self.decoder.synthesis(average)
        return average.expand(len(photos), -1, -1), face.expand(len(photos), -1, -1, -1)

    def change(self, photos: Tensor, y: Tensor) -> Tensor:
        """Δ (B, n_styles, D) of photos (B, 3, H, H) and their reconstructions (B, 3, S, S), which are average-pooled to
        the encoder's size, as published."""
        size = self.encoder.size
        pair = torch.cat([resized(photos, size), resized(pooled(y, size), size)], 1)
        return self.encoder(pair).to(self.latent_avg.dtype)

    def refine(self, photos: Tensor, w_plus: Tensor, y: Tensor, noise: str = "const") -> tuple[Tensor, Tensor]:
        """One step: (w_t, y_t) → (w_{t+1}, y_{t+1}). No gradient flows into w_t and y_t, as published."""
        w_plus = w_plus.detach() + self.change(photos, y.detach())
        return w_plus, self.decoder.synthesis(w_plus, noise=noise)


class ReStyleInversion:
    """``steps`` refinements (5 as published); name: "restyle-psp" or "restyle-e4e"."""

    def __init__(self, name: str, model: ReStyle, loss_size: int, steps: int = 5):
        if steps < 1:
            raise ValueError(f"ReStyle needs at least one step, not {steps}")
        self.name, self.model, self.loss_size, self.steps = name, model.eval(), loss_size, steps

    @torch.no_grad()
    def invert(self, photos: Tensor, watch: Watch | None = None) -> Inversion:
        """photos (B, 3, H, H) in [−1, 1] → their inversion. The trace has w̄'s face and every step."""
        photos = check_photos(photos).to(self.model.latent_avg.device)
        recorder = Recorder(photos, self.loss_size, watch)
        w_plus, y = self.model.start(photos)
        recorder.record(0, y)
        for step in range(self.steps):
            w_plus, y = self.model.refine(photos, w_plus, y)
            recorder.record(step + 1, y)
        return recorder.finish(self.model.decoder, w_plus, y)
