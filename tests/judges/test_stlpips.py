"""ST-LPIPS: values of the authors' package, gradients, layers, and the converter of its weights."""

import numpy as np
import pytest
import torch
from skimage import data

from s2flib import judges
from s2flib.errors import ImageError
from s2flib.images import as_float
from s2flib.judges.stlpips import STLPIPS, BlurPool, conv_blurpool

ASTRONAUT = data.astronaut()
FACE = ASTRONAUT[30:158, 160:288]


@pytest.fixture(scope="module")
def st_lpips():
    return judges.perceptual_judge("tiny")


@pytest.mark.parametrize("other, published", [       # values by the authors' package stlpips_pytorch 0.0.2
    (ASTRONAUT[200:328, 200:328], 0.6210147738456726),
    (np.roll(FACE, 1, 1), 0.005375258158892393),          # one pixel to the right: hardly any distance
    (FACE[::-1], 0.527010440826416),
])  # fmt: skip
def test_st_lpips_equals_the_authors_package(st_lpips, other, published):
    assert st_lpips(as_float(FACE)[None], as_float(other)[None]).item() == pytest.approx(published, abs=3e-4, rel=1e-2)


def test_st_lpips_is_a_labelled_batched_frozen_distance(st_lpips):
    x = torch.rand(3, 3, 48, 40) * 2 - 1
    y = torch.rand(3, 3, 48, 40) * 2 - 1
    assert st_lpips.label == "ST-LPIPS (alex)"
    assert not any(p.requires_grad for p in st_lpips.parameters())
    d = st_lpips(x, y)
    assert d.shape == (3,) and (d > 0).all()
    torch.testing.assert_close(d, st_lpips(y, x))
    torch.testing.assert_close(d[1:2], st_lpips(x[1:2], y[1:2]))
    assert st_lpips(x, x).abs().max() == 0


def test_st_lpips_is_float32_under_autocast(st_lpips):
    x = torch.rand(4, 3, 128, 128) * 2 - 1
    y = (x + 0.05 * torch.randn_like(x)).requires_grad_()
    (want,) = torch.autograd.grad(st_lpips(x, y).sum(), y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = st_lpips(x, y)
    (got,) = torch.autograd.grad(mixed.sum(), y)
    torch.testing.assert_close(mixed, st_lpips(x, y))
    torch.testing.assert_close(got, want)


def test_st_lpips_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    net = STLPIPS().double()
    for p in net.parameters():
        torch.nn.init.uniform_(p, 0, 0.1)
    x, y = (torch.rand(1, 3, 32, 32).double() for _ in range(2))
    y.requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, y).sum(), y)
    step = torch.randn(y.shape).double()
    h = 1e-6
    slope = (net(x, y + h * step) - net(x, y - h * step)) / (2 * h)
    assert (gradient * step).sum().item() == pytest.approx(slope.item(), rel=1e-4)
    black = torch.zeros(1, 3, 32, 32, requires_grad=True)
    dead = STLPIPS()
    dead(torch.zeros(1, 3, 32, 32), black).sum().backward()  # every feature is zero here
    assert torch.isfinite(black.grad).all()


def test_blurpool_keeps_a_constant_and_halves_the_grid():
    y = BlurPool(2)(torch.full((1, 2, 9, 12), 3.0))
    assert y.shape == (1, 2, 6, 7)
    torch.testing.assert_close(y, torch.full_like(y, 3.0))


@pytest.mark.parametrize("height, width", [(32, 32), (33, 33), (32, 37), (41, 34)])
def test_the_fused_first_layer_equals_convolution_then_blurpool(height, width):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 4, 11, padding=2).double()
    x = torch.randn(2, 3, height, width).double()
    expected = BlurPool(4).double()(conv(x))
    torch.testing.assert_close(conv_blurpool(x, conv.weight, conv.bias, 2), expected)


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (3, 64, 64), (1, 3, 16, 64)])
def test_st_lpips_refuses_what_is_no_photo(st_lpips, shape):
    with pytest.raises(ImageError, match="photos"):
        st_lpips(torch.zeros(shape), torch.zeros(shape))


def test_convert_st_lpips_reads_the_published_layout(script):
    module = script("convert_st_lpips")
    shapes = {k: v.shape for k, v in STLPIPS().state_dict().items()}
    published = {}
    for ours, theirs in module.NAMES.items():
        for part in ("weight", "bias"):
            published[f"net.{theirs}.{part}"] = torch.randn(shapes[f"{ours}.{part}"])
    for i in range(5):
        published[f"lin{i}.model.1.weight"] = torch.rand(1, *shapes[f"lin{i + 1}"], 1, 1)
    ours = module.convert(published)
    assert ours.keys() == shapes.keys()
    torch.testing.assert_close(ours["lin3"], published["lin2.model.1.weight"].flatten())
    with pytest.raises(KeyError):
        module.convert({k: v for k, v in published.items() if "lin4" not in k})
