"""Faces with sketch, mask, identity and attributes: SynthFaces (shipped) and CelebAMask-HQ (the user's copy)."""

from __future__ import annotations

import copy
import csv
import functools
import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from s2flib.datasets import celeba
from s2flib.datasets.folders import own_data
from s2flib.errors import DataError, ImageError, printable
from s2flib.files import available_cpus, cache_dir, memory_bytes
from s2flib.images import MAX_SIDE, as_float, load_image, resize
from s2flib.presets import Preset, get_preset
from s2flib.sketch import sketch
from s2flib.synthfaces.identity import identity_split
from s2flib.synthfaces.labels import LABELS

SPLITS = ("train", "val", "test")
LARGEST = 1 << 26  # bytes of an image in an archive


class FaceDataset(torch.utils.data.Dataset):
    """One split of a data set, as records; a subclass implements how a record's photo and mask are read.

    ``ds[i]`` is a dict: photo (3, H, W) float in [−1, 1]; sketch (1, H, W) float in [0, 1], white background;
    mask (H, W) uint8 label ids (LABELS); identity int; name str; attributes dict.
    """

    def __init__(
        self,
        names: list[str],  # stems of the photo files
        identities: np.ndarray,  # (N,) int
        attributes: list[dict],  # per photo
        size: int,  # H = W of everything returned, pixels
    ):
        self.names = names
        self.identities = np.asarray(identities, np.int64)
        self.attributes = attributes
        self.size = size
        self._arrays: dict[str, np.ndarray] | None = None

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Photo (H, W, 3) uint8 and mask (H, W) uint8 of record i, at any size; subclasses implement it."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.names)

    def _sample(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        photo, mask = self.read(i)
        n = self.size
        if photo.shape[:2] != (n, n):
            photo = resize(photo, (n, n))
        if mask.shape != (n, n):
            mask = cv2.resize(mask, (n, n), interpolation=cv2.INTER_NEAREST_EXACT)
        return photo, self.drawn(i, photo, mask), mask

    def drawn(self, i: int, photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The sketch of record i, (H, W) uint8: the paper's pencil sketch of the photo."""
        return sketch(photo, mask)

    def __getitem__(self, i: int) -> dict:
        i = range(len(self))[i]  # negative indices; IndexError ends iteration
        photo, lines, mask = self._sample(i)
        return {
            "photo": as_float(photo),
            "sketch": torch.from_numpy(lines)[None].float() / 255,
            "mask": torch.from_numpy(mask),
            "identity": int(self.identities[i]),
            "name": self.names[i],
            "attributes": self.attributes[i],
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The whole split in memory, built once: photos (N, 3, H, W), sketches (N, 1, H, W), masks (N, H, W).

        uint8 arrays, five bytes per pixel: the shipped train split takes 0.43 GB and a few seconds. Raises DataError
        when the machine does not have enough memory.
        """
        if self._arrays is None:
            n, s = len(self), self.size
            _check_memory(5 * n * s * s)
            out = {
                "photos": np.empty((n, 3, s, s), np.uint8),
                "sketches": np.empty((n, 1, s, s), np.uint8),
                "masks": np.empty((n, s, s), np.uint8),
            }

            def fill(i: int) -> None:
                photo, out["sketches"][i, 0], out["masks"][i] = self._sample(i)
                out["photos"][i] = photo.transpose(2, 0, 1)

            with ThreadPoolExecutor(available_cpus()) as pool:  # decoding, blurring and numpy release the GIL
                list(pool.map(fill, range(n)))
            self._arrays = out
        return self._arrays


class SynthFaces(FaceDataset):
    """Synthetic faces: the shipped ones, or those rendered by ``s2f render``.

    root contains manifest.csv (columns file, sha256, mask_sha256, identity, shot, split; every further column is an
    attribute) and, for each split, images-<split>.zip and masks-<split>.zip (WebP, label id = grey value);
    drawings-<split>.zip and landmarks.npz are optional. DataError names what is missing or damaged; the sha256 of
    photos and masks is checked when they are read.
    """

    RESERVED = ("file", "sha256", "mask_sha256", "identity", "shot", "split")
    ADVICE = "restore it from the repository (git checkout data/synthfaces), or render it again with s2f render"

    def __init__(self, root: str | Path, split: str, size: int = 128, limit: int | None = None):
        check_split(split)
        self.root, self.split = Path(root), split
        rows = _read_manifest(self.root / "manifest.csv")
        rows = [r for r in rows if r["split"] == split][:limit]
        self.rows = [(r["file"], r["sha256"], r["mask_sha256"]) for r in rows]
        super().__init__(
            names=[Path(r["file"]).stem for r in rows],
            identities=np.array([r["identity"] for r in rows], np.int64),
            attributes=[{k: v for k, v in r.items() if k not in self.RESERVED} for r in rows],
            size=size,
        )
        self._landmarks: np.ndarray | None = None
        self.lines = False
        for kind in ("images", "masks") if rows else ():
            self._archive(kind)

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        file, digest, mask_digest = self.rows[i]
        photo = self._decode("images", file, digest)
        mask = np.ascontiguousarray(self._decode("masks", file, mask_digest)[..., 0])
        if mask.shape != photo.shape[:2] or mask.max() >= len(LABELS) or not mask.any():
            raise DataError(
                f"{file} in {self._archive('masks')} is no mask of its photo (another size, unknown labels, or empty): "
                f"{self.ADVICE}."
            )
        return photo, mask

    @property
    def seed(self) -> int:
        """The seed that the people were rendered with (render.json); with it the causes of a photo can be computed."""
        path = self.root / "render.json"
        try:
            return int(json.loads(path.read_text(encoding="utf-8"))["seed"])
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise DataError(f"{path} is missing or damaged ({e}): {self.ADVICE}.") from None

    def drawing(self, i: int) -> np.ndarray:
        """The line drawing of photo i, (H, W) uint8, black on white, made from geometry (synthfaces.drawing)."""
        drawing = self._decode("drawings", self.rows[i][0])[..., 0]
        if len(drawing) != self.size:
            drawing = cv2.resize(drawing, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(drawing)

    def drawn(self, i: int, photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self.drawing(i) if self.lines else super().drawn(i, photo, mask)

    def with_lines(self) -> SynthFaces:
        """The same data set with line drawings (:meth:`drawing`) in place of pencil sketches."""
        other = copy.copy(self)
        other.lines, other._arrays = True, None
        return other

    def landmarks(self, i: int) -> np.ndarray:
        """The 68 projected landmarks of photo i, (68, 2) float: x, y in pixels of this data set's size."""
        if self._landmarks is None:
            path = self.root / "landmarks.npz"
            points, side = _read_landmarks(path, self.ADVICE)
            missing = [n for n in self.names if n not in points]
            if missing:
                raise DataError(f"{path} has no landmarks for {missing[0]}: {self.ADVICE}.")
            self._landmarks = np.stack([points[n] for n in self.names]) * (self.size / side)
        return self._landmarks[i]

    def _archive(self, kind: str) -> Path:
        path = self.root / f"{kind}-{self.split}.zip"
        if not path.is_file():
            raise DataError(f"{path} is missing: {self.ADVICE}.")
        return path

    def _decode(self, kind: str, file: str, digest: str | None = None) -> np.ndarray:
        return read_webp(self._archive(kind), file, "manifest.csv", self.ADVICE, digest)


class CelebAMaskHQ(FaceDataset):
    """The published, unchanged CelebAMask-HQ folder (layout: s2flib.datasets.celeba); merged masks are cached.

    With identity_CelebA.txt in the folder, identities are CelebA's and the split is 8:1:1 by identity. Without it,
    identities are unknown: every photo is its own identity (its CelebA-HQ index) and the split is the published one
    by CelebA index, which is also disjoint by identity. Attributes are CelebA's 40, each 0 or 1. Photos without a
    usable mask are left out with a warning; all masks are checked when the data set is opened.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        size: int = 1024,
        limit: int | None = None,
        cache: str | Path | None = None,  # where merged masks are stored; None: files.cache_dir()
    ):
        check_split(split)
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(
                f"{self.root} does not exist: download CelebAMask-HQ (non-commercial research licence, "
                "github.com/switchablenorms/CelebAMask-HQ) and unpack it there."
            )
        self.cache = Path(cache or cache_dir())
        mapping = celeba.read_mapping(self.root)
        attributes = celeba.read_attributes(self.root)
        known = celeba.read_identities(self.root)
        photos = {p.name for p in (self.root / celeba.IMAGES).glob("*.jpg")}
        found: dict[int, int] = {}  # CelebA-HQ index → identity
        for idx, (orig_idx, orig_file) in sorted(mapping.items()):
            if f"{idx}.jpg" not in photos:
                raise DataError(
                    f"{self.root / celeba.IMAGES / f'{idx}.jpg'} is missing ({len(photos)} of "
                    f"{len(mapping)} photos are there): unpack {celeba.IMAGES} again."
                )
            if idx not in attributes:
                raise DataError(f"{self.root / celeba.ATTRIBUTES} has no line for {idx}.jpg: unpack the file again.")
            if known is not None and orig_file not in known:
                raise DataError(f"{self.root / celeba.IDENTITIES} has no line for {orig_file}: download it again.")
            identity = idx if known is None else known[orig_file]
            where = celeba.index_split(orig_idx) if known is None else identity_split(identity)
            if where == split:
                found[idx] = identity
        self.parts = celeba.usable(self.root, list(found)[:limit], self.cache)
        self.indices = list(self.parts)
        super().__init__(
            names=[str(i) for i in self.indices],
            identities=np.array([found[i] for i in self.indices], np.int64),
            attributes=[attributes[i] for i in self.indices],
            size=size,
        )

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        index = self.indices[i]
        path = self.root / celeba.IMAGES / f"{index}.jpg"
        try:
            photo = load_image(path)
        except ImageError as e:
            raise DataError(f"a photo of CelebA-HQ cannot be read: {e}") from None
        if photo.shape[0] != photo.shape[1]:
            raise DataError(
                f"{path} is {photo.shape[1]}×{photo.shape[0]} px, not square: unpack {celeba.IMAGES} again."
            )
        return photo, celeba.cached_mask(self.root, index, self.cache, self.parts[index])


@functools.lru_cache(maxsize=16)
def _open_zip(path: str, changed: int, pid: int) -> zipfile.ZipFile:
    # In the key: the time of the last change, because an archive may be restored while the process runs, and the pid,
    # because a forked loader worker must not share its parent's file position.
    return zipfile.ZipFile(path)


def read_webp(archive: Path, file: str, listing: str, advice: str, digest: str | None = None) -> np.ndarray:
    """A square image of a zip archive as (H, W, 3) uint8; DataError when it is missing, damaged or not of this
    SHA-256."""
    try:
        opened = _open_zip(str(archive), archive.stat().st_mtime_ns, os.getpid())
        if (size := opened.getinfo(file).file_size) > LARGEST:
            raise DataError(f"{file} in {archive} unpacks to {size:,} bytes, which is no portrait: {advice}.")
        data = opened.read(file)
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            raise DataError(f"{file} in {archive} does not match its sha256 in {listing}: {advice}.")
        with Image.open(io.BytesIO(data), formats=("WEBP", "PNG")) as image:
            width, height = image.size
            if width != height or width > MAX_SIDE:
                raise DataError(f"{file} in {archive} is {width}×{height} px, which is no portrait: {advice}.")
            return np.array(image.convert("RGB"))
    except KeyError:
        raise DataError(f"{file} is not in {archive}, although {listing} lists it: {advice}.") from None
    except DataError:
        raise
    except Exception as e:  # zipfile's and Pillow's decoders raise anything on damaged data
        raise DataError(f"{archive} is damaged at {file} ({printable(e)}): {advice}.") from None


def _read_landmarks(path: Path, advice: str) -> tuple[dict[str, np.ndarray], int]:
    """Name of a photo → its landmarks (68, 2) float, and the side in pixels that they refer to."""
    try:
        with np.load(path) as stored, np.errstate(all="ignore"):
            side, names = int(stored["size"]), stored["names"].tolist()
            points = np.asarray(stored["points"] / float(stored["scale"]), np.float64)
        if points.shape != (len(names), 68, 2) or len(set(names)) != len(names):
            raise ValueError(f"points of the shape {points.shape} for {len(names)} names")
        if side < 1 or not np.isfinite(points).all():
            raise ValueError("a size or points that are no numbers")
    except Exception as e:  # numpy's and zipfile's readers raise anything on damaged data
        raise DataError(f"{path} is missing or damaged ({printable(e)}): {advice}.") from None
    return dict(zip(names, points, strict=True)), side


def read_table(path: Path, columns: Sequence[str], advice: str) -> list[dict[str, str]]:
    """The rows of a CSV file with the columns split and identity; DataError when it is missing, incomplete or damaged,
    or when splits share an identity."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:  # Excel adds a byte order mark
            rows = list(csv.DictReader(f))
    except OSError:
        raise DataError(f"{path} is missing: {advice}.") from None
    except (ValueError, csv.Error) as e:
        raise DataError(f"{path} is no CSV file in UTF-8 ({printable(e)}): {advice}.") from None
    missing = [c for c in columns if not rows or c not in rows[0]]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}: {advice}.")
    seen: dict[str, str] = {}
    for line, row in enumerate(rows, start=2):
        cells = row.values() if None not in row else [None]  # None: a line with too many cells, or with too few
        whole = all(cell is not None and cell.isprintable() and len(cell) < 500 for cell in cells)
        if not whole or row["split"] not in SPLITS or not re.fullmatch("-?[0-9]{1,18}", row["identity"]):
            raise DataError(f"{path} is damaged at line {line}: {advice}.")
        if seen.setdefault(row["identity"], row["split"]) != row["split"]:
            raise DataError(
                f"{path} puts identity {row['identity']} into two splits (line {line}), so scores would be "
                f"meaningless: {advice}."
            )
    return rows


def _read_manifest(path: Path) -> list[dict]:
    """manifest.csv as typed rows."""
    rows = read_table(path, SynthFaces.RESERVED, SynthFaces.ADVICE)
    first: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        if first.setdefault(row["file"], line) != line:
            raise DataError(
                f"{path} lists {row['file']} in lines {first[row['file']]} and {line}: {SynthFaces.ADVICE}."
            )
    convert = {c: _column_type([r[c] for r in rows]) for c in rows[0] if "sha256" not in c}
    return [{c: convert.get(c, str)(v) for c, v in r.items()} for r in rows]


def _column_type(values: list[str]) -> type:
    for kind in (int, float):
        try:
            for v in values:
                kind(v)
            return kind
        except ValueError:
            pass
    return str


def _check_memory(needed: int) -> None:
    there = memory_bytes()
    if there is not None and needed > 0.8 * there:
        raise DataError(
            f"this split takes {needed / 1e9:.0f} GB of memory, but the machine has "
            f"{there / 1e9:.0f} GB: read it item by item, or give a limit."
        )


def check_split(split: str) -> None:
    if split not in SPLITS:
        raise DataError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}.")


def open_dataset(
    preset: str | Preset,  # decides the data set and the size
    split: str,  # "train" | "val" | "test"
    root: str | Path | None = None,  # a folder of either kind; default: the preset's own in data_dir()
    limit: int | None = None,  # only the first so many photos
) -> FaceDataset:
    """One split of the preset's data set at the preset's size.

    root may be a folder of either kind. The default depends on the preset: under tiny, synthfaces in data_dir(), else
    the shipped ones; otherwise CelebAMask-HQ in data_dir(), or in its place synthfaces-256 (of the preset's size),
    rendered by ``s2f render``. Raises DataError, which says what to do, when there is none.
    """
    preset = get_preset(preset)
    check_split(split)
    if limit is not None and limit < 1:
        raise DataError(f"the limit must be at least 1, not {limit}.")
    root = own_data(preset) if root is None else Path(root)
    is_celeba = preset.data == "celebamask-hq"
    if (root / "manifest.csv").is_file():
        is_celeba = False
    elif (root / celeba.MAPPING).is_file():
        is_celeba = True
    return (CelebAMaskHQ if is_celeba else SynthFaces)(root, split, size=preset.size, limit=limit)
