"""The networks of the neural renderer that need no training to be tested."""

import numpy as np
import torch

from s2flib.training.renderer_networks import CauseEncoder


def test_causes_are_standardised():
    net = CauseEncoder(3, 5)
    x = np.random.default_rng(0).normal([5, -2, 0], [10, 0.1, 0], (500, 3)).astype(np.float32)
    net.fit(x)
    seen = {}
    net.layers.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    w = net(torch.from_numpy(x))
    assert torch.allclose(w.mean(1), torch.zeros(500), atol=1e-4) and abs(w.var(1).mean() - 1) < 0.4
    assert seen["x"].mean(0).abs().max() < 0.05 and (seen["x"][:, :2].std(0) - 1).abs().max() < 0.05
    assert seen["x"].abs().max() <= 4
