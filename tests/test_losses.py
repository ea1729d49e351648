"""The losses against their formulas written out in NumPy, and what they must refuse."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from s2flib.cbam import AttributeNet
from s2flib.errors import ImageError, S2FError
from s2flib.judges import IdentityJudge
from s2flib.judges.synthface_id import SynthFaceID, face_crop
from s2flib.losses import (
    AttentionLoss,
    LossWeights,
    SketchLoss,
    attention_loss,
    gradient_norms,
    gradient_shares,
    id_loss,
    l2_loss,
    lpips_loss,
    reg_loss,
)
from s2flib.published_attention import PublishedAttentionLoss


class Distance(nn.Module):
    """A perceptual judge simple enough to check by hand: per image, the mean absolute difference."""

    def features(self, x):
        return [x * 1]

    def compare(self, fx, fy):
        return (fx[0] - fy[0]).abs().mean((1, 2, 3))

    def forward(self, x, y):
        return self.compare(self.features(x), self.features(y))


@pytest.fixture
def pictures():
    torch.manual_seed(0)
    return torch.rand(2, 3, 3, 64, 64) * 2 - 1


@pytest.fixture
def attributes():
    torch.manual_seed(1)
    return AttributeNet(5).eval().requires_grad_(False)


@pytest.fixture
def identity():
    torch.manual_seed(2)
    return IdentityJudge(SynthFaceID(), "stand-in", lambda x: face_crop(x, 64))


@pytest.fixture
def nets(attributes, identity):
    return {"lpips": Distance(), "id": identity, "attention": attributes}


def test_l2_is_the_mean_square_and_gives_back_the_papers_norm(pictures):
    x, y = pictures
    d = (x - y).double().numpy()
    assert l2_loss(x, y).item() == pytest.approx((d**2).mean(), rel=1e-5)
    norm = np.linalg.norm(d[0])
    assert (d[0].size * l2_loss(x[:1], y[:1]).item()) ** 0.5 == pytest.approx(norm, rel=1e-5)


def test_lpips_is_the_judges_mean(pictures):
    x, y = pictures
    assert lpips_loss(x, y, Distance()).item() == pytest.approx((x - y).abs().mean().item(), rel=1e-5)


def test_id_is_one_minus_the_inner_product(pictures, identity):
    x, y = pictures
    a, b = (identity.net(face_crop(t, 64)).numpy() for t in (x, y))
    cosines = [np.dot(p, q) / np.linalg.norm(p) / np.linalg.norm(q) for p, q in zip(a, b, strict=True)]
    assert id_loss(x, y, identity).item() == pytest.approx(1 - np.mean(cosines), abs=1e-5)
    assert id_loss(x, x, identity).item() == pytest.approx(0, abs=1e-5)
    x.requires_grad_(), y.requires_grad_()
    id_loss(x, y, identity).backward()
    assert x.grad is None and y.grad.abs().sum() > 0


def test_reg_is_the_unsquared_frobenius_norm_of_each_image():
    torch.manual_seed(0)
    w, mean = torch.randn(3, 4, 5), torch.randn(4, 5)
    for centre in (mean, mean[0]):  # one w̄ per style, or one for all
        expected = np.mean([np.linalg.norm(a) for a in (w - centre).numpy()])
        assert reg_loss(w, centre).item() == pytest.approx(expected, rel=1e-5)
    at_mean = mean.expand(2, 4, 5).clone().requires_grad_()  # where training starts: w+ = w̄
    loss = reg_loss(at_mean, mean)
    loss.backward()
    assert loss.item() < 1e-5 and torch.isfinite(at_mean.grad).all()


def test_attention_is_the_norm_over_the_root_of_the_count(pictures, attributes):
    x, y = pictures
    expected = []
    for a, b in zip(attributes.attention_features(x), attributes.attention_features(y), strict=True):
        d = (a - b).double().numpy()
        expected.append(np.mean([np.linalg.norm(i) / i.size**0.5 for i in d]))
    assert attention_loss(x, y, attributes).item() == pytest.approx(np.mean(expected), rel=1e-5)
    fx, fy = (attributes.attention_features(t) for t in (x, y))
    assert attention_loss(fx, fy).item() == pytest.approx(np.mean(expected), rel=1e-5)
    y.requires_grad_()
    attention_loss(x, y, attributes).backward()
    assert y.grad.abs().sum() > 0
    same = x.clone().requires_grad_()
    attention_loss(x, same, attributes).backward()
    assert torch.isfinite(same.grad).all()


def test_attention_refuses_a_net_that_is_not_frozen(pictures):
    x, y = pictures
    for net in (AttributeNet(5).eval(), AttributeNet(5).requires_grad_(False).train()):
        with pytest.raises(S2FError, match="frozen"):
            attention_loss(x, y, net)


def test_sketch_loss_is_the_weighted_sum(pictures, nets):
    x, y = pictures
    torch.manual_seed(3)
    w, mean = torch.randn(3, 12, 8), torch.randn(12, 8)
    weights = LossWeights(l2=0.7, lpips=0.5, id=0.3, reg=0.01, attention=2.0)
    total, parts = SketchLoss(weights, nets)(x, y, w, mean)
    expected = {
        "l2": l2_loss(x, y), "lpips": lpips_loss(x, y, nets["lpips"]), "id": id_loss(x, y, nets["id"]),
        "reg": reg_loss(w, mean), "attention": attention_loss(x, y, nets["attention"]),
    }  # fmt: skip
    assert parts.keys() == {"total", *expected}
    for name, value in expected.items():
        assert parts[name] == pytest.approx(value.item(), rel=1e-5)
    by_hand = sum(getattr(weights, name) * value.item() for name, value in expected.items())
    assert total.item() == pytest.approx(by_hand, rel=1e-5) == parts["total"]


def test_sketch_loss_compares_with_given_targets(pictures, nets):
    x, y = pictures
    loss = SketchLoss(LossWeights(l2=0.7, lpips=0.5, id=0.3, reg=0.01, attention=2.0), nets)
    codes = torch.zeros(3, 12, 8), torch.zeros(12, 8)
    known = loss.targets(x.requires_grad_())
    assert not any(t.requires_grad for t in (known["id"], *known["lpips"], *known["attention"]))
    assert loss(x, y, *codes, known)[0].item() == pytest.approx(loss(x, y, *codes)[0].item(), rel=1e-6)
    others = loss(x, y, *codes, loss.targets(y))[1]  # the targets count, not the photo …
    assert all(others[k] < 1e-5 for k in ("lpips", "id", "attention"))
    assert others["l2"] == loss(x, y, *codes)[1]["l2"]  # … except where no network is asked


def test_the_attention_loss_of_some_maps(pictures, attributes):
    x, y = pictures
    fx, fy = (attributes.attention_features(t) for t in (x, y))
    for maps in ((0,), (2,), (0, 2)):
        loss = AttentionLoss(attributes, maps)
        by_hand = [attention_loss([fx[i]], [fy[i]]).item() for i in maps]
        assert loss.compare(loss.targets(x), y).item() == pytest.approx(np.mean(by_hand), rel=1e-5)
    whole = AttentionLoss(attributes)
    assert whole.compare(whole.targets(x), y).item() == pytest.approx(attention_loss(x, y, attributes).item())
    with pytest.raises(S2FError, match="maps 0 to 2, not 3"):
        AttentionLoss(attributes, (0, 3))


def test_the_published_attention_loss_is_part_of_the_sum(pictures):
    x, y = pictures
    sketch, published = torch.rand(3, 1, 64, 64), PublishedAttentionLoss(seed=1)
    loss = SketchLoss(LossWeights(1, 0, 0, 0, 1e9), {"attention": published})
    codes = torch.zeros(3, 12, 8), torch.zeros(12, 8)
    total, parts = loss(x, y, *codes, loss.targets(x, sketch))
    assert parts["attention"] == pytest.approx(published(x, y, sketch).item(), rel=1e-4)
    assert total.item() == pytest.approx(l2_loss(x, y).item() + 1e9 * parts["attention"].item(), rel=1e-5)
    for wrong in (None, sketch[:2], x):
        with pytest.raises(ImageError, match="compares with the sketches, too"):
            loss.targets(x, wrong)


def test_gradient_norms_by_finite_differences():
    """The norm is the largest slope: along the gradient's direction, the loss rises by norm times the way."""
    torch.manual_seed(0)
    x, y = torch.rand(2, 3, 4, 4).double(), torch.rand(2, 3, 4, 4).double()
    losses = {"l2": lambda z: l2_loss(x, z), "cubic": lambda z: (z**3).sum()}
    norms = gradient_norms(losses, y)
    directions = {"l2": y - x, "cubic": y**2}
    for name, loss in losses.items():
        step = 1e-5 * directions[name] / directions[name].norm()
        slope = (loss(y + step) - loss(y - step)) / 2e-5
        assert norms[name].item() == pytest.approx(slope.item(), rel=1e-6) and norms[name].ndim == 0
    shares = gradient_shares(losses, y)
    assert shares["l2"] == pytest.approx(float(norms["l2"] / (norms["l2"] + norms["cubic"])))
    assert not y.requires_grad and gradient_norms({"flat": lambda z: z.sum() * 0}, y)["flat"] == 0


