"""Torch files that are not what they should be; see weights.py."""

from __future__ import annotations

import argparse
import io
import zipfile
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from .common import Rng, pick


def torch_file(value: Any, legacy: bool = False) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()


def lie(rng: Rng, kind: str, checkpoint: dict) -> tuple[str, bytes, bool]:
    """(what is wrong, the file, whether it must be refused) of a checkpoint that is not what it should be."""
    if rng.random() < 0.15:
        what, value = _odd_root(rng, checkpoint)
        if isinstance(value, bytes):
            return what, value, True
        return what, torch_file(value), True
    if rng.random() < 0.3:
        key = pick(rng, checkpoint)
        value = _odd(rng, checkpoint[key])
        if value is None:
            del checkpoint[key]
        else:
            checkpoint[key] = value
        what = f"{key} is {shown(value)}"
    else:
        state = checkpoint["g_ema" if kind == "stylegan2.pt" else "state_dict"]
        key = pick(rng, state)
        value = _odd(rng, state[key])
        if value is None:
            del state[key]
        else:
            state[key if rng.random() < 0.9 else pick(rng, ("more", "a\nb", 3, "encoder.styles.99999999.x"))] = value
        what = f"{key} is {shown(value)}"
    return what, torch_file(checkpoint), False


def _odd_root(rng: Rng, checkpoint: dict) -> tuple[str, Any]:
    how = int(rng.integers(6))
    if how == 0:  # written by hand, because pickle cannot
        n = 100_000
        return "lists 100,000 deep", _repacked("data.pkl", b"\x80\x02" + b"]" * n + b"a" * (n - 1) + b".")
    if how == 1:
        loop: dict = {}
        loop["a"] = [loop]
        return "a dict that contains itself", loop
    if how == 2:  # in a few kilobytes
        return "40 MB of zeros in a packed archive", _repacked("data/0", bytes(40 << 20))
    if how == 3:
        return "a tensor", torch.zeros(3)
    if how == 4:
        return "a number", 3
    return "a list", [checkpoint]


def _repacked(member: str, content: bytes) -> bytes:
    """A file of torch's in which one member is replaced and packed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_file({"a": torch.zeros(4)}))) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            packed = info.filename.endswith(member)
            new.writestr(info.filename, content if packed else old.read(info), zipfile.ZIP_DEFLATED * packed)
    return out.getvalue()


def _odd(rng: Rng, value: Any) -> Any:
    """Something else than ``value``, of a type that a checkpoint can contain; None: nothing at all."""
    nested = ([value], (value,), {"a": value}, OrderedDict(a=value), argparse.Namespace(a=value))
    plain = (None, 3, True, "text", [], {}, *nested)
    if not isinstance(value, Tensor):
        options = (argparse.Namespace(encoder_type="Other"), {"encoder_type": []}, {3: 4})
        return pick(rng, (*plain, *options, torch.zeros(2)))
    spoilt = value.clone().float()
    if spoilt.numel():
        spoilt.view(-1)[int(rng.integers(spoilt.numel()))] = pick(rng, (float("nan"), float("inf")))
    others = (
        value.reshape(-1),
        value[None],
        value.expand(1000, *value.shape),
        torch.zeros(1).expand(*value.shape, 10**9),
        torch.zeros(0),
        torch.zeros(()),
        torch.zeros(0, 10**12, 3, 3),
        value.to(torch.complex64),
        value.to(torch.bool),
        value.to(torch.int32),
        value.double(),
        value.bfloat16(),
        value.to(torch.float8_e4m3fn),
        value.to_sparse() if value.ndim else value,
        torch.empty(value.shape, device="meta"),
        torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8),
        nn.Parameter(value.float()),
        spoilt,
        value.float() * 1e30,
    )
    return pick(rng, others) if rng.random() < 0.75 else pick(rng, plain)


def shown(value: Any) -> str:
    return f"a tensor {tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else repr(value)[:40]
