"""Training: data order, optimiser, regularisers, checkpoints, exact resume, growing, several processes."""

from __future__ import annotations

import json

import pytest
import torch

from s2flib.datasets import open_dataset
from s2flib.errors import S2FError, WeightsError
from s2flib.stylegan2 import Discriminator
from s2flib.training.gan import Networks, path_length, warm_start
from s2flib.training.generator import GeneratorConfig, GeneratorTrainer, train_generator
from s2flib.training.trainer import make_accelerator

SMALL = dict(
    preset="tiny", size=32, batch=4, limit=12, cpu=True, mixed_precision="no", path_every=3, r1_every=2, log_every=1
)


# --- the maths --------------------------------------------------------------------------------------------------


def test_path_length_against_the_jacobian():
    """Pictures linear in w: |Jᵀy| is known, so the penalty is too."""
    torch.manual_seed(1)
    jacobian = torch.randn(3 * 2 * 2, 5)
    w = torch.randn(4, 1, 5, requires_grad=True)
    pictures = (w[:, 0] @ jacobian.t()).reshape(4, 3, 2, 2)
    torch.manual_seed(7)
    penalty, mean = path_length(pictures, w, torch.tensor(0.0))
    torch.manual_seed(7)
    y = torch.randn(4, 3, 2, 2) / 2
    lengths = (y.reshape(4, -1) @ jacobian).norm(dim=1)
    expected_mean = 0.01 * lengths.mean()
    assert mean.item() == pytest.approx(expected_mean.item(), rel=1e-5)
    assert penalty.item() == pytest.approx((lengths - expected_mean).square().mean().item(), rel=1e-5)


def small_trainer(tmp_path, **more):
    cfg = GeneratorConfig(out=str(tmp_path), **SMALL | more)
    return GeneratorTrainer(cfg, open_dataset("tiny", "train", limit=12), make_accelerator(cpu=True))


def test_r1_is_the_squared_gradient(tmp_path):
    """The regulariser's reported penalty against finite differences of the critic."""
    trainer = small_trainer(tmp_path)
    critic = trainer.nets.critic.double()
    x = torch.rand(1, 3, 32, 32, dtype=torch.float64) * 2 - 1
    x.requires_grad_()
    (grad,) = torch.autograd.grad(critic(x).sum(), x)
    direction = torch.randn_like(x)
    direction /= direction.norm()
    h = 1e-4
    with torch.no_grad():
        slope = (critic(x + h * direction) - critic(x - h * direction)).item() / (2 * h)
        expected = grad.square().sum().item()
    assert slope == pytest.approx((grad * direction).sum().item(), rel=1e-2, abs=1e-6)
    before = [p.clone() for p in critic.parameters()]
    stats = {}
    trainer.update_d(trainer.loss.r1(x, stats))
    assert stats["r1"] == pytest.approx(expected, rel=1e-4)
    assert any(not torch.equal(a, b) for a, b in zip(before, critic.parameters(), strict=True))


