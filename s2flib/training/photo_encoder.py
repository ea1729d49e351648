"""The photo encoder that is trained with the generator: what it maps, and how a sketch encoder starts from it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from s2flib.errors import WeightsError
from s2flib.presets import Preset
from s2flib.psp import GradualStyleEncoder
from s2flib.weights.load import load_tensors


def encode_photo(encoder: GradualStyleEncoder, photo: Tensor) -> Tensor:
    """photo (B, 3, H, W) in [−1, 1] → offsets (B, n_styles, D) from w̄, at the encoder's own input size."""
    side = encoder.size
    if photo.shape[-1] != side:
        photo = F.interpolate(photo, size=(side, side), mode="bilinear", antialias=True)
    return encoder(photo)


def start_from_photo_encoder(
    encoder: GradualStyleEncoder,  # a sketch encoder; gets the weights, in place
    path: str,  # training.safetensors
    preset: Preset,
    latent_avg: Tensor,  # (style_dim,), w̄ of the generator that will be frozen
) -> GradualStyleEncoder:
    """Start from the photo encoder of the generator's own training; returns that photo encoder, frozen.

    The photo encoder already knows where faces are in W+; only what a face looks like in pencil is left to learn. Its
    three input channels are summed into one, since a grey photo and a sketch share their edges. It was trained around
    its own w̄; the heads' biases take up the difference.
    """
    tensors = load_tensors(path, "stylegan2-training", preset.name)
    own = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
    key = "input_layer.0.weight"
    if own.get(key) is None or own[key].shape[0] != encoder.input_layer[0].weight.shape[0]:
        raise WeightsError(
            f"{path} holds no photo encoder of this preset: give --init a training.safetensors that s2f train --what "
            "generator wrote."
        )
    for name in own:
        if name.startswith("styles.") and name.endswith(".linear.bias"):
            own[name] = own[name] + tensors["w_avg"] - latent_avg
    photo_encoder = GradualStyleEncoder.from_preset(preset, input_nc=3)
    photo_encoder.load_state_dict(own)
    encoder.load_state_dict(own | {key: own[key].sum(1, keepdim=True)})
    return photo_encoder.eval().requires_grad_(False)
