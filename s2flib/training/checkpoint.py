"""Checkpoints that survive a kill: written whole or not at all, and loaded without running code."""

from __future__ import annotations

from pathlib import Path

import torch

from s2flib.errors import S2FError, WeightsError
from s2flib.images import atomic_path
from s2flib.weights import safe_load

NAME = "checkpoint.pt"


def save_checkpoint(out: Path, kind: str, config: dict, state: dict) -> Path:
    """Write ``out/checkpoint.pt`` atomically: {kind, config, state}, all of it tensors and plain values.

    A kill at any moment leaves either the old file or the new one.
    """
    path = Path(out) / NAME
    with atomic_path(path) as part:
        torch.save({"kind": kind, "config": config, "state": state}, part)
    return path


def load_checkpoint(out: Path, kind: str, config: dict) -> dict | None:
    """The state saved in ``out``, or None if there is none; WeightsError if it belongs to another run.

    ``config`` must equal the saved one but for how long the run may go on (steps, images, time), so that a
    resumed run is the run that was interrupted.
    """
    path = Path(out) / NAME
    if not path.exists():
        return None
    saved = safe_load(path)
    if saved.get("kind") != kind:
        raise WeightsError(f"{path} is a checkpoint of {saved.get('kind')!r}, not of {kind!r}: choose another --out.")
    free = {"steps", "images", "max_time", "out", "resume", "save_every", "val_every", "log_every"}
    differing = sorted(k for k in config if k not in free and config[k] != saved["config"].get(k))
    if differing:
        raise WeightsError(f"{path} was trained with other settings ({', '.join(differing)} differ): "
                           "choose another --out, or repeat the settings of its run.json.")
    return saved["state"]


def fresh_or_resumed(out: Path, kind: str, config: dict, resume: bool) -> dict | None:
    """State to go on from. A folder that already holds a run is never trained over without ``resume``."""
    out = Path(out)
    if resume:
        return load_checkpoint(out, kind, config)
    if (out / NAME).exists():
        raise S2FError(f"{out} already holds a training run: add --resume to go on with it, or choose another --out.")
    return None
