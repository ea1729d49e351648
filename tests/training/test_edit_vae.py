"""The edit pipeline's autoencoder: it learns, resumes, and looks where a pair differs."""

import numpy as np
import pytest
import torch
from editing_stand_in import pairs_folder_fixture  # noqa: F401  (fixtures)

from s2flib.datasets.edit_pairs import EditPairs
from s2flib.errors import S2FError
from s2flib.training import edit_vae as editor_vae
from s2flib.training.edit_vae import VaeConfig, pair_weight, place_weight, train_vae, training_pictures
from s2flib.training.trainer import make_accelerator
from s2flib.weights import load_tensors

SMALL = dict(cpu=True, mixed_precision="no", log_every=1, save_every=1e9, seed=3)


def test_autoencoder_learns_and_resumes_to_the_same_numbers(pairs_folder, tmp_path):
    common = dict(pairs=str(pairs_folder), photos=False, batch=2, limit=3, lpips_from=0.5, lr=2e-3, **SMALL)
    whole = train_vae(VaeConfig(out=str(tmp_path / "a"), steps=4, **common))
    train_vae(VaeConfig(out=str(tmp_path / "b"), steps=4, max_time=0.0, **common))
    resumed = train_vae(VaeConfig(out=str(tmp_path / "b"), steps=4, resume=True, **common))
    a, b = (load_tensors(p, editor_vae.KIND) for p in (whole, resumed))
    assert all(torch.equal(a[k], b[k]) for k in a)
    log = [line.split(",") for line in (tmp_path / "a" / "log.csv").read_text().splitlines()[1:]]
    assert {"val_psnr", "val_lpips", "lpips", "kl"} <= {name for _, name, _ in log}
    with pytest.raises(S2FError, match="--resume"):
        train_vae(VaeConfig(out=str(tmp_path / "b"), steps=4, **common))
    with pytest.raises(S2FError, match="nothing to train"):
        train_vae(VaeConfig(out=str(tmp_path / "c"), photos=False, **SMALL))


def test_autoencoder_loss_falls(pairs_folder, tmp_path):

    cfg = VaeConfig(
        out=str(tmp_path), pairs=str(pairs_folder), photos=False, batch=2, limit=1, lambda_lpips=0, lr=0.05, **SMALL
    )
    trainer = editor_vae.VaeTrainer(cfg, make_accelerator(cpu=True))
    losses = [trainer.step()["weighted"] for _ in range(25)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])


def test_autoencoder_looks_where_pairs_differ(pairs_folder, tmp_path, monkeypatch):
    """Half of the weight of a pair's error lies on its change, mirrored or not; photos are weighed evenly."""
    from types import SimpleNamespace

    cfg = VaeConfig(out=str(tmp_path), pairs=str(pairs_folder), photos=True, batch=10, limit=3, lambda_lpips=0, **SMALL)
    pictures, change, _ = training_pictures(cfg)
    assert len(pictures) == 9 and len(change) == 6
    assert (change[0] == (pictures[0].float() - pictures[3].float()).abs().mean(0).round()).all()
    assert torch.equal(change[:3], change[3:])
    trainer = editor_vae.VaeTrainer(cfg, make_accelerator(cpu=True))
    monkeypatch.setattr(editor_vae, "batch_indices", lambda *a: list(range(9)))
    grey = torch.zeros(9, 3, 128, 128)
    monkeypatch.setattr(trainer.vae, "decode", lambda z: SimpleNamespace(sample=0 * z.mean() + grey))
    stats = trainer.step()  # the error is |x|
    x, weight = pictures / 127.5 - 1, torch.ones(9, 128, 128)
    error = x.abs().mean(1)
    colour = sum((x[:, c] - (x[:, 0] + x[:, 1] + x[:, 2]) / 3).square() for c in range(3)) / 3
    for k in range(6):
        weight[k] = 0.5 + 0.5 * change[k] / change[k].float().mean()
    assert stats["weighted"] == pytest.approx((weight * (error + 20 * colour)).mean().item(), rel=2e-3)
    assert stats["weighted"] != pytest.approx((error + 20 * colour).mean().item(), rel=1e-2)
    assert stats["l1"] == pytest.approx(error.mean().item(), rel=1e-4)


def test_autoencoder_is_told_what_a_change_looks_like(pairs_folder, tmp_path, monkeypatch):
    """The loss of the change is 0 if both pictures are off alike, counts by the pair, and its pairs stay together."""
    from types import SimpleNamespace

    cfg = VaeConfig(
        out=str(tmp_path),
        pairs=str(pairs_folder),
        photos=True,
        batch=8,
        limit=6,
        lambda_lpips=0,
        lambda_change=2.0,
        small=0.5,
        often="",
        **SMALL,
    )
    trainer = editor_vae.VaeTrainer(cfg, make_accelerator(cpu=True))
    index, k = trainer.indices()
    assert k == 3 and (index[3:6] == index[:3] + 6).all() and (index[:3] < 6).all() and (index[6:] >= 12).all()
    shift, seen = torch.full((8, 3, 128, 128), 0.1), []
    encode = trainer.vae.encode
    monkeypatch.setattr(trainer.vae, "encode", lambda x: (seen.append(x), encode(x))[1])
    monkeypatch.setattr(trainer.vae, "decode", lambda z: SimpleNamespace(sample=0 * z.mean() + seen[-1] + shift))
    stats = trainer.step()
    assert stats["missed"] == pytest.approx(0, abs=1e-6) and stats["l1"] == pytest.approx(0.1, rel=1e-4)
    for a, b in zip(seen[0][:3], seen[0][3:6], strict=True):  # mirrored together: the same person
        assert (a - b).abs().mean() < (a - b.flip(2)).abs().mean()
    index, _ = trainer.indices()
    shift[3:6, 0] = 0.4  # red is off after the change alone
    stats = trainer.step()
    change = trainer.change[index[:3]].float() / 255
    weight = pair_weight(trainer.change[:6].float() / 255, 0.5)[index[:3]]
    error = 0.3 / 3 + 20 * (0.2**2 + 2 * 0.1**2) / 3
    assert stats["missed"] == pytest.approx(
        (error * place_weight(change, 1.0).mean((1, 2, 3)) * weight).mean().item(), rel=1e-3
    )
    with pytest.raises(S2FError, match="--pairs"):
        editor_vae.pairs_drawn(VaeConfig(out=str(tmp_path), **SMALL))
    first = EditPairs(pairs_folder, "train", limit=6).rows[0].edits[0].kind
    drawn = editor_vae.pairs_drawn(VaeConfig(out="", pairs=str(pairs_folder), limit=6, often=f"{first}=4", **SMALL))
    assert (drawn == 0).sum() == 4 and set(drawn) == set(range(6))
