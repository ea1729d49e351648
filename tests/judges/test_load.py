"""The judges: identity and attribute nets, labels, and what happens without weights."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from s2flib.datasets import ATTRIBUTE_NAMES, attribute_targets, open_dataset
from s2flib.errors import ImageError, S2FError, WeightsError
from s2flib.judges import load as judges
from s2flib.judges.dlib_resnet import DlibResNet
from s2flib.judges.synthface_id import SynthFaceID, face_crop, rank_1, verification_auc
from s2flib.presets import PRESETS, TINY
from s2flib.training.classifiers import attribute_scores
from s2flib.weights import registry


def test_face_crop_is_the_frame_and_differentiable():
    x = torch.zeros(1, 3, 100, 100)
    x[:, :, 20:90, 15:85] = 1  # centre (0.5, 0.55), side 0.7
    assert face_crop(x, 70).min() == 1
    assert face_crop(x, 35).shape == (1, 3, 35, 35) and face_crop(x, 150).min() > 0.9999
    x.requires_grad_()
    face_crop(x, 35).sum().backward()
    inside = torch.zeros(100, 100)
    inside[20:90, 15:85] = 1
    assert ((x.grad[0, 0] != 0) == (inside > 0)).all()
    with pytest.raises(ImageError, match="photo, not the sketch"):
        face_crop(torch.zeros(1, 1, 64, 64), 32)


def test_auc_and_rank_1_against_counting():
    torch.manual_seed(0)
    e = torch.nn.functional.normalize(torch.randn(30, 4), dim=1)
    identity = torch.arange(30) % 10
    s, same, other = e @ e.T, [], []
    for i in range(30):
        for j in range(i):
            (same if identity[i] == identity[j] else other).append(s[i, j].item())
    counted = np.mean([a > b for a in same for b in other])
    assert verification_auc(e, identity) == pytest.approx(counted, abs=1e-3)
    assert verification_auc(torch.ones(4, 1), torch.tensor([0, 0, 1, 1])) == 0.5
    hits = [int(s[i, :10].argmax()) == i % 10 for i in range(10, 30)]
    assert rank_1(e, identity) == pytest.approx(np.mean(hits))


def test_a_judge_ignores_train_mode_and_passes_gradients_to_the_picture_only():
    torch.manual_seed(0)
    judge = judges.IdentityJudge(SynthFaceID(), "stand-in", lambda x: face_crop(x, 64))
    x, y = torch.rand(2, 4, 3, 96, 96) * 2 - 1
    first = judge.similarity(x, y)
    judge.train()
    torch.testing.assert_close(judge.similarity(x[:1], y[:1]), first[:1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(judge.similarity(x, x), torch.ones(4))
    y.requires_grad_()
    judge.similarity(x, y).sum().backward()
    assert y.grad.abs().sum() > 0 and all(p.grad is None for p in judge.parameters())
    with pytest.raises(ImageError, match="photo, not the sketch"):
        judge.embed(torch.zeros(2, 1, 96, 96))


def test_the_training_judge_of_tiny_is_not_the_measuring_one():
    train, measure = (judges.identity_judge("tiny", role=r) for r in ("train", "measure"))
    assert isinstance(train.net, SynthFaceID) and isinstance(measure.net, DlibResNet)
    assert train.label != measure.label
    for preset in PRESETS.values():
        assert preset.id_train != preset.id_measure
    with pytest.raises(S2FError, match="measures with"):
        judges.identity_judge(dataclasses.replace(TINY, id_train="dlib"), "measure")
    with pytest.raises(S2FError, match="role"):
        judges.identity_judge("tiny", "judge")


def test_the_shipped_identity_net_knows_people_it_never_saw():
    judge, ds = judges.identity_judge("tiny", role="train"), open_dataset("tiny", "test", limit=90)
    with torch.no_grad():
        e = judge.embed(torch.stack([ds[i]["photo"] for i in range(len(ds))]))
    assert verification_auc(e, torch.from_numpy(ds.identities)) > 0.95


def test_the_shipped_attribute_net_beats_guessing():
    net, ds = judges.attribute_net(), open_dataset("tiny", "test", limit=90)
    assert net.names == ATTRIBUTE_NAMES and not net.training
    with torch.no_grad():
        logits = net(torch.stack([ds[i]["photo"] for i in range(len(ds))]))
    scores = attribute_scores(logits, torch.from_numpy(attribute_targets(ds)).float())
    assert scores["accuracy"] > scores["majority"] + 0.08 and scores["balanced"] > 0.7


# --- published judges: absent, then present --------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache and a network that is never there."""
    monkeypatch.setenv("S2F_CACHE", str(tmp_path))

    def nothing(urls, path, *args, **kwargs):
        raise WeightsError(f"{Path(path).name} could not be downloaded: put the file into {tmp_path} by hand.")

    monkeypatch.setattr(registry, "download", nothing)
    return tmp_path


