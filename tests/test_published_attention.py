"""The published attention loss: its size, its gradient, and how little of a training it is."""

import pytest
import torch
import torch.nn.functional as F

from s2flib.errors import ImageError
from s2flib.losses import gradient_shares, l2_loss
from s2flib.published_attention import PublishedAttentionLoss


@pytest.fixture(scope="module")
def faces():
    """Photos, the same people's other photos in place of outputs, sketches."""
    from s2flib.datasets.faces import open_dataset

    data = open_dataset("tiny", "val", limit=8)
    items = [data[i] for i in range(8)]
    photos = torch.stack([d["photo"] for d in items])
    return photos[:4], photos[4:], torch.stack([d["sketch"] for d in items[:4]])


@pytest.fixture(scope="module", params=[0, 1])
def loss(request):
    return PublishedAttentionLoss(request.param)


def test_it_is_nothing_beside_l2(loss, faces):
    photo, output, sketch = faces
    value, l2 = float(loss(photo, output, sketch)), float(l2_loss(photo, output))
    assert 1e-13 < value < 1e-8 and l2 > 1e-2


def test_by_hand(loss, faces):
    photo, output, sketch = faces
    with torch.no_grad():
        units = []
        for x in (photo, output, sketch.repeat(1, 3, 1, 1)):
            pooled = loss.resnet(F.interpolate(x, 224)).double()
            units.append((pooled / pooled.norm(dim=1, keepdim=True))[:, :, None, None].repeat(1, 1, 7, 7))
        x, y, s = units
        net = loss.cbam.double()
        gate = torch.sigmoid(2 * net.channel_gate.mlp(y[:, :, 0, 0]))[:, :, None, None]  # mean and maximum are the same
        both = torch.cat([(gate * y).mean(1, keepdim=True), (gate * y).amax(1, keepdim=True)], 1)
        refined = torch.sigmoid(net.spatial_gate.conv(both)) * gate * y
        expected = float((((y - x) * refined) ** 2).mean() + (((y - s) * refined) ** 2).mean())
    loss.cbam.float()
    assert float(loss(photo, output, sketch)) == pytest.approx(expected, rel=1e-2)


def test_random_weights_by_seed_and_nothing_to_train():
    state = torch.get_rng_state()
    a, b, other = PublishedAttentionLoss(3), PublishedAttentionLoss(3), PublishedAttentionLoss(4)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's randomness is left alone
    first = [net.resnet.conv1.weight for net in (a, b, other)]
    assert first[0].equal(first[1]) and not first[0].equal(first[2])
    assert not any(p.requires_grad for p in a.parameters()) and not a.train().resnet.bn1.training


def test_its_share_of_the_gradient(loss, faces):
    photo, output, sketch = faces

    def share(weight):
        losses = {"l2": lambda y: l2_loss(photo, y), "attention": lambda y: weight * loss(photo, y, sketch)}
        return gradient_shares(losses, output)["attention"]

    assert 0 < share(1) < share(1e3) < 1e-3 < share(1e6) < 0.1 < 0.5 < share(1e9)


def test_refuses_what_does_not_fit(loss, faces):
    photo, output, sketch = faces
    for wrong in ((photo, output[:2], sketch), (photo, output, sketch[:2]), (photo, output, photo)):
        with pytest.raises(ImageError, match="of each"):
            loss(*wrong)
