"""Broken weights. The promise: a loader gives the right network, or one sentence that names the file.

A bit that flips in a number which stays finite cannot be noticed without the file's SHA-256, so the networks are
compared number by number only where nothing was damaged.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from s2flib.presets import TINY
from s2flib.psp import PSP
from s2flib.stylegan2 import Generator
from s2flib.weights import load as loaders
from s2flib.weights import published

from .checkpoints import lie, shown, torch_file
from .common import FOREIGN, Rng, damaged, ensure, outcome, pick, promise, stream

# the same classes as under tiny, a hundred times smaller
NANO = dataclasses.replace(
    TINY,
    size=32,
    encoder_size=32,
    feature_side=None,  # as in the published files, which are among the kinds
    style_dim=8,
    n_mlp=2,
    channel_base=64,
    channel_max=8,
    encoder_units=(1, 1, 1, 1),
    encoder_widths=(4, 4, 8, 8),
    encoder_head=8,
)
KINDS = ("stylegan2", "psp", "toy", "stylegan2.pt", "psp.pt")
DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I8", "U8", "U16", "BOOL", "C64", "F4", "X")


class Toy(nn.Module):
    """Every sort of tensor that a network stores."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.register_buffer("table", torch.arange(6).reshape(2, 3))


@dataclass
class File:
    kind: str
    data: bytes
    what: str
    sound: bool = False  # it must be loaded, as it was saved
    refused: bool = False  # it must not be loaded

    @property
    def name(self) -> str:
        return f"weights{'.pt' if self.kind.endswith('.pt') else '.safetensors'}"


@functools.cache
def networks() -> dict[str, nn.Module]:
    """The networks that the sound files contain, with weights that float16 stores exactly."""
    torch.manual_seed(0)
    psp = PSP.from_preset(NANO).eval()
    for tensor in psp.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())
    psp.latent_avg.copy_(psp.latent_avg[:1].half().float().expand_as(psp.latent_avg))
    toy = Toy().eval()
    for parameter in toy.parameters():
        parameter.data.copy_(parameter.data.half())
    return {"psp": psp, "stylegan2": psp.decoder, "toy": toy}


