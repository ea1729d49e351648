"""Join the shipped generator and encoder with their cause encoder into one renderer.safetensors to train on.

    python scripts/make_renderer.py renderer.safetensors
    s2f train --what renderer --init renderer.safetensors ...      # docs/train-tiny.md

Neural-renderer training also has the cause encoder (causes → w), which nothing else needs. It is kept in
data/weights/tiny-causes.safetensors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from s2flib.files import weights_dir
from s2flib.presets import TINY
from s2flib.synthfaces.causes import cause_names
from s2flib.training.renderer_networks import RendererNetworks
from s2flib.weights.load import load_psp, load_tensors, save_safetensors

CAUSES = "tiny-causes.safetensors"


def joined() -> dict[str, Tensor]:
    """Every tensor of a renderer.safetensors, from the three shipped files; the previews of small stages are fresh."""
    psp = load_psp(TINY).eval()
    nets = RendererNetworks(TINY, len(cause_names()), TINY.size)
    nets.generator.load_state_dict(psp.decoder.state_dict())
    nets.encoder.load_state_dict(psp.encoder.state_dict())
    nets.causes.load_state_dict(load_tensors(weights_dir() / CAUSES, "cause-encoder", TINY.name))
    return nets.state_dict() | {"w_avg": psp.latent_avg[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    meta = {"kind": "neural-renderer", "preset": TINY.name, "images": "0"}
    print(save_safetensors(parser.parse_args().out, joined(), meta))


if __name__ == "__main__":
    main()
