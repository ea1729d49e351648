"""Builds the judges of a preset with their weights; :mod:`s2flib.judges` has the table."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.cbam import AttributeNet
from s2flib.errors import ImageError, S2FError, WeightsError
from s2flib.files import weights_dir
from s2flib.judges.dlib_resnet import SIZE as DLIB_SIZE
from s2flib.judges.dlib_resnet import DlibResNet
from s2flib.judges.stlpips import STLPIPS
from s2flib.judges.synthface_id import SynthFaceID, face_crop
from s2flib.losses import AttentionLoss, LossWeights
from s2flib.presets import Preset, get_preset
from s2flib.published_attention import PublishedAttentionLoss
from s2flib.weights.load import load_ir_se50, load_network, load_tensors, safe_load
from s2flib.weights.published import load_strict
from s2flib.weights.registry import fetch

ATTENTION = ("attributes", "published")  # the forms of the attention loss


class LPIPS(nn.Module):
    """LPIPS v0.1, AlexNet (Zhang et al., CVPR 2018): the authors' lpips package with torchvision's trunk."""

    label = "LPIPS (alex)"

    def __init__(self, trunk: dict[str, Tensor]):
        """trunk: the state dict of torchvision's AlexNet, features.0 … features.10 (its classifier is not used)."""
        super().__init__()
        import lpips

        with warnings.catch_warnings():  # the package calls torchvision with deprecated arguments
            warnings.simplefilter("ignore", UserWarning)
            # pnet_rand prevents a download; the random trunk is then overwritten completely
            self.net = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        wanted = {f"features.{name.split('.', 1)[1]}": name for name in self.net.net.state_dict()}
        missing = [name for name in wanted if name not in trunk]
        if missing:
            raise WeightsError(f"the AlexNet trunk lacks {missing[0]}: download it again with s2f fetch alexnet.")
        load_strict(self.net.net, {ours: trunk[theirs] for theirs, ours in wanted.items()}, "the AlexNet trunk")
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> LPIPS:
        return super().train(False)  # dropout must stay off, even inside a module in training mode

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y: (B,3,H,W) in [-1,1] -> (B,) distances ≥ 0."""
        return self.compare(self.features(x), self.features(y))

    def features(self, x: Tensor) -> list[Tensor]:
        """x: (B,3,H,W) in [-1,1] -> five maps (B,C_l,H_l,W_l), each pixel normalised to unit length over channels."""
        import lpips

        return [lpips.normalize_tensor(f) for f in self.net.net(self.net.scaling_layer(x))]

    def compare(self, fx: list[Tensor], fy: list[Tensor]) -> Tensor:
        """Distance between precomputed features, (B,)."""
        parts = [lin((a - b).square()).mean((2, 3)) for lin, a, b in zip(self.net.lins, fx, fy, strict=True)]
        return torch.stack(parts).sum(0).flatten()


def load_st_lpips() -> STLPIPS:
    """ST-LPIPS with its shipped weights."""
    return load_network(STLPIPS(), weights_dir() / "st-lpips-alex.safetensors", "st-lpips-alex")


def load_lpips() -> LPIPS:
    """LPIPS with AlexNet's trunk from the cache, downloaded on first use."""
    return LPIPS(safe_load(fetch("alexnet")))


def perceptual_judge(preset: str | Preset) -> nn.Module:
    """(x, y: (B,3,H,W) in [-1,1]) -> (B,) distances, differentiable; ``.label`` names the measure.

    ``.compare(.features(x), .features(y))`` is the same, for a photo that is compared with many outputs.
    """
    kind = get_preset(preset).perceptual
    loaders = {"st-lpips": load_st_lpips, "lpips": load_lpips}
    if kind not in loaders:
        raise S2FError(f"there is no perceptual judge {kind!r}: choose one of {', '.join(loaders)}.")
    return loaders[kind]()