def contents(kind: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What a sound file of this kind stores: tensors (or a checkpoint) and metadata."""
    psp, toy = networks()["psp"], networks()["toy"]
    assert isinstance(psp, PSP)
    if kind == "toy":
        return dict(toy.state_dict()), {"kind": "toy", "preset": NANO.name}
    if kind == "stylegan2":
        return psp.decoder.state_dict() | {"latent_avg": psp.latent_avg[0]}, {"kind": kind, "preset": NANO.name}
    if kind == "psp":
        tensors = {k: v for k, v in psp.state_dict().items() if not k.startswith("decoder.")}
        return tensors, {"kind": kind, "preset": NANO.name, "decoder": loaders.fingerprint(psp.decoder)}
    if kind == "stylegan2.pt":
        return {"g_ema": dict(psp.decoder.state_dict()), "latent_avg": psp.latent_avg[0].clone()}, {}
    state = {k: v for k, v in psp.state_dict().items() if k.startswith(("encoder.", "decoder."))}
    options = argparse.Namespace(encoder_type="GradualStyleEncoder", start_from_latent_avg=True)
    return {"state_dict": state, "latent_avg": psp.latent_avg.clone(), "opts": options}, {}


def case(seed: int) -> File:
    rng = stream("weights", seed)
    kind, chance = pick(rng, KINDS), rng.random()
    if chance < 0.08:
        return _foreign(rng, kind)
    if chance < 0.55:
        if not kind.endswith(".pt"):
            return _lying_tensors(rng, kind)
        what, data, refused = lie(rng, kind, contents(kind)[0])
        return File(kind, data, f"{kind}, {what}", refused=refused)
    file = _sound(rng, kind)
    if chance < 0.65:
        return file
    what, data = damaged(rng, file.data)
    return File(kind, data, f"{file.what}, {what}")


def _foreign(rng: Rng, kind: str) -> File:
    if rng.random() < 0.3:
        trap = {"a": Trap()} if rng.random() < 0.5 else Trap()
        data = pickle.dumps(trap, protocol=int(rng.integers(5))) if rng.random() < 0.5 else torch_file(trap)
        return File(kind, data, "a pickle with code", refused=True)
    what = pick(rng, FOREIGN)
    return File(kind, FOREIGN[what], what, refused=True)


class Trap:
    """Unpickled carelessly, it creates a file in the current folder."""

    def __reduce__(self):
        return open, ("trap-has-sprung", "w")


# --- safetensors: a length (8 bytes), a JSON header, the numbers ---


def pack(header: dict | str, numbers: bytes, length: int | None = None) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + numbers


def _sound(rng: Rng, kind: str) -> File:
    if kind.endswith(".pt"):
        legacy = rng.random() < 0.2
        return File(kind, torch_file(contents(kind)[0], legacy), f"{kind}{', legacy' * legacy}", sound=True)
    header, numbers = _parts(kind, half=rng.random() < 0.7)
    keys = list(header)
    rng.shuffle(keys)
    return File(kind, pack({k: header[k] for k in keys}, numbers), kind, sound=True)


def _parts(kind: str, half: bool = True) -> tuple[dict[str, Any], bytes]:
    """The header and the numbers of a sound file."""
    tensors, metadata = contents(kind)
    header: dict[str, Any] = {"__metadata__": metadata}
    numbers = b""
    for key, value in tensors.items():
        value = value.half() if half and value.is_floating_point() else value
        data = value.contiguous().numpy().tobytes()
        name = {torch.float16: "F16", torch.float32: "F32", torch.int64: "I64"}[value.dtype]
        header[key] = {"dtype": name, "shape": list(value.shape), "data_offsets": [len(numbers), len(numbers + data)]}
        numbers += data
    return header, numbers


def _lying_tensors(rng: Rng, kind: str) -> File:
    header, numbers = _parts(kind, half=rng.random() < 0.7)
    keys = [key for key in header if key != "__metadata__"]
    key = pick(rng, keys)
    entry, metadata = dict(header[key]), dict(header["__metadata__"])
    shape, (first, last) = entry["shape"], entry["data_offsets"]
    header[key] = entry
    how, refused = int(rng.integers(14)), False
    if how == 0:
        del header[key]
        what, refused = f"{key} is missing", False  # a hole in the numbers, or nothing that is needed
    elif how == 1:
        odd = pick(rng, ("more", "a\nb", "\x1b[31m", "x" * 5000, "", "encoder.", "ключ", "latent_avg\0"))
        header[odd] = header.pop(key) if rng.random() < 0.5 else entry
        what, refused = f"{key} is {odd[:20]!r}", False
    elif how == 2:
        entry["dtype"] = pick(rng, DTYPES)
        what = f"{key} is {entry['dtype']}"
    elif how == 3:
        odd_shapes = (
            [10**12],
            [2**63, 2],
            [0],
            [0, 10**12, 3, 3],
            [],
            [1],
            shape[::-1],
            [*shape, 1],
            [1, *shape],
            [-1],
        )
        entry["shape"] = pick(rng, (*odd_shapes, [2.5], ["8"], [[8]], "8", None, shape + [10**12, 0]))
        what = f"{key} has the shape {entry['shape']}"
    elif how == 4:  # a whole file with a tensor of another shape, of no numbers, or of a single one
        size = {"F16": 2, "F32": 4, "I64": 8}[entry["dtype"]]
        new = pick(rng, ([0], [0, 10**12, 3, 3], [1], [], [3, 7], [64, 10**9, 0]))
        count = 1
        for side in new:
            count *= side
        return _with(rng, kind, header, numbers, key, new, bytes(size * count))
    elif how == 5:
        size = len(numbers)
        offsets = ([0, last - first], [last, first], [first, size], [size, size + last - first], [first, last + 2**40])
        entry["data_offsets"] = pick(rng, (*offsets, [-1, last], [first], [first, last, last], "0", None, [0.5, 1.5]))
        what = f"{key} lies at {entry['data_offsets']}"
    elif how == 6:
        bad = struct.pack("<e", pick(rng, (float("nan"), float("inf"), -float("inf"))))
        bad = {"F16": bad, "F32": struct.pack("<f", struct.unpack("<e", bad)[0]), "I64": bytes(8)}[entry["dtype"]]
        at = first + len(bad) * int(rng.integers((last - first) // len(bad)))
        numbers = numbers[:at] + bad + numbers[at + len(bad) :]
        what, refused = f"{key} has a value that is not finite", entry["dtype"] != "I64"
    elif how == 7:
        name = pick(rng, ("kind", "preset", "decoder"))
        value = pick(rng, (None, "", "other", "tiny\n", 3, ["psp"], {}))
        header["__metadata__"] = {k: v for k, v in (metadata | {name: value}).items() if v is not None}
        what = f"its {name} is {value!r}"
    elif how == 8:
        header["__metadata__"] = pick(rng, (None, [], "psp", 1, {}))
        what = f"its metadata is {header['__metadata__']!r}"
    elif how == 9:
        other = pick(rng, keys)
        header[key], header[other] = header[other], entry
        what = f"{key} and {other} are exchanged"
    elif how == 10:
        text = json.dumps(header)
        twice = text[:-1] + f", {json.dumps(key)}: {json.dumps(entry)}}}"
        deep = '{"a":' * 100_000
        text = pick(rng, (twice, deep, text.replace(":", "", 1), text.encode().decode("latin-1"), "[]", "{}", "null"))
        return File(kind, pack(text, numbers), f"its header begins with {text[:20]!r}")
    elif how == 11:
        length = int(pick(rng, (0, 1, 7, 100_000_001, 2**31, 2**63, 2**64 - 1, len(json.dumps(header)) + 8)))
        return File(kind, pack(header, numbers, length), f"its header claims {length} bytes")
    elif how == 12:
        numbers = pick(rng, (numbers + bytes(8), numbers[:-1], b"", numbers * 2))
        what, refused = f"it has {len(numbers)} bytes of numbers", True
    else:
        header[key] = pick(rng, (None, {}, [], "F16", entry | {"dtype": 16}, entry | {"more": 1}))
        what = f"{key} is {header[key]!r}"
    return File(kind, pack(header, numbers), f"{kind}, {what}", refused=refused)


def _with(rng: Rng, kind: str, header: dict, numbers: bytes, key: str, shape: list[int], data: bytes) -> File:
    """The file with one tensor replaced; nothing else about it is wrong."""
    out, parts = {"__metadata__": header["__metadata__"]}, b""
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            own = data if name == key else numbers[first:last]
            dims = shape if name == key else entry["shape"]
            out[name] = entry | {"shape": dims, "data_offsets": [len(parts), len(parts) + len(own)]}
            parts += own
    same = shape == header[key]["shape"]
    return File(kind, pack(out, parts), f"{kind}, {key} is a whole tensor of {shape}", refused=not same)


# --- the promise ---


@promise("weights", lambda seed: case(seed).what)
def check(seed: int, folder: Path) -> None:
    file = case(seed)
    path = folder / file.name
    path.write_bytes(file.data)
    with mock.patch.object(published, "PAPER", NANO):  # the layout of the published files, at a size that is quick
        read, _ = outcome(lambda: loaders.safe_load(path), path)
        ensure(_size(read) <= 10 * len(file.data) + (1 << 20), "it takes far more memory than its file")
        network, error = outcome(lambda: _load(file.kind, path, folder), path)
    ensure(not Path("trap-has-sprung").exists(), "code in the file was executed")
    ensure(not (file.sound and error), f"a sound file was refused: {error}")
    ensure(not (file.refused and network), "it was loaded, although it is no usable file")
    if network is not None:
        _is_right(file, network)


def _size(contents: Any, depth: int = 4) -> int:
    """Bytes that the tensors in a dict, in dicts of it and so on, keep in memory."""
    if isinstance(contents, Tensor):
        return 0 if contents.is_meta or contents.is_sparse else contents.untyped_storage().nbytes()
    return sum(_size(value, depth - 1) for value in contents.values()) if type(contents) is dict and depth else 0


def _load(kind: str, path: Path, folder: Path) -> nn.Module:
    if kind.startswith("stylegan2"):
        return loaders.load_generator(NANO, path)
    if kind == "toy":
        return loaders.load_network(Toy(), path, "toy")
    generator = folder / "generator.safetensors"
    generator.write_bytes(pack(*_parts("stylegan2")))
    return loaders.load_psp(NANO, path, generator)


def _is_right(file: File, network: nn.Module) -> None:
    """Of the right class and shapes, finite; and if the file was sound, number by number what was saved."""
    expected = networks()[file.kind.removesuffix(".pt")]
    ensure(type(network) is type(expected) and not network.training, f"it is a {type(network).__name__}")
    state, wanted = network.state_dict(), expected.state_dict()
    ensure(state.keys() == wanted.keys(), "it has other tensors")
    for key, value in wanted.items():
        ensure(state[key].shape == value.shape and state[key].dtype == value.dtype, f"{key} is {shown(state[key])}")
        ensure(torch.isfinite(state[key]).all(), f"{key} is not finite")
        ensure(not file.sound or torch.equal(state[key], value), f"{key} has other values")
    if isinstance(network, Generator):
        average = network.latent_avg
        assert isinstance(average, Tensor)
        ensure(average.shape == (NANO.style_dim,) and average.dtype == torch.float32, f"w̄ is {shown(average)}")
        ensure(torch.isfinite(average).all(), "w̄ is not finite")
