"""Training of pSp and e4e for photos: losses, stages, critic, resuming, starts, what is exported."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from inversion_cases import Edges
from inversion_networks import (  # noqa: F401
    MINI,
    Photos,
    made_photos,
    mini_data_fixture,
    mini_weights_fixture,
    save_generator,
    small_generator,
)

from s2flib.errors import S2FError, WeightsError
from s2flib.inversion.methods import with_network
from s2flib.inversion.networks import load_network
from s2flib.training.inversion import E4EConfig, E4ETrainer, PhotoPSPConfig, PhotoPSPTrainer, start_from
from s2flib.training.loop import run_training
from s2flib.training.trainer import make_accelerator

COMMON = dict(preset="mini", batch=4, cpu=True, mixed_precision="no", lambda_id=0.0, log_every=1, workers=0)


def trainer_of(kind, config, out, generator, **options):
    cfg = config(out=str(out), **COMMON | options)
    return kind(cfg, Photos(generator, 16, 1), Photos(generator, 4, 2), make_accelerator(True))


def parameters(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


@pytest.fixture
def psp(mini_weights, tmp_path):
    return trainer_of(PhotoPSPTrainer, PhotoPSPConfig, tmp_path / "psp", small_generator(), steps=80, lr=1e-2)


@pytest.fixture
def e4e(mini_weights, tmp_path):
    return trainer_of(E4ETrainer, E4EConfig, tmp_path / "e4e", small_generator(), steps=20, critic_lr=1e-2)


def test_losses_fall_and_beat_the_average_face_on_unseen_photos(psp):
    before = psp.validate()
    frozen = parameters(psp.network.decoder)
    for _ in range(80):
        psp.step()
    after = psp.validate()
    assert after["val_l2"] < 0.95 * before["val_l2"] and after["val_l2"] < 0.95 * after["val_start_l2"]
    assert before["val_start_l2"] == pytest.approx(after["val_start_l2"])
    assert all(torch.equal(v, frozen[k]) for k, v in psp.network.decoder.state_dict().items())


def test_picture_loss_is_the_weighted_sum(psp):
    x, y = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1
    total, parts = psp.picture_loss(x, y)
    small = [F.avg_pool2d(p, 2) for p in (x, y)]  # LPIPS at inversion.lpips_size, half of the size here
    expected = {"l2": F.mse_loss(x, y), "lpips": Edges()(*small).mean()}
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value)
    torch.testing.assert_close(total, 1.0 * expected["l2"] + 0.8 * expected["lpips"])


def test_half_of_the_photos_are_mirrored(psp):
    plain, _ = psp.feed(0)
    torch.manual_seed(0)
    mirrored = torch.cat([psp.photos() for _ in range(16)]).reshape(16, 4, 3, 32, 32)
    same = (mirrored == plain).flatten(2).all(2)
    flipped = (mirrored == plain.flip(3)).flatten(2).all(2)
    assert (same | flipped).all() and 0.3 < flipped.float().mean() < 0.7


def test_regulariser_is_the_distance_from_the_average(mini_weights, tmp_path):
    t = trainer_of(PhotoPSPTrainer, PhotoPSPConfig, tmp_path, small_generator(), lambda_reg=0.5)
    w = torch.randn(2, 8, 32)
    more, loss = t.code_losses(w, torch.zeros(()))
    norm = (w - t.network.latent_avg).flatten(1).norm(dim=1).mean()
    torch.testing.assert_close(more["reg"], norm, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loss, 0.5 * norm, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind, config", [(PhotoPSPTrainer, PhotoPSPConfig), (E4ETrainer, E4EConfig)])
def test_a_killed_run_resumes_to_the_same_weights(kind, config, mini_weights, tmp_path):
    """Also the critic, its pool and the stage."""
    whole = trainer_of(kind, config, tmp_path / "a", small_generator(), steps=8)
    for _ in range(8):
        whole.step()
    first = trainer_of(kind, config, tmp_path / "b", small_generator(), steps=8)
    for _ in range(4):
        first.step()
    state = copy.deepcopy(first.state())
    assert not any(k.startswith("decoder.") for k in state["network"]), "the frozen generator is not in checkpoints"
    second = trainer_of(kind, config, tmp_path / "c", small_generator(), steps=8)
    second.load(state)
    for _ in range(4):
        second.step()
    for part in ("network", "ema"):
        a, b = (getattr(t, part).state_dict() for t in (whole, second))
        assert all(torch.equal(a[k], b[k]) for k in a)
    if kind is E4ETrainer:
        assert torch.equal(whole.pool.codes, second.pool.codes)
        assert all(torch.equal(*p) for p in zip(whole.critic.parameters(), second.critic.parameters(), strict=True))


def test_checkpoint_of_another_generator_is_refused(psp):
    state = psp.state() | {"decoder": "0123"}
    with pytest.raises(WeightsError, match="another generator"):
        psp.load(state)


def test_run_writes_a_file_that_inverts(mini_weights, tmp_path):
    t = trainer_of(PhotoPSPTrainer, PhotoPSPConfig, tmp_path / "run", small_generator(), steps=2)
    run_training(t)
    network = load_network("psp", MINI, tmp_path / "run" / "psp.safetensors")
    photos = made_photos(small_generator(), 2, 5)
    found = with_network("psp", network, MINI).invert(photos)
    torch.testing.assert_close(found.w_plus, t.ema.encode(photos), atol=0.02, rtol=0.02)
    assert (tmp_path / "run" / "samples").is_dir()


def test_e4e_starts_with_one_code_for_all_rows_and_adds_offsets(e4e):
    photos = made_photos(small_generator(), 2, 5)
    e4e.network.eval()
    w = e4e.network.encode(photos)
    assert torch.equal(w, w[:, :1].expand_as(w))
    stages = []
    for done in range(20):
        e4e.done = done
        e4e.set_stage()
        stages.append(e4e.network.encoder.stage)
    assert stages[0] == 0 and stages[2] == 1 and stages[-1] == 7 and stages == sorted(stages)
    assert e4e.ema.encoder.stage == 7


def test_e4e_losses_and_the_critic(e4e):
    """The encoder's step does not move the critic's gradients, and the critic learns to tell the rows apart."""
    w = e4e.network.latent_avg + torch.randn(4, 8, 32) * 3
    stats, loss = e4e.code_losses(w.requires_grad_(), torch.zeros(()))
    expected = 2e-4 * stats["delta"] + 0.1 * stats["adversarial"]
    torch.testing.assert_close(loss.detach(), expected)
    assert "r1" in stats, "lazy: at step 0, and every 16th"
    e4e.done = 1
    assert "r1" not in e4e.code_losses(w.detach(), torch.zeros(()))[0]
    for _ in range(60):
        stats = e4e.update_the_critic(w.detach().flatten(0, 1))
    mapped = small_generator().random_codes(64, 3)
    assert e4e.critic(mapped).mean() > e4e.critic(w.detach().flatten(0, 1)).mean() + 0.5


def test_start_copies_the_backbone_and_only_heads_of_the_same_network(mini_weights, e4e, psp):
    file = str(mini_weights / "mini-photo-psp.safetensors")
    start_from(psp.network, "psp", file)
    start_from(e4e.network, "e4e", file)
    key = "body.0.res_layer.1.weight"
    assert torch.equal(e4e.network.encoder.get_parameter(key), psp.network.encoder.get_parameter(key))
    assert e4e.network.encoder.styles[1].linear.weight.abs().max() == 0, "pSp's rows are no offsets"
    assert psp.network.encoder.styles[1].linear.weight.abs().max() > 0
    with pytest.raises(WeightsError, match="no tensor that fits"):
        start_from(psp.network, "psp", str(mini_weights / "mini-stylegan2.safetensors"))


@pytest.mark.parametrize(
    "options, message", [(dict(anneal=2.0), "share of the steps"), (dict(progress_from=0.9), "in this order")]
)
def test_options_out_of_range(options, message, mini_weights, tmp_path):
    with pytest.raises(S2FError, match=message):
        trainer_of(E4ETrainer, E4EConfig, tmp_path, small_generator(), **options)


def test_another_generator_file(mini_weights, tmp_path):
    """--generator: the network is trained, saved and loaded with it."""
    file = save_generator(tmp_path / "other.safetensors", small_generator(5))
    options = dict(generator=str(file), steps=1)
    cfg = PhotoPSPConfig(out=str(tmp_path / "run"), **COMMON | options)
    photos = Photos(small_generator(5), 8, 1)
    t = PhotoPSPTrainer(cfg, photos, photos, make_accelerator(True))
    t.step()
    t.export(tmp_path)
    with pytest.raises(WeightsError, match="another generator"):
        load_network("psp", MINI, tmp_path / "psp.safetensors")
    assert load_network("psp", MINI, tmp_path / "psp.safetensors", t.generator)
