"""Inversion in one forward pass: an encoder of photos (pSp, e4e) in front of the frozen generator."""

from __future__ import annotations

import torch
from torch import Tensor

from s2flib.inversion.protocol import Inversion, Recorder, Watch, check_photos
from s2flib.psp import PSP


class EncoderInversion:
    """w+ = E(photo) + w̄ (pSp, Eq. 1).

    name:       "psp" or "e4e"
    model:      a :class:`~s2flib.psp.PSP` whose encoder reads photos
    loss_size:  the side at which the trace measures errors, in pixels
    """

    def __init__(self, name: str, model: PSP, loss_size: int):
        if model.encoder.input_nc != 3:
            raise ValueError(f"an inversion needs an encoder of photos, not of {model.encoder.input_nc} channels")
        self.name, self.model, self.loss_size = name, model.eval(), loss_size

    @torch.no_grad()
    def invert(self, photos: Tensor, watch: Watch | None = None) -> Inversion:
        """photos (B, 3, H, H) in [−1, 1] → their inversion. The trace has w̄'s face and the result."""
        photos = check_photos(photos).to(self.model.latent_avg.device)
        recorder = Recorder(photos, self.loss_size, watch)
        average = self.model.latent_avg.expand(len(photos), -1, -1)
        recorder.record(0, self.model.decode(average))
        w_plus = self.model.encode(photos)
        reconstruction = self.model.decode(w_plus)
        recorder.record(1, reconstruction)
        return recorder.finish(self.model.decoder, w_plus, reconstruction)
