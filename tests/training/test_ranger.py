"""Ranger: rectified Adam with Lookahead and centralised gradients."""

from __future__ import annotations

import torch

from s2flib.training.ranger import Ranger


def test_ranger_equals_radam_with_lookahead_and_centred_gradients():
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.randn(3, 5))
    q = torch.nn.Parameter(p.detach().clone())
    ranger, radam = Ranger([p], lr=0.01, k=3, alpha=0.4), torch.optim.RAdam([q], lr=0.01, betas=(0.95, 0.999), eps=1e-5)
    slow = q.detach().clone()
    for step in range(1, 14):
        g = torch.randn(3, 5)
        p.grad = g.clone()
        q.grad = g - g.mean(1, keepdim=True)
        ranger.step()
        before = q.detach().clone()
        radam.step()
        if step <= 5:  # ρ_t ≤ 5: not rectified, no update
            q.data.copy_(before)
        if step % 3 == 0:
            slow = slow + 0.4 * (q.detach() - slow)
            q.data.copy_(slow)
        assert torch.allclose(p, q, atol=1e-7), step


def test_ranger_does_not_feel_the_scale_of_the_loss():
    def run(scale):
        p = torch.nn.Parameter(torch.ones(3, 4))
        opt = Ranger([p], lr=0.1)
        for step in range(20):
            p.grad = torch.randn(3, 4, generator=torch.Generator().manual_seed(step)) * scale
            opt.step()
        return p.detach()

    assert torch.allclose(run(1.0), run(1e6), atol=1e-3)
    assert not torch.allclose(run(1.0), torch.ones(3, 4), atol=1e-2)


def test_ranger_resumes_from_its_state():
    def run(steps, p, opt):
        for s in range(steps[0], steps[1]):
            torch.manual_seed(s)
            p.grad = torch.randn_like(p)
            opt.step()

    a = torch.nn.Parameter(torch.ones(4, 4))
    opt = Ranger([a], lr=0.1)
    run((0, 10), a, opt)
    b = torch.nn.Parameter(torch.ones(4, 4))
    first = Ranger([b], lr=0.1)
    run((0, 4), b, first)
    second = Ranger([b], lr=0.1)
    second.load_state_dict(first.state_dict())
    run((4, 10), b, second)
    assert torch.equal(a, b)
