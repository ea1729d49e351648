"""Training of ReStyle, HyperStyle and HyperInverter: passes, frozen parts, resuming, what is exported."""

from __future__ import annotations

import copy

import pytest
import torch
from inversion_networks import MINI, Photos, made_photos, mini_data_fixture, mini_weights_fixture, small_generator  # noqa: F401

from s2flib.errors import S2FError
from s2flib.inversion.methods import with_network
from s2flib.inversion.networks import load_network
from s2flib.training.inversion import InversionConfig
from s2flib.training.inversion_refining import (
    HyperInverterTrainer,
    HyperStyleTrainer,
    RefiningConfig,
    ReStyleE4ETrainer,
    ReStyleTrainer,
)
from s2flib.training.trainer import make_accelerator

COMMON = dict(preset="mini", batch=4, cpu=True, mixed_precision="no", lambda_id=0.0, log_every=1, workers=0)
TRAINERS = (ReStyleTrainer, ReStyleE4ETrainer, HyperStyleTrainer, HyperInverterTrainer)


def trainer_of(kind, out, **options):
    config = InversionConfig if kind is HyperInverterTrainer else RefiningConfig
    cfg = config(out=str(out), **COMMON | options)
    generator = small_generator()
    return kind(
        cfg,
        Photos(generator, 64 if kind is HyperInverterTrainer else 16, 1),
        Photos(generator, 4, 2),
        make_accelerator(True),
    )


@pytest.mark.parametrize("kind", TRAINERS)
def test_training_beats_the_starting_point_on_unseen_photos(kind, mini_weights, tmp_path):
    options = {} if kind is HyperInverterTrainer else dict(passes=2)
    t = trainer_of(kind, tmp_path, steps=60, lr=3e-2 if kind is HyperInverterTrainer else 1e-2, **options)
    frozen = {k: v.clone() for k, v in t.network.state_dict().items() if k.startswith(("decoder.", "base."))}
    for _ in range(60):
        t.step()
    after = t.validate()
    start, end = (after[f"val_{k}l2"] + 0.8 * after[f"val_{k}lpips"] for k in ("start_", ""))
    assert end < 0.99 * start
    assert frozen and all(torch.equal(t.network.state_dict()[k], v) for k, v in frozen.items())


@pytest.mark.parametrize("kind", TRAINERS)
def test_a_killed_run_resumes_to_the_same_weights_and_exports(kind, mini_weights, tmp_path):
    whole, first, second = (trainer_of(kind, tmp_path / k, steps=4) for k in "abc")
    for _ in range(4):
        whole.step()
    for _ in range(2):
        first.step()
    second.load(copy.deepcopy(first.state()))
    for _ in range(2):
        second.step()
    a, b = whole.network.state_dict(), second.network.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    whole.export(tmp_path)
    name = whole.name
    photos = made_photos(small_generator(), 2, 5)
    found = with_network(name, load_network(name, MINI, tmp_path / f"{name}.safetensors"), MINI).invert(photos)
    torch.testing.assert_close(found.reconstruction, whole.reconstruct(photos)[-1], atol=0.05, rtol=0)


@pytest.mark.parametrize("kind", [ReStyleTrainer, HyperStyleTrainer])
def test_every_pass_has_a_loss_of_its_own(kind, mini_weights, tmp_path, monkeypatch):
    """As many backward passes as passes, each of the loss divided by their number, and one update."""
    t = trainer_of(kind, tmp_path, passes=3)
    losses, updates = [], []
    backward, finish = t.update.backward, t.update.finish
    monkeypatch.setattr(t.update, "backward", lambda loss: losses.append(float(loss.detach())) or backward(loss))
    monkeypatch.setattr(t.update, "finish", lambda: updates.append(1) or finish())
    taken, real = [], t.picture_loss
    monkeypatch.setattr(t, "picture_loss", lambda x, y: taken.append(real(x, y)) or taken[-1])
    t.step()
    assert len(losses) == 3 and len(updates) == 1
    assert losses == pytest.approx([float(total.detach()) / 3 for total, _ in taken])


def test_passes_are_the_presets_unless_given(mini_weights, tmp_path):
    assert trainer_of(ReStyleTrainer, tmp_path).passes == MINI.inversion.passes
    assert len(trainer_of(ReStyleTrainer, tmp_path, passes=2).reconstruct(made_photos(small_generator(), 1, 5))) == 3
    with pytest.raises(S2FError, match="at least 1"):
        trainer_of(ReStyleTrainer, tmp_path, passes=0)
