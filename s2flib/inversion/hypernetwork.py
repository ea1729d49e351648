"""What HyperStyle and HyperInverter share: which weights a photo may change, and the heads that output the change."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2flib.psp import Groups, irse_body
from s2flib.stylegan2 import Generator


class Layer(NamedTuple):
    """One modulated convolution: its weight's name in the generator's state dict, and the weight's shape."""

    name: str
    out_ch: int
    in_ch: int
    kernel: int


def conv_layers(generator: Generator, from_side: int = 16) -> list[Layer]:
    """The 3×3 convolutions whose output is at least ``from_side`` px, in order. ToRGB layers stay as they are: changing
    them hurts later edits (HyperStyle, Sec. 3.2)."""
    names = ["conv1", *(f"convs.{i}" for i in range(len(generator.convs)))]
    layers = []
    for i, name in enumerate(names):
        if 4 * 2 ** ((i + 1) // 2) >= from_side:
            weight = f"{name}.conv.weight"
            _, out_ch, in_ch, kernel, _ = generator.get_parameter(weight).shape
            layers.append(Layer(weight, out_ch, in_ch, kernel))
    if not layers:
        raise ValueError(f"a generator of {generator.size} px has no convolution of {from_side} px or more")
    return layers


class LayerHead(nn.Module):
    """Features (B, C, s, s) → a number for every weight of a layer: (B, out, in, kernel, kernel).

    Stride-2 convolutions reduce the map to 1×1; then the two-layer hypernetwork of Ha et al. (2017, arXiv:1609.09106):
    one code of ``rank`` numbers for each output channel, and one linear map, shared by the output channels, from it to
    that channel's weights. It starts at zero, so that the generator starts unchanged.

    kernel: 1 outputs one number for each pair of channels, (B, out, in, 1, 1)
    """

    def __init__(self, in_ch: int, spatial: int, head: int, rank: int, layer: Layer, kernel: int):
        super().__init__()
        convs: list[nn.Module] = []
        for _ in range(int(math.log2(spatial))):
            conv = nn.Conv2d(in_ch, head, 3, 2, 1)
            nn.init.kaiming_normal_(conv.weight, a=0.01, nonlinearity="leaky_relu")
            convs += [conv, nn.LeakyReLU(0.01)]
            in_ch = head
        self.convs = nn.Sequential(*convs)
        self.shape, self.rank = (layer.out_ch, layer.in_ch, kernel, kernel), rank
        self.channel_codes = nn.Linear(in_ch, layer.out_ch * rank)
        self.weights = nn.Linear(rank, layer.in_ch * kernel**2, bias=False)
        # codes of size 1: torch's default makes them so small that the zeros below hardly leave zero
        nn.init.kaiming_normal_(self.channel_codes.weight, nonlinearity="linear")
        nn.init.zeros_(self.weights.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs(x).flatten(1)  # (B, head)
        codes = self.channel_codes(x).unflatten(1, (-1, self.rank))  # (B, out, rank)
        return self.weights(codes).reshape(-1, *self.shape)


class Backbone(nn.Module):
    """An IR-SE backbone: pictures (B, in_ch, size, size) → features (B, widths[3], size/16, size/16)."""

    def __init__(self, in_ch: int, units: Groups, widths: Groups):
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(in_ch, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        self.body = irse_body(units, widths, widths[0])

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.input_layer(x.contiguous(memory_format=torch.channels_last)))
