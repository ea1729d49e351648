"""Reads the published CelebAMask-HQ folder without changes (Lee et al., MaskGAN, CVPR 2020).

CelebA-HQ-img/0.jpg … 29999.jpg                      1024 px photos
CelebAMask-HQ-mask-anno/0 … 14/00000_skin.png …      512 px, one file per part, 2,000 photos per folder
CelebAMask-HQ-attribute-anno.txt                     count, the 40 names, then "0.jpg  -1 1 …" per photo
CelebA-HQ-to-CelebA-mapping.txt                      "idx orig_idx orig_file" per photo
identity_CelebA.txt                                  optional, from CelebA: "000001.jpg 2880" per photo
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from s2flib.errors import DataError, ImageError
from s2flib.files import atomic_path, available_cpus
from s2flib.images import load_mask
from s2flib.synthfaces.labels import LABELS

IMAGES = "CelebA-HQ-img"
MASKS = "CelebAMask-HQ-mask-anno"
ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
IDENTITIES = "identity_CelebA.txt"
MASK_SIZE = 512
MIN_PERSON = 0.05  # share of the picture that a person covers at least
MAX_LEFT_OUT = 0.5  # share of photos without a usable mask above which the folder counts as damaged


def index_split(orig_idx: int) -> str:
    """The published split by CelebA index (g_partition.py): about 8:1:1, the same as CelebA's, disjoint by identity."""
    return "test" if orig_idx >= 182638 else "val" if orig_idx >= 162771 else "train"


