"""Draw docs/teaser.png: sketches of test people, the shipped model's faces, and the photos it has not seen.

The people are evenly spaced over the test split, not hand-picked. Usage: python scripts/make_teaser.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from s2flib.datasets.faces import open_dataset
from s2flib.generate import how_made
from s2flib.plotting.canvas import save_figure
from s2flib.plotting.pictures import sketch_output_photo_grid
from s2flib.presets import get_preset
from s2flib.weights.load import load_psp

PEOPLE = 8
OUT = Path(__file__).resolve().parent.parent / "docs" / "teaser.png"


def main(out: Path = OUT) -> None:
    test = open_dataset("tiny", "test")
    people = np.unique(test.identities)
    chosen = people[np.linspace(0, len(people) - 1, PEOPLE).astype(int)]
    samples = [test[int(np.flatnonzero(test.identities == person)[0])] for person in chosen]
    sketches, photos = (torch.stack([s[k] for s in samples]) for k in ("sketch", "photo"))
    psp = load_psp("tiny")
    with torch.inference_mode():
        faces, _ = psp(sketches)
    figure = sketch_output_photo_grid(sketches, {"face": faces}, photos)
    about = how_made(psp, get_preset("tiny")) | {"what": "sketch, face and photo of people in the test split"}
    print(save_figure(figure, out, overwrite=True, metadata=about))


if __name__ == "__main__":
    main()