@pytest.mark.parametrize("load, file", [
    (lambda: judges.perceptual_judge("paper"), "alexnet"),
    (lambda: judges.identity_judge("colab", "measure"), "vggface2"),
    (lambda: judges.identity_judge("paper", "train"), "ir_se50"),
])  # fmt: skip
def test_a_published_judge_without_weights_is_an_error_and_no_substitute(offline, load, file):
    with pytest.raises(WeightsError, match=file):
        load()


def test_a_shipped_judge_without_weights_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("S2F_WEIGHTS", str(tmp_path / "weights"))
    for load in (lambda: judges.perceptual_judge("tiny"), lambda: judges.identity_judge("tiny"), judges.attribute_net):
        with pytest.raises(WeightsError):
            load()


def test_weights_of_another_net_are_refused(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    save_file(SynthFaceID().state_dict(), tmp_path / "weights" / "st-lpips-alex.safetensors", {"kind": "synthface-id"})
    monkeypatch.setenv("S2F_WEIGHTS", str(tmp_path / "weights"))
    with pytest.raises(WeightsError, match="st-lpips"):
        judges.perceptual_judge("tiny")


def test_lpips_loads_torchvisions_trunk_strictly(offline, monkeypatch):
    torch.manual_seed(0)
    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    trunk = {f"features.{i}.weight": 0.05 * torch.randn(shape) for i, shape in shapes.items()}
    trunk |= {f"features.{i}.bias": torch.zeros(shape[0]) for i, shape in shapes.items()}
    trunk["classifier.6.bias"] = torch.zeros(1000)  # in the published file, of no use here
    torch.save(trunk, offline / "trunk.pth")
    monkeypatch.setattr(judges, "fetch", lambda name: offline / "trunk.pth")
    judge = judges.perceptual_judge("paper")
    assert judge.label == "LPIPS (alex)"
    stored = dict(judge.net.net.named_parameters())
    convs = sorted((k for k in stored if k.endswith("weight")), key=lambda k: int(k.split(".")[1]))
    for name, index in zip(convs, (0, 3, 6, 8, 10), strict=True):
        torch.testing.assert_close(stored[name], trunk[f"features.{index}.weight"])
    # the linear heads are the published ones from the package, and dropout stays off whatever mode is asked for
    x, y = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    judge.train()
    torch.testing.assert_close(judge(x, y), judge(x, y))
    torch.testing.assert_close(judge(x, y), judge.net(x, y).flatten())  # the package's own sum
    assert judge(x, y).shape == (2,) and not any(p.requires_grad for p in judge.parameters())
    with pytest.raises(WeightsError, match="features.10"):
        judges.LPIPS({k: v for k, v in trunk.items() if "features.10" not in k})


def test_facenet_loads_the_published_shapes(offline, monkeypatch):
    from facenet_pytorch import InceptionResnetV1

    torch.manual_seed(0)
    net = InceptionResnetV1().eval()
    state = net.state_dict()
    published = state | {"logits.weight": torch.zeros(8631, 512), "logits.bias": torch.zeros(8631)}
    torch.save(published, offline / "vggface2.pt")
    monkeypatch.setattr(judges, "fetch", lambda name: offline / "vggface2.pt")
    judge = judges.identity_judge("paper", "measure")
    assert judge.label == "InceptionResnetV1 (VGGFace2)"
    x = torch.rand(2, 3, 256, 256) * 2 - 1
    crop = torch.nn.functional.interpolate(x[:, :, 35:223, 32:220], (160, 160), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(judge.embed(x), net(crop), atol=1e-5, rtol=1e-4)
    torch.save({k: v for k, v in published.items() if k != "last_linear.weight"}, offline / "vggface2.pt")
    with pytest.raises(WeightsError, match="last_linear"):
        judges.identity_judge("paper", "measure")


def test_unknown_kinds_name_the_choices():
    with pytest.raises(S2FError, match="st-lpips"):
        judges.perceptual_judge(dataclasses.replace(TINY, perceptual="psnr"))
    with pytest.raises(S2FError, match="dlib"):
        judges.identity_judge(dataclasses.replace(TINY, id_measure="eyes"))
