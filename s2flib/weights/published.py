"""Converts the layouts of published checkpoints to plain state dicts.

Nothing here uses the network or the disk; :func:`s2flib.weights.load.safe_load` opens the files.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.errors import WeightsError, printable
from s2flib.presets import PAPER
from s2flib.psp import PSP, GradualStyleEncoder, irse_body
from s2flib.stylegan2 import Generator

State = dict[str, Tensor]


def load_strict(module: nn.Module, state: State, what: str) -> None:
    """A strict ``load_state_dict``: a tensor that is missing, unknown, of another shape, not floating-point where it
    should be, or not finite raises WeightsError."""
    own = module.state_dict()
    for key in own:
        if key not in state:
            raise WeightsError(
                f"{what} lacks the tensor {key}: it was saved for another network; use the "
                "file that belongs to this preset."
            )
        check_values(state[key], key, what, own[key].is_floating_point(), own[key].is_meta)
        if state[key].shape != own[key].shape:
            raise WeightsError(
                f"{what} has {key} as {tuple(state[key].shape)} instead of {tuple(own[key].shape)}: it "
                "is a checkpoint of another preset; use the file that belongs to this one."
            )
    for key in state:
        if key not in own:
            raise WeightsError(
                f"{what} has the unknown tensor {printable(key)}: it was saved for another network; use the file "
                "that belongs to this preset."
            )
    module.load_state_dict(state)


def check_values(tensor: Any, key: str, what: str, floating: bool = True, meta: bool = False) -> None:
    """WeightsError for what is no dense tensor, or not floating-point although it should be, or has NaN or infinite
    values. meta: whether a tensor without values (torch's device "meta") may stand for one."""
    if not isinstance(tensor, Tensor):
        kind = type(tensor).__name__
    elif tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta and not meta:
        kind = "a sparse or quantised tensor or one without values"
    else:
        kind = str(tensor.dtype) if floating and not tensor.is_floating_point() else ""
    if kind:
        raise WeightsError(f"{what} has {printable(key)} as {kind}, which is no weight: the file is damaged.")
    if tensor.is_floating_point() and not tensor.is_meta and not torch.isfinite(tensor.float()).all():
        raise WeightsError(f"{what} has NaN or infinite values in {key}: the training broke; use another file.")


def check_latent_avg(latent_avg: Any, n_styles: int, style_dim: int, what: str, meta: bool = False) -> None:
    """WeightsError unless w̄ is (style_dim,) or (n_styles, style_dim) and finite."""
    check_values(latent_avg, "latent_avg", what, meta=meta)
    if tuple(latent_avg.shape) not in ((style_dim,), (n_styles, style_dim)):
        rows = f"{len(latent_avg)} rows" if latent_avg.ndim == 2 else f"the shape {tuple(latent_avg.shape)}"
        raise WeightsError(f"{what} has a latent_avg of {rows} for {n_styles} styles: it belongs to another model.")


def input_channels(encoder: State, what: str) -> int:
    """The channels that an encoder reads, by its first weight (width, channels, 3, 3)."""
    weight = encoder.get("input_layer.0.weight")
    check_values(weight, "input_layer.0.weight", what, meta=True)
    assert weight is not None
    if weight.ndim != 4 or weight.numel() == 0:
        raise WeightsError(f"{what} has a first layer of the shape {tuple(weight.shape)}: the file is damaged.")
    return weight.shape[1]


def under(state: Mapping[Any, Any], prefix: str) -> State:
    """The entries whose keys start with ``prefix``, with the prefix removed."""
    return {k[len(prefix) :]: v for k, v in state.items() if isinstance(k, str) and k.startswith(prefix)}


def load_stylegan2(generator: Generator, checkpoint: dict[str, Any], what: str) -> Tensor:
    """Load ``generator`` from a ``stylegan2-*.pt`` and return w̄ (style_dim,).

    checkpoint: {g_ema: state dict, latent_avg: (512,), …}. Published files differ in three ways: early ones
    (``550000.pt``) lack the stored noise, which is then sampled from a fixed seed; the constant filters may be missing,
    but if present they must be [1,3,3,1], the only ones that the generator supports; conversions from stylegan2-ada
    lack latent_avg and may contain mapping.w_avg; without both, w̄ is estimated.
    """
    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get("g_ema"), Mapping):
        raise WeightsError(
            f"{what} has no entry g_ema: it is not a StyleGAN2 checkpoint in the published "
            "layout; convert it with rosinality's convert_weight.py first."
        )
    state = dict(checkpoint["g_ema"])
    averages = [checkpoint.get("latent_avg"), state.pop("latent_avg", None), state.pop("mapping.w_avg", None)]
    own = generator.state_dict()
    draw = torch.Generator().manual_seed(0)
    for key, value in own.items():
        if key.startswith("noises.") and key not in state:
            state[key] = torch.randn(value.shape, generator=draw)
        elif key.endswith(".kernel"):
            kernel = state.setdefault(key, value)
            check_values(kernel, key, what, meta=value.is_meta)
            if kernel.shape == value.shape and not torch.allclose(kernel.float(), value, atol=1e-4):
                raise WeightsError(
                    f"{what} was trained with another low-pass filter ({key}): only [1,3,3,1] "
                    "is supported; use a checkpoint of a standard config."
                )
    load_strict(generator, state, what)
    w_avg = next((w for w in averages if w is not None), None)
    return generator.mean_latent() if w_avg is None else mean_style(w_avg, generator.style_dim, what)


