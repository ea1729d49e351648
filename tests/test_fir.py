"""The low-pass filter against its definition, on a CPU and as a GPU computes it."""

import pytest
import torch
from filter_references import filter_reference, upsample_reference

from s2flib.fir import Upsample, fir_filter, three_boxes


def test_resampling_filters():
    x = torch.randn(2, 3, 9, 9)
    assert torch.allclose(Upsample()(x), upsample_reference(x), atol=1e-5)
    for pad, gain in (((1, 1), 4.0), ((2, 2), 1.0), ((2, 1), 4.0)):
        assert torch.allclose(fir_filter(x, pad, gain), filter_reference(x, pad, gain), atol=1e-5)
    # a constant picture stays constant away from the border: the filter's gain is right
    assert torch.allclose(Upsample()(torch.ones(1, 1, 8, 8))[:, :, 2:-2, 2:-2], torch.ones(1))


@pytest.mark.parametrize("pad", [(1, 1), (2, 2), (2, 1), (0, 0), (3, 3)])
def test_three_boxes_are_the_filter_and_its_derivatives(pad):
    """What a GPU computes: the same numbers, gradients, and gradients of gradients."""
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64, requires_grad=True)
    got, want = three_boxes(x, pad), filter_reference(x, pad, 1.0)
    assert torch.allclose(got, want, atol=1e-12)
    firsts = [torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)[0] for y in (got, want)]
    assert torch.allclose(*firsts, atol=1e-12)
    assert torch.allclose(*(torch.autograd.grad(g.pow(2).sum(), x, retain_graph=True)[0] for g in firsts), atol=1e-12)
