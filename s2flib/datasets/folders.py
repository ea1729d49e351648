"""Where a preset's photos are."""

from __future__ import annotations

from pathlib import Path

from s2flib.errors import DataError
from s2flib.files import data_dir, shipped_data_dir
from s2flib.presets import Preset


def own_data(preset: Preset) -> Path:
    """The folder of a preset's own data set; see :func:`s2flib.datasets.faces.open_dataset`."""
    if preset.data == "synthfaces":
        folders = [data_dir() / "synthfaces", shipped_data_dir() / "synthfaces"]
        return next((f for f in folders if f.is_dir()), folders[0])
    celebamask, rendered = data_dir() / "CelebAMask-HQ", data_dir() / f"synthfaces-{preset.size}"
    if celebamask.is_dir():
        return celebamask
    if rendered.is_dir():
        return rendered
    raise DataError(
        f"there are no photos for preset {preset.name}: unpack CelebAMask-HQ (non-commercial research licence, "
        f"github.com/switchablenorms/CelebAMask-HQ) at {celebamask}, or render synthetic people in its place: "
        f"s2f render -o {rendered} --size {preset.size} --people 300"
    )