def mean_style(latent_avg: Any, style_dim: int, what: str) -> Tensor:
    """w̄ as (style_dim,) float32, from one row or from a row for each style; WeightsError for anything else."""
    check_values(latent_avg, "latent_avg", what)
    if latent_avg.ndim not in (1, 2) or latent_avg.shape[-1] != style_dim or latent_avg.numel() == 0:
        raise WeightsError(
            f"{what} has a latent_avg of the shape {tuple(latent_avg.shape)} instead of ({style_dim},): it belongs to "
            "another model."
        )
    return latent_avg.detach().float().reshape(-1, style_dim)[0].clone()


@dataclass
class PublishedPSP:
    """The contents of a ``psp_*.pt``; see :func:`read_psp`."""

    encoder: State  # 621 keys at 18 styles
    decoder: State  # 171 keys at 1024 px
    latent_avg: Tensor  # (n_styles, 512); zeros for a model trained without start_from_latent_avg
    input_nc: int  # 1: sketch; 3: photo; 19: segmentation map
    n_styles: int


def read_psp(checkpoint: dict[str, Any], what: str, kind: str = "GradualStyleEncoder") -> PublishedPSP:
    """Split a published ``{state_dict: encoder.* + decoder.*, opts, latent_avg}``, or raise WeightsError.

    kind: the encoder_type that its opts must name; e4e and ReStyle use the same layout for other encoders.
    """
    state = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping) or "encoder.input_layer.0.weight" not in state:
        raise WeightsError(
            f"{what} has no state_dict with encoder.* tensors: it is not a pSp checkpoint in "
            "the published layout; use a psp_*.pt file."
        )
    opts = checkpoint.get("opts")
    opts = {} if opts is None else vars(opts) if isinstance(opts, argparse.Namespace) else opts
    if not isinstance(opts, Mapping):
        raise WeightsError(f"{what} has opts as {type(opts).__name__}: the file is damaged; download it again.")
    found = opts.get("encoder_type", "GradualStyleEncoder")
    if found != kind:
        raise WeightsError(
            f"{what} contains a {printable(found)}, not the {kind} that is needed here: use a file that was trained "
            "with it."
        )
    encoder, decoder = under(state, "encoder."), under(state, "decoder.")
    n_styles = 1 + max((int(m[1]) for k in encoder if (m := re.match(r"styles\.([0-9]{1,2})\.", k))), default=-1)
    if n_styles == 0:
        raise WeightsError(f"{what} has no style heads in its encoder: the file is damaged; download it again.")
    latent_avg = checkpoint.get("latent_avg")
    if latent_avg is None:
        if opts.get("start_from_latent_avg", True):
            raise WeightsError(
                f"{what} lacks latent_avg, to which its encoder's codes are offsets: use the complete published file."
            )
        latent_avg = torch.zeros(n_styles, PAPER.style_dim)
    check_values(latent_avg, "latent_avg", what, meta=True)
    latent_avg = latent_avg.detach().float()
    if latent_avg.ndim == 2 and len(latent_avg) > n_styles and (latent_avg == latent_avg[:1]).all():
        latent_avg = latent_avg[:n_styles]  # saved for a larger generator; the rows are all the same w̄
    check_latent_avg(latent_avg, n_styles, PAPER.style_dim, what, meta=True)
    return PublishedPSP(encoder, decoder, latent_avg, input_channels(encoder, what), n_styles)


def build_psp(checkpoint: dict[str, Any], what: str) -> PSP:
    """A PSP in eval mode from a published ``psp_*.pt``, with the size and input channels it was saved at."""
    p, c = PAPER, read_psp(checkpoint, what)
    encoder = GradualStyleEncoder(
        c.input_nc, c.n_styles, p.style_dim, p.encoder_units, p.encoder_widths, p.encoder_head, p.encoder_size
    )
    load_strict(encoder, c.encoder, f"the encoder of {what}")
    return PSP(encoder, build_decoder(c, what), c.latent_avg).eval()


def build_decoder(published: PublishedPSP, what: str) -> Generator:
    """The generator of a published checkpoint, at the size it was saved at, with w̄ (style_dim,) in latent_avg."""
    p, size = PAPER, 2 ** (published.n_styles // 2 + 1)  # n_styles = 2·log2(size) − 2
    decoder = Generator(size, p.style_dim, p.n_mlp, p.channel_base, p.channel_max)
    state = {"g_ema": published.decoder, "latent_avg": published.latent_avg}
    decoder.register_buffer("latent_avg", load_stylegan2(decoder, state, f"the decoder of {what}"), persistent=False)
    return decoder


class IRSE50(nn.Module):
    """ArcFace's IR-SE-50 with the names of ``model_ir_se50.pth`` (Deng et al., arXiv:1801.07698).

    (B, 3, 112, 112) in [−1, 1] → (B, 512) of unit norm. pSp's ID loss passes it the crop [:, :, 35:223, 32:220] of a
    256 px image, pooled to 112.
    """

    def __init__(self):
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        self.body = irse_body(PAPER.encoder_units, PAPER.encoder_widths, 64)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512), nn.Dropout(0.6), nn.Flatten(), nn.Linear(512 * 7 * 7, 512), nn.BatchNorm1d(512)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.output_layer(self.body(self.input_layer(x))))


def build_ir_se50(state: State, what: str) -> IRSE50:
    """IRSE50 in eval mode, frozen, from the bare state dict of ``model_ir_se50.pth``."""
    network = IRSE50()
    load_strict(network, state, what)
    return network.eval().requires_grad_(False)
