"""What a student under ``colab`` has, small enough for a CPU: the preset with narrow networks at its own 256 px, the
published files in their layouts with random weights, and a CelebAMask-HQ folder whose people are rendered.

The notebooks run in kernels, and 06 starts a training in another process: so the preset is replaced by a
``sitecustomize`` module, which every Python process with :func:`environment` imports first.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from s2flib import presets
from s2flib.datasets import celeba, open_dataset
from s2flib.stylegan2 import Generator
from s2flib.synthfaces.labels import LABELS
from s2flib.weights.published import IRSE50
from s2flib.weights.registry import REGISTRY

NARROW = dict(
    style_dim=32, n_mlp=2, channel_base=1024, channel_max=32, critic_base=1024,
    encoder_units=(1, 1, 1, 1), encoder_widths=(8, 12, 16, 24), encoder_head=16,
)  # fmt: skip
CUSTOMIZE = f"""
import dataclasses
from s2flib import presets
presets.COLAB = dataclasses.replace(presets.COLAB, **{NARROW!r})
presets.PRESETS["colab"] = presets.COLAB
from s2flib.weights import registry
for name, entry in registry.REGISTRY.items():
    registry.REGISTRY[name] = dataclasses.replace(entry, sha256=None)
"""
ATTRIBUTES = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks "
    "Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young"
)
SPLITS = {"train": (24, 1000), "val": (8, 162771), "test": (12, 182638)}  # photos, first CelebA index


def write(folder: Path, identities: bool) -> Path:
    """Files under folder/{cache,data,site}; identities: with CelebA's identity file, which is published separately."""
    write_weights(folder / "cache")
    write_people(folder / "data" / "CelebAMask-HQ", identities)
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(CUSTOMIZE)
    return folder


def environment(folder: Path) -> dict[str, str]:
    paths = [str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "S2F_CACHE": str(folder / "cache"),
        "S2F_DATA": str(folder / "data"),
        "S2F_TRAINED": str(folder / "trained"),
        "CUDA_VISIBLE_DEVICES": "",
    }


def write_weights(cache: Path) -> None:
    """The generator at 256 px as rosinality saves it; ArcFace, AlexNet's trunk and FaceNet at their published sizes."""
    from facenet_pytorch import InceptionResnetV1
    from torchvision.models import alexnet

    cache.mkdir(parents=True)
    torch.manual_seed(0)
    g = Generator.from_preset(replace(presets.COLAB, **NARROW))
    net = InceptionResnetV1().state_dict()
    files = {
        "stylegan2-ffhq-256": {"g_ema": dict(g.state_dict()), "latent_avg": g.mean_latent()},
        "ir-se50": IRSE50().state_dict(),
        "alexnet": {k: v for k, v in alexnet(weights=None).state_dict().items() if k.startswith("features.")},
        "facenet-vggface2": net | {"logits.weight": torch.zeros(8631, 512), "logits.bias": torch.zeros(8631)},
    }
    for name, state in files.items():
        torch.save(state, cache / REGISTRY[name].file)


def write_people(root: Path, identities: bool) -> None:
    """SynthFaces' photos and masks in CelebAMask-HQ's layout, with CelebA's 40 attributes at random."""
    (root / celeba.IMAGES).mkdir(parents=True)
    (root / celeba.MASKS / "0").mkdir(parents=True)
    rng = np.random.default_rng(0)
    mapping, people, k = ["idx\torig_idx\torig_file"], [], 0
    attributes = [str(sum(n for n, _ in SPLITS.values())), ATTRIBUTES]
    for split, (n, first) in SPLITS.items():
        dataset = open_dataset("tiny", split, limit=2 * n)
        for i in range(n):
            shot = 4 * (i // 2) + i % 2  # of four shots, two: twice as many people
            photo, mask = dataset.read(shot)
            Image.fromarray(cv2.resize(photo, (256, 256))).save(root / celeba.IMAGES / f"{k}.jpg", quality=95)
            mask = cv2.resize(mask, (celeba.MASK_SIZE,) * 2, interpolation=cv2.INTER_NEAREST)
            for label in np.unique(mask[mask > 0]):
                part = Image.fromarray(np.where(mask == label, 255, 0).astype(np.uint8)).convert("RGB")
                part.save(root / celeba.MASKS / "0" / f"{k:05d}_{LABELS[label]}.png")
            mapping.append(f"{k}\t{first + i}\t{first + i + 1:06d}.jpg")
            people.append(f"{first + i + 1:06d}.jpg {dataset.identities[shot]}")
            attributes.append(f"{k}.jpg  " + " ".join(rng.choice(["-1", "1"], len(ATTRIBUTES.split()))))
            k += 1
    (root / celeba.MAPPING).write_text("\n".join(mapping) + "\n")
    (root / celeba.ATTRIBUTES).write_text("\n".join(attributes) + "\n")
    if identities:
        (root / celeba.IDENTITIES).write_text("\n".join(people) + "\n")
