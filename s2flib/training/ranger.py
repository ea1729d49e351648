"""Ranger, pSp's optimiser: rectified Adam with Lookahead and gradient centralisation (PyTorch has only RAdam)."""

from __future__ import annotations

import torch


class Ranger(torch.optim.RAdam):
    """RAdam (arXiv:1908.03265) + Lookahead (arXiv:1907.08610) + gradient centralisation (arXiv:2004.01461).

    lr:    learning rate; pSp trains with 1e-4, constant

    RAdam's first steps (five at β₂ = 0.999), for which the variance estimate is unreliable, are plain gradient steps
    proportional to the loss: at λ4 = 10⁶ the first one would destroy the encoder. Here they only update the averages
    (``degenerated_to_sgd=False`` in the authors' code), so that a common factor of all losses has no effect.

    k:     every k steps the slow weights move by ``alpha`` towards the fast ones, which are then reset to them

    All tensors are updated together (torch's foreach functions): on a GPU a few launches instead of ten per tensor.
    """

    def __init__(
        self,
        params,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.95, 0.999),
        eps: float = 1e-5,
        k: int = 6,
        alpha: float = 0.5,
    ):
        super().__init__(params, lr=lr, betas=betas, eps=eps)
        self.k, self.alpha = k, alpha

    @torch.no_grad()
    def step(self, closure=None):
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        for p in params:
            if "slow" not in self.state[p]:
                self._start(p)
        # centralise: zero mean per output unit
        gradients = [p.grad for p in params if p.grad.ndim > 1]
        if gradients:
            means = [g.mean(tuple(range(1, g.ndim)), keepdim=True) for g in gradients]
            torch._foreach_sub_(gradients, means)
        beta2 = {p: group["betas"][1] for group in self.param_groups for p in group["params"]}
        unrectified = [p for p in params if not self._is_rectified(beta2[p], int(self.state[p]["step"]) + 1)]
        before = [p.clone() for p in unrectified]
        loss = super().step(closure)
        if unrectified:
            torch._foreach_copy_(unrectified, before)
        due = [p for p in params if int(self.state[p]["step"]) % self.k == 0]
        if due:
            slow = [self.state[p]["slow"] for p in due]
            torch._foreach_lerp_(slow, due, self.alpha)
            torch._foreach_copy_(due, slow)
        return loss

    @staticmethod
    def _is_rectified(beta2: float, step: int) -> bool:
        """RAdam's ρ_t > 5: enough steps to estimate the gradients' variance."""
        power = beta2**step
        return 2 / (1 - beta2) - 1 - 2 * step * power / (1 - power) > 5

    def _start(self, p: torch.Tensor) -> None:
        # RAdam initialises a state only if it is empty, so all entries are created here
        self.state[p].update(
            step=torch.tensor(0.0), exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p), slow=p.detach().clone()
        )
