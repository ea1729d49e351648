"""A data folder with an untrained tiny model in it, and a drawing: for tests of what happens around the model."""

import numpy as np
import pytest
import torch

from s2flib import weights
from s2flib.psp import PSP


def drawing(size=256, shift=0):
    """A few thick dark strokes that fill the page: (size, size, 3) uint8."""
    page = np.full((size, size, 3), 255, np.uint8)
    page[10:-10, 10:20] = page[10:-10, -20:-10] = page[10:20, 10:-10] = 30  # open below: not a frame
    page[size // 3 : size // 3 + 12, 60 + shift : 110 + shift] = 60
    return page


@pytest.fixture(scope="session", name="stand_in_data")
def stand_in_data_fixture(tmp_path_factory):
    """A data folder with an untrained tiny model, saved by the library's own functions."""
    folder = tmp_path_factory.mktemp("data")
    torch.manual_seed(0)
    model = PSP.from_preset("tiny")
    for parameter in model.encoder.styles[0].parameters():  # an untrained head hardly moves w; let sketches differ
        parameter.data.mul_(20)
    tensors = model.decoder.state_dict() | {"latent_avg": model.latent_avg[0]}
    weights.save_safetensors(
        folder / "weights" / "tiny-stylegan2.safetensors", tensors, {"kind": "stylegan2", "preset": "tiny"}
    )
    weights.save_psp(folder / "weights" / "tiny-psp.safetensors", model, "tiny")
    return folder


@pytest.fixture(name="stand_in")
def stand_in_fixture(stand_in_data, monkeypatch):
    monkeypatch.setenv("S2F_WEIGHTS", str(stand_in_data / "weights"))
    return stand_in_data