def test_gradients_reach_the_output_and_the_code_but_no_judge(pictures, nets):
    x, y = pictures
    y.requires_grad_()
    w = torch.randn(3, 12, 8, requires_grad=True)
    loss = SketchLoss(LossWeights.of("tiny"), nets)
    loss.train()
    assert not any(m.training for m in loss.modules())
    loss(x, y, w, torch.zeros(12, 8))[0].backward()
    assert y.grad.abs().sum() > 0 and w.grad.abs().sum() > 0
    assert not [p for p in loss.parameters() if p.requires_grad]


@pytest.mark.parametrize("lambda4", [1.0, 1e3, 1e6, 1e9])
def test_every_lambda4_of_the_paper_is_finite(pictures, attributes, lambda4):
    x, y = pictures
    y.requires_grad_()
    loss = SketchLoss(LossWeights(1, 0, 0, 0, lambda4), {"attention": attributes})
    total, parts = loss(x, y, torch.zeros(3, 12, 8), torch.zeros(12, 8))
    total.backward()
    assert torch.isfinite(y.grad).all()
    expected = parts["l2"] + lambda4 * parts["attention"]
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_losses_without_weight_need_no_net(pictures):
    x, y = pictures
    loss = SketchLoss(LossWeights(l2=1, lpips=0, id=0, reg=0.1, attention=0), {})  # paper's nets are not here
    assert not loss.nets and loss(x, y, torch.ones(3, 18, 4), torch.zeros(4))[1].keys() == {"total", "l2", "reg"}
    with pytest.raises(S2FError, match="nothing to train"):
        SketchLoss(LossWeights(0, 0, 0, 0, 0), {})(x, y, torch.ones(3, 18, 4), torch.zeros(4))


