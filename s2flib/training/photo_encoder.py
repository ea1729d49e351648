"""The photo encoder trained with the generator: its mapping, and the initialisation of a sketch encoder from it."""

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
    encoder: GradualStyleEncoder,  # a sketch encoder, initialised in place
    path: str,  # training.safetensors
    preset: Preset,
    latent_avg: Tensor,  # (style_dim,), w̄ of the generator that will be frozen
) -> GradualStyleEncoder:
    """Initialise from the photo encoder of the generator's training; returns that photo encoder, frozen.

    The photo encoder already maps faces to W+, so only the appearance of sketches has to be learned. Its three input
    channels are summed into one, since a grey photo and a sketch have the same edges. It was trained relative to its
    own w̄; the heads' biases are corrected for the difference.
    """
    tensors = load_tensors(path, "stylegan2-training", preset.name)
    own = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
    key = "input_layer.0.weight"
    if own.get(key) is None or own[key].shape[0] != encoder.get_parameter(key).shape[0]:
        raise WeightsError(
            f"{path} contains no photo encoder of this preset: pass --init a training.safetensors written by s2f train "
            "--what generator."
        )
    for name in own:
        if name.startswith("styles.") and name.endswith(".linear.bias"):
            own[name] = own[name] + tensors["w_avg"] - latent_avg
    photo_encoder = GradualStyleEncoder.from_preset(preset, input_nc=3)
    photo_encoder.load_state_dict(own)
    encoder.load_state_dict(own | {key: own[key].sum(1, keepdim=True)})
    return photo_encoder.eval().requires_grad_(False)
