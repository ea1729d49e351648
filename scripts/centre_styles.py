"""Move every style row's mean code to the mean of W, without changing the picture of any photo or sketch.

    python scripts/centre_styles.py [--photos 1200]

Trained by reconstruction, the photo encoder centres row i of its codes on its own mean m_i, while a random face uses
the same w for all rows. That code is far from any photo's code, and its picture is bad. The difference r_i = m_i − mean
of all m can be moved into the generator exactly: a layer reads its row as style = A w + b, so b ← b + A r_i and
w_i ← w_i − r_i leave every style unchanged. The script rewrites the tiny generator, its training weights and the tiny
encoder, and checks that the encoder's faces stay the same.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from s2flib.datasets.faces import open_dataset
from s2flib.files import weights_dir
from s2flib.psp import GradualStyleEncoder
from s2flib.stylegan2 import Generator
from s2flib.weights.load import fingerprint, load_generator, load_psp, safe_load, save_safetensors, update_sha256sums

FOLDER = weights_dir()


def row_readers(generator: Generator) -> list[tuple[int, torch.nn.Module]]:
    """(row of w+, its modulation) for every layer of the synthesis network."""
    out = [(0, generator.conv1.conv.modulation), (1, generator.to_rgb1.conv.modulation)]
    for k, to_rgb in enumerate(generator.to_rgbs):
        out += [
            (2 * k + 1, generator.convs[2 * k].conv.modulation),
            (2 * k + 2, generator.convs[2 * k + 1].conv.modulation),
            (2 * k + 3, to_rgb.conv.modulation),
        ]
    return out


@torch.no_grad()
def move_rows(generator: Generator, offsets: Tensor) -> None:
    """b ← b + A r for every layer; offsets (n_styles, D)."""
    for row, modulation in row_readers(generator):
        zero = torch.zeros_like(offsets[row])
        modulation.bias += modulation(offsets[row]) - modulation(zero)


@torch.no_grad()
def mean_codes(tensors: dict[str, Tensor], photos: int) -> Tensor:
    """(n_styles, D): the photo encoder's mean code of each row over the first training photos."""
    encoder = GradualStyleEncoder.from_preset("tiny", input_nc=3).eval()
    encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")})
    dataset = open_dataset("tiny", "train", limit=photos)
    x = torch.stack([torch.from_numpy(dataset.read(i)[0]) for i in range(len(dataset))])
    x = F.interpolate(x.permute(0, 3, 1, 2).float() / 127.5 - 1, size=(64, 64), mode="bilinear", antialias=True)
    return torch.cat([encoder(part) for part in x.split(64)]).mean(0) + tensors["w_avg"]


def shift_heads(tensors: dict[str, Tensor], offsets: Tensor) -> None:
    """Shift the encoder's codes by −r, in the last bias of each head."""
    for i, offset in enumerate(offsets):
        tensors[f"encoder.styles.{i}.linear.bias"] -= offset


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--photos", type=int, default=1200)
    args = parser.parse_args()
    train, meta = safe_load(FOLDER / "tiny-stylegan2-train.safetensors", with_metadata=True)
    train = {k: v.float() for k, v in train.items()}
    means = mean_codes(train, args.photos)
    offsets = means - means.mean(0)
    psp = load_psp("tiny")
    sample = torch.stack([open_dataset("tiny", "val", limit=16)[i]["sketch"] for i in range(16)])
    before = psp(sample)[0]

    generator = load_generator("tiny")
    move_rows(generator, offsets)
    _, own = safe_load(FOLDER / "tiny-stylegan2.safetensors", with_metadata=True)
    save_safetensors(
        FOLDER / "tiny-stylegan2.safetensors",
        dict(generator.state_dict()) | {"latent_avg": generator.latent_avg},
        own,
        overwrite=True,
    )
    shift_heads(train, offsets)
    train |= {f"ema.{k}": v for k, v in generator.state_dict().items()}
    save_safetensors(FOLDER / "tiny-stylegan2-train.safetensors", train, meta, overwrite=True)
    tensors, meta = safe_load(FOLDER / "tiny-psp.safetensors", with_metadata=True)
    tensors = {k: v.float() for k, v in tensors.items()}
    shift_heads(tensors, offsets)
    update_sha256sums()
    meta["decoder"] = fingerprint(load_generator("tiny"))
    save_safetensors(FOLDER / "tiny-psp.safetensors", tensors, meta, overwrite=True)
    update_sha256sums()
    change = (load_psp("tiny")(sample)[0] - before).abs()
    print(
        f"rows moved by {offsets.square().mean().sqrt():.3f} (rms); the encoder's faces changed by "
        f"{change.mean() * 127.5:.2f} grey levels on average, {change.max() * 127.5:.1f} at most"
    )


if __name__ == "__main__":
    main()
