"""Building the judges of a preset with their weights; the table is in :mod:`s2flib.judges`."""

from __future__ import annotations

import warnings

import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.cbam import AttributeNet
from s2flib.errors import ImageError, S2FError, WeightsError
from s2flib.files import weights_dir
from s2flib.judges.dlib_resnet import SIZE as DLIB_SIZE
from s2flib.judges.dlib_resnet import DlibResNet
from s2flib.judges.stlpips import STLPIPS
from s2flib.judges.synthface_id import SynthFaceID, face_crop
from s2flib.losses import LossWeights
from s2flib.presets import Preset, get_preset
from s2flib.weights.load import load_ir_se50, load_tensors, safe_load
from s2flib.weights.published import load_strict
from s2flib.weights.registry import fetch

# --- perceptual ------------------------------------------------------------------------------------------------


class LPIPS(nn.Module):
    """LPIPS v0.1, AlexNet (Zhang et al., CVPR 2018), by the authors' lpips package on torchvision's trunk."""

    label = "LPIPS (alex)"

    def __init__(self, trunk: dict[str, Tensor]):
        """trunk: the state dict of torchvision's AlexNet, features.0 … features.10 (its classifier is not used)."""
        super().__init__()
        import lpips

        with warnings.catch_warnings():     # of the package's outdated call of torchvision
            warnings.simplefilter("ignore", UserWarning)
            # pnet_rand keeps the package from downloading; the random trunk is then overwritten, strictly
            self.net = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        wanted = {f"features.{name.split('.', 1)[1]}": name for name in self.net.net.state_dict()}
        missing = [name for name in wanted if name not in trunk]
        if missing:
            raise WeightsError(f"the AlexNet trunk lacks {missing[0]}: fetch it again with s2f fetch alexnet.")
        load_strict(self.net.net, {ours: trunk[theirs] for theirs, ours in wanted.items()}, "the AlexNet trunk")
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> LPIPS:
        return super().train(False)         # its dropout must stay off, whatever contains it

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y: (B,3,H,W) in [-1,1] -> (B,) distances ≥ 0."""
        return self.net(x, y).flatten()


def load_st_lpips() -> STLPIPS:
    """ST-LPIPS with its shipped weights."""
    net, path = STLPIPS(), weights_dir() / "st-lpips-alex.safetensors"
    load_strict(net, load_tensors(path, "st-lpips-alex"), str(path))
    return net


def load_lpips() -> LPIPS:
    """LPIPS with AlexNet's trunk from the cache, downloaded on first use."""
    return LPIPS(safe_load(fetch("alexnet")))


def perceptual_judge(preset: str | Preset) -> nn.Module:
    """(x, y: (B,3,H,W) in [-1,1]) -> (B,) distances, differentiable; ``.label`` says which measure it is."""
    kind = get_preset(preset).perceptual
    loaders = {"st-lpips": load_st_lpips, "lpips": load_lpips}
    if kind not in loaders:
        raise S2FError(f"there is no perceptual judge {kind!r}: choose one of {', '.join(loaders)}.")
    return loaders[kind]()


# --- identity --------------------------------------------------------------------------------------------------


