"""Published pSp, e4e and ReStyle encoders of photos, from their authors' checkpoints: 1024 px, 18 styles of 512."""

from __future__ import annotations

from typing import Any

from s2flib.errors import WeightsError
from s2flib.inversion.e4e import Encoder4Editing
from s2flib.inversion.restyle import BackboneEncoder, ReStyle
from s2flib.presets import PAPER
from s2flib.psp import PSP, GradualStyleEncoder
from s2flib.weights.published import PublishedPSP, build_decoder, load_strict, read_psp

# the encoder_type in the checkpoint's opts
TYPES = {
    "psp": "GradualStyleEncoder",
    "e4e": "Encoder4Editing",
    "restyle-psp": "BackboneEncoder",
    "restyle-e4e": "ProgressiveBackboneEncoder",
}


def build_photo_encoder(name: str, checkpoint: dict[str, Any], what: str) -> PSP:
    """pSp or e4e in eval mode from a ``psp_ffhq_encode.pt`` or ``e4e_ffhq_encode.pt``. WeightsError for other files."""
    p, c = PAPER, _read(name, checkpoint, what, 3)
    kind = GradualStyleEncoder if name == "psp" else Encoder4Editing
    encoder = kind(3, c.n_styles, p.style_dim, p.encoder_units, p.encoder_widths, p.encoder_head, p.encoder_size)
    load_strict(encoder, c.encoder, f"the encoder of {what}")
    return PSP(encoder, build_decoder(c, what), c.latent_avg).eval()


def build_restyle(name: str, checkpoint: dict[str, Any], what: str) -> ReStyle:
    """ReStyle in eval mode from a ``restyle_*_ffhq_encode.pt``. WeightsError for other files."""
    p, c = PAPER, _read(name, checkpoint, what, 6)
    progressive = name == "restyle-e4e"
    encoder = BackboneEncoder(
        c.n_styles, p.style_dim, p.encoder_units, p.encoder_widths, p.encoder_head, p.encoder_size, progressive
    )
    own = encoder.state_dict()  # the authors' code, too, ignores further tensors
    load_strict(encoder, {k: v for k, v in c.encoder.items() if k in own}, f"the encoder of {what}")
    return ReStyle(encoder, build_decoder(c, what), c.latent_avg).eval()


def _read(name: str, checkpoint: dict[str, Any], what: str, input_nc: int) -> PublishedPSP:
    published = read_psp(checkpoint, what, TYPES[name])
    if published.input_nc != input_nc:
        raise WeightsError(
            f"{what} reads {published.input_nc} channels instead of {input_nc}: use the file that was trained for "
            f"{name} on FFHQ."
        )
    return published
