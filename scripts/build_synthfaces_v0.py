"""Pack the SynthFaces v0 renders into the shipped data set.

    python scripts/build_synthfaces_v0.py SOURCE_DIR [--out data/synthfaces]

SOURCE_DIR holds the renderer's output: ``images.zip`` (128 px WebP), ``masks.zip`` (palette PNGs whose
values follow ``RENDERER_LABELS``) and ``attributes.jsonl``. Photos are re-encoded smaller, masks are
mapped to CelebAMask-HQ's label ids and stored losslessly, attributes become columns of one manifest.
The same source and the same Pillow give the same bytes. About five minutes on one core.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from s2flib.celeba import LABELS, identity_split  # noqa: E402

# The renderer's own order of labels; beard and earring are not CelebAMask-HQ's names.
RENDERER_LABELS = ("background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear",
                   "nose", "mouth", "u_lip", "l_lip", "neck", "cloth", "hair", "beard", "earring")
RENAMED = {"beard": "skin", "earring": "ear_r"}
TO_CELEBA = np.array([LABELS.index(RENAMED.get(n, n)) for n in RENDERER_LABELS], np.uint8)
PHOTO_QUALITY = 80  # about 36 dB to the renders, 2.6 kB a face


def encode(photo: Image.Image, mask: np.ndarray) -> tuple[bytes, bytes]:
    """(lossy WebP of the photo, lossless WebP of the mask; the label id is the grey value)."""
    a, b = io.BytesIO(), io.BytesIO()
    photo.save(a, "WEBP", quality=PHOTO_QUALITY, method=6)
    Image.fromarray(mask).convert("RGB").save(b, "WEBP", lossless=True, quality=75, method=4)
    return a.getvalue(), b.getvalue()


def columns(record: dict) -> dict:
    """One attributes.jsonl record as manifest columns; the ancestry mix becomes three."""
    out = {k: v for k, v in record.items() if k not in ("name", "identity", "ethnicity_mix")}
    for name, share in zip(("caucasian", "african", "asian"), record["ethnicity_mix"], strict=True):
        out[f"ethnicity_{name}"] = share
    return {k: int(v) if isinstance(v, bool) else v for k, v in out.items()}


def build(source: Path, out: Path) -> None:
    records = [json.loads(line) for line in (source / "attributes.jsonl").read_text().splitlines()]
    photos, masks = zipfile.ZipFile(source / "images.zip"), zipfile.ZipFile(source / "masks.zip")

    def load(record: dict) -> tuple[Image.Image, np.ndarray]:
        name = record["name"]
        photo = Image.open(io.BytesIO(photos.read(f"{name}.webp"))).convert("RGB")
        mask = TO_CELEBA[np.asarray(Image.open(io.BytesIO(masks.read(f"{name}.png"))))]
        return photo, mask

    out.mkdir(parents=True, exist_ok=True)
    rows = []
    parts = {k: out / f"{k}.zip.part" for k in ("images", "masks")}
    with (zipfile.ZipFile(parts["images"], "w") as zi, zipfile.ZipFile(parts["masks"], "w") as zm,
          ThreadPoolExecutor() as pool):
        for start in range(0, len(records), 256):
            chunk = records[start:start + 256]
            pairs = [load(r) for r in chunk]
            for record, (photo, mask) in zip(chunk, pool.map(lambda p: encode(*p), pairs), strict=True):
                name, identity = record["name"], int(record["identity"])
                file = f"{name}.webp"
                # ZipInfo's default date (1980) keeps the archive's bytes reproducible.
                zi.writestr(zipfile.ZipInfo(file), photo)
                zm.writestr(zipfile.ZipInfo(file), mask)
                rows.append({
                    "file": file, "sha256": hashlib.sha256(photo).hexdigest(),
                    "mask_sha256": hashlib.sha256(mask).hexdigest(),
                    "identity": identity, "shot": int(name.rsplit("_", 1)[1]),
                    "split": identity_split(identity), **columns(record),
                })
            print(f"\r{len(rows)}/{len(records)}", end="", file=sys.stderr, flush=True)
    with open(out / "manifest.csv.part", "w", newline="") as f:
        writer = csv.DictWriter(f, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for name in ("images.zip", "masks.zip", "manifest.csv"):
        os.replace(out / f"{name}.part", out / name)
        print(f"\n{name}: {(out / name).stat().st_size / 1e6:.2f} MB", end="", file=sys.stderr)
    print(file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "synthfaces")
    args = parser.parse_args()
    build(args.source, args.out)
