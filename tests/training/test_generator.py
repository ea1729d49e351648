"""Training: data order, optimiser, regularisers, checkpoints, exact resume, growing, several processes."""

from __future__ import annotations

import json

import pytest
import torch

from s2flib.errors import S2FError, WeightsError
from s2flib.stylegan2 import Discriminator
from s2flib.training.gan import Networks, feature_distance, path_length, sliced_wasserstein, tie_rows, warm_start
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


def test_feature_distance_is_relative():
    a, b = torch.zeros(1, 2, 4, 4), torch.full((1, 2, 4, 4), 3.0)
    assert feature_distance([a], [b]).item() == pytest.approx(1.0, rel=1e-4)
    assert feature_distance([b, b], [b, b]).item() == 0


def test_sliced_wasserstein_of_a_shift_is_its_squared_length_over_the_dimension():
    torch.manual_seed(3)
    a, shift = torch.randn(40, 8), torch.randn(8)
    assert sliced_wasserstein(a, a[torch.randperm(40)]).item() == pytest.approx(0, abs=1e-12)
    expected = shift.square().sum().item() / 8  # E over unit directions d of (shift · d)²
    assert sliced_wasserstein(a, a + shift, directions=20_000).item() == pytest.approx(expected, rel=0.05)


def test_tied_rows_lie_in_w_and_the_others_are_left_alone():
    w = torch.randn(5, 4, 3, requires_grad=True)
    out = tie_rows(w, 2)
    assert torch.equal(out[:3], w[:3]) and torch.equal(tie_rows(w, 0), w)
    for row in range(4):
        assert torch.allclose(out[3:, row], (w[3:, 0] + w[3:, 1] + w[3:, 2] + w[3:, 3]) / 4, atol=1e-6)
    out[4, 0, 0].backward()
    assert torch.allclose(w.grad[4, :, 0], torch.full((4,), 0.25))  # every row learns from it


def test_r1_is_the_squared_gradient(tmp_path):
    """The regulariser's reported penalty against finite differences of the critic."""
    from s2flib.datasets import open_dataset
    from s2flib.training.generator import GeneratorTrainer

    acc = make_accelerator(cpu=True)
    dataset = open_dataset("tiny", "train", limit=12)
    trainer = GeneratorTrainer(GeneratorConfig(out=str(tmp_path), **SMALL), dataset, acc)
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


# --- growing ----------------------------------------------------------------------------------------------------


def test_grown_generator_first_draws_the_smaller_ones_picture(tmp_path):
    path = train_generator(GeneratorConfig(out=str(tmp_path / "a"), steps=1, **SMALL)).with_name("training.safetensors")
    small, big = Networks("tiny", 32), Networks("tiny", 64)
    warm_start(small, str(path), "tiny")
    warm_start(big, str(path), "tiny")
    w = torch.randn(2, 12, 160)
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
        "encoder.input_layer.0.weight",
        "ema.convs.0.conv.weight",
    ):
        assert not torch.equal(state[prefix], fresh[prefix]), prefix


def test_no_photo_encoder_without_reconstruction(tmp_path):
    path = train_generator(GeneratorConfig(out=str(tmp_path), steps=2, lambda_rec=0, **SMALL))
    state = torch.load(path.with_name("checkpoint.pt"), weights_only=True)["state"]["nets"]
    torch.manual_seed(0)
    fresh = Networks("tiny", 32).state_dict()
    assert torch.equal(state["encoder.input_layer.0.weight"], fresh["encoder.input_layer.0.weight"])
    assert not torch.equal(state["generator.convs.0.conv.weight"], fresh["generator.convs.0.conv.weight"])


def test_without_an_adversary_the_critic_rests(tmp_path):
    path = train_generator(GeneratorConfig(out=str(tmp_path), steps=2, lambda_adv=0, **SMALL))
    state = torch.load(path.with_name("checkpoint.pt"), weights_only=True)["state"]["nets"]
    torch.manual_seed(0)
    fresh = Networks("tiny", 32).state_dict()
    for name in fresh:
        if name.startswith("critic."):
            assert torch.equal(state[name], fresh[name]), name
    for name in ("generator.style.1.weight", "generator.convs.0.conv.weight", "encoder.input_layer.0.weight"):
        assert not torch.equal(state[name], fresh[name]), name
    with pytest.raises(S2FError, match="nothing to train"):
        train_generator(GeneratorConfig(out=str(tmp_path / "b"), steps=2, lambda_adv=0, lambda_rec=0, **SMALL))