def test_the_losses_are_those_of_the_paper(tmp_path):
    """Non-saturating loss and critic's loss, with the logistic function written out."""
    trainer = small_trainer(tmp_path)
    photo, fake = torch.rand(3, 3, 32, 32) * 2 - 1, torch.rand(3, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        on_real, on_fake = (torch.sigmoid(trainer.nets.critic(x)) for x in (photo, fake))
        stats = {}
        assert trainer.loss.generator(fake, stats) == pytest.approx(-on_fake.log().mean().item(), rel=1e-4)
        wanted = -(1 - on_fake).log().mean().item() - on_real.log().mean().item()
        assert trainer.loss.critic(photo, fake, stats) == pytest.approx(wanted, rel=1e-4)
    right = ((on_real > 0.5).float().mean() + (on_fake < 0.5).float().mean()).item() / 2
    assert stats["d_correct"] == pytest.approx(right)


def test_the_generator_learns_from_the_critic_and_the_critic_from_photos(tmp_path):
    """One step on the same fakes raises D(G(z)); one step of the critic lowers its loss."""
    trainer = small_trainer(tmp_path, r1_every=0, path_every=0)
    nets, seen = trainer.nets, []
    torch.manual_seed(0)
    w, photo = nets.sample_w(4, 0.0).detach(), trainer.real(0)

    def scores():
        with torch.no_grad():
            fake = nets.generator.synthesis(w, noise=None)
            return nets.critic(fake).mean().item(), trainer.loss.critic(photo, fake, {}).item()

    seen.append(scores())
    nets.critic.requires_grad_(False)
    trainer.update_g(trainer.loss.generator(nets.generator.synthesis(w, noise=None), {}))
    seen.append(scores())
    nets.critic.requires_grad_(True)
    trainer.update_d(trainer.loss.critic(photo, nets.generator.synthesis(w, noise=None).detach(), {}))
    seen.append(scores())
    assert seen[1][0] > seen[0][0] and seen[2][1] < seen[1][1]


# --- growing ----------------------------------------------------------------------------------------------------


def test_grown_generator_first_draws_the_smaller_ones_picture(tmp_path):
    path = train_generator(GeneratorConfig(out=str(tmp_path / "a"), steps=1, **SMALL)).with_name("training.safetensors")
    small, big = Networks("tiny", 32), Networks("tiny", 64)
    warm_start(small, str(path), "tiny")
    warm_start(big, str(path), "tiny")
    w = torch.randn(2, 12, small.ema.style_dim)
    a = small.ema.synthesis(w[:, :8], noise=None)
    b = big.ema.synthesis(w[:, :10], noise=None)
    assert torch.allclose(big.ema.to_rgbs[-1].upsample(a), b, atol=1e-4)
    # the critic's blocks for 32 px and below moved one place down
    assert torch.equal(small.critic.convs[1].conv1[0].weight, big.critic.convs[2].conv1[0].weight)


def test_warm_start_refuses_what_does_not_fit(tmp_path):
    path = train_generator(GeneratorConfig(out=str(tmp_path / "a"), steps=1, **SMALL))
    with pytest.raises(WeightsError, match="no StyleGAN2 training weights"):
        warm_start(Networks("tiny", 32), str(path), "tiny")
    with pytest.raises(WeightsError, match="to grow from"):
        warm_start(Networks("tiny", 128), str(path.with_name("training.safetensors")), "tiny")


# --- checkpoints ------------------------------------------------------------------------------------------------


def test_a_run_is_never_trained_over(tmp_path):
    cfg = GeneratorConfig(out=str(tmp_path), steps=1, **SMALL)
    train_generator(cfg)
    with pytest.raises(S2FError, match="--resume"):
        train_generator(cfg)


def test_a_training_that_breaks_stops_and_keeps_what_it_saved(tmp_path, monkeypatch):
    good = GeneratorConfig(out=str(tmp_path), steps=2, **SMALL)
    path = train_generator(good).with_name("checkpoint.pt")
    saved = path.read_bytes()
    step = GeneratorTrainer.step
    monkeypatch.setattr(GeneratorTrainer, "step", lambda self: step(self) | {"rec": float("nan")})
    with pytest.raises(S2FError, match="broke at step 3 or .*: rec is NaN or infinite.*--resume"):
        train_generator(GeneratorConfig(out=good.out, steps=5, resume=True, save_every=0.0, **SMALL))
    assert path.read_bytes() == saved


def test_generator_training_resumes_exactly(tmp_path):
    whole = train_generator(GeneratorConfig(out=str(tmp_path / "whole"), steps=5, **SMALL))
    half = GeneratorConfig(out=str(tmp_path / "halves"), steps=2, **SMALL)
    train_generator(half)
    second = train_generator(GeneratorConfig(out=half.out, steps=5, resume=True, **SMALL))
    a, b = (torch.load(p.with_name("checkpoint.pt"), weights_only=True)["state"] for p in (whole, second))
    for name in a["nets"]:
        assert torch.equal(a["nets"][name], b["nets"][name]), name
    assert a["step"] == b["step"] == 5
    assert json.loads((tmp_path / "halves" / "run.json").read_text())["step"] == 5


def test_training_moves_every_network(tmp_path):
    path = train_generator(GeneratorConfig(out=str(tmp_path), steps=3, **SMALL))
    state = torch.load(path.with_name("checkpoint.pt"), weights_only=True)["state"]["nets"]
    torch.manual_seed(0)
    fresh = Networks("tiny", 32).state_dict()
    for prefix in (
        "generator.convs.0.conv.weight",
        "generator.style.1.weight",
        "critic.convs.1.conv1.0.weight",
        "ema.convs.0.conv.weight",
    ):
        assert not torch.equal(state[prefix], fresh[prefix]), prefix


def test_another_data_set_can_be_named(tmp_path):
    from s2flib.errors import DataError

    with pytest.raises(DataError, match="nowhere"):
        train_generator(GeneratorConfig(out=str(tmp_path / "a"), steps=1, data=str(tmp_path / "nowhere"), **SMALL))


def test_max_time_stops_the_run(tmp_path):
    train_generator(GeneratorConfig(out=str(tmp_path), steps=10**6, max_time=0.0, **SMALL))
    assert json.loads((tmp_path / "run.json").read_text())["step"] == 0


def test_critic_scores_pictures():
    d = Discriminator(32, channel_base=256, channel_max=16)
    assert d(torch.randn(4, 3, 32, 32)).shape == (4, 1)
