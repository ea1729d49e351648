import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from s2flib.cbam import CBAM, AttributeNet, ChannelGate, SpatialGate


def sigmoid(x):
    return 1 / (1 + (-x).exp())


def test_channel_gate_by_hand():
    """M_c from the written-out MLP, one pixel loop at a time."""
    gate = ChannelGate(6, reduction=3)
    x = torch.randn(2, 6, 4, 5)
    w0, b0, w1, b1 = (p.detach() for p in gate.mlp.parameters())
    assert w0.shape == (2, 6)
    for b in range(2):
        avg = torch.stack([x[b, c].sum() / 20 for c in range(6)])
        top = torch.stack([x[b, c].max() for c in range(6)])
        logits = sum(w1 @ (w0 @ d + b0).clamp(min=0) + b1 for d in (avg, top))
        assert torch.allclose(gate(x)[b, :, 0, 0], sigmoid(logits), atol=1e-6)


def test_spatial_gate_by_hand():
    """M_s at every pixel from the written-out 3×3 correlation with zero padding."""
    gate = SpatialGate(kernel_size=3)
    x = torch.randn(1, 4, 5, 6)
    maps = torch.stack([x[0].mean(0), x[0].max(0).values])
    got = gate(x)
    assert got.shape == (1, 1, 5, 6)
    for i in range(5):
        for j in range(6):
            total = gate.conv.bias[0].clone()
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    if 0 <= i + di < 5 and 0 <= j + dj < 6:
                        total = total + gate.conv.weight[0, :, di + 1, dj + 1] @ maps[:, i + di, j + dj]
            assert torch.allclose(got[0, 0, i, j], sigmoid(total), atol=1e-6)


def test_variants_differ_by_the_channel_gate():
    cbam, seed = CBAM(16, variant="cbam"), CBAM(16, variant="seed")
    seed.load_state_dict(cbam.state_dict())
    x = torch.randn(3, 16, 8, 8)
    m_c, m_s = cbam.gates(x)
    assert m_c.shape == (3, 16, 1, 1) and m_s.shape == (3, 1, 8, 8)
    # F' = M_c ⊗ F decides M_s in both
    assert torch.allclose(m_s, cbam.spatial_gate(cbam.channel_gate(x) * x))
    assert torch.allclose(cbam(x), m_s * m_c * x)  # CBAM's second line: ⊗ F'
    assert torch.allclose(seed(x), m_s * x)  # the seed paper's: ⊗ F
    assert not torch.allclose(cbam(x), seed(x))


@pytest.mark.parametrize("variant", ["cbam", "seed"])
def test_cbam_gradients_by_finite_difference(variant):
    net = CBAM(4, reduction=2, kernel_size=3, variant=variant).double()
    x = torch.randn(1, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, (x,))


def test_cbam_refuses():
    with pytest.raises(ValueError, match="variant"):
        CBAM(8, variant="paper")
    with pytest.raises(ValueError, match="odd"):
        SpatialGate(4)


def test_attribute_net_shapes_and_cost():
    net = AttributeNet(20).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert net(torch.randn(1, 3, 128, 128)).shape == (1, 20)
    assert counter.get_total_flops() / 2 <= 60e6
    with torch.no_grad():
        shapes = [tuple(f.shape) for f in net.attention_features(torch.randn(2, 3, 128, 128))]
    assert shapes == [(2, 32, 32, 32), (2, 64, 16, 16), (2, 128, 8, 8)]


def test_attention_features_are_the_cbam_outputs():
    net = AttributeNet(5).eval()
    seen = []
    for block in net.blocks:
        block.cbam.register_forward_hook(lambda m, i, o: seen.append((i[0], o)))
    with torch.no_grad():
        features = net.attention_features(torch.randn(2, 3, 64, 64))
        for f, block, (inp, out) in zip(features, net.blocks, seen, strict=True):
            assert torch.equal(f, out)
            m_c, m_s = block.cbam.gates(inp)
            assert torch.allclose(f, m_s * m_c * inp)


def test_frozen_net_passes_gradients_to_the_picture_only():
    net = AttributeNet(5).eval().requires_grad_(False)
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    sum(f.square().sum() for f in net.attention_features(x)).backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in net.parameters())
    # an image's maps do not depend on its neighbours in the batch
    with torch.no_grad():
        both, alone = net.attention_features(x), net.attention_features(x[:1])
    assert all(torch.allclose(b[:1], a, atol=1e-5) for b, a in zip(both, alone, strict=True))


def test_attribute_net_learns():
    """Forty steps tell bright from dark and red from not: the gates let gradients through."""
    torch.manual_seed(0)
    net = AttributeNet(2)
    opt = torch.optim.Adam(net.parameters(), 3e-3)
    y = (torch.rand(32, 2) > 0.5).float()
    x = 0.3 * torch.randn(32, 3, 32, 32) + (y[:, :1, None, None] - 0.5)
    x[:, 0] += y[:, 1, None, None] - 0.5
    first = None
    for _ in range(40):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        first = first or loss.item()
    assert loss.item() < 0.3 * first
