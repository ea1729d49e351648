"""The latents of edit pairs and their mirror images, computed once and cached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s2flib.datasets.edit_pairs import EditPairs
from s2flib.images import as_float
from s2flib.training.edit_vae import masked
from s2flib.weights.load import fingerprint, safe_load, save_safetensors


@dataclass
class Latents:
    """Encoded pairs. z (2, N, 2, C, h, w) float16: mirrored or not, pair, before/after; change (N, h, w) in [0, 1]."""

    z: Tensor
    change: Tensor
    scale: float  # 1 / standard deviation of the latents: diffusers' scaling_factor


@torch.no_grad()
def encode_pairs(
    vae: Any, arrays: dict[str, np.ndarray], scale: float | None = None, autocast: Callable[[], Any] = torch.no_grad
) -> Latents:
    """EditPairs.arrays() → :class:`Latents` (modes of the posterior, unscaled) of the masked pairs."""
    device, every = next(vae.parameters()).device, []
    before, after = masked(arrays)
    for mirrored in (False, True):
        sides = []
        for pictures in (before, after):
            parts = []
            for part in pictures.split(32):
                x = as_float(part).to(device)
                with autocast():
                    parts.append(vae.encode(x.flip(3) if mirrored else x).latent_dist.mode().half().cpu())
            sides.append(torch.cat(parts))
        every.append(torch.stack(sides, 1))
    z = torch.stack(every)
    difference = torch.cat(
        [
            (a.float() - b.float()).abs().mean(1, keepdim=True) / 255
            for a, b in zip(before.split(256), after.split(256), strict=True)
        ]
    )
    change = F.adaptive_avg_pool2d(difference, (z.shape[-2], z.shape[-1]))[:, 0]
    change = change.half().float()  # the precision of the cached file
    return Latents(z, change, scale or float(1 / z[0, :, 0].float().std()))


def cached_latents(path: Path, vae: Any, pairs: EditPairs, autocast) -> Latents:
    """``encode_pairs`` of a split, cached in ``path`` with the fingerprint of the encoder."""
    mark = f"masked-{fingerprint(vae.encoder)}-{len(pairs)}-{pairs.rows[0].name}-{pairs.rows[-1].name}"
    if path.is_file():
        tensors, meta = safe_load(path, with_metadata=True)
        if meta.get("mark") == mark:
            return Latents(tensors["z"], tensors["change"].float(), float(meta["scale"]))
    made = encode_pairs(vae, pairs.arrays(), autocast=autocast)
    save_safetensors(
        path, {"z": made.z, "change": made.change}, {"mark": mark, "scale": repr(made.scale)}, overwrite=True
    )
    return made
