"""Networks that read from a face what edits change: hair, eyes, glasses, beard, make-up, expression, hat, age, skin.

Both are trained only on real renders of train identities (s2flib.training.edit_judge):

EditJudge    measures the success of edits. Neither its training nor that of the edit model uses the other.
EditReader   trains: in the last stage of its training the editor's outputs should be read like the true edits. It has
             another architecture, so that the editor does not overfit to the judge.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from s2flib.cbam import AttributeNet
from s2flib.files import weights_dir
from s2flib.synthfaces.edits import WORDS, Edit
from s2flib.weights.load import load_network

KIND, READER_KIND = "edit-judge", "edit-reader"
# head → its values; a head without values is a number
HEADS: dict[str, tuple[str, ...]] = {
    **{kind: tuple(WORDS[kind]) for kind in ("hair_color", "hair_style", "eye_color")},
    "glasses": ("none", "clear", "sun"),
    "beard": ("none", *WORDS["beard"]),
    "makeup": ("no", "yes"),
    "expression": tuple(WORDS["expression"]),
    "hat": ("none", *WORDS["hat"]),
    "age": (),
    "skin_tone": (),
}
SCALE = {"age": (45.0, 16.0), "skin_tone": (3.0, 1.8)}  # mean and spread used to normalise the numbers
# heads with a separate network that reads a strip at twice the size: rows and columns as fractions of a portrait framed
# like SynthFaces. An iris is three pixels wide there; a smirk raises one corner of the mouth by two pixels.
STRIPS = {"eye_color": (0.36, 0.66, 0.2, 0.8), "expression": (0.52, 0.84, 0.24, 0.76)}


def truth(attributes: dict) -> dict[str, int | float | None]:
    """SynthFaces attributes → what each head should read; None where it is not visible or ambiguous."""
    a, out = attributes, {}
    glasses = a["glasses"] if a["glasses"] in ("none", "sun") else "clear"
    makeup = "yes" if a["makeup"] > 0.4 else "no" if a["makeup"] < 0.1 else None
    seen = dict(a) | {"glasses": glasses, "makeup": makeup}
    if a["hair_color"] == "bald" or a["hair_style"] == "bald":
        seen["hair_color"] = None
    if glasses == "sun":
        seen["eye_color"] = None
    if a["hat"] != "none":
        seen["hair_style"] = None
    for head, values in HEADS.items():
        if not values:
            out[head] = (float(a[head]) - SCALE[head][0]) / SCALE[head][1]
        else:
            out[head] = values.index(seen[head]) if seen[head] in values else None
    return out


def expected_reading(edit: Edit) -> tuple[str, int | None] | None:
    """The head that reads this change and the value it should read (None: a number, compared with the true images).

    None for a new background, which is not read from the face.
    """
    kind = edit.kind
    table = {
        "glasses": ("glasses", "clear"),
        "no_glasses": ("glasses", "none"),
        "sunglasses": ("glasses", "sun"),
        "no_beard": ("beard", "none"),
        "makeup": ("makeup", "yes"),
        "no_makeup": ("makeup", "no"),
        "no_hat": ("hat", "none"),
    }
    if kind == "background":
        return None
    if kind in ("age", "skin_tone"):
        return kind, None
    head, value = table.get(kind, (kind, edit.value))
    return head, HEADS[head].index(value)


class FaceReader(nn.Module):
    """Base class of both. forward: (B, 3, 128, 128) in [−1, 1] → (B, sum(sizes)), the outputs of HEADS in order."""

    sizes = [max(1, len(v)) for v in HEADS.values()]

    def heads(self, x: Tensor) -> dict[str, Tensor]:
        """Log-probabilities (B, values) per head; numbers (B,) for age (years) and skin tone (0 … 7)."""
        out = {}
        for name, part in zip(HEADS, self(x).float().split(self.sizes, 1), strict=True):
            mean, spread = SCALE.get(name, (0, 1))
            out[name] = part.log_softmax(1) if HEADS[name] else part[:, 0] * spread + mean
        return out


class EditJudge(FaceReader):
    """AttributeNets (s2flib.cbam): one for the face and one for each of ``STRIPS``; their outputs are added."""

    label = "edit judge"

    def __init__(self):
        super().__init__()
        self.face = AttributeNet(sum(self.sizes))
        self.strips = nn.ModuleDict({head: AttributeNet(len(HEADS[head])) for head in STRIPS})

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        out = dict(zip(HEADS, self.face(x).split(self.sizes, 1), strict=True))
        for head, (top, bottom, left, right) in STRIPS.items():
            strip = x[:, :, round(top * h) : round(bottom * h), round(left * w) : round(right * w)]
            strip = F.interpolate(strip, scale_factor=2, mode="bilinear", align_corners=False)
            out[head] = out[head] + self.strips[head](strip)
        return torch.cat(list(out.values()), 1)


class EditReader(FaceReader):
    """torchvision's ResNet with one block per level, without max pooling because wrinkles are one pixel wide; 4.9 M."""

    def __init__(self):
        super().__init__()
        self.net = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=sum(self.sizes))
        self.net.add_module("maxpool", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.contiguous(memory_format=torch.channels_last))


def load_edit_judge(path: str | Path | None = None) -> EditJudge:
    """The shipped judge (or another file), frozen; WeightsError when it is missing."""
    return load_network(EditJudge(), path or weights_dir() / "tiny-edit-judge.safetensors", KIND)


def load_edit_reader(path: str | Path) -> EditReader:
    """A reader trained by ``s2f train --what edit-reader``, frozen; WeightsError when it is missing."""
    return load_network(EditReader(), path, READER_KIND)
