"""Convert the published ST-LPIPS weights to data/weights/st-lpips-alex.safetensors.

    python scripts/convert_st_lpips.py [--wheel FILE.whl]

Without --wheel the pinned wheel is downloaded from PyPI by pip. Only its weights (BSD-2-Clause) are read;
its code is neither run nor copied. The tensors are reproducible (the order of
the safetensors header is not).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save

from s2flib.files import atomic_path
from s2flib.judges.stlpips import STLPIPS

PACKAGE = "stlpips_pytorch==0.0.2"
WHEEL_SHA256 = "a412bf901a97c942b37af57c7c63b6e5d1aebfe8d1dfc17853d4b2f878630645"
MEMBER = "stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth"
# our layer -> theirs
NAMES = {"conv1": "slice1.0", "conv2": "slice2.5", "conv3": "slice3.9", "conv4": "slice4.11", "conv5": "slice5.13"}


def pinned_wheel(wheel: Path | None, package: str, sha256: str, folder: str) -> Path:
    """The wheel given, or the pinned one fetched by pip; its sha256 is checked either way."""
    if wheel is None:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", folder, package], check=True
        )
        wheel = next(Path(folder).glob("*.whl"))
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != sha256:
        sys.exit(f"{wheel.name} has sha256 {found}, not the pinned {sha256}: get {package} from PyPI.")
    return wheel


def convert(published: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The published state dict under our names, in float32; it must be complete."""
    tensors = {}
    for ours, theirs in NAMES.items():
        for part in ("weight", "bias"):
            tensors[f"{ours}.{part}"] = published[f"net.{theirs}.{part}"].float().contiguous()
    for i in range(5):
        tensors[f"lin{i + 1}"] = published[f"lin{i}.model.1.weight"].float().flatten().contiguous()
    STLPIPS().load_state_dict(tensors, strict=True)
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, help="the pinned wheel, if you have it already")
    parser.add_argument("--out", type=Path, help="default: data/weights/st-lpips-alex.safetensors")
    args = parser.parse_args()
    out = args.out or Path(__file__).parents[1] / "data" / "weights" / "st-lpips-alex.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        wheel = pinned_wheel(args.wheel, PACKAGE, WHEEL_SHA256, folder)
        with zipfile.ZipFile(wheel) as archive:
            published = torch.load(io.BytesIO(archive.read(MEMBER)), map_location="cpu", weights_only=True)
    tensors = {name: t.half() for name, t in convert(published).items()}
    metadata = {
        "kind": "st-lpips-alex",
        "preset": "any",
        "licence": "BSD-2-Clause",
        "source": f"PyPI {PACKAGE}, {MEMBER}",
        "source_sha256": WHEEL_SHA256,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as part:
        Path(part).write_bytes(save(tensors, metadata))
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
