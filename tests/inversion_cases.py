"""Stand-ins for the tests of inversion: a perceptual judge that is easy to check by hand, and photos to refuse."""

import math

import torch
import torch.nn.functional as F
from torch import nn

SIZE = 16


class Edges(nn.Module):
    """Perceptual judge: mean squared difference of 4×4 means, plus that of horizontal and vertical edges."""

    label = "edges"

    def features(self, x):
        return [F.avg_pool2d(x, 4), x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]]

    def compare(self, fx, fy):
        return sum((a - b).square().mean((1, 2, 3)) for a, b in zip(fx, fy, strict=True))

    def forward(self, x, y):
        return self.compare(self.features(x), self.features(y))


def naive_distances(x, y):
    """MSE and Edges of one picture each, (3, H, W), written out."""
    cells = (x - y).reshape(3, x.shape[1] // 4, 4, x.shape[2] // 4, 4).mean((2, 4))
    across, down = (x - y).diff(dim=2), (x - y).diff(dim=1)
    return ((x - y) ** 2).mean(), (cells**2).mean() + (across**2).mean() + (down**2).mean()


def slope(f, at, along, eps=1e-2):
    """Central finite difference of f at a tensor, along another one of the same shape."""
    along = along / along.norm()
    return float(f(at + eps * along) - f(at - eps * along)) / (2 * eps)


def bytes_of(module):
    return {k: v.detach().numpy().tobytes() for k, v in [*module.named_parameters(), *module.named_buffers()]}


WRONG = {
    "NaN": lambda x: torch.where(torch.arange(SIZE) == 3, math.nan, x),
    "one photo without a batch": lambda x: x[0],
    "not square": lambda x: x[..., :8],
    "grey": lambda x: x[:, :1],
    "no photos": lambda x: x[:0],
    "0 to 255": lambda x: (x + 1) * 127.5,
}