class IdentityJudge(nn.Module):
    """Crops the face out of a portrait, embeds it, and compares by cosine.

    embed(x: (B,3,H,H) in [-1,1]) -> (B,d) unit length; similarity(x, y) -> (B,) in [-1,1]; differentiable.
    Portraits must be framed like SynthFaces (align_face does that), or like FFHQ for the published nets.
    """

    def __init__(self, net: nn.Module, label: str, crop, centre: Tensor | None = None):
        """crop: (B,3,H,H) -> the net's input; centre: (d,) subtracted before scaling to unit length."""
        super().__init__()
        self.net, self.label, self.crop = net, label, crop
        self.register_buffer("centre", centre, persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> IdentityJudge:
        return super().train(False)         # batch statistics would make a person depend on the neighbours

    def embed(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3:
            raise ImageError(
                f"an identity judge looks at (B,3,H,W) photos, got {tuple(x.shape)}: give it the photo, not the sketch."
            )
        e = self.net(self.crop(x)).float()
        return F.normalize(e if self.centre is None else e - self.centre, dim=1)

    def similarity(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.embed(x) * self.embed(y)).sum(1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.similarity(x, y)


def _synthface_id() -> IdentityJudge:
    net, path = SynthFaceID(), weights_dir() / "tiny-id.safetensors"
    load_strict(net, load_tensors(path, "synthface-id"), str(path))
    return IdentityJudge(net, "SynthFaceID", lambda x: face_crop(x, SynthFaceID.size))


def _dlib() -> IdentityJudge:
    """Mean-centred cosine: all of dlib's embeddings point the same way (plain cosine: 0.97 same, 0.81 different)."""
    net, path = DlibResNet(), weights_dir() / "dlib-resnet.safetensors"
    tensors = load_tensors(path, "dlib-resnet")
    if "centre" not in tensors:
        raise WeightsError(f"{path} lacks the embeddings' centre: make it again with scripts/convert_dlib.py.")
    centre = tensors.pop("centre")
    load_strict(net, tensors, str(path))
    return IdentityJudge(net, "dlib ResNet", lambda x: face_crop(x, DLIB_SIZE), centre)


def _arcface() -> IdentityJudge:
    def crop(x: Tensor) -> Tensor:
        """pSp's crop, rows 35:223 and columns 32:220 of 256, pooled to 112."""
        x = F.adaptive_avg_pool2d(x, 256) if x.shape[-1] != 256 else x
        return F.adaptive_avg_pool2d(x[:, :, 35:223, 32:220], 112)

    return IdentityJudge(load_ir_se50(), "ArcFace IR-SE-50", crop)


def load_facenet() -> nn.Module:
    """facenet-pytorch's InceptionResnetV1 trained on VGGFace2: (B,3,160,160) in [-1,1] -> (B,512) unit length."""
    path = fetch("facenet-vggface2")
    from facenet_pytorch import InceptionResnetV1

    net = InceptionResnetV1()           # no name given: builds without a download and without a classifier
    load_strict(net, {k: v for k, v in safe_load(path).items() if not k.startswith("logits.")}, str(path))
    return net


def _facenet() -> IdentityJudge:
    def crop(x: Tensor) -> Tensor:
        """pSp's face square once more, at facenet's 160 px."""
        x = F.adaptive_avg_pool2d(x, 256) if x.shape[-1] != 256 else x
        return F.interpolate(x[:, :, 35:223, 32:220], (160, 160), mode="bilinear", align_corners=False, antialias=True)

    return IdentityJudge(load_facenet(), "InceptionResnetV1 (VGGFace2)", crop)


_IDENTITY = {"synthface-id": _synthface_id, "dlib": _dlib, "arcface-ir-se50": _arcface, "facenet-vggface2": _facenet}


def identity_judge(preset: str | Preset, role: str = "measure") -> IdentityJudge:
    """The preset's identity net for ``role``: "train" (inside the ID loss) or "measure" (in every table)."""
    preset = get_preset(preset)
    if role not in ("train", "measure"):
        raise S2FError(f'an identity judge\'s role is "train" or "measure", not {role!r}.')
    if preset.id_train == preset.id_measure:
        raise S2FError(f"preset {preset.name} measures with {preset.id_measure}, the net it trains with: use another.")
    kind = preset.id_train if role == "train" else preset.id_measure
    if kind not in _IDENTITY:
        raise S2FError(f"there is no identity net {kind!r}: choose one of {', '.join(_IDENTITY)}.")
    return _IDENTITY[kind]()


# --- attributes ------------------------------------------------------------------------------------------------


def attribute_net() -> AttributeNet:
    """The frozen attribute net whose refined maps F'' the attention loss compares (see losses.attention_loss).

    One for every preset: it was trained on SynthFaces at 128 px. ``.names`` are its attributes.
    """
    path = weights_dir() / "tiny-attributes.safetensors"
    tensors, metadata = load_tensors(path, "attributes"), safe_load(path, with_metadata=True)[1]
    net = AttributeNet(len(tensors["head.bias"]), variant=metadata.get("variant", "cbam"))
    load_strict(net, tensors, str(path))
    net.names = tuple(metadata["names"].split(","))
    return net.requires_grad_(False).eval()


def loss_networks(preset: str | Preset, weights: LossWeights) -> dict[str, nn.Module]:
    """The networks of a preset's losses, those with a weight above 0 only (see losses.SketchLoss)."""
    preset = get_preset(preset)
    load = {
        "lpips": lambda: perceptual_judge(preset),
        "id": lambda: identity_judge(preset, role="train"),
        "attention": attribute_net,
    }
    return {name: make() for name, make in load.items() if getattr(weights, name) > 0}
