"""The attention loss as the seed paper's published code computes it, beside the one of losses.py.

Read from criteria/attention_loss.py of the author's repository. It differs from the formula in the paper:

    R(x)    ResNet-50, its pooled features (2048) at unit length, spread over a map of 7 × 7. The code means to load a
            network that was trained without labels, but the names in its checkpoint are not those that the loader looks
            for, and ``strict=False`` hides it: the weights are random.
    M       CBAM(2048) of R(y), the refined map itself; its weights are random, too, and nothing trains them
    loss    mean (R(y) M − R(x) M)² + mean (R(y) M − R(s) M)²,  x: photo, y: output, s: sketch in three channels

Random features of two faces are almost equal; 2048 numbers of unit length are small, and so is their square; and M, a
product of such a number with two gates, is below 0.01. The loss is about 1e-10 where L2 is 0.1. So λ4 = 1 and 10³ train
the same network as λ4 = 0, 10⁶ adds a few percent to the gradient, and only 10⁹ counts. Notebook 07 measures it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50

from s2flib.cbam import CBAM
from s2flib.errors import ImageError


class PublishedAttentionLoss(nn.Module):
    """(photo, output, sketch) → the published code's attention loss, a scalar; frozen, its weights random by ``seed``.

    photo, output (B, 3, H, W) in [−1, 1]; sketch (B, 1, H, W) in [0, 1].
    """

    SIDE = 224  # the input of ResNet-50, as in the code

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.resnet: Any = resnet50(weights=None)
            self.resnet.fc = nn.Identity()
            self.cbam = CBAM(2048)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> PublishedAttentionLoss:
        return super().train(False)  # no batch statistics

    def features(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W) → R(x) (B, 2048, 7, 7), the same numbers at every place."""
        x = F.interpolate(x.float(), size=self.SIDE)  # the nearest pixel, as in the code
        return F.normalize(self.resnet(x), dim=1)[:, :, None, None].expand(-1, -1, 7, 7)

    def targets(self, photo: Tensor, sketch: Tensor | None) -> list[Tensor]:
        """What the output is compared with: R(x) and R(s)."""
        if sketch is None or sketch.shape[:2] != (len(photo), 1):
            raise ImageError("the published attention loss compares with the sketches, too: pass one of each photo.")
        return [self.features(photo), self.features(sketch.expand(-1, 3, -1, -1))]

    def compare(self, targets: list[Tensor], output: Tensor) -> Tensor:
        """The loss of ``output`` with known :meth:`targets`."""
        x, s = targets
        y = self.features(output)
        refined = self.cbam(y)
        return F.mse_loss(y * refined, x * refined) + F.mse_loss(y * refined, s * refined)

    def forward(self, photo: Tensor, output: Tensor, sketch: Tensor) -> Tensor:
        if photo.shape != output.shape:
            raise ImageError("the attention loss compares photos and outputs of one size, and a sketch of each.")
        return self.compare(self.targets(photo, sketch), output)