class IdentityJudge(nn.Module):
    """Crops the face out of a portrait, embeds it, and compares embeddings by cosine.

    embed(x: (B,3,H,H) in [-1,1]) -> (B,d) unit length; similarity(x, y) -> (B,) in [-1,1]; differentiable. Portraits
    must be framed like SynthFaces (see align_face), or like FFHQ for the published networks.
    """

    def __init__(self, net: nn.Module, label: str, crop, centre: Tensor | None = None):
        """crop: (B,3,H,H) -> the network's input; centre: (d,) subtracted before normalising to unit length."""
        super().__init__()
        self.net, self.label, self.crop = net, label, crop
        self.register_buffer("centre", centre, persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> IdentityJudge:
        return super().train(False)  # with batch statistics an embedding would depend on the rest of the batch

    def embed(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3:
            raise ImageError(
                f"an identity judge takes (B,3,H,W) photos, got {tuple(x.shape)}: pass the photo, not the sketch."
            )
        e = self.net(self.crop(x)).float()
        return F.normalize(e if self.centre is None else e - self.centre, dim=1)

    def similarity(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.embed(x) * self.embed(y)).sum(1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.similarity(x, y)


def _synthface_id() -> IdentityJudge:
    net = load_network(SynthFaceID(), weights_dir() / "tiny-id.safetensors", "synthface-id")
    return IdentityJudge(net, "SynthFaceID", lambda x: face_crop(x, SynthFaceID.size))


def _dlib() -> IdentityJudge:
    """Mean-centred cosine, because all of dlib's embeddings are similar (plain cosine: 0.97 same, 0.81 different)."""
    net, path = DlibResNet(), weights_dir() / "dlib-resnet.safetensors"
    tensors = load_tensors(path, "dlib-resnet")
    if "centre" not in tensors:
        raise WeightsError(f"{path} lacks the centre of the embeddings: create it again with scripts/convert_dlib.py.")
    centre = tensors.pop("centre")
    load_strict(net, tensors, str(path))
    return IdentityJudge(net, "dlib ResNet", lambda x: face_crop(x, DLIB_SIZE), centre)


def _psp_crop(x: Tensor) -> Tensor:
    """pSp's face crop: rows 35:223 and columns 32:220 of 256."""
    x = F.adaptive_avg_pool2d(x, 256) if x.shape[-1] != 256 else x
    return x[:, :, 35:223, 32:220]


def _arcface() -> IdentityJudge:
    return IdentityJudge(load_ir_se50(), "ArcFace IR-SE-50", lambda x: F.adaptive_avg_pool2d(_psp_crop(x), 112))


def load_facenet() -> nn.Module:
    """facenet-pytorch's InceptionResnetV1 trained on VGGFace2: (B,3,160,160) in [-1,1] -> (B,512) unit length."""
    path = fetch("facenet-vggface2")
    from facenet_pytorch import InceptionResnetV1

    net = InceptionResnetV1()  # without a name: no download and no classifier
    load_strict(net, {k: v for k, v in safe_load(path).items() if not k.startswith("logits.")}, str(path))
    return net


def _facenet() -> IdentityJudge:
    def crop(x: Tensor) -> Tensor:
        return F.interpolate(_psp_crop(x), (160, 160), mode="bilinear", align_corners=False, antialias=True)

    return IdentityJudge(load_facenet(), "InceptionResnetV1 (VGGFace2)", crop)


_IDENTITY = {"synthface-id": _synthface_id, "dlib": _dlib, "arcface-ir-se50": _arcface, "facenet-vggface2": _facenet}


def identity_judge(preset: str | Preset, role: str = "measure") -> IdentityJudge:
    """The preset's identity network for ``role``: "train" (in the ID loss) or "measure" (in every table)."""
    preset = get_preset(preset)
    if role not in ("train", "measure"):
        raise S2FError(f'the role of an identity judge must be "train" or "measure", not {role!r}.')
    if preset.id_train == preset.id_measure:
        raise S2FError(f"preset {preset.name} measures with its training network {preset.id_measure}: use another one.")
    kind = preset.id_train if role == "train" else preset.id_measure
    if kind not in _IDENTITY:
        raise S2FError(f"there is no identity network {kind!r}: choose one of {', '.join(_IDENTITY)}.")
    return _IDENTITY[kind]()


def attribute_net() -> AttributeNet:
    """The frozen attribute network whose refined maps F'' the attention loss compares (see losses.attention_loss).

    All presets use the same one, trained on SynthFaces at 128 px. ``.names`` are its attributes.
    """
    path = weights_dir() / "tiny-attributes.safetensors"
    tensors, metadata = load_tensors(path, "attributes", with_metadata=True)
    net = AttributeNet(len(tensors["head.bias"]), variant=metadata.get("variant", "cbam"))
    load_strict(net, tensors, str(path))
    net.names = tuple(metadata["names"].split(","))
    return net.requires_grad_(False).eval()


def loss_networks(
    preset: str | Preset, weights: LossWeights, attention: str = "attributes", maps: Sequence[int] = (), seed: int = 0
) -> dict[str, nn.Module]:
    """The networks of a preset's losses that have a weight above 0 (see losses.SketchLoss).

    attention: "attributes", the paper's formula with the maps ``maps`` of the attribute network (none: all), or
    "published", what the published code computes, with random weights of ``seed``.
    """
    preset = get_preset(preset)
    if attention not in ATTENTION:
        raise S2FError(f"there is no attention loss {attention!r}: choose one of {', '.join(ATTENTION)}.")
    if maps and attention == "published":
        raise S2FError("the published attention loss has no maps to choose from: leave them out.")
    load = {
        "lpips": lambda: perceptual_judge(preset),
        "id": lambda: identity_judge(preset, role="train"),
        "attention": lambda: (
            PublishedAttentionLoss(seed) if attention == "published" else AttentionLoss(attribute_net(), maps)
        ),
    }
    return {name: make() for name, make in load.items() if getattr(weights, name) > 0}