def test_the_sketch_in_place_of_the_photo_is_a_clear_error(pictures, nets):
    _, y = pictures
    loss = SketchLoss(LossWeights.of("tiny"), nets)
    for wrong in (torch.rand(3, 1, 64, 64), torch.rand(3, 3, 32, 32), torch.rand(3, 64, 64)):
        with pytest.raises(ImageError, match="not the sketch"):
            loss(wrong, y, torch.zeros(3, 12, 8), torch.zeros(12, 8))


def test_weights_come_from_the_preset_and_must_be_numbers_from_zero():
    from s2flib.presets import TINY

    preset = dataclasses.replace(TINY, lambda_id=0.25, lambda4=7.0)
    assert (LossWeights.of(preset).id, LossWeights.of(preset).attention) == (0.25, 7.0)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(S2FError, match="weight of the attention loss"):
            LossWeights(attention=wrong)


def test_a_one_channel_encoder_trains_through_every_loss(nets):
    """pSp's known defect: its ID loss fed the sketch to the identity net. Here a step on a sketch must work."""
    from s2flib.presets import TINY
    from s2flib.psp import PSP

    torch.manual_seed(0)
    psp = PSP.from_preset(dataclasses.replace(TINY, encoder_units=(1, 1, 1, 1), channel_max=16, style_dim=16))
    sketch, photo = torch.rand(2, 1, 128, 128), torch.rand(2, 3, 128, 128) * 2 - 1
    y, w = psp(sketch)
    total, _ = SketchLoss(LossWeights.of("tiny"), nets)(photo, y, w, psp.latent_avg)
    total.backward()
    gradients = [p.grad for p in psp.encoder.parameters() if p.requires_grad]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)


def test_shares_by_hand():
    y = torch.tensor([[[[1.0, 2.0]]]])
    shares = gradient_shares({"a": lambda y: 3 * y.sum(), "b": lambda y: (y**2).sum() / 2}, y)
    a, b = 3 * 2**0.5, 5**0.5
    assert shares["a"] == pytest.approx(a / (a + b)) and shares["b"] == pytest.approx(b / (a + b))
    assert gradient_shares({"flat": lambda y: (0 * y).sum()}, y) == {"flat": 0.0}
