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


def test_only_length_and_saving_may_change_on_resume(tmp_path):
    config = {"lr": 0.1, "seed": 0, "steps": 10, "save_every": 60.0}
    save_checkpoint(tmp_path, "encoder", config, {"step": 3})
    assert load_checkpoint(tmp_path, "encoder", config | {"steps": 20, "save_every": 1.0}) == {"step": 3}
    for other in ({"lr": 0.2}, {"seed": 1}):
        with pytest.raises(WeightsError, match=f"{next(iter(other))} differ"):
            load_checkpoint(tmp_path, "encoder", config | other)
