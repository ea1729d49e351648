"""The published files that the colab and paper presets need, and how they are downloaded and pinned."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from s2flib.errors import WeightsError
from s2flib.files import atomic_path, cache_dir, sha256_of
from s2flib.weights.download import download


@dataclass(frozen=True)
class Published:
    """A published file: ``file`` in the cache, downloaded from the first of ``urls`` that works."""

    file: str
    what: str
    licence: str
    urls: tuple[str, ...]
    sha256: str | None    # None: unknown; recorded next to the file on first use and checked from then on


def _drive(file_id: str) -> str:
    return f"https://drive.usercontent.google.com/download?id={file_id}&export=download&confirm=t"


# Several unrelated public projects pin the hashes below; torchvision's file names repeat the first digits. No such
# source was found for the files on Google Drive.
_FFHQ = "FFHQ is CC BY-NC-SA 4.0: non-commercial use only"

REGISTRY: dict[str, Published] = {
    "stylegan2-ffhq-1024": Published(
        "stylegan2-ffhq-config-f.pt", "StyleGAN2, FFHQ at 1024 px, converted to torch by rosinality",
        f"Nvidia Source Code License-NC; {_FFHQ}",
        (_drive("1EM87UquaoQmk17Q8d5kYIAHqu0dkYqdT"),
         "https://huggingface.co/akhaliq/jojogan-stylegan2-ffhq-config-f/resolve/main/"
         "stylegan2-ffhq-config-f.pt"),
        None),
    "stylegan2-ffhq-256": Published(
        "550000.pt", "StyleGAN2 trained on FFHQ at 256 px by rosinality, 550,000 iterations",
        f"MIT (rosinality/stylegan2-pytorch); {_FFHQ}", (_drive("1PQutd-JboOCOZqmd95XWxWrO8gGEvRcO"),), None),
    "psp-sketch": Published(
        "psp_celebs_sketch_to_face.pt", "pSp, sketch to face at 1024 px, trained on CelebA-HQ",
        "MIT (pixel2style2pixel); its decoder Nvidia Source Code License-NC; CelebA-HQ: non-commercial",
        (_drive("1lB7wk7MwtdxL-LL4Z_T76DuCfk00aSXA"),), None),
    "psp-ffhq": Published(
        "psp_ffhq_encode.pt", "pSp, photo to W+ at 1024 px, trained on FFHQ (input: RGB)",
        f"MIT (pixel2style2pixel); its decoder Nvidia Source Code License-NC; {_FFHQ}",
        (_drive("1bMTNWkh5LArlaWSc_wa8VKyq2V42T2z0"),), None),
    "ir-se50": Published(
        "model_ir_se50.pth", "ArcFace IR-SE-50, the ID loss of pSp",
        "MIT (InsightFace_Pytorch); MS-Celeb-1M: research only",
        ("https://github.com/xinntao/facexlib/releases/download/v0.1.0/recognition_arcface_ir_se50.pth",
         _drive("1KW7bjndL3QG3sxBbZxreGHigcCCpsDgn")),
        "a035c768259b98ab1ce0e646312f48b9e1e218197a0f80ac6765e88f8b6ddf28"),
    "facenet-vggface2": Published(
        "20180402-114759-vggface2.pt", "InceptionResnetV1 trained on VGGFace2, for facenet-pytorch",
        "MIT (facenet-pytorch); VGGFace2: non-commercial research",
        ("https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt",),
        "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b"),
    "alexnet": Published(
        "alexnet-owt-7be5be79.pth", "torchvision's AlexNet, the trunk of LPIPS (alex)",
        "BSD-3-Clause (torchvision); ImageNet: non-commercial research",
        ("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",),
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"),
    "vgg16": Published(
        "vgg16-397923af.pth", "torchvision's VGG-16, the trunk of LPIPS (vgg)",
        "BSD-3-Clause (torchvision); ImageNet: non-commercial research",
        ("https://download.pytorch.org/models/vgg16-397923af.pth",),
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"),
}


def fetch(name: str) -> Path:
    """The cached file of a REGISTRY entry, downloaded first if necessary; its SHA-256 is checked on every call.

    Files without a known trustworthy hash are pinned on first use: the hash of the first download is recorded in
    ``<file>.sha256`` with a warning, and any later change is an error. This protects against damaged or changed
    files but not against a malicious first download; safe_load still prevents any code in it from running. A file
    that was copied into the cache manually is treated the same way.
    """
    if name not in REGISTRY:
        raise WeightsError(f"there are no published weights named {name!r}: choose one of {', '.join(REGISTRY)}.")
    entry = REGISTRY[name]
    path = cache_dir() / entry.file
    if not path.exists():
        print(f"{name}: {entry.what}. Licence: {entry.licence}.", file=sys.stderr)
        download(entry.urls, path, entry.sha256)
    digest, record = sha256_of(path), Path(f"{path}.sha256")
    if entry.sha256 is None and not record.exists():
        with atomic_path(record) as part:
            part.write_text(f"{digest}  {entry.file}\n")
        warnings.warn(f"the SHA-256 of {entry.file} was not known and is now PINNED to {digest} in {record}: "
                      "compare it with another source if you need to be sure", stacklevel=2)
        return path
    expected = entry.sha256 or record.read_text().split()[0]
    if digest != expected:
        raise WeightsError(f"{path} has SHA-256 {digest[:12]}… but {expected[:12]}… is pinned: delete the "
                           f"file and run s2f fetch {name}.")
    return path
