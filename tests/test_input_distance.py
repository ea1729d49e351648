"""The distance of unusual inputs: the Mahalanobis formula, and its place in a model."""

import pytest
import torch

from s2flib.input_distance import InputDistance
from s2flib.presets import TINY
from s2flib.psp import PSP


def test_input_distance_is_mahalanobis():
    torch.manual_seed(0)
    mixing = torch.randn(5, 5)
    train, val, new = (torch.randn(n, 5) @ mixing.T + 3 for n in (4000, 300, 7))

    def maps(x):  # (N, 5, 2, 2) with these means
        around = torch.randn(len(x), 5, 2, 2)
        return x[:, :, None, None] + around - around.mean((2, 3), keepdim=True)

    distance = InputDistance(5)
    distance.fit(maps(train), maps(val))
    x = train.double()
    inverse = torch.linalg.inv(torch.cov(x.T) + 1e-3 * x.var(0).mean() * torch.eye(5))

    def formula(y):
        return torch.einsum("ni,ij,nj->n", y.double() - x.mean(0), inverse, y.double() - x.mean(0)).sqrt()

    expected = formula(new) / formula(val).quantile(0.99)
    assert torch.allclose(distance(maps(new)).double(), expected, rtol=1e-3)
    assert (distance(maps(val)) > 1).float().mean() == pytest.approx(0.01, abs=0.004)
    assert distance(maps(new + 20)).min() > distance(maps(val)).max()


def test_input_distance_of_a_model():
    psp = PSP.from_preset(TINY).eval()
    x = torch.rand(2, 1, 128, 128)
    assert psp.input_distance(x) is None
    psp.typical = InputDistance(TINY.encoder_widths[-1])
    assert torch.allclose(psp.input_distance(x), psp.typical(psp.maps(x)[0])) and psp.input_distance(x).shape == (2,)
