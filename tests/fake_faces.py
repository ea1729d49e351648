"""Data sets and judges small enough that every number can be worked out by hand."""

import csv
import hashlib
import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from s2flib.datasets import celeba
from s2flib.evaluation import Judges
from s2flib.presets import TINY


class Faces(torch.utils.data.Dataset):
    """people × shots random photos of 4 × 4 cells; the sketch is the photo's first channel in [0, 1]."""

    size = TINY.size

    def __init__(self, people: int, shots: int, seed: int = 0, first_person: int = 0):
        g = torch.Generator().manual_seed(seed)
        own = torch.rand(people, 1, 3, 4, 4, generator=g) * 1.6 - 0.8  # what a person looks like
        shot = own + torch.randn(people, shots, 3, 4, 4, generator=g) * 0.1
        photos = shot.flatten(0, 1).clamp(-1, 1)
        side = self.size // 4
        self.photos = photos.repeat_interleave(side, -1).repeat_interleave(side, -2)  # (N,3,size,size)
        self.identities = np.repeat(np.arange(people) + first_person, shots)
        self.names = [f"{i:03d}_{s}" for i in range(first_person, first_person + people) for s in range(shots)]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        photo = self.photos[i]
        return {
            "photo": photo,
            "sketch": (photo[:1] + 1) / 2,
            "identity": int(self.identities[i]),
            "name": self.names[i],
        }


class MeanAbsolute(torch.nn.Module):
    """Perceptual judge: mean absolute difference."""

    label = "mean absolute"

    def forward(self, x, y):
        return (x - y).abs().mean(dim=(1, 2, 3))


class Cells(torch.nn.Module):
    """Identity judge: the 4 × 4 cells of the photo, of unit norm."""

    label = "cells"

    def embed(self, x):
        return torch.nn.functional.normalize(torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1), dim=1)

    def similarity(self, x, y):
        return (self.embed(x) * self.embed(y)).sum(1)


def fake_judges() -> Judges:
    return Judges(MeanAbsolute(), Cells())


def crude_face(size=96, seed=0):
    """A crude face on a noisy ground: (photo, mask)."""
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
    mask = np.zeros((size, size), np.uint8)
    cv2.ellipse(mask, (size // 2, size // 2), (size // 3, size * 2 // 5), 0, 0, 360, 1, -1)
    skin = np.clip(np.linspace(110, 210, size)[None, :, None] * [1, 0.8, 0.7] + rng.normal(0, 2, photo.shape), 0, 255)
    photo = np.where(mask[..., None] > 0, skin, photo).astype(np.uint8)
    for x in (0.36, 0.64):
        cv2.circle(photo, (int(size * x), int(size * 0.42)), size // 20, (40, 25, 20), -1)
    cv2.ellipse(photo, (size // 2, size * 7 // 10), (size // 8, size // 30), 0, 0, 360, (150, 40, 50), -1)
    return photo, mask


def write_celeba(root: Path) -> Path:
    """A CelebAMask-HQ folder of the published layout: 12 photos (64 px), masks of 3 parts, no identity file.

    Photo k is uniformly of grey 20·k. Its mask (512²): skin in rows 100–399, hair in rows 50–149 (drawn over the
    skin, as g_mask.py does), l_eye in a 20 × 40 block. Photo 7 wears a hat. CelebA indices: 0–7 train, 8–9 val,
    10–11 test by the published split.
    """
    (root / celeba.IMAGES).mkdir(parents=True)
    parts = root / celeba.MASKS / "0"
    parts.mkdir(parents=True)
    orig = [*range(1000, 1008), 162771, 182637, 182638, 202598]
    mapping, attributes = ["idx\torig_idx\torig_file"], ["12", "Male Young Smiling"]
    for k in range(12):
        Image.new("RGB", (64, 64), (20 * k,) * 3).save(root / celeba.IMAGES / f"{k}.jpg", quality=95)
        areas = {"skin": np.s_[100:400, 100:400], "hair": np.s_[50:150, 100:400], "l_eye": np.s_[200:220, 150:190]}
        if k == 7:
            areas["hat"] = np.s_[0:100, 100:400]
        for part, area in areas.items():
            drawn = np.zeros((512, 512, 3), np.uint8)
            drawn[area] = 255
            Image.fromarray(drawn).save(parts / f"{k:05d}_{part}.png")
        mapping.append(f"{k}\t{orig[k]}\t{orig[k] + 1:06d}.jpg")
        attributes.append(f"{k}.jpg  {1 if k % 2 else -1} 1 -1")
    (root / celeba.MAPPING).write_text("\n".join(mapping) + "\n")
    (root / celeba.ATTRIBUTES).write_text("\n".join(attributes) + "\n")
    return root


def write_synthfaces(root: Path) -> list[dict]:
    """Four photos of two people in the format of SynthFaces; returns the rows of its manifest."""
    root.mkdir()
    rows = []
    for k in range(4):
        data, split = [], "train" if k < 2 else "test"
        for kind, colour in (("images", (50 * k, 90, 90)), ("masks", (k + 1,) * 3)):
            buffer = io.BytesIO()
            Image.new("RGB", (128, 128), colour).save(buffer, "WEBP", lossless=True)
            with zipfile.ZipFile(root / f"{kind}-{split}.zip", "a") as z:
                z.writestr(f"p{k}.webp", buffer.getvalue())
            data.append(hashlib.sha256(buffer.getvalue()).hexdigest())
        rows.append(
            {
                "file": f"p{k}.webp",
                "sha256": data[0],
                "mask_sha256": data[1],
                "identity": k // 2,
                "shot": k % 2,
                "split": split,
                "age": 20.5 + k,
                "hat": "none",
            }
        )
    write_manifest(root, rows)
    return rows


def write_manifest(root: Path, rows: list[dict]) -> None:
    """Write manifest.csv of a SynthFaces folder."""
    with open(root / "manifest.csv", "w", newline="") as f:
        writer = csv.DictWriter(f, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
