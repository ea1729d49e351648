"""Checkpoints of the training loop."""

from __future__ import annotations

import pytest

from s2flib.errors import WeightsError
from s2flib.training.loop import load_checkpoint, save_checkpoint


def test_checkpoint_of_another_run_is_refused(tmp_path):
    save_checkpoint(tmp_path, "stylegan2-training", {"seed": 0, "steps": 5}, {"step": 3})
    assert load_checkpoint(tmp_path, "stylegan2-training", {"seed": 0, "steps": 9}) == {"step": 3}
    with pytest.raises(WeightsError, match="seed"):
        load_checkpoint(tmp_path, "stylegan2-training", {"seed": 1, "steps": 5})
    with pytest.raises(WeightsError, match="not of"):
        load_checkpoint(tmp_path, "psp-training", {"seed": 0, "steps": 5})
    assert load_checkpoint(tmp_path / "empty", "psp-training", {}) is None