def _lines(root: Path, name: str) -> list[list[str]]:
    try:
        return [line.split() for line in (root / name).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        raise DataError(
            f"{root / name} is missing or unreadable: put the published CelebAMask-HQ folder, "
            f"unpacked and unchanged, at {root}."
        ) from None


def _is_number(word: str) -> bool:
    return re.fullmatch("[0-9]{1,9}", word) is not None


def _is_name(word: str) -> bool:
    return len(word) <= 64 and word.isprintable()


def read_mapping(root: Path) -> dict[int, tuple[int, str]]:
    """CelebA-HQ index → (CelebA index, CelebA file name)."""
    mapping: dict[int, tuple[int, str]] = {}
    files: set[str] = set()
    for number, words in enumerate(_lines(root, MAPPING)[1:], start=2):
        if len(words) != 3 or not (_is_number(words[0]) and _is_number(words[1]) and _is_name(words[2])):
            raise DataError(f"{root / MAPPING}, line {number} is not 'idx orig_idx orig_file': unpack the file again.")
        idx, orig_idx, orig_file = int(words[0]), int(words[1]), words[2]
        if idx in mapping or orig_file in files:
            raise DataError(
                f"{root / MAPPING}, line {number} lists a photo for the second time: unpack the file again."
            )
        mapping[idx] = (orig_idx, orig_file)
        files.add(orig_file)
    if not mapping:
        raise DataError(f"{root / MAPPING} lists no photos: unpack the file again.")
    return mapping


def read_attributes(root: Path) -> dict[int, dict[str, int]]:
    """CelebA-HQ index → {attribute name: 0 or 1} (the file's −1 becomes 0)."""
    lines = _lines(root, ATTRIBUTES)
    if len(lines) < 2:
        raise DataError(f"{root / ATTRIBUTES} has no attribute names in its second line: unpack the file again.")
    names, out = lines[1], dict[int, dict[str, int]]()
    for number, (file, *values) in enumerate(lines[2:], start=3):
        idx = file.removesuffix(".jpg")
        fine = len(values) == len(names) and set(values) <= {"-1", "0", "1"} and _is_number(idx)
        if not fine or int(idx) in out:
            raise DataError(
                f"{root / ATTRIBUTES}, near line {number}, does not have {len(names)} values of "
                "-1 or 1 for another photo: unpack the file again."
            )
        out[int(idx)] = {n: int(v == "1") for n, v in zip(names, values, strict=True)}
    return out


def read_identities(root: Path) -> dict[str, int] | None:
    """CelebA file name → identity; None when the file, which is published separately, does not exist."""
    if not (root / IDENTITIES).is_file():
        return None
    people: dict[str, int] = {}
    for number, words in enumerate(_lines(root, IDENTITIES), start=1):
        fine = len(words) == 2 and _is_name(words[0]) and _is_number(words[1])
        if not fine or people.setdefault(words[0], int(words[1])) != int(words[1]):
            raise DataError(
                f"{root / IDENTITIES}, line {number} is not 'file identity' of another photo: download it again."
            )
    return people


def combine_parts(root: Path, index: int) -> np.ndarray:
    """Merge the part masks of one photo into one (512, 512) uint8 label map, painted in the order of LABELS.

    A part without a file is absent from the photo; a photo without any part raises DataError.
    """
    folder = root / MASKS / str(index // 2000)
    labels = np.zeros((MASK_SIZE, MASK_SIZE), np.uint8)
    found = False
    for label, part in enumerate(LABELS[1:], start=1):
        path = folder / f"{index:05d}_{part}.png"
        if not path.exists():
            continue
        try:
            drawn = load_mask(path)
        except ImageError as e:
            raise DataError(f"a part mask is damaged: {e}") from None
        if drawn.shape != labels.shape:
            raise DataError(
                f"{path} is {drawn.shape[1]}×{drawn.shape[0]} px, but CelebAMask-HQ masks are "
                f"{MASK_SIZE}×{MASK_SIZE}: unpack it again."
            )
        labels[drawn != 0] = label
        found = True
    if not found:
        raise DataError(f"{folder} has no part mask named {index:05d}_*.png: unpack {MASKS} again.")
    return labels


def part_files(root: Path, indices: Iterable[int]) -> dict[int, dict[str, tuple[int, int]]]:
    """Photo → part file name → (size, modification time in ns), of the photos that have any part file."""
    out: dict[int, dict[str, tuple[int, int]]] = {}
    for folder in sorted({i // 2000 for i in indices}):
        try:
            with os.scandir(root / MASKS / str(folder)) as entries:
                for entry in entries:
                    stem = entry.name.partition("_")[0]
                    if _is_number(stem) and entry.name.endswith(".png"):
                        stat = entry.stat()
                        out.setdefault(int(stem), {})[entry.name] = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            continue  # all of its photos are then without parts
    return out


def cached_mask(root: Path, index: int, cache: Path, parts: dict[str, tuple[int, int]] | None = None) -> np.ndarray:
    """:func:`combine_parts`, computed once per photo and state of its part files: the result is stored as a PNG in
    cache, one folder per root. parts: the photo's entry of :func:`part_files`; None: look it up."""
    if parts is None:
        parts = part_files(root, [index]).get(index, {})
    key = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
    state = hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()[:12]
    path = cache / f"celebamask-hq-{key}" / str(index // 2000) / f"{index:05d}-{state}.png"
    if path.exists():
        try:
            return load_mask(path)
        except ImageError:
            pass  # the cached file is damaged: create it again
    labels = combine_parts(root, index)
    with atomic_path(path) as part:
        Image.fromarray(labels).save(part, "PNG")
    return labels


def usable(
    root: Path, indices: Sequence[int], cache: Path, progress: bool = True
) -> dict[int, dict[str, tuple[int, int]]]:
    """The photos of ``indices`` with a usable mask, and their part files.

    Every mask is combined and cached here, which takes a while the first time. Photos without part files, with damaged
    ones, or whose person covers less than MIN_PERSON of the picture are left out, counted and named in a warning;
    DataError if these are more than MAX_LEFT_OUT.
    """
    files = part_files(root, indices)
    left_out: dict[int, str] = {}

    def check(index: int) -> None:
        if index not in files:
            left_out[index] = "no part files"
            return
        try:
            share = float(np.mean(cached_mask(root, index, cache, files[index]) != 0))
        except DataError as e:
            left_out[index] = str(e)
            return
        if share < MIN_PERSON:
            left_out[index] = f"its person covers {share:.1%} of the picture"

    with ThreadPoolExecutor(available_cpus()) as pool:
        done = pool.map(check, indices)
        for _ in tqdm(done, total=len(indices), unit=" masks", disable=not progress or len(indices) < 1000):
            pass
    if left_out:
        first = "; ".join(f"{i}.jpg: {why}" for i, why in sorted(left_out.items())[:3])
        message = f"{len(left_out)} of {len(indices)} photos in {root} have no usable mask ({first})"
        if len(left_out) > max(1, MAX_LEFT_OUT * len(indices)):
            raise DataError(f"{message}: unpack {MASKS} again.")
        warnings.warn(f"{message}: they are left out.", stacklevel=2)
    return {i: files[i] for i in indices if i not in left_out}