@pytest.mark.parametrize("share, wanted", [(0.25, 1), (0.75, 3), (1.0, 4)])
def test_the_share_of_a_batch_that_reconstructs(tmp_path, monkeypatch, share, wanted):
    from s2flib.datasets import open_dataset
    from s2flib.training.generator import GeneratorTrainer

    trainer = GeneratorTrainer(
        GeneratorConfig(out=str(tmp_path), rec_share=share, **SMALL),
        open_dataset("tiny", "train", limit=12),
        make_accelerator(cpu=True),
    )
    compared, judged, real = [], [], trainer.nets.critic.forward

    def reconstruction(photo, fake, stats):
        compared.append((len(photo), len(fake)))
        return fake.sum() * 0

    monkeypatch.setattr(trainer.loss, "reconstruction", reconstruction)
    monkeypatch.setattr(trainer.nets.critic, "forward", lambda x: (judged.append(len(x)), real(x))[1])
    trainer.step()
    assert compared == [(wanted, wanted)] and judged[0] == 4  # the critic judges all of them
    with pytest.raises(S2FError, match="share of the batch"):
        train_generator(GeneratorConfig(out=str(tmp_path / "b"), steps=1, rec_share=1.5, **SMALL))


def test_the_tied_share_of_reconstructions_is_drawn_from_one_w(tmp_path, monkeypatch):
    from s2flib.datasets import open_dataset
    from s2flib.training.generator import GeneratorTrainer

    cfg = GeneratorConfig(out=str(tmp_path), rec_share=1.0, tie_share=0.5, lambda_adv=0, **SMALL)
    trainer = GeneratorTrainer(cfg, open_dataset("tiny", "train", limit=12), make_accelerator(cpu=True))
    drawn, real = [], trainer.nets.generator.synthesis
    monkeypatch.setattr(trainer.nets.generator, "synthesis", lambda w, **k: (drawn.append(w.detach()), real(w, **k))[1])
    trainer.step()
    spread = drawn[0].std(1).amax(1)  # between the rows of each picture
    assert len(spread) == 4 and (spread[:2] > 1e-4).all() and (spread[2:] < 1e-6).all()
    with pytest.raises(S2FError, match="tie_share is a share"):
        train_generator(GeneratorConfig(out=str(tmp_path / "b"), steps=1, tie_share=-0.1, **SMALL))


def test_the_face_counts_once_more_at_full_size(tmp_path):
    from s2flib.datasets import open_dataset
    from s2flib.training.generator import GeneratorTrainer

    def loss(weight, fake, **more):
        cfg = GeneratorConfig(
            out=str(tmp_path), lambda_face=weight, lambda_adv=0, lambda_rec=5.0, **SMALL | {"size": 128} | more
        )
        trainer = GeneratorTrainer(cfg, open_dataset("tiny", "train", limit=2), make_accelerator(cpu=True))
        return trainer, trainer.loss.reconstruction(photo, fake, {}).item()

    torch.manual_seed(0)
    photo = torch.rand(2, 3, 128, 128) * 2 - 1
    outside, inside = photo.clone(), photo.clone()
    outside[:, :, :36], outside[:, :, :, :30] = 0, 0  # all but rows 38 … 102, columns 32 … 96
    inside[:, :, 60:70, 50:60] = 0
    for fake, added in ((outside, False), (inside, True)):
        (_, plain), (trainer, more) = loss(0.0, fake), loss(2.0, fake)
        x, y = photo[:, :, 38:102, 32:96], fake[:, :, 38:102, 32:96]
        expected = 2.0 * (5.0 * (x - y).abs().mean() + trainer.loss.perceptual(x, y).mean()).item()
        assert more - plain == pytest.approx(expected, abs=1e-4) and (expected > 0.05) == added
    pixels = loss(2.0, inside, lambda_lpips=0)[1] - loss(0.0, inside, lambda_lpips=0)[1]
    assert pixels == pytest.approx(10 * (photo - inside)[:, :, 38:102, 32:96].abs().mean().item(), rel=1e-4)


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
