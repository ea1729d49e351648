"""Training of the identity and attribute nets: the maths, and short runs on a few photos."""

import math

import numpy as np
import pytest
import torch

from s2flib.errors import S2FError
from s2flib.training import classifiers
from s2flib.training.classifiers import (
    AttributesConfig,
    IdentityConfig,
    arcface_logits,
    attribute_scores,
    jitter,
    train_attributes,
    train_identity,
)
from s2flib.training.trainer import make_accelerator
from s2flib.weights import load_tensors, safe_load


def test_arcface_adds_the_margin_to_the_angle():
    torch.manual_seed(0)
    e = torch.nn.functional.normalize(torch.randn(6, 8), dim=1)
    centres, target = torch.randn(4, 8) * 3, torch.tensor([0, 1, 2, 3, 0, 1])
    logits = arcface_logits(e, centres, target, scale=10, margin=0.3)
    for i in range(6):
        for k in range(4):
            angle = math.acos(float(e[i] @ centres[k] / centres[k].norm()))
            assert angle + 0.3 < math.pi
            expected = 10 * math.cos(angle + (0.3 if k == target[i] else 0))
            assert logits[i, k].item() == pytest.approx(expected, abs=1e-3)


def test_arcface_punishes_more_the_larger_the_angle_even_beyond_pi():
    angles = torch.linspace(0.01, math.pi - 0.01, 50)
    e = torch.stack([angles.cos(), angles.sin()], 1)
    logits = arcface_logits(e, torch.tensor([[1.0, 0.0]]), torch.zeros(50, dtype=torch.long), 1.0, 0.5)[:, 0]
    assert (logits.diff() < 0).all()


def test_jitter_without_jitter_is_the_crop(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *s, **k: torch.full(s, 0.5))  # the middle of every range: no change
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    x = torch.linspace(-0.9, 0.9, 3 * 40 * 40).view(1, 3, 40, 40)
    y = jitter(x, 0.1, 0.1, 20, 0.5, (0.5, 0.5))
    torch.testing.assert_close(y, x[:, :, 10:30, 10:30], atol=1e-4, rtol=1e-3)


def test_jitter_mirrors_half_and_stays_in_range():
    torch.manual_seed(0)
    x = torch.full((200, 3, 32, 32), -0.5)
    x[..., 16:] = 0.5
    y = jitter(x, 0.05, 0.03, 24, 0.7, (0.5, 0.55))
    assert y.shape == (200, 3, 24, 24) and y.abs().max() <= 1
    mirrored = (y[..., :12].mean((1, 2, 3)) > y[..., 12:].mean((1, 2, 3))).float().mean()
    assert 0.35 < mirrored < 0.65


def test_attribute_scores_against_counting():
    logits = torch.tensor([[1.0, -1, -1], [1, 1, -1], [-1, -1, -1], [1, -1, -1]])
    y = torch.tensor([[1.0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
    s = attribute_scores(logits, y)
    assert s["accuracy"] == pytest.approx((2 + 3 + 4) / 12)
    assert s["majority"] == pytest.approx((0.75 + 0.5 + 1) / 3)
    assert s["balanced"] == pytest.approx(((2 / 3 + 0) / 2 + (0.5 + 1) / 2) / 2)  # the third never occurs


def test_identity_training_learns_and_resumes_exactly(tmp_path):
    small = dict(steps=6, batch=8, limit=24, val_limit=12, log_every=2, cpu=True, save_every=1e9)
    whole = train_identity(IdentityConfig(out=str(tmp_path / "whole"), **small))
    tensors, metadata = safe_load(whole, with_metadata=True)
    assert metadata["kind"] == "synthface-id" and metadata["preset"] == "tiny" and metadata["steps"] == "6"
    assert 0 <= float(metadata["val_auc"]) <= 1
    from s2flib.judges.synthface_id import SynthFaceID

    SynthFaceID().load_state_dict(load_tensors(whole, "synthface-id"))
    assert tensors["head.2.weight"].dtype == torch.float16

    trainer = classifiers.IdentityTrainer(IdentityConfig(out="", **small), make_accelerator(cpu=True))
    fresh = classifiers.IdentityTrainer(IdentityConfig(out="", **small), make_accelerator(cpu=True))
    for _ in range(3):
        trainer.step()
    fresh.load(trainer.state())
    for _ in range(3):
        fresh.step()
    for name, value in fresh.average.module.state_dict().items():
        torch.testing.assert_close(value.half() if value.is_floating_point() else value, tensors[name], msg=name)


def test_identity_training_memorises_four_people(tmp_path):
    cfg = IdentityConfig(out=str(tmp_path), steps=60, batch=12, limit=12, val_limit=6, cpu=True)
    trainer = classifiers.IdentityTrainer(cfg, make_accelerator(cpu=True))
    first = np.mean([trainer.step()["accuracy"] for _ in range(5)])
    for _ in range(40):
        trainer.step()
    assert np.mean([trainer.step()["accuracy"] for _ in range(5)]) > max(0.8, first)


def test_attribute_training_writes_a_net_the_judge_can_load(tmp_path, monkeypatch):
    from s2flib import judges

    out = train_attributes(
        AttributesConfig(out=str(tmp_path / "run"), steps=6, batch=6, limit=12, val_limit=6, cpu=True, log_every=3)
    )
    assert (tmp_path / "run" / "run.json").exists()
    (tmp_path / "data" / "weights").mkdir(parents=True)
    out.rename(tmp_path / "data" / "weights" / "tiny-attributes.safetensors")
    monkeypatch.setenv("S2F_WEIGHTS", str(tmp_path / "data" / "weights"))
    net = judges.attribute_net()
    assert net.names == classifiers.ATTRIBUTE_NAMES and not net.training
    assert net(torch.zeros(1, 3, 128, 128)).shape == (1, len(net.names))


def test_attribute_loss_falls_on_a_few_photos(tmp_path):
    cfg = AttributesConfig(out=str(tmp_path), steps=30, lr=5e-3, batch=12, limit=12, val_limit=6, cpu=True)
    trainer = classifiers.AttributesTrainer(cfg, make_accelerator(cpu=True))
    curve = [trainer.step()["bce"] for _ in range(25)]
    assert np.mean(curve[-5:]) < 0.8 * np.mean(curve[:3])


def test_published_presets_do_not_train_these_nets(tmp_path):
    with pytest.raises(S2FError, match="published networks"):
        train_identity(IdentityConfig(out=str(tmp_path), preset="paper"))
