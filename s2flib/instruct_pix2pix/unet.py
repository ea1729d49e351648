"""The tiny pipeline's UNet: its output is added to the latents of the input image.

The pipeline's model_index.json names this module; diffusers' ``from_pretrained`` finds the class once it is imported.
"""

from __future__ import annotations

import functools

import torch
from diffusers import ModelMixin, UNet2DConditionModel  # noqa: F401  (diffusers looks up ModelMixin in this module)
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor


class ResidualUNet(UNet2DConditionModel):
    """UNet2DConditionModel that predicts clean latents as ``picture_scale`` · input image + change.

    Its input is InstructPix2Pix's: noisy latents ⊕ unscaled latents of the input image (zeros: no image). An edit
    leaves most of an image unchanged, and copying sixteen channels exactly through narrow, normalised layers would take
    most of a small network's capacity: without this sum, the error of its copy was larger than a change of eye colour.
    """

    @functools.wraps(UNet2DConditionModel.__init__)  # diffusers reads the config keys from the signature
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("picture_scale", torch.ones(()))  # the VAE's scaling_factor

    def forward(
        self, sample: Tensor, timestep, encoder_hidden_states: Tensor, *args, return_dict: bool = True, **kwargs
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        (said,) = super().forward(sample, timestep, encoder_hidden_states, *args, return_dict=False, **kwargs)
        clean = said + self.picture_scale * sample[:, said.shape[1] :]
        return UNet2DConditionOutput(sample=clean) if return_dict else (clean,)
