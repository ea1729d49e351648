"""The tiny pipeline's UNet: what it says is added to the picture before the edit.

A module of its own, for the pipeline's model_index.json names it: ``import s2flib.instruct_pix2pix.unet``, and diffusers'
``from_pretrained`` reads the folder.
"""

from __future__ import annotations

import functools

import torch
from diffusers import ModelMixin, UNet2DConditionModel  # noqa: F401  (diffusers looks for ModelMixin here to load by)
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor


class ResidualUNet(UNet2DConditionModel):
    """UNet2DConditionModel that predicts clean latents as ``picture_scale`` · picture before + what changes.

    Its input is InstructPix2Pix's, noisy latents ⊕ unscaled latents of the picture before (zeros: no picture). An edit
    leaves most of a picture alone, and to copy sixteen channels exactly through normalised, narrow layers takes most
    of a small net: without this sum its copy of what should stay erred by more than new eyes differ from the old.
    """

    @functools.wraps(UNet2DConditionModel.__init__)          # diffusers reads the config's keys from the signature
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("picture_scale", torch.ones(()))          # of the latents: the VAE's scaling_factor

    def forward(self, sample: Tensor, timestep, encoder_hidden_states: Tensor, *args, return_dict: bool = True,
                **kwargs) -> UNet2DConditionOutput | tuple[Tensor]:
        said, = super().forward(sample, timestep, encoder_hidden_states, *args, return_dict=False, **kwargs)
        clean = said + self.picture_scale * sample[:, said.shape[1]:]
        return UNet2DConditionOutput(sample=clean) if return_dict else (clean,)
